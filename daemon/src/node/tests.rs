mod exec;
mod keys;

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tokio::time::Instant;
use uc_api::v1::exec_request::Message as Asked;
use uc_api::v1::exec_response::Message as Answer;
use uc_api::v1::push_image_request::Message as Push;

use super::*;
use crate::engine::fake::{ARCHIVE, FakeEngine};
use crate::engine::suite::{IMAGE, service};

pub(crate) struct Bench {
    pub(crate) engine: FakeEngine,
    pub(crate) node: NodeService,
    identity: watch::Sender<Option<Identity>>,
    cancel: CancellationToken,
    /// Folder of its contents, removed with it.
    pub(crate) state: tempfile::TempDir,
}

pub(crate) fn identity() -> Identity {
    Identity {
        cluster: ClusterId::from_bytes([1; 16]),
        machine: MachineId::from_bytes([2; 16]),
        name: "m1".parse().unwrap(),
        bridge: Ipv4Addr::new(10, 233, 0, 1),
    }
}

pub(crate) fn bench() -> Bench {
    let engine = FakeEngine::new();
    engine.add_image(IMAGE);
    bench_on(engine, tempfile::tempdir().unwrap())
}

/// A daemon with this engine and this state directory.
pub(crate) fn bench_on(engine: FakeEngine, state: tempfile::TempDir) -> Bench {
    let (identity, receiver) = watch::channel(Some(identity()));
    let cancel = CancellationToken::new();
    let files = Files::new(state.path().join("files"));
    let marks = Marks::default();
    let paths = Paths::new(state.path(), state.path());
    let saved = NodeState::open(&paths, &marks).unwrap();
    let node = NodeService::new(
        Arc::new(engine.clone()),
        files,
        receiver,
        marks,
        saved,
        cancel.clone(),
    );
    Bench {
        engine,
        node,
        identity,
        cancel,
        state,
    }
}

/// Creates a container and returns what it said, and its id.
pub(crate) async fn create(
    node: &NodeService,
    spec: v1::ServiceSpec,
) -> Result<(Vec<String>, String), Failure> {
    let new = create::NewContainer {
        spec: &spec,
        revision: "r1",
        deployment: "d1",
        step: "",
        replaces: "",
    };
    let said = std::sync::Mutex::new(Vec::new());
    let say = |text| said.lock().unwrap().push(text);
    let created = node.create_container(new, &say).await;
    let id = created.map_err(|failure| node.named(failure))?;
    Ok((said.into_inner().unwrap(), id))
}

/// Starts a container, and watches it for as long as `monitor_ms` says.
pub(crate) async fn start_for(
    node: &NodeService,
    id: &str,
    monitor_ms: Option<u64>,
) -> Result<v1::ReplicaRecord, Failure> {
    let container = node.managed(id).await?;
    let runs = container.record.state() == v1::ReplicaState::Running;
    node.start_container(&container).await?;
    if !runs {
        node.run_post_start_hooks(&container).await?;
    }
    let monitor = monitor_ms.map(Duration::from_millis);
    node.wait_until_ready(id, monitor).await
}

pub(crate) async fn start(node: &NodeService, id: &str) -> Result<v1::ReplicaRecord, Failure> {
    start_for(node, id, None).await
}

impl Bench {
    pub(crate) async fn create(&self, spec: v1::ServiceSpec) -> Result<String, Failure> {
        create(&self.node, spec).await.map(|(_, id)| id)
    }

    pub(crate) fn stop_daemon(&self) {
        self.cancel.cancel();
    }

    async fn refused(&self, spec: v1::ServiceSpec) -> Failure {
        self.create(spec).await.unwrap_err()
    }

    async fn running(&self, script: &str) -> String {
        let id = self.create(service("web", script)).await.unwrap();
        self.engine.start(&id).await.unwrap();
        id
    }

    async fn stop(&self, id: &str) -> Result<(), Failure> {
        let container = self.node.managed(id).await?;
        self.node
            .run_pre_stop_hooks(&container, container.stop_grace)
            .await;
        Ok(self.engine.stop(id, Duration::ZERO).await?)
    }
}

fn hint(failure: &Failure) -> &str {
    failure.hint.as_deref().unwrap_or_default()
}

