//! The executor against machines that are a log of calls.

use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use uc_api::Code;
use uc_api::v1::{
    Dependency, DependencyCondition, DeployEvent, Health, ReplicaAction, ReplicaState, ReplicaStep,
    ServiceChange, ServicePlan, StepEvent, UpdateOrder, deploy_event,
};

use super::*;

/// Remembers each call; refuses those whose text begins with one of `refuse`.
#[derive(Default)]
pub(super) struct Machines {
    calls: Mutex<Vec<String>>,
    refuse: Vec<&'static str>,
    /// The machine whose containers take a second to start; empty: all machines.
    slow: Option<&'static str>,
    started: Mutex<Vec<(String, Instant)>>,
    replicas: Mutex<Vec<ReplicaRecord>>,
}

impl Machines {
    fn call(&self, text: String) -> Result<(), Failure> {
        let refused = self.refuse.iter().any(|prefix| text.starts_with(prefix));
        self.calls.lock().unwrap().push(text);
        if refused {
            return Err(
                Failure::new(Code::Refused, "exited with code 1").log_tail(vec!["boom".into()])
            );
        }
        Ok(())
    }

    pub(super) fn refusing(refuse: Vec<&'static str>) -> Self {
        Self {
            refuse,
            ..Self::default()
        }
    }

    pub(super) fn each_start_takes_a_second() -> Self {
        Self {
            slow: Some(""),
            ..Self::default()
        }
    }

    /// When containers had started.
    pub(super) fn times(&self) -> Vec<Instant> {
        self.started
            .lock()
            .unwrap()
            .iter()
            .map(|(_, time)| *time)
            .collect()
    }

    pub(super) fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }
}

#[async_trait]
impl Fleet for Machines {
    async fn create_volume(&self, machine: &str, volume: &VolumeSpec) -> Result<(), Failure> {
        self.call(format!("volume {machine} {}", volume.name))
    }

    async fn create(
        &self,
        machine: &str,
        new: &NewReplica<'_>,
        _: &Progress,
    ) -> Result<String, Failure> {
        let id = format!("{}-{}", new.spec.name, new.revision);
        self.call(format!("create {machine} {id}")).map(|()| id)
    }

    async fn start(&self, machine: &str, container: &str, wait: Wait) -> Result<(), Failure> {
        if self
            .slow
            .is_some_and(|slow| slow.is_empty() || slow == machine)
        {
            sleep(Duration::from_secs(1)).await;
        }
        self.call(format!("start {machine} {container}{}", shown(wait)))?;
        self.started
            .lock()
            .unwrap()
            .push((machine.to_owned(), Instant::now()));
        Ok(())
    }

