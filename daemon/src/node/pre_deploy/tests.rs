use tonic::Request;
use uc_api::v1::node_server::Node;

use super::*;
use crate::engine::Engine as _;
use crate::engine::suite::service;
use crate::node::tests::{Bench, bench};

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

/// Returns all events as texts: progress as it is, output lines prefixed with `|`, then `exit N`.
async fn run(bench: &Bench, spec: v1::ServiceSpec) -> Result<Vec<String>, Failure> {
    let request = v1::RunPreDeployRequest {
        spec: Some(spec),
        revision: "r1".into(),
        deployment_id: "d1".into(),
    };
    let mut events = Node::run_pre_deploy(&bench.node, Request::new(request))
        .await?
        .into_inner();
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
    assert_eq!(
        run(&bench, spec("echo one; echo two >&2")).await.unwrap(),
        ["|one", "|two", "exit 0"]
    );
    assert_eq!(
        run(&bench, spec("echo no; exit 3")).await.unwrap(),
        ["|no", "exit 3"]
    );
    assert!(
        bench.engine.containers().await.unwrap().is_empty(),
        "its container was removed"
    );
}

#[tokio::test]
async fn pre_deploy_container_is_not_a_replica() {
    let bench = bench();
    let request = v1::RunPreDeployRequest {
        spec: Some(spec("echo up; sleep 1000")),
        ..Default::default()
    };
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
    // Dropping the caller's stream ends the command.
    drop(events);
    let mut changes = bench.engine.events().await.unwrap();
    while !bench.engine.containers().await.unwrap().is_empty() {
        changes.next().await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn pre_deploy_kills_command_at_its_timeout() {
    let bench = bench();
    let mut hangs = spec("echo working; sleep 1000000");
    hangs.pre_deploy.as_mut().unwrap().timeout_ms = 1500;
    let failure = run(&bench, hangs).await.unwrap_err();
    assert_eq!(
        (failure.code, failure.machine.as_deref()),
        (Code::TimedOut, Some("m1"))
    );
    assert!(
        failure.message.contains("did not end within 1.5 s"),
        "{failure}"
    );
    assert_eq!(failure.log_tail, ["working"]);
    assert!(bench.engine.containers().await.unwrap().is_empty());
    // The default timeout is five minutes.
    let started = tokio::time::Instant::now();
    run(&bench, spec("sleep 1000000")).await.unwrap_err();
    assert!(
        started.elapsed() >= TIMEOUT && started.elapsed() < TIMEOUT * 2,
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn pre_deploy_removes_containers_of_earlier_daemon() {
    let bench = bench();
    let mut left = service("web", "sleep 1000");
    left.labels
        .insert(label::HOOK.into(), "another-life".into());
    crate::node::tests::create(&bench.node, left).await.unwrap();
    crate::node::tests::create(&bench.node, service("web", "sleep 1000"))
        .await
        .unwrap();
    assert_eq!(bench.engine.containers().await.unwrap().len(), 2);
    bench.node.remove_left_pre_deploys().await.unwrap();
    let rest = bench.engine.containers().await.unwrap();
    assert!(rest.len() == 1 && rest[0].is_replica());
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