#[tokio::test]
async fn create_replica_does_not_start_it() {
    let bench = bench();
    let id = bench.create(service("web", "sleep 1000")).await.unwrap();
    let observed = bench.node.observe_now().await.unwrap();
    assert_eq!(observed.replicas.len(), 1);
    let record = &observed.replicas[0];
    assert_eq!(
        (record.container_id.as_str(), record.state()),
        (id.as_str(), v1::ReplicaState::Created)
    );
    assert_eq!(
        (record.project.as_str(), record.service.as_str()),
        ("suite", "web")
    );
    assert_eq!(record.revision, "r1");
    assert!(
        record.container_name.starts_with("suite-web-"),
        "{}",
        record.container_name
    );
}

#[tokio::test]
async fn node_failure_names_the_machine() {
    let bench = bench();
    let failure = bench
        .refused(v1::ServiceSpec {
            image: "a b".into(),
            ..service("web", "true")
        })
        .await;
    assert_eq!(
        (failure.code, failure.machine.as_deref()),
        (Code::Invalid, Some("m1"))
    );
    assert!(failure.message.contains("`a b`"), "{failure:?}");
}

#[tokio::test]
async fn create_replica_refuses_machine_without_cluster() {
    let bench = bench();
    bench.identity.send_replace(None);
    let failure = bench.refused(service("web", "true")).await;
    assert_eq!(failure.code, Code::Refused);
    assert!(hint(&failure).contains("uc machine"), "{failure:?}");
    let volume = v1::VolumeSpec {
        name: "v".into(),
        ..Default::default()
    };
    assert_eq!(
        bench
            .node
            .create_volume_from(&volume)
            .await
            .unwrap_err()
            .code,
        Code::Refused
    );
    assert!(bench.node.observe_now().await.unwrap().replicas.is_empty());
}

