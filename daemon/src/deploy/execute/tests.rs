//! The executor against machines that are a log of calls.

use std::sync::Mutex;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::time::{Instant, sleep};
use uc_api::Code;
use uc_api::v1::{
    Dependency, DependencyCondition, DeployEvent, DeployFinished, DeploymentJournal, Health,
    ReplicaAction, ReplicaState, ReplicaStep, ServiceChange, ServicePlan, StepEvent, UpdateOrder,
    deploy_event,
};

use super::*;

mod together;

/// Remembers each call; refuses those whose text begins with one of `refuse`.
#[derive(Default)]
pub(super) struct Machines {
    calls: Mutex<Vec<String>>,
    refuse: Vec<&'static str>,
    /// The machine whose changes take a second; empty: all machines.
    slow: Option<&'static str>,
    takes: Option<Duration>,
    ended: Mutex<Vec<(String, Instant)>>,
    /// Of the execution.
    skip_health: bool,
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

    pub(super) fn each_change_takes_a_second() -> Self {
        Self::default().with_slow_changes()
    }

    pub(super) fn with_slow_changes(self) -> Self {
        Self {
            slow: Some(""),
            ..self
        }
    }

    /// When changes had ended.
    pub(super) fn times(&self) -> Vec<Instant> {
        self.ended
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

    async fn apply(
        &self,
        machine: &str,
        change: &ReplicaChange,
        _: &Progress,
    ) -> Result<ChangeEnded, Failure> {
        if self
            .slow
            .is_some_and(|slow| slow.is_empty() || slow == machine)
        {
            sleep(self.takes.unwrap_or(Duration::from_secs(1))).await;
        }
        self.call(shown(machine, change))?;
        self.ended
            .lock()
            .unwrap()
            .push((machine.to_owned(), Instant::now()));
        Ok(ChangeEnded::default())
    }

    async fn undo(
        &self,
        machine: &str,
        change: &ReplicaChange,
        _: &Progress,
    ) -> Result<(), Failure> {
        self.call(format!("undo {}", shown(machine, change)))
    }

    async fn pre_deploy(
        &self,
        machine: &str,
        new: &NewReplica<'_>,
        progress: &Progress,
    ) -> Result<(), Failure> {
        progress.say("migrating");
        self.call(format!(
            "pre-deploy {machine} {}-{}",
            new.spec.name, new.revision
        ))
    }

    async fn observe(&self, _: &str) -> Result<Vec<ReplicaRecord>, Failure> {
        Ok(self.replicas.lock().unwrap().clone())
    }
}

/// `new m1 web-r2`, `end m1 old` or `replace m1 old web-r2`, with what else counts.
fn shown(machine: &str, change: &ReplicaChange) -> String {
    let new = change
        .spec
        .as_ref()
        .map(|spec| format!("{}-{}", spec.name, change.revision));
    let mut text = match (&new, change.replaces.as_str()) {
        (Some(new), "") => format!("new {machine} {new}"),
        (Some(new), old) => format!("replace {machine} {old} {new}"),
        (None, old) => format!("end {machine} {old}"),
    };
    if let Some(ms) = change.monitor_ms {
        text = format!("{text} ({ms} ms)");
    }
    for (yes, word) in [
        (change.stop_first, "stop-first"),
        (change.alone, "alone"),
        (change.no_wait, "no-wait"),
    ] {
        if yes {
            text = format!("{text} {word}");
        }
    }
    text
}

pub(super) fn step(action: ReplicaAction, order: UpdateOrder, old: &str) -> ReplicaStep {
    ReplicaStep {
        action: action.into(),
        machine_id: "m1".into(),
        machine_name: "m1".into(),
        container_id: old.into(),
        order: order.into(),
        ..ReplicaStep::default()
    }
}

pub(super) fn service(name: &str, layer: u32, steps: Vec<ReplicaStep>) -> ServicePlan {
    let numbered = steps.into_iter().enumerate();
    let steps = numbered.map(|(number, step)| ReplicaStep {
        id: format!("p/{name}/{number}"),
        ..step
    });
    let steps = steps.collect();
    ServicePlan {
        project: "p".into(),
        service: name.into(),
        revision: "r2".into(),
        change: ServiceChange::Update.into(),
        steps,
        layer,
        desired: 2,
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
    /// What could not be undone.
    undone: Vec<Failure>,
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
) -> Run {
    let plan = Plan {
        services,
        ..Plan::default()
    };
    let specs = specs.into_iter().collect();
    let names = ["m1".to_owned()];
    let directory = tempfile::tempdir().unwrap();
    let content = DeploymentJournal {
        deployment_id: "d1".into(),
        ..DeploymentJournal::default()
    };
    let journal = Journal::begin_deployment(directory.path(), content)
        .await
        .unwrap();
    let execution = Execution {
        plan: &plan,
        specs: &specs,
        machines: &names,
        deployment: "d1",
        skip_health: machines.skip_health,
        journal: &journal,
    };
    let told = Events::default();
    let result = execute(machines, execution, &told).await;
    let undone = match &result {
        Err(Stopped { pause: false, .. }) => take_back(machines, execution, &told).await,
        _ => Vec::new(),
    };
    told.send(deploy_event::Event::Finished(DeployFinished::default()));
    let events = told.subscribe().collect().await;
    Run {
        result,
        undone,
        events,
    }
}

async fn run(
    machines: &Machines,
    services: Vec<ServicePlan>,
    specs: Vec<(String, ServiceSpec)>,
) -> (Result<Vec<Failure>, Stopped>, Vec<DeployEvent>) {
    let ran = run_plan(machines, services, specs).await;
    (ran.result, ran.events)
}

#[tokio::test]
async fn a_replacement_on_one_machine_is_one_change() {
    let one = |order, desired| {
        let steps = vec![step(ReplicaAction::Replace, order, "old")];
        ServicePlan {
            desired,
            ..service("web", 0, steps)
        }
    };
    for (plan, expected) in [
        (one(UpdateOrder::StartFirst, 1), "replace m1 old web-r2"),
        (
            one(UpdateOrder::StopFirst, 1),
            "replace m1 old web-r2 stop-first alone",
        ),
        (
            one(UpdateOrder::StopFirst, 3),
            "replace m1 old web-r2 stop-first",
        ),
    ] {
        let machines = Machines::default();
        let (result, _) = run(&machines, vec![plan], vec![spec("web", vec![])]).await;
        result.unwrap();
        assert_eq!(machines.calls(), [expected]);
    }
}

fn moved(order: UpdateOrder) -> ReplicaStep {
    ReplicaStep {
        old_machine_id: "m2".into(),
        ..step(ReplicaAction::Replace, order, "old")
    }
}

#[tokio::test]
async fn a_replica_that_moves_is_two_changes() {
    for (order, expected) in [
        (UpdateOrder::StartFirst, ["new m1 web-r2", "end m2 old"]),
        (
            UpdateOrder::StopFirst,
            ["end m2 old", "new m1 web-r2 stop-first"],
        ),
    ] {
        let machines = Machines::default();
        let plan = vec![service("web", 0, vec![moved(order)])];
        let (result, _) = run(&machines, plan, vec![spec("web", vec![])]).await;
        result.unwrap();
        assert_eq!(machines.calls(), expected);
    }
}

#[tokio::test]
async fn a_move_that_fails_starts_the_old_replica_again() {
    let machines = Machines::refusing(vec!["new m1"]);
    let plan = vec![service("web", 0, vec![moved(UpdateOrder::StopFirst)])];
    let ran = run_plan(&machines, plan, vec![spec("web", vec![])]).await;
    assert!(ran.result.is_err());
    let new = "new m1 web-r2 stop-first";
    assert_eq!(
        machines.calls(),
        [
            "end m2 old".to_owned(),
            new.to_owned(),
            // The step takes itself back, and then the whole deployment is undone.
            "undo end m2 old".to_owned(),
            format!("undo {new}"),
            "undo end m2 old".to_owned(),
        ]
    );
}

#[tokio::test]
async fn an_old_container_that_cannot_be_stopped_does_not_take_the_new_one_away() {
    let machines = Machines::refusing(vec!["end"]);
    let surplus = step(ReplicaAction::Remove, UpdateOrder::Unspecified, "surplus");
    let plan = vec![service(
        "web",
        0,
        vec![moved(UpdateOrder::StartFirst), surplus],
    )];
    let ran = run_plan(&machines, plan, vec![spec("web", vec![])]).await;
    let failed = ran.result.unwrap();
    assert_eq!(failed.len(), 1, "the surplus replica: {failed:?}");
    assert_eq!(
        machines.calls(),
        ["new m1 web-r2", "end m2 old", "end m1 surplus"]
    );
}

#[tokio::test]
async fn a_failed_deployment_takes_back_what_it_began_and_nothing_else() {
    let machines = Machines::refusing(vec!["replace m1 old-2"]);
    let replaced = |old| step(ReplicaAction::Replace, UpdateOrder::StartFirst, old);
    let steps = vec![replaced("old-1"), replaced("old-2"), replaced("old-3")];
    let plan = vec![service("web", 0, steps)];
    let ran = run_plan(&machines, plan, vec![spec("web", vec![])]).await;
    let failure = ran.result.unwrap_err().failure;
    assert_eq!(
        (failure.machine.as_deref(), failure.log_tail),
        (Some("m1"), vec!["boom".to_owned()])
    );
    assert_eq!(ran.undone, []);
    assert_eq!(
        machines.calls(),
        [
            "replace m1 old-1 web-r2",
            "replace m1 old-2 web-r2",
            "undo replace m1 old-1 web-r2",
            "undo replace m1 old-2 web-r2",
        ]
    );
    let failed = ran.events.iter().any(|event| {
        matches!(&event.event, Some(deploy_event::Event::Step(step))
            if step.phase() == StepPhase::Failed && step.log_tail == ["boom"])
    });
    assert!(failed, "{:?}", ran.events);
}

#[tokio::test]
async fn what_shares_a_namespace_is_taken_back_after_it_also_if_it_was_not_begun() {
    let machines = Machines::refusing(vec!["new m1 other"]);
    let replaced = |name: &str, layer| {
        let one = step(ReplicaAction::Replace, UpdateOrder::StopFirst, name);
        service(name, layer, vec![one])
    };
    let fails = step(ReplicaAction::Create, UpdateOrder::Unspecified, "");
    let plan = vec![
        replaced("vpn", 0),
        service("other", 0, vec![fails]),
        replaced("app", 1),
    ];
    let (name, mut app) = spec("app", vec![]);
    app.network_mode = "service:vpn".into();
    let specs = vec![spec("vpn", vec![]), spec("other", vec![]), (name, app)];
    let ran = run_plan(&machines, plan, specs).await;
    assert!(ran.result.is_err());
    let calls = machines.calls();
    let place = |text: &str| calls.iter().position(|call| call.starts_with(text));
    let (vpn, app) = (place("undo replace m1 vpn"), place("undo replace m1 app"));
    assert!(vpn.is_some() && vpn < app, "{calls:?}");
}

#[tokio::test]
async fn what_could_not_be_taken_back_is_said() {
    let machines = Machines::refusing(vec!["replace m1 old-2", "undo replace m1 old-1"]);
    let replaced = |old| step(ReplicaAction::Replace, UpdateOrder::StopFirst, old);
    let plan = vec![service(
        "web",
        0,
        vec![replaced("old-1"), replaced("old-2")],
    )];
    let ran = run_plan(&machines, plan, vec![spec("web", vec![])]).await;
    assert_eq!(ran.undone.len(), 1, "{:?}", ran.undone);
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
        ["end m1 in-the-way", "new m1 web-r2", "end m1 surplus"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_failure_waits_for_the_steps_beside_it() {
    let machines = Machines {
        refuse: vec!["new m1"],
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
    let ended: Vec<String> = machines
        .ended
        .lock()
        .unwrap()
        .iter()
        .map(|(machine, _)| machine.clone())
        .collect();
    assert_eq!(ended, ["m2"], "its step was dropped half-way");
}

#[tokio::test]
async fn a_later_layer_does_not_begin_after_a_failure() {
    let machines = Machines {
        refuse: vec!["new m1 db"],
        ..Machines::default()
    };
    let services = vec![service("db", 0, create()), service("web", 1, create())];
    let (result, _) = run(
        &machines,
        services,
        vec![spec("db", vec![]), spec("web", vec![])],
    )
    .await;
    assert!(result.is_err());
    assert_eq!(machines.calls(), ["new m1 db-r2", "undo new m1 db-r2"]);
}

fn create() -> Vec<ReplicaStep> {
    vec![step(ReplicaAction::Create, UpdateOrder::Unspecified, "")]
}
