//! The executor against machines that are a log of calls.

use std::sync::Mutex;

use uc_api::v1::{Dependency, ServiceChange};

use super::*;

/// Remembers each call; refuses those whose text begins with one of `refuse`.
#[derive(Default)]
struct Machines {
    calls: Mutex<Vec<String>>,
    refuse: Vec<&'static str>,
    /// Containers that take a second to start, when they have.
    slow: Option<&'static str>,
    started: Mutex<Vec<String>>,
    replicas: Mutex<Vec<ReplicaRecord>>,
}

impl Machines {
    fn call(&self, text: String) -> Result<(), Failure> {
        let refused = self.refuse.iter().any(|prefix| text.starts_with(prefix));
        self.calls.lock().unwrap().push(text);
        if refused {
            return Err(Failure::new(Code::Refused, "exited with code 1").log_tail(vec!["boom".into()]));
        }
        Ok(())
    }

    fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }
}

#[async_trait]
impl Fleet for Machines {
    async fn create_volume(&self, machine: &str, volume: &VolumeSpec) -> Result<(), Failure> {
        self.call(format!("volume {machine} {}", volume.name))
    }

    async fn create(&self, machine: &str, new: &NewReplica<'_>, _: &Progress) -> Result<String, Failure> {
        let id = format!("{}-{}", new.spec.name, new.revision);
        self.call(format!("create {machine} {id}")).map(|()| id)
    }

    async fn start(&self, machine: &str, container: &str, wait: bool) -> Result<(), Failure> {
        if self.slow == Some(machine) {
            sleep(Duration::from_secs(1)).await;
        }
        self.call(format!("start {machine} {container}{}", if wait { "" } else { " (no wait)" }))?;
        self.started.lock().unwrap().push(machine.to_owned());
        Ok(())
    }

    async fn stop(&self, machine: &str, container: &str) -> Result<(), Failure> {
        self.call(format!("stop {machine} {container}"))
    }

    async fn remove(&self, machine: &str, container: &str) -> Result<(), Failure> {
        self.call(format!("remove {machine} {container}"))
    }

    async fn observe(&self, _: &str) -> Result<Vec<ReplicaRecord>, Failure> {
        Ok(self.replicas.lock().unwrap().clone())
    }
}

fn step(action: ReplicaAction, order: UpdateOrder, old: &str) -> ReplicaStep {
    ReplicaStep {
        id: format!("s-{old}"),
        action: action.into(),
        machine_id: "m1".into(),
        machine_name: "m1".into(),
        container_id: old.into(),
        order: order.into(),
        ..ReplicaStep::default()
    }
}

fn service(name: &str, layer: u32, steps: Vec<ReplicaStep>) -> ServicePlan {
    ServicePlan {
        project: "p".into(),
        service: name.into(),
        revision: "r2".into(),
        change: ServiceChange::Update.into(),
        steps,
        layer,
        ..ServicePlan::default()
    }
}

fn spec(name: &str, depends_on: Vec<Dependency>) -> (String, ServiceSpec) {
    (
        name.into(),
        ServiceSpec { project: "p".into(), name: name.into(), depends_on, ..ServiceSpec::default() },
    )
}

async fn run(
    machines: &Machines,
    services: Vec<ServicePlan>,
    specs: Vec<(String, ServiceSpec)>,
) -> (Result<(), Failure>, Vec<DeployEvent>) {
    let plan = Plan { services, ..Plan::default() };
    let specs = specs.into_iter().collect();
    let (sender, mut receiver) = mpsc::channel(1000);
    let execution = Execution { plan: &plan, specs: &specs, machines: &["m1".to_owned()], deployment: "d1" };
    let result = execute(machines, execution, &Events::new(sender)).await;
    let mut events = Vec::new();
    while let Some(event) = receiver.recv().await {
        events.push(event);
    }
    (result, events)
}

#[tokio::test]
async fn start_first_stops_the_old_one_only_when_the_new_one_serves() {
    let machines = Machines::default();
    let steps = vec![step(ReplicaAction::Replace, UpdateOrder::StartFirst, "old")];
    let (result, _) = run(&machines, vec![service("web", 0, steps)], vec![spec("web", vec![])]).await;
    result.unwrap();
    assert_eq!(machines.calls(), ["create m1 web-r2", "start m1 web-r2", "stop m1 old", "remove m1 old"]);
}

#[tokio::test]
async fn a_new_replica_that_fails_leaves_the_old_one_untouched() {
    let machines = Machines { refuse: vec!["start m1 web-r2"], ..Machines::default() };
    let steps = vec![step(ReplicaAction::Replace, UpdateOrder::StartFirst, "old")];
    let (result, events) = run(&machines, vec![service("web", 0, steps)], vec![spec("web", vec![])]).await;
    let failure = result.unwrap_err();
    assert_eq!((failure.machine.as_deref(), failure.log_tail), (Some("m1"), vec!["boom".to_owned()]));
    assert_eq!(
        machines.calls(),
        ["create m1 web-r2", "start m1 web-r2", "stop m1 web-r2", "remove m1 web-r2"]
    );
    let failed = events.iter().any(|event| {
        matches!(&event.event, Some(deploy_event::Event::Step(step))
            if step.phase() == StepPhase::Failed && step.log_tail == ["boom"])
    });
    assert!(failed, "{events:?}");
}

