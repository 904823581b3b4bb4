mod ended;

use tokio::time::{Instant, sleep};
use tonic::Request;
use uc_api::v1::node_server::Node;

use super::*;
use crate::engine::Engine as _;
use crate::engine::suite::service;
use crate::node::tests::{Bench, bench, bench_on};

fn spec(script: &str) -> v1::ServiceSpec {
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    v1::ServiceSpec {
        pre_deploy: Some(v1::PreDeploy {
            command,
            ..v1::PreDeploy::default()
        }),
        ..service("web", "sleep 1000")
    }
}

fn request(deployment: &str, spec: v1::ServiceSpec) -> v1::RunPreDeployRequest {
    v1::RunPreDeployRequest {
        spec: Some(spec),
        revision: "r1".into(),
        deployment_id: deployment.into(),
    }
}

/// The deployment ends on this machine.
async fn settle(bench: &Bench, deployment: &str) {
    let request = v1::SettleRequest {
        deployment_id: deployment.into(),
        ..v1::SettleRequest::default()
    };
    let settled = bench.node.settle(&request).await;
    assert_eq!(settled, v1::SettleResponse::default());
}

/// Returns all events as texts: progress as it is, output lines prefixed with `|`, then `exit N`.
async fn run(
    bench: &Bench,
    deployment: &str,
    spec: v1::ServiceSpec,
) -> Result<Vec<String>, Failure> {
    let mut events = bench.node.run_pre_deploy_from(request(deployment, spec))?;
    let mut said = Vec::new();
    while let Some(event) = events.next().await {
        said.push(match event?.event.unwrap() {
            Event::Progress(text) => text,
            Event::Line(line) => format!("|{}", String::from_utf8_lossy(&line)),
            Event::ExitCode(code) => format!("exit {code}"),
        });
    }
    Ok(said)
}