    async fn pre_deploy(
        &self,
        machine: &str,
        new: &NewReplica<'_>,
        progress: &Progress,
    ) -> Result<(), Failure> {
        progress.say("migrating").await;
        self.call(format!(
            "pre-deploy {machine} {}-{}",
            new.spec.name, new.revision
        ))
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

pub(super) fn shown(wait: Wait) -> String {
    match wait {
        Wait::No => " (no wait)".to_owned(),
        Wait::Serves { monitor_ms: None } => String::new(),
        Wait::Serves {
            monitor_ms: Some(ms),
        } => format!(" ({ms} ms)"),
    }
}

pub(super) fn step(action: ReplicaAction, order: UpdateOrder, old: &str) -> ReplicaStep {
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

pub(super) fn service(name: &str, layer: u32, steps: Vec<ReplicaStep>) -> ServicePlan {
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

pub(super) fn spec(name: &str, depends_on: Vec<Dependency>) -> (String, ServiceSpec) {
    (
        name.into(),
        ServiceSpec {
            project: "p".into(),
            name: name.into(),
            depends_on,
            ..ServiceSpec::default()
        },
    )
}

/// An execution's end, and what it told.
pub(super) struct Run {
    pub(super) result: Result<Vec<Failure>, Stopped>,
    events: Vec<DeployEvent>,
}

impl Run {
    pub(super) fn steps<'a>(&'a self, id: &'a str) -> impl Iterator<Item = &'a StepEvent> {
        self.events
            .iter()
            .filter_map(move |event| match &event.event {
                Some(deploy_event::Event::Step(step)) if step.step_id == id => Some(step),
                _ => None,
            })
    }
}

pub(super) async fn run_plan(
    machines: &Machines,
    services: Vec<ServicePlan>,
    specs: Vec<(String, ServiceSpec)>,
    going_back: bool,
) -> Run {
    let plan = Plan {
        services,
        ..Plan::default()
    };
    let specs = specs.into_iter().collect();
    let (sender, mut receiver) = mpsc::channel(1000);
    let names = ["m1".to_owned()];
    let execution = Execution {
        plan: &plan,
        specs: &specs,
        machines: &names,
        deployment: "d1",
        going_back,
    };
    let result = execute(machines, execution, &Events::new(sender)).await;
    let mut events = Vec::new();
    while let Some(event) = receiver.recv().await {
        events.push(event);
    }
    Run { result, events }
}

async fn run(
    machines: &Machines,
    services: Vec<ServicePlan>,
    specs: Vec<(String, ServiceSpec)>,
) -> (Result<Vec<Failure>, Stopped>, Vec<DeployEvent>) {
    let ran = run_plan(machines, services, specs, false).await;
    (ran.result, ran.events)
}

#[tokio::test]
async fn start_first_stops_the_old_one_only_when_the_new_one_serves() {
    let machines = Machines::default();
    let steps = vec![step(ReplicaAction::Replace, UpdateOrder::StartFirst, "old")];
    let (result, _) = run(
        &machines,
        vec![service("web", 0, steps)],
        vec![spec("web", vec![])],
    )
    .await;
    result.unwrap();
    assert_eq!(
        machines.calls(),
        [
            "create m1 web-r2",
            "start m1 web-r2",
            "stop m1 old",
            "remove m1 old"
        ]
    );
}

#[tokio::test]
async fn a_new_replica_that_fails_leaves_the_old_one_untouched() {
    let machines = Machines {
        refuse: vec!["start m1 web-r2"],
        ..Machines::default()
    };
    let steps = vec![step(ReplicaAction::Replace, UpdateOrder::StartFirst, "old")];
    let (result, events) = run(
        &machines,
        vec![service("web", 0, steps)],
        vec![spec("web", vec![])],
    )
    .await;
    let failure = result.unwrap_err().failure;
    assert_eq!(
        (failure.machine.as_deref(), failure.log_tail),
        (Some("m1"), vec!["boom".to_owned()])
    );
    assert_eq!(
        machines.calls(),
        [
            "create m1 web-r2",
            "start m1 web-r2",
            "stop m1 web-r2",
            "remove m1 web-r2"
        ]
    );
    let failed = events.iter().any(|event| {
        matches!(&event.event, Some(deploy_event::Event::Step(step))
            if step.phase() == StepPhase::Failed && step.log_tail == ["boom"])
    });
    assert!(failed, "{events:?}");
}

#[tokio::test]
async fn stop_first_starts_the_old_one_again_when_the_new_one_fails() {
    let machines = Machines {
        refuse: vec!["start m1 web-r2"],
        ..Machines::default()
    };
    let steps = vec![step(ReplicaAction::Replace, UpdateOrder::StopFirst, "old")];
    let (result, _) = run(
        &machines,
        vec![service("web", 0, steps)],
        vec![spec("web", vec![])],
    )
    .await;
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
    let machines = Machines {
        refuse: vec!["start m1"],
        ..Machines::default()
    };
    let steps = vec![step(ReplicaAction::Replace, UpdateOrder::StopFirst, "old")];
    let (result, _) = run(
        &machines,
        vec![service("web", 0, steps)],
        vec![spec("web", vec![])],
    )
    .await;
    let failure = result.unwrap_err().failure;
    assert!(
        failure
            .message
            .contains("old container could not be started again"),
        "{failure}"
    );
}

#[tokio::test]
async fn steps_run_in_the_plans_order() {
    let machines = Machines::default();
    let steps = vec![
        step(
            ReplicaAction::Remove,
            UpdateOrder::Unspecified,
            "in-the-way",
        ),
        step(ReplicaAction::Create, UpdateOrder::Unspecified, ""),
        step(ReplicaAction::Remove, UpdateOrder::Unspecified, "surplus"),
    ];
    let (result, _) = run(
        &machines,
        vec![service("web", 0, steps)],
        vec![spec("web", vec![])],
    )
    .await;
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
    let machines = Machines {
        refuse: vec!["create m1"],
        slow: Some("m2"),
        ..Machines::default()
    };
    let beside = ReplicaStep {
        machine_id: "m2".into(),
        machine_name: "m2".into(),
        ..step(ReplicaAction::Create, UpdateOrder::Unspecified, "")
    };
    let steps = vec![
        step(ReplicaAction::Create, UpdateOrder::Unspecified, ""),
        beside,
    ];
    let (result, _) = run(
        &machines,
        vec![service("web", 0, steps)],
        vec![spec("web", vec![])],
    )
    .await;
    assert_eq!(result.unwrap_err().failure.machine.as_deref(), Some("m1"));
    let started: Vec<String> = machines
        .started
        .lock()
        .unwrap()
        .iter()
        .map(|(machine, _)| machine.clone())
        .collect();
    assert_eq!(started, ["m2"], "its step was dropped half-way");
}

#[tokio::test]
async fn a_later_layer_does_not_begin_after_a_failure() {
    let machines = Machines {
        refuse: vec!["create m1 db"],
        ..Machines::default()
    };
    let create = || vec![step(ReplicaAction::Create, UpdateOrder::Unspecified, "")];
    let services = vec![service("db", 0, create()), service("web", 1, create())];
    let (result, _) = run(
        &machines,
        services,
        vec![spec("db", vec![]), spec("web", vec![])],
    )
    .await;
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
    let running = run(
        &machines,
        vec![service("web", 1, create)],
        vec![spec("web", vec![depends])],
    );
    tokio::pin!(running);
    let early = tokio::time::timeout(Duration::from_secs(30), &mut running).await;
    assert!(early.is_err() && machines.calls().is_empty());
    *machines.replicas.lock().unwrap() = vec![record(Health::Healthy)];
    running.await.0.unwrap();
    assert_eq!(machines.calls(), ["create m1 web-r2", "start m1 web-r2"]);
}