#[tokio::test]
async fn stop_first_starts_the_old_one_again_when_the_new_one_fails() {
    let machines = Machines { refuse: vec!["start m1 web-r2"], ..Machines::default() };
    let steps = vec![step(ReplicaAction::Replace, UpdateOrder::StopFirst, "old")];
    let (result, _) = run(&machines, vec![service("web", 0, steps)], vec![spec("web", vec![])]).await;
    assert!(result.is_err());
    assert_eq!(
        machines.calls(),
        [
            "create m1 web-r2",
            "stop m1 old",
            "start m1 web-r2",
            "stop m1 web-r2",
            "remove m1 web-r2",
            "start m1 old"
        ]
    );
}

#[tokio::test]
async fn what_could_not_be_undone_is_said() {
    let machines = Machines { refuse: vec!["start m1"], ..Machines::default() };
    let steps = vec![step(ReplicaAction::Replace, UpdateOrder::StopFirst, "old")];
    let (result, _) = run(&machines, vec![service("web", 0, steps)], vec![spec("web", vec![])]).await;
    let failure = result.unwrap_err();
    assert!(failure.message.contains("old container does not serve again"), "{failure}");
}

#[tokio::test]
async fn steps_run_in_the_plans_order() {
    let machines = Machines::default();
    let steps = vec![
        step(ReplicaAction::Remove, UpdateOrder::Unspecified, "in-the-way"),
        step(ReplicaAction::Create, UpdateOrder::Unspecified, ""),
        step(ReplicaAction::Remove, UpdateOrder::Unspecified, "surplus"),
    ];
    let (result, _) = run(&machines, vec![service("web", 0, steps)], vec![spec("web", vec![])]).await;
    result.unwrap();
    assert_eq!(
        machines.calls(),
        [
            "stop m1 in-the-way",
            "remove m1 in-the-way",
            "create m1 web-r2",
            "start m1 web-r2",
            "stop m1 surplus",
            "remove m1 surplus"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_failure_waits_for_the_steps_beside_it() {
    let machines = Machines { refuse: vec!["create m1"], slow: Some("m2"), ..Machines::default() };
    let beside = ReplicaStep {
        machine_id: "m2".into(),
        machine_name: "m2".into(),
        ..step(ReplicaAction::Create, UpdateOrder::Unspecified, "")
    };
    let steps = vec![step(ReplicaAction::Create, UpdateOrder::Unspecified, ""), beside];
    let (result, _) = run(&machines, vec![service("web", 0, steps)], vec![spec("web", vec![])]).await;
    assert_eq!(result.unwrap_err().machine.as_deref(), Some("m1"));
    assert_eq!(*machines.started.lock().unwrap(), ["m2"], "its step was dropped half-way");
}

#[tokio::test]
async fn a_later_layer_does_not_begin_after_a_failure() {
    let machines = Machines { refuse: vec!["create m1 db"], ..Machines::default() };
    let create = || vec![step(ReplicaAction::Create, UpdateOrder::Unspecified, "")];
    let services = vec![service("db", 0, create()), service("web", 1, create())];
    let (result, _) = run(&machines, services, vec![spec("db", vec![]), spec("web", vec![])]).await;
    assert!(result.is_err());
    assert_eq!(machines.calls(), ["create m1 db-r2"]);
}

#[tokio::test(start_paused = true)]
async fn a_dependent_waits_until_its_dependency_is_healthy() {
    let machines = Machines::default();
    let record = |health: Health| ReplicaRecord {
        project: "p".into(),
        service: "db".into(),
        state: ReplicaState::Running.into(),
        health: health.into(),
        ..ReplicaRecord::default()
    };
    *machines.replicas.lock().unwrap() = vec![record(Health::Starting)];
    let depends = Dependency {
        service: "db".into(),
        condition: DependencyCondition::Healthy.into(),
        ..Default::default()
    };
    let create = vec![step(ReplicaAction::Create, UpdateOrder::Unspecified, "")];
    let running = run(&machines, vec![service("web", 1, create)], vec![spec("web", vec![depends])]);
    tokio::pin!(running);
    let early = tokio::time::timeout(Duration::from_secs(30), &mut running).await;
    assert!(early.is_err() && machines.calls().is_empty());
    *machines.replicas.lock().unwrap() = vec![record(Health::Healthy)];
    running.await.0.unwrap();
    assert_eq!(machines.calls(), ["create m1 web-r2", "start m1 web-r2"]);
}

#[test]
fn conditions() {
    let record = |state: ReplicaState, health: Health, exit_code| ReplicaRecord {
        state: state.into(),
        health: health.into(),
        exit_code,
        ..ReplicaRecord::default()
    };
    let running = record(ReplicaState::Running, Health::None, None);
    let failed = record(ReplicaState::Exited, Health::None, Some(3));
    let ended = record(ReplicaState::Exited, Health::None, Some(0));
    assert_eq!(condition_met(DependencyCondition::Started, &[]), Met::NotYet);
    assert_eq!(condition_met(DependencyCondition::Started, std::slice::from_ref(&running)), Met::Yes);
    assert!(matches!(
        condition_met(DependencyCondition::Healthy, std::slice::from_ref(&running)),
        Met::Never(_)
    ));
    assert_eq!(condition_met(DependencyCondition::Completed, std::slice::from_ref(&running)), Met::NotYet);
    assert_eq!(condition_met(DependencyCondition::Completed, std::slice::from_ref(&ended)), Met::Yes);
    assert_eq!(condition_met(DependencyCondition::Completed, &[running, ended]), Met::NotYet);
    assert!(matches!(condition_met(DependencyCondition::Completed, &[failed]), Met::Never(_)));
}