#[tokio::test]
async fn pre_deploy_sends_output_then_exit_code() {
    let bench = bench();
    for (deployment, script, expected) in [
        (
            "d1",
            "echo one; echo two >&2",
            &["|one", "|two", "exit 0"][..],
        ),
        ("d2", "echo no; exit 3", &["|no", "exit 3"]),
    ] {
        // Once more: the same end, and nothing runs.
        for _ in 0..2 {
            let said = run(&bench, deployment, spec(script)).await.unwrap();
            assert_eq!(said, expected);
        }
        assert_eq!(bench.engine.containers().await.unwrap().len(), 1);
        settle(&bench, deployment).await;
        assert!(bench.engine.containers().await.unwrap().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn pre_deploy_is_joined_by_a_deployment_that_asks_again() {
    let mut bench = bench();
    let script = spec("echo one; sleep 60; echo two");
    // The caller goes, then the daemon ends, and then Docker is away.
    for _ in 0..2 {
        let mut events = bench
            .node
            .run_pre_deploy_from(request("d1", script.clone()))
            .unwrap();
        let first = events.next().await.unwrap().unwrap().event;
        assert_eq!(first, Some(Event::Line(b"one".to_vec())));
        drop(events);
        bench.stop_daemon();
        bench.node.finish().await;
        bench = bench_on(bench.engine, bench.state);
        bench.node.take_over_pre_deploys(|_| true).await.unwrap();
    }
    bench.engine.set_offline(true);
    let away = run(&bench, "d1", script.clone()).await.unwrap_err();
    assert_eq!(away.code, Code::Unreachable);
    bench.engine.set_offline(false);
    let said = run(&bench, "d1", script).await.unwrap();
    assert_eq!(said, ["|one", "|two", "exit 0"]);
    let containers = bench.engine.containers().await.unwrap();
    assert_eq!(containers.len(), 1);
    assert_eq!(containers[0].record.restart_count, 0);
}

#[tokio::test(start_paused = true)]
async fn pre_deploy_whose_container_is_created_late_runs_once() {
    let bench = bench();
    bench.engine.set_create_delay(Duration::from_mins(1));
    let script = spec("echo one");
    let first = bench
        .node
        .run_pre_deploy_from(request("d1", script.clone()))
        .unwrap();
    sleep(Duration::from_secs(1)).await;
    drop(first);
    sleep(Duration::from_secs(1)).await;
    assert!(bench.engine.containers().await.unwrap().is_empty());
    let said = run(&bench, "d1", script).await.unwrap();
    assert_eq!(said, ["|one", "exit 0"]);
    let containers = bench.engine.containers().await.unwrap();
    let started = containers
        .iter()
        .filter(|of| of.record.state() != v1::ReplicaState::Created);
    assert_eq!((containers.len(), started.count()), (2, 1));
    settle(&bench, "d1").await;
    assert!(bench.engine.containers().await.unwrap().is_empty());
}

#[tokio::test]
async fn pre_deploy_container_is_not_a_replica() {
    let bench = bench();
    let request = request("d1", spec("echo up; sleep 1000"));
    let mut events = Node::run_pre_deploy(&bench.node, Request::new(request))
        .await
        .unwrap()
        .into_inner();
    assert!(matches!(
        events.next().await,
        Some(Ok(v1::RunPreDeployEvent {
            event: Some(Event::Line(_))
        }))
    ));
    let containers = bench.engine.containers().await.unwrap();
    assert_eq!(containers.len(), 1);
    assert!(containers[0].managed && !containers[0].is_replica());
    assert!(bench.node.observe_now().await.unwrap().replicas.is_empty());
    let id = &containers[0].record.container_id;
    assert_eq!(
        bench.node.managed(id).await.unwrap_err().code,
        Code::NotFound
    );
    // The end of its deployment ends the command.
    settle(&bench, "d1").await;
    assert!(bench.engine.containers().await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn pre_deploy_kills_command_at_its_timeout() {
    let bench = bench();
    let mut hangs = spec("echo working; sleep 1000000");
    hangs.pre_deploy.as_mut().unwrap().timeout_ms = 1500;
    let failure = run(&bench, "d1", hangs).await.unwrap_err();
    assert_eq!(
        (failure.code, failure.machine.as_deref()),
        (Code::Refused, Some("m1"))
    );
    assert!(
        failure.message.contains("did not end within 1.5 s"),
        "{failure}"
    );
    assert_eq!(failure.log_tail, ["working"]);
    let containers = bench.engine.containers().await.unwrap();
    assert_eq!(
        containers[0].record.state(),
        v1::ReplicaState::Exited,
        "it was killed"
    );
    // The default timeout is five minutes.
    let started = Instant::now();
    let hangs = spec("sleep 1000000");
    run(&bench, "d2", hangs).await.unwrap_err();
    assert!(
        started.elapsed() >= TIMEOUT && started.elapsed() < TIMEOUT * 2,
        "{:?}",
        started.elapsed()
    );
}

/// The time limit counts from the start of the command, whoever waits for it.
#[tokio::test(start_paused = true)]
async fn pre_deploy_is_killed_at_its_timeout_without_a_caller() {
    let bench = bench();
    let mut hangs = spec("echo working; sleep 1000000");
    hangs.pre_deploy.as_mut().unwrap().timeout_ms = 60_000;
    let started = Instant::now();
    let mut events = bench
        .node
        .run_pre_deploy_from(request("d1", hangs.clone()))
        .unwrap();
    events.next().await.unwrap().unwrap();
    drop(events);
    // Another call does not begin the limit again.
    sleep(Duration::from_secs(50)).await;
    let failure = run(&bench, "d1", hangs.clone()).await.unwrap_err();
    assert!(failure.message.contains("within 60 s"), "{failure}");
    assert!(started.elapsed() < Duration::from_secs(62), "{failure}");
    settle(&bench, "d1").await;

    let mut events = bench
        .node
        .run_pre_deploy_from(request("d2", hangs))
        .unwrap();
    events.next().await.unwrap().unwrap();
    drop(events);
    bench.stop_daemon();
    bench.node.finish().await;
    let id = |containers: Vec<Container>| containers[0].record.container_id.clone();
    let id = id(bench.engine.containers().await.unwrap());
    bench.engine.backdate_start(&id, Duration::from_secs(50));
    let bench = bench_on(bench.engine, bench.state);
    bench.node.take_over_pre_deploys(|_| true).await.unwrap();
    let state = async || bench.engine.inspect(&id).await.unwrap().record.state();
    sleep(Duration::from_secs(8)).await;
    assert_eq!(state().await, v1::ReplicaState::Running);
    sleep(Duration::from_secs(4)).await;
    assert_eq!(state().await, v1::ReplicaState::Exited);
}

#[tokio::test]
async fn pre_deploy_of_a_deployment_that_lost_its_project_is_refused() {
    let bench = bench();
    let lease = v1::LeaseRequest {
        deployment_id: "d2".into(),
        projects: vec![spec("true").project],
        ttl_ms: 60_000,
        attempt: "a".into(),
        confirmed: true,
        ..v1::LeaseRequest::default()
    };
    let leased = bench.node.leases().lease(&lease, Instant::now()).unwrap();
    assert_eq!(leased, None);
    let failure = run(&bench, "d1", spec("true")).await.unwrap_err();
    assert_eq!(failure.code, Code::Refused);
    assert!(failure.message.contains("deployment d2 has"), "{failure}");
    run(&bench, "d2", spec("true")).await.unwrap();
}

/// Knows that all deployments have ended.
#[derive(Debug)]
struct AllEnded;

#[async_trait::async_trait]
impl crate::node::Audience for AllEnded {
    async fn seen(&self) -> Vec<String> {
        Vec::new()
    }

    fn has_ended(&self, _deployment: &str) -> bool {
        true
    }
}

#[tokio::test]
async fn pre_deploy_of_a_deployment_that_has_ended_is_refused() {
    let bench = bench();
    bench.node.set_audience(Arc::new(AllEnded));
    let failure = run(&bench, "d1", spec("true")).await.unwrap_err();
    assert_eq!(failure.message, "deployment d1 has ended");
    assert!(bench.engine.containers().await.unwrap().is_empty());
}

/// The machine that executed the first deployment has died.
#[tokio::test(start_paused = true)]
async fn pre_deploy_ends_that_of_an_earlier_deployment_of_its_service() {
    let bench = bench();
    let mut other = spec("echo up; sleep 1000");
    other.name = "other".into();
    for (deployment, spec) in [("d1", spec("echo up; sleep 1000")), ("d1", other)] {
        let request = request(deployment, spec);
        let mut events = bench.node.run_pre_deploy_from(request).unwrap();
        events.next().await.unwrap().unwrap();
    }
    let said = run(&bench, "d2", spec("echo one")).await.unwrap();
    let notice = "removing the pre-deploy command of deployment d1, which did not end it";
    assert_eq!(said, [notice, "|one", "exit 0"]);
    let containers = bench.engine.containers().await.unwrap();
    let mut left: Vec<_> = containers
        .iter()
        .map(|of| (of.hook.as_str(), of.record.service.as_str()))
        .collect();
    left.sort_unstable();
    assert_eq!(left, [("d1", "other"), ("d2", "web")]);
}

#[tokio::test]
async fn pre_deploy_of_a_deployment_that_has_ended_is_removed_by_the_next_daemon() {
    let bench = bench();
    for deployment in ["ended", "running"] {
        let mut left = service("web", "sleep 1000");
        left.labels.insert(label::HOOK.into(), deployment.into());
        crate::node::tests::create(&bench.node, left).await.unwrap();
    }
    crate::node::tests::create(&bench.node, service("web", "sleep 1000"))
        .await
        .unwrap();
    let runs = |deployment: &str| deployment == "running";
    bench.node.take_over_pre_deploys(runs).await.unwrap();
    let rest = bench.engine.containers().await.unwrap();
    let mut hooks: Vec<&str> = rest.iter().map(|of| of.hook.as_str()).collect();
    hooks.sort_unstable();
    assert_eq!(hooks, ["", "running"]);
    settle(&bench, "running").await;
    assert!(bench.engine.containers().await.unwrap()[0].is_replica());
}

#[tokio::test]
async fn a_change_ignores_hook_label_of_the_compose_file() {
    let bench = bench();
    let mut web = service("web", "sleep 1000");
    web.labels.insert(label::HOOK.into(), "mine".into());
    let change = v1::ReplicaChange {
        deployment_id: "d1".into(),
        step_id: "s1".into(),
        spec: Some(web),
        no_wait: true,
        ..v1::ReplicaChange::default()
    };
    let request = v1::ApplyRequest {
        change: Some(change),
    };
    let applied =
        uc_api::v1::node_server::Node::apply(&bench.node, tonic::Request::new(request)).await;
    let _events: Vec<_> = applied.unwrap().into_inner().collect().await;
    assert_eq!(bench.node.observe_now().await.unwrap().replicas.len(), 1);
}

#[test]
fn pre_deploy_container_drops_what_only_a_service_needs() {
    let pairs = |list: &[(&str, &str)]| -> std::collections::BTreeMap<String, String> {
        list.iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    };
    let mut web = service("web", "serve");
    web.environment = pairs(&[("A", "1"), ("B", "1")]);
    web.secret_environment = pairs(&[("C", "hash"), ("D", "hash")]);
    web.user = "app".into();
    web.privileged = true;
    web.ports.push(v1::PortSpec::default());
    web.mounts.push(v1::MountSpec::default());
    web.aliases.push("www".into());
    let hook = v1::PreDeploy {
        command: vec!["migrate".into()],
        environment: pairs(&[("B", "2"), ("C", "2")]),
        privileged: Some(false),
        ..v1::PreDeploy::default()
    };
    let made = container_spec(web.clone(), hook.clone(), "mark");
    assert_eq!(made.command.unwrap().values, ["migrate"]);
    assert_eq!(
        made.environment,
        pairs(&[("A", "1"), ("B", "2"), ("C", "2")])
    );
    assert_eq!(made.secret_environment, pairs(&[("D", "hash")]));
    assert_eq!((made.user.as_str(), made.privileged), ("app", false));
    assert_eq!(
        (made.image, made.mounts),
        (web.image.clone(), web.mounts.clone())
    );
    assert!(made.ports.is_empty() && made.aliases.is_empty() && made.pre_deploy.is_none());
    assert_eq!(made.restart, i32::from(v1::RestartPolicy::No));
    assert_eq!(made.labels[label::HOOK], "mark");
    let other = container_spec(
        web,
        v1::PreDeploy {
            user: "root".into(),
            privileged: None,
            ..hook
        },
        "mark",
    );
    assert_eq!((other.user.as_str(), other.privileged), ("root", true));
}
