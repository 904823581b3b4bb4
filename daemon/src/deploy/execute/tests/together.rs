//! Services of one execution that wait for each other, and what the failure of one means for the
//! others.

use uc_api::v1::{FailureAction, UpdatePolicy};

use super::*;

fn on_db(condition: DependencyCondition) -> Vec<Dependency> {
    vec![Dependency {
        service: "db".into(),
        condition: condition.into(),
        ..Default::default()
    }]
}

fn running_db(revision: &str, health: Health) -> ReplicaRecord {
    ReplicaRecord {
        project: "p".into(),
        service: "db".into(),
        revision: revision.into(),
        state: ReplicaState::Running.into(),
        health: health.into(),
        ..ReplicaRecord::default()
    }
}

/// Runs a plan that waits, and shows the replica while it does.
async fn run_with_a_change(
    machines: &Machines,
    services: Vec<ServicePlan>,
    specs: Vec<(String, ServiceSpec)>,
    shown_later: ReplicaRecord,
) {
    let running = run(machines, services, specs);
    tokio::pin!(running);
    let early = tokio::time::timeout(Duration::from_secs(30), &mut running).await;
    let calls = machines.calls();
    assert!(
        early.is_err() && !calls.contains(&"new m1 web-r2".to_owned()),
        "{calls:?}"
    );
    *machines.replicas.lock().unwrap() = vec![shown_later];
    running.await.0.unwrap();
    assert!(machines.calls().contains(&"new m1 web-r2".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_dependent_waits_until_its_dependency_is_healthy() {
    let machines = Machines::default();
    *machines.replicas.lock().unwrap() = vec![running_db("r1", Health::Starting)];
    let web = spec("web", on_db(DependencyCondition::Healthy));
    let healthy = running_db("r1", Health::Healthy);
    run_with_a_change(
        &machines,
        vec![service("web", 1, create())],
        vec![web],
        healthy,
    )
    .await;
}

#[tokio::test]
async fn without_a_look_at_health_a_dependency_only_has_to_run() {
    let machines = Machines {
        skip_health: true,
        ..Machines::default()
    };
    *machines.replicas.lock().unwrap() = vec![running_db("r1", Health::Unhealthy)];
    let web = spec("web", on_db(DependencyCondition::Healthy));
    let (result, _) = run(&machines, vec![service("web", 1, create())], vec![web]).await;
    result.unwrap();
    assert_eq!(machines.calls(), ["new m1 web-r2 no-wait"]);
}

#[tokio::test(start_paused = true)]
async fn a_dependent_goes_on_as_soon_as_a_new_replica_of_its_dependency_runs() {
    let machines = Machines::default();
    // The old replica does not count.
    *machines.replicas.lock().unwrap() = vec![running_db("r1", Health::Healthy)];
    let replaced = step(ReplicaAction::Replace, UpdateOrder::StartFirst, "old");
    let services = vec![
        service("db", 0, vec![replaced]),
        service("web", 0, create()),
    ];
    let specs = vec![
        spec("db", vec![]),
        spec("web", on_db(DependencyCondition::Started)),
    ];
    let starting = running_db("r2", Health::Starting);
    run_with_a_change(&machines, services, specs, starting).await;
}

#[tokio::test(start_paused = true)]
async fn a_dependent_does_not_wait_for_a_dependency_that_failed() {
    let machines = Machines::refusing(vec!["new m1 db"]);
    let services = vec![service("db", 0, create()), service("web", 0, create())];
    let specs = vec![
        spec("db", vec![]),
        spec("web", on_db(DependencyCondition::Started)),
    ];
    let started = Instant::now();
    let (result, _) = run(&machines, services, specs).await;
    let failure = result.unwrap_err().failure;
    assert_eq!(
        failure.message, "exited with code 1",
        "not the dependent, which only waited"
    );
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "by the test's own clock"
    );
    assert_eq!(machines.calls(), ["new m1 db-r2", "undo new m1 db-r2"]);
}

/// A policy with this action.
fn policy(action: FailureAction, parallelism: u32) -> UpdatePolicy {
    UpdatePolicy {
        parallelism: Some(parallelism),
        failure_action: action.into(),
        ..UpdatePolicy::default()
    }
}

fn with_policy(
    (name, mut spec): (String, ServiceSpec),
    policy: UpdatePolicy,
) -> (String, ServiceSpec) {
    spec.update = Some(policy);
    (name, spec)
}

#[tokio::test(start_paused = true)]
async fn the_time_that_a_dependency_itself_takes_does_not_count() {
    let machines = Machines {
        slow: Some("m2"),
        takes: Some(Duration::from_mins(25)),
        ..Machines::default()
    };
    let slow = ReplicaStep {
        machine_id: "m2".into(),
        ..step(ReplicaAction::Create, UpdateOrder::Unspecified, "")
    };
    let services = vec![service("db", 0, vec![slow]), service("web", 0, create())];
    let specs = vec![
        spec("db", vec![]),
        spec("web", on_db(DependencyCondition::Started)),
    ];
    let running = run(&machines, services, specs);
    tokio::pin!(running);
    let early = tokio::time::timeout(Duration::from_mins(24), &mut running).await;
    assert!(early.is_err(), "{early:?}");
    *machines.replicas.lock().unwrap() = vec![running_db("r2", Health::None)];
    running.await.0.unwrap();
    assert!(machines.calls().contains(&"new m1 web-r2".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn what_a_failure_means_is_decided_by_the_service_that_failed() {
    let replaced = || vec![step(ReplicaAction::Replace, UpdateOrder::StartFirst, "old")];
    let services = || vec![service("db", 0, replaced()), service("web", 0, create())];
    let specs = |action| {
        vec![
            with_policy(spec("db", vec![]), policy(action, 1)),
            spec("web", on_db(DependencyCondition::Started)),
        ]
    };
    let refuse = || Machines::refusing(vec!["replace m1 old db"]);

    let machines = refuse();
    let ran = run_plan(&machines, services(), specs(FailureAction::Pause)).await;
    let stopped = ran.result.unwrap_err();
    assert!(stopped.pause, "{stopped:?}");
    assert_eq!(stopped.failure.message, "exited with code 1");
    assert_eq!(machines.calls(), ["replace m1 old db-r2"]);

    // The old replica serves again, and web can use it.
    let machines = refuse();
    *machines.replicas.lock().unwrap() = vec![running_db("r1", Health::None)];
    let ran = run_plan(&machines, services(), specs(FailureAction::Continue)).await;
    assert_eq!(ran.result.unwrap().len(), 1, "the failure of db");
    assert_eq!(machines.calls(), ["replace m1 old db-r2", "new m1 web-r2"]);
}

#[tokio::test(start_paused = true)]
async fn after_a_failure_no_service_begins_another_group() {
    let machines = Machines::refusing(vec!["new m1 db"]).with_slow_changes();
    let replaced = |old| ReplicaStep {
        machine_id: "m2".into(),
        ..step(ReplicaAction::Replace, UpdateOrder::StartFirst, old)
    };
    let steps = ["one", "two", "three"].map(replaced).to_vec();
    let services = vec![service("db", 0, create()), service("web", 0, steps)];
    let specs = vec![spec("db", vec![]), spec("web", vec![])];
    let ran = run_plan(&machines, services, specs).await;
    assert!(ran.result.is_err());
    assert_eq!(
        machines.calls(),
        [
            "new m1 db-r2",
            "replace m2 one web-r2",
            "undo new m1 db-r2",
            "undo replace m2 one web-r2"
        ]
    );
}