#[tokio::test]
async fn create_replica_pulls_image_by_policy() {
    let bench = bench();
    let with = |image: &str, policy: v1::PullPolicy, built| v1::ServiceSpec {
        image: image.into(),
        pull_policy: policy.into(),
        built,
        ..service("web", "true")
    };
    use v1::PullPolicy as Policy;
    // On the machine: not pulled again.
    let (progress, _) = create(&bench.node, with(IMAGE, Policy::Unspecified, false))
        .await
        .unwrap();
    assert!(progress.is_empty());
    // Not on the machine, but in the registry.
    bench.engine.add_to_registry("web:2");
    let never = bench.refused(with("web:2", Policy::Never, false)).await;
    assert_eq!(never.code, Code::Refused);
    assert!(
        never.message.contains("`web:2` is not on this machine") && hint(&never).contains("never")
    );
    let (progress, _) = create(&bench.node, with("web:2", Policy::Missing, false))
        .await
        .unwrap();
    assert_eq!(progress.first().map(String::as_str), Some("pulling web:2"));
    assert_eq!(progress.last().map(String::as_str), Some("pulled web:2"));
    let (progress, _) = create(&bench.node, with("web:2", Policy::Always, false))
        .await
        .unwrap();
    assert!(!progress.is_empty());
    // On the machine, and the registry does not answer.
    let (progress, _) = create(&bench.node, with(IMAGE, Policy::Always, false))
        .await
        .unwrap();
    let last = progress.last().unwrap();
    assert!(
        last.contains(IMAGE) && last.ends_with("the image that is on this machine is used"),
        "{progress:?}"
    );
    let always = bench.refused(with("none:1", Policy::Always, false)).await;
    assert_eq!(always.code, Code::Unreachable);
    assert!(
        always.message.contains("none:1") && hint(&always).contains("registry"),
        "{always:?}"
    );
    // Pinned: pulled by its digest, and not again.
    bench.engine.push_to_registry("web:3", "sha256:a");
    let pinned = v1::ServiceSpec {
        image_digest: "sha256:a".into(),
        ..with("web:3", Policy::Always, false)
    };
    bench.engine.push_to_registry("web:3", "sha256:b");
    let (progress, id) = create(&bench.node, pinned.clone()).await.unwrap();
    assert_eq!(progress.first().map(String::as_str), Some("pulling web:3"));
    let container = bench.engine.inspect(&id).await.unwrap();
    assert_eq!(container.record.image, "web:3");
    bench.engine.lose_registry();
    let (progress, _) = create(&bench.node, pinned).await.unwrap();
    assert!(progress.is_empty());
    // Built images are never pulled.
    bench.engine.add_to_registry("built:1");
    let built = bench.refused(with("built:1", Policy::Always, true)).await;
    assert_eq!(built.code, Code::Refused);
    assert!(
        built.message.contains("`built:1`") && hint(&built).contains("deploy again"),
        "{built:?}"
    );
    assert!(
        create(&bench.node, with(IMAGE, Policy::Always, true))
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn create_replica_refuses_missing_volume() {
    let bench = bench();
    let mount = v1::MountSpec {
        kind: v1::MountKind::Volume.into(),
        source: "shop_data".into(),
        target: "/data".into(),
        ..Default::default()
    };
    let spec = v1::ServiceSpec {
        mounts: vec![mount],
        ..service("web", "true")
    };
    let failure = bench.refused(spec.clone()).await;
    assert_eq!(
        (failure.code, failure.message.as_str()),
        (Code::Refused, "volume `shop_data` does not exist")
    );
    let volume = v1::VolumeSpec {
        project: "suite".into(),
        name: "shop_data".into(),
        ..Default::default()
    };
    bench.node.create_volume_from(&volume).await.unwrap();
    bench.create(spec).await.unwrap();
    let volumes = bench.node.observe_now().await.unwrap().volumes;
    assert_eq!((volumes.len(), volumes[0].project.as_str()), (1, "suite"));
}

#[tokio::test]
async fn create_volume_never_changes_existing_volume() {
    let bench = bench();
    let node = &bench.node;
    let volume = v1::VolumeSpec {
        project: "suite".into(),
        name: "v".into(),
        ..Default::default()
    };
    node.create_volume_from(&volume).await.unwrap();
    node.create_volume_from(&volume).await.unwrap();
    let other = v1::VolumeSpec {
        driver_opts: [("type".to_owned(), "nfs".to_owned())].into(),
        ..volume.clone()
    };
    let failure = node.create_volume_from(&other).await.unwrap_err();
    assert!(
        failure.message.contains("exists with different settings"),
        "{failure:?}"
    );
    let external = v1::VolumeSpec {
        external: true,
        ..volume
    };
    node.create_volume_from(&external).await.unwrap();
    let missing = v1::VolumeSpec {
        name: "w".into(),
        ..external
    };
    let failure = node.create_volume_from(&missing).await.unwrap_err();
    assert!(
        hint(&failure).contains("docker volume create w"),
        "{failure:?}"
    );
    let bad = v1::VolumeSpec {
        name: "../etc".into(),
        ..Default::default()
    };
    assert_eq!(
        node.create_volume_from(&bad).await.unwrap_err().code,
        Code::Invalid
    );
}

#[tokio::test]
async fn node_refuses_taken_port_at_creation_and_start() {
    let bench = bench();
    // The port must be free on the machine that runs the test, or the probe would find it.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let ports = vec![v1::PortSpec {
        container_port: 80,
        published_port: port.into(),
        host_ip: "127.0.0.1".into(),
        protocol: v1::Protocol::Tcp.into(),
        ..Default::default()
    }];
    let web = v1::ServiceSpec {
        ports: ports.clone(),
        ..service("web", "sleep 1000")
    };
    let first = bench.create(web.clone()).await.unwrap();
    bench.engine.start(&first).await.unwrap();
    let db = v1::ServiceSpec {
        ports,
        ..service("db", "sleep 1000")
    };
    let failure = bench.refused(db).await;
    assert_eq!(failure.code, Code::Refused);
    assert!(
        failure.message.contains("is taken by `suite/web`"),
        "{failure:?}"
    );
    // The next revision of the same service can be created. It is started when the old replica has
    // stopped.
    let second = bench.create(web).await.unwrap();
    let failure = start(&bench.node, &second).await.unwrap_err();
    assert_eq!(failure.code, Code::Refused);
    assert!(
        failure.message.contains("is taken by `suite/web`"),
        "{failure:?}"
    );
    bench.engine.stop(&first, Duration::ZERO).await.unwrap();
    bench.engine.start(&second).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn start_without_healthcheck_waits_for_monitor_period() {
    let bench = bench();
    let id = bench.create(service("web", "sleep 1000")).await.unwrap();
    let began = Instant::now();
    let record = start(&bench.node, &id).await.unwrap();
    assert_eq!(record.state(), v1::ReplicaState::Running);
    assert!(began.elapsed() >= Duration::from_secs(2) && began.elapsed() < Duration::from_secs(3));
    // A replica that already runs is watched again, for as long as the caller asks.
    let began = Instant::now();
    start_for(&bench.node, &id, Some(5000)).await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn start_of_exiting_replica_fails_with_its_last_lines() {
    let bench = bench();
    let lines: Vec<String> = (1..=12).map(|line| format!("echo line {line}")).collect();
    let script = lines.join("; ") + "; sleep 1; exit 3";
    for restart in [v1::RestartPolicy::No, v1::RestartPolicy::Always] {
        let mut spec = service("web", &script);
        spec.restart = restart.into();
        let id = bench.create(spec).await.unwrap();
        let failure = start(&bench.node, &id).await.unwrap_err();
        assert_eq!(failure.code, Code::Refused);
        assert!(
            failure
                .message
                .contains("is not ready: it exited with code 3"),
            "{failure:?}"
        );
        assert_eq!(failure.log_tail.len(), 10);
        assert_eq!(failure.log_tail[9], "line 12");
        bench.node.remove(&id).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn start_of_finished_job_succeeds() {
    let bench = bench();
    let id = bench
        .create(service("job", "echo done; exit 0"))
        .await
        .unwrap();
    let record = start(&bench.node, &id).await.unwrap();
    assert_eq!(
        (record.state(), record.exit_code),
        (v1::ReplicaState::Exited, Some(0))
    );
}

fn with_healthcheck(test: &str, retries: u32) -> v1::ServiceSpec {
    let mut spec = service("web", "echo probing; sleep 1000");
    spec.healthcheck = Some(v1::Healthcheck {
        test: vec!["CMD".into(), test.into()],
        interval_ms: Some(7000),
        timeout_ms: Some(1000),
        start_period_ms: Some(4000),
        retries: Some(retries),
        ..Default::default()
    });
    spec
}

#[tokio::test(start_paused = true)]
async fn start_with_healthcheck_waits_until_healthy() {
    let bench = bench();
    let id = bench.create(with_healthcheck("true", 3)).await.unwrap();
    let began = Instant::now();
    assert_eq!(
        start(&bench.node, &id).await.unwrap().health(),
        v1::Health::Healthy
    );
    assert!(began.elapsed() >= Duration::from_secs(7) && began.elapsed() < Duration::from_secs(8));

    let id = bench.create(with_healthcheck("false", 2)).await.unwrap();
    let failure = start(&bench.node, &id).await.unwrap_err();
    assert_eq!(
        (failure.code, failure.log_tail.as_slice()),
        (Code::Refused, &["probing".to_owned()][..])
    );
    assert!(
        failure
            .message
            .contains("healthcheck failed 2 times in a row"),
        "{failure:?}"
    );
}

#[tokio::test]
async fn start_failure_gives_the_cause() {
    let bench = bench();
    let mut spec = service("web", "");
    spec.command = Some(v1::StringList {
        values: vec!["no-such-program".into()],
    });
    let id = bench.create(spec).await.unwrap();
    let failure = start(&bench.node, &id).await.unwrap_err();
    assert_eq!(failure.code, Code::Refused);
    assert!(
        failure.message.contains("cannot start `suite-web-")
            && failure.message.contains("no-such-program")
    );
}

#[tokio::test]
async fn node_touches_only_replicas() {
    let bench = bench();
    let body = bollard::models::ContainerCreateBody {
        image: Some(IMAGE.to_owned()),
        cmd: Some(vec!["sleep".into(), "1000".into()]),
        ..Default::default()
    };
    let foreign = bench.engine.create("somebodys", "", body).await.unwrap();
    bench.engine.start(&foreign).await.unwrap();
    assert_eq!(
        start(&bench.node, &foreign).await.unwrap_err().code,
        Code::NotFound
    );
    assert_eq!(bench.stop(&foreign).await.unwrap_err().code, Code::NotFound);
    bench.node.remove(&foreign).await.unwrap();
    bench.node.remove_all().await.unwrap();
    assert_eq!(
        bench.engine.inspect(&foreign).await.unwrap().record.state(),
        v1::ReplicaState::Running
    );
}

#[tokio::test]
async fn remove_stops_first_and_can_be_repeated() {
    let bench = bench();
    let mut spec = service("web", "sleep 1000");
    spec.stop_grace_period_ms = Some(7000);
    let id = bench.create(spec).await.unwrap();
    bench.engine.start(&id).await.unwrap();
    bench.node.remove(&id).await.unwrap();
    assert_eq!(bench.engine.stops(), [(id.clone(), Duration::from_secs(7))]);
    bench.node.remove(&id).await.unwrap();
    assert!(bench.node.observe_now().await.unwrap().replicas.is_empty());
}

#[tokio::test]
async fn remove_all_leaves_no_replica() {
    let bench = bench();
    for _ in 0..20 {
        bench.running("sleep 1000").await;
    }
    bench.create(service("web", "true")).await.unwrap();
    bench.node.remove_all().await.unwrap();
    assert!(bench.node.observe_now().await.unwrap().replicas.is_empty());
}

#[tokio::test(start_paused = true)]
async fn remove_waits_for_published_draining_mark() {
    let bench = bench();
    let id = bench.running("sleep 1000").await;
    let removing = tokio::spawn({
        let (node, id) = (bench.node.clone(), id.clone());
        async move { node.remove(&id).await }
    });
    let marks = bench.node.marks();
    let mut changes = marks.changes();
    changes.wait_for(|_| marks.is_draining(&id)).await.unwrap();
    assert!(
        bench.engine.stops().is_empty(),
        "not before the mark is published"
    );
    let observed = bench.node.observe_now().await.unwrap().replicas;
    assert!(observed[0].draining);
    marks.note_published(observed.iter());
    removing.await.unwrap().unwrap();
    assert_eq!(bench.engine.stops().len(), 1);
    assert!(!marks.is_draining(&id));
}

#[tokio::test(start_paused = true)]
async fn remove_continues_when_mark_cannot_be_published() {
    let bench = bench();
    let id = bench.running("sleep 1000").await;
    bench.node.remove(&id).await.unwrap();
    assert_eq!(bench.engine.stops().len(), 1);
}

async fn logs(node: &NodeService, ids: &[&str], request: v1::LogsRequest) -> Vec<v1::LogEntry> {
    let container_ids = ids.iter().map(|&id| id.to_owned()).collect();
    let request = v1::NodeLogsRequest {
        request: Some(request),
        container_ids,
    };
    let entries = Node::logs(node, Request::new(request))
        .await
        .unwrap()
        .into_inner();
    entries.map(Result::unwrap).collect().await
}

#[tokio::test(start_paused = true)]
async fn logs_name_their_replica_and_report_missing_ones() {
    let bench = bench();
    let one = bench.running("echo a; sleep 2; echo c").await;
    let two = bench.running("sleep 1; echo b >&2; sleep 2").await;
    let all = v1::LogsRequest {
        tail: -1,
        follow: true,
        ..Default::default()
    };
    let entries = logs(&bench.node, &[&one, "absent", &two], all).await;
    assert_eq!(entries[0].problem, "replica `absent` not found");
    let lines: Vec<_> = entries[1..]
        .iter()
        .map(|entry| String::from_utf8_lossy(&entry.message))
        .collect();
    assert_eq!(lines, ["a", "b", "c"]);
    assert_eq!(entries[2].stream(), v1::LogStream::Stderr);
    assert_eq!(
        (
            entries[2].container_id.as_str(),
            entries[2].service.as_str()
        ),
        (two.as_str(), "web")
    );
    assert!(entries.iter().all(|entry| entry.machine_name == "m1"));
    let none = v1::LogsRequest {
        tail: 0,
        ..Default::default()
    };
    assert!(logs(&bench.node, &[&one], none).await.is_empty());
}

#[tokio::test]
async fn logs_followed_end_with_the_daemon() {
    let bench = bench();
    let id = bench.running("echo a; sleep 1000").await;
    let follow = v1::LogsRequest {
        tail: -1,
        follow: true,
        ..Default::default()
    };
    let request = v1::NodeLogsRequest {
        request: Some(follow),
        container_ids: vec![id],
    };
    let mut entries = Node::logs(&bench.node, Request::new(request))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(entries.next().await.unwrap().unwrap().message, b"a");
    bench.cancel.cancel();
    assert!(entries.next().await.is_none());
}

fn push(message: Push) -> v1::PushImageRequest {
    v1::PushImageRequest {
        message: Some(message),
    }
}

fn push_start(image: &str) -> v1::PushImageRequest {
    push(Push::Start(v1::PushImageStart {
        image: image.into(),
        ..Default::default()
    }))
}

#[tokio::test]
async fn load_image_loads_archive_of_the_client() {
    let bench = bench();
    let node = &bench.node;
    let missing = node
        .missing_images(vec![IMAGE.into(), "built:1".into()])
        .await
        .unwrap();
    assert_eq!(missing, ["built:1"]);
    let (a, b) = ARCHIVE.split_at(4);
    let chunks =
        [a.as_bytes(), b.as_bytes(), b"built:1"].map(|chunk| push(Push::Chunk(chunk.to_vec())));
    let end = push(Push::End(v1::PushImageEnd {}));
    let torn = std::iter::once(push_start("built:1")).chain(chunks.clone());
    let failure = node
        .load_image_from(stream::iter(torn.map(Ok).collect::<Vec<_>>()))
        .await
        .unwrap_err();
    assert_eq!(
        failure.message,
        "cannot load image `built:1`: it was not sent to its end"
    );
    let chunks = chunks.into_iter().chain([end]);
    let whole = std::iter::once(push_start("built:1")).chain(chunks.clone());
    node.load_image_from(stream::iter(whole.map(Ok).collect::<Vec<_>>()))
        .await
        .unwrap();
    assert!(
        node.missing_images(vec!["built:1".into()])
            .await
            .unwrap()
            .is_empty()
    );

    let other = std::iter::once(push_start("other:1")).chain(chunks.clone());
    let failure = node
        .load_image_from(stream::iter(other.map(Ok).collect::<Vec<_>>()))
        .await
        .unwrap_err();
    assert!(
        failure.message.contains("it does not contain `other:1`"),
        "{failure:?}"
    );
    let first = chunks.clone().next().unwrap();
    let cut = vec![
        Ok(push_start("cut:1")),
        Ok(first.clone()),
        Err(Status::cancelled("the client disconnected")),
    ];
    let failure = node.load_image_from(stream::iter(cut)).await.unwrap_err();
    assert_eq!(
        failure.message,
        "cannot load image `cut:1`: the client disconnected"
    );
    assert_eq!(failure.hint, None, "nothing is wrong with the engine");
    let failure = node
        .load_image_from(stream::iter(vec![Ok(first)]))
        .await
        .unwrap_err();
    assert_eq!(failure.code, Code::Invalid);
}

#[tokio::test]
async fn node_without_engine_reports_it_in_every_call() {
    let bench = bench();
    let id = bench.running("sleep 1000").await;
    bench.engine.set_offline(true);
    let node = &bench.node;
    let mut failures = vec![
        bench.refused(service("web", "true")).await,
        start(node, &id).await.unwrap_err(),
        node.remove(&id).await.unwrap_err(),
        node.remove_all().await.unwrap_err(),
        node.missing_images(vec![IMAGE.into()]).await.unwrap_err(),
    ];
    failures.push(
        Node::observe(node, Request::new(v1::ObserveRequest {}))
            .await
            .unwrap_err()
            .into(),
    );
    for failure in failures {
        assert_eq!(failure.code, Code::Unreachable, "{failure:?}");
        assert!(hint(&failure).contains("systemctl"), "{failure:?}");
    }
    let entries = logs(node, &[&id], v1::LogsRequest::default()).await;
    assert!(
        entries[0].problem.contains("docker is not running"),
        "{entries:?}"
    );
}
