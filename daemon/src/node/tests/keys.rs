//! What a spec requires of its machine besides its image: hooks, namespaces of other containers,
//! folders, platforms, port ranges.

use super::*;

fn hook(script: &str) -> v1::Hook {
    v1::Hook {
        command: ["sh", "-c", script].map(str::to_owned).to_vec(),
        ..Default::default()
    }
}

fn commands(bench: &Bench) -> Vec<String> {
    bench
        .engine
        .commands()
        .into_iter()
        .map(|(_, options)| options.command.last().unwrap().clone())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn start_runs_post_start_hooks_once_in_order() {
    let bench = bench();
    let mut spec = service("web", "sleep 1000");
    let second = v1::Hook {
        user: "root".into(),
        privileged: true,
        working_dir: "/srv".into(),
        environment: [("A".to_owned(), "b c".to_owned())].into(),
        ..hook("true")
    };
    spec.post_start = vec![hook("echo one"), second];
    let id = bench.create(spec).await.unwrap();
    assert_eq!(commands(&bench), [""; 0]);
    start(&bench.node, &id).await.unwrap();
    assert_eq!(commands(&bench), ["echo one", "true"]);
    let (of, how) = bench.engine.commands().remove(1);
    assert_eq!(of, id);
    assert_eq!(
        (how.user.as_str(), how.privileged, how.working_dir.as_str()),
        ("root", true, "/srv")
    );
    assert_eq!(how.environment, ["A=b c"]);
    // The replica already runs, so it is only waited for.
    start(&bench.node, &id).await.unwrap();
    assert_eq!(commands(&bench).len(), 2);
    bench.stop(&id).await.unwrap();
    start(&bench.node, &id).await.unwrap();
    assert_eq!(commands(&bench).len(), 4);
}

#[tokio::test(start_paused = true)]
async fn start_fails_with_output_of_failed_post_start_hook() {
    let bench = bench();
    let mut spec = service("web", "echo of the container; sleep 1000");
    spec.post_start = vec![hook("echo no table; exit 3"), hook("echo never")];
    let id = bench.create(spec.clone()).await.unwrap();
    let failure = start(&bench.node, &id).await.unwrap_err();
    assert_eq!(failure.code, Code::Refused);
    assert!(
        failure
            .message
            .contains("`sh -c echo no table; exit 3` exited with code 3"),
        "{failure:?}"
    );
    assert_eq!(failure.log_tail, ["no table"]);
    assert_eq!(commands(&bench), ["echo no table; exit 3"]);

    // A hook without output: the container's log is reported.
    spec.post_start = vec![hook("sleep 1; false")];
    let id = bench.create(spec.clone()).await.unwrap();
    let failure = start(&bench.node, &id).await.unwrap_err();
    assert_eq!(failure.log_tail, ["of the container"]);

    spec.post_start = vec![hook("sleep 100000")];
    let id = bench.create(spec).await.unwrap();
    let failure = start(&bench.node, &id).await.unwrap_err();
    assert_eq!(failure.code, Code::TimedOut, "{failure:?}");
}

#[tokio::test(start_paused = true)]
async fn stop_runs_pre_stop_hooks_and_survives_their_failure() {
    let bench = bench();
    let mut spec = service("web", "sleep 1000");
    spec.stop_grace_period_ms = Some(0);
    spec.pre_stop = vec![hook("echo drained"), hook("exit 1"), hook("echo never")];
    let id = bench.create(spec.clone()).await.unwrap();
    start(&bench.node, &id).await.unwrap();
    bench.stop(&id).await.unwrap();
    assert_eq!(commands(&bench), ["echo drained", "exit 1"]);
    let stopped = bench.engine.inspect(&id).await.unwrap();
    assert_eq!(stopped.record.state(), v1::ReplicaState::Exited);
    // It no longer runs.
    bench.node.remove(&id).await.unwrap();
    assert_eq!(commands(&bench).len(), 2);

    // A hook that never ends gets the grace period, but at least ten seconds.
    spec.pre_stop = vec![hook("sleep 100000")];
    let id = bench.create(spec).await.unwrap();
    start(&bench.node, &id).await.unwrap();
    let begun = Instant::now();
    bench.node.remove(&id).await.unwrap();
    // Nobody publishes the draining mark here, which takes its limit of two seconds.
    assert_eq!(begun.elapsed().as_secs(), 12, "on the test's own clock");
    assert!(bench.node.observe_now().await.unwrap().replicas.is_empty());
}

#[tokio::test(start_paused = true)]
async fn start_watches_healthy_replica_for_the_monitor_period() {
    let bench = bench();
    let id = bench.create(with_healthcheck("true", 3)).await.unwrap();
    let begun = Instant::now();
    start_for(&bench.node, &id, Some(60_000)).await.unwrap();
    assert_eq!(
        begun.elapsed().as_secs(),
        67,
        "an interval of 7 s and one minute"
    );
}

#[tokio::test]
async fn replica_in_machine_network_has_its_address_while_running() {
    let bench = bench();
    let mut spec = service("web", "sleep 1000");
    spec.network_mode = "host".into();
    spec.resources = Some(v1::Resources {
        reserved_nano_cpus: Some(500_000_000),
        reserved_memory: Some(1 << 20),
        ..Default::default()
    });
    let id = bench.create(spec).await.unwrap();
    let of = async || bench.node.observe_now().await.unwrap().replicas.remove(0);
    assert_eq!(of().await.ip, "");
    bench.engine.start(&id).await.unwrap();
    let record = of().await;
    assert_eq!(record.ip, identity().bridge.to_string());
    assert_eq!(
        (record.reserved_nano_cpus, record.reserved_memory),
        (500_000_000, 1 << 20)
    );
    bench.stop(&id).await.unwrap();
    assert_eq!(of().await.ip, "");

    let id = bench
        .create(v1::ServiceSpec {
            network_mode: "none".into(),
            ..service("alone", "sleep 1000")
        })
        .await
        .unwrap();
    bench.engine.start(&id).await.unwrap();
    assert_eq!(bench.engine.inspect(&id).await.unwrap().record.ip, "");
}

#[tokio::test]
async fn create_replica_shares_namespaces_of_running_replica_in_its_project() {
    let bench = bench();
    let with = v1::ServiceSpec {
        network_mode: "service:vpn".into(),
        ..service("web", "sleep 1000")
    };
    let failure = bench.refused(with.clone()).await;
    assert_eq!(failure.code, Code::Refused);
    assert!(
        failure
            .message
            .contains("network_mode: no replica of `vpn`"),
        "{failure:?}"
    );
    assert!(hint(&failure).contains("x-machines"), "{failure:?}");

    let other = v1::ServiceSpec {
        project: "other".into(),
        ..service("vpn", "sleep 1000")
    };
    let other = bench.create(other).await.unwrap();
    bench.engine.start(&other).await.unwrap();
    let stopped = bench.create(service("vpn", "sleep 1000")).await.unwrap();
    assert_eq!(bench.refused(with.clone()).await.message, failure.message);

    bench.engine.start(&stopped).await.unwrap();
    let id = bench.create(with).await.unwrap();
    bench.engine.start(&id).await.unwrap();
    let (web, vpn) = (
        bench.engine.inspect(&id).await.unwrap(),
        bench.engine.inspect(&stopped).await.unwrap(),
    );
    assert_eq!(web.network_of, stopped);
    assert!(!vpn.record.ip.is_empty());
    assert_eq!(web.record.ip, vpn.record.ip);
    bench.stop(&stopped).await.unwrap();
    assert_eq!(bench.engine.inspect(&id).await.unwrap().record.ip, "");
}

#[tokio::test]
async fn create_replica_refuses_missing_bind_source_before_the_pull() {
    let bench = bench();
    let folder = tempfile::tempdir().unwrap();
    let mount = |source: &std::path::Path| v1::MountSpec {
        kind: v1::MountKind::Bind.into(),
        source: source.to_string_lossy().into_owned(),
        target: "/data".into(),
        create_host_path: Some(false),
        ..Default::default()
    };
    let with = |mount| v1::ServiceSpec {
        mounts: vec![mount],
        ..service("web", "true")
    };
    let failure = bench
        .refused(with(mount(&folder.path().join("none"))))
        .await;
    assert!(
        failure
            .message
            .contains("/none` does not exist on this machine"),
        "{failure:?}"
    );
    assert!(hint(&failure).contains("create_host_path"), "{failure:?}");
    bench.create(with(mount(folder.path()))).await.unwrap();
}

#[tokio::test]
async fn create_replica_pulls_image_for_other_platform() {
    let bench = bench();
    let with = |platform: &str, policy: v1::PullPolicy| v1::ServiceSpec {
        image: "web:2".into(),
        platform: platform.into(),
        pull_policy: policy.into(),
        ..service("web", "true")
    };
    bench.engine.add_image("web:2");
    let (progress, _) = create(
        &bench.node,
        with("linux/amd64", v1::PullPolicy::Unspecified),
    )
    .await
    .unwrap();
    assert!(progress.is_empty());
    let failure = bench
        .refused(with("linux/arm64", v1::PullPolicy::Never))
        .await;
    assert_eq!(failure.code, Code::Refused);
    assert!(
        failure.message.contains("platform") && hint(&failure).contains("platform"),
        "{failure:?}"
    );
    bench.engine.add_to_registry("web:2");
    let (progress, _) = create(
        &bench.node,
        with("linux/arm64", v1::PullPolicy::Unspecified),
    )
    .await
    .unwrap();
    assert!(!progress.is_empty());
}

#[tokio::test]
async fn create_replica_refuses_image_mount_on_old_engine() {
    let bench = bench();
    bench.engine.add_to_registry("data:1");
    let mount = v1::MountSpec {
        kind: v1::MountKind::Image.into(),
        source: "data:1".into(),
        target: "/data".into(),
        ..Default::default()
    };
    let failure = bench
        .refused(v1::ServiceSpec {
            mounts: vec![mount],
            ..service("web", "true")
        })
        .await;
    assert_eq!(failure.code, Code::Refused);
    assert!(
        failure.message.contains("requires Docker 28"),
        "{failure:?}"
    );
    assert!(hint(&failure).contains("upgrade"), "{failure:?}");
}
