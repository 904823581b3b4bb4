//! Update policies and commands of before, against machines that are a log of calls.

use tokio::time::Instant;
use uc_api::v1::{ReplicaStep, UpdateOrder, UpdatePolicy};

use super::super::tests::{Machines, Run, run_plan, service, spec, step};
use super::*;

/// `count` replicas that are replaced, each on a machine of its own: m0, m1, …
fn replaced(count: usize) -> Vec<ReplicaStep> {
    (0..count)
        .map(|number| ReplicaStep {
            machine_id: format!("m{number}"),
            machine_name: format!("m{number}"),
            ..step(
                ReplicaAction::Replace,
                UpdateOrder::StartFirst,
                &format!("old-{number}"),
            )
        })
        .collect()
}

fn with_update(update: UpdatePolicy) -> (String, ServiceSpec) {
    let (name, web) = spec("web", vec![]);
    (
        name,
        ServiceSpec {
            update: Some(update),
            ..web
        },
    )
}

/// When each replica was started, in seconds.
async fn started(count: usize, update: UpdatePolicy) -> Vec<u64> {
    let machines = Machines::each_change_takes_a_second();
    let begun = Instant::now();
    let plan = vec![service("web", 0, replaced(count))];
    let ran = run_plan(&machines, plan, vec![with_update(update)]).await;
    assert_eq!(ran.result, Ok(Vec::new()));
    machines
        .times()
        .into_iter()
        .map(|time| time.duration_since(begun).as_secs())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn so_many_replicas_are_replaced_at_a_time() {
    let at_a_time = |parallelism| UpdatePolicy {
        parallelism,
        ..UpdatePolicy::default()
    };
    assert_eq!(started(5, at_a_time(None)).await, [1, 2, 3, 4, 5]);
    assert_eq!(started(5, at_a_time(Some(2))).await, [1, 1, 2, 2, 3]);
    assert_eq!(started(5, at_a_time(Some(0))).await, [1, 1, 1, 1, 1]);
    assert_eq!(started(5, at_a_time(Some(9))).await, [1, 1, 1, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn groups_have_a_pause_between_them() {
    let update = UpdatePolicy {
        parallelism: Some(2),
        delay_ms: 10_000,
        ..UpdatePolicy::default()
    };
    assert_eq!(started(5, update).await, [1, 1, 12, 12, 23]);
}

#[tokio::test(start_paused = true)]
async fn new_replicas_beside_do_not_wait() {
    let machines = Machines::each_change_takes_a_second();
    let mut steps: Vec<ReplicaStep> = replaced(4);
    for step in &mut steps[..2] {
        *step = ReplicaStep {
            container_id: String::new(),
            ..step.clone()
        };
        step.set_action(ReplicaAction::Create);
    }
    let begun = Instant::now();
    let update = UpdatePolicy {
        delay_ms: 5_000,
        ..UpdatePolicy::default()
    };
    let plan = vec![service("web", 0, steps)];
    run_plan(&machines, plan, vec![with_update(update)])
        .await
        .result
        .unwrap();
    let times: Vec<u64> = machines
        .times()
        .into_iter()
        .map(|time| time.duration_since(begun).as_secs())
        .collect();
    assert_eq!(times, [1, 1, 2, 8]);
}

#[tokio::test]
async fn a_new_replica_is_watched_as_long_as_the_policy_says() {
    for (monitor_ms, expected) in [
        (None, ""),
        (Some(0), " (0 ms)"),
        (Some(7_500), " (7500 ms)"),
    ] {
        let machines = Machines::default();
        let update = UpdatePolicy {
            monitor_ms,
            ..UpdatePolicy::default()
        };
        let plan = vec![service("web", 0, replaced(1))];
        run_plan(&machines, plan, vec![with_update(update)])
            .await
            .result
            .unwrap();
        let expected = format!("replace m0 old-0 web-r2{expected}");
        assert_eq!(machines.calls(), [expected]);
    }
}

/// Five replicas one after another, of which those on m1 and m3 fail; and what was called.
async fn failing(update: UpdatePolicy) -> (Run, Vec<String>) {
    let refuse = vec!["replace m1", "replace m3"];
    let machines = Machines::refusing(refuse);
    let plan = vec![
        service("web", 0, replaced(5)),
        service(
            "last",
            1,
            vec![step(ReplicaAction::Create, UpdateOrder::Unspecified, "")],
        ),
    ];
    let ran = run_plan(
        &machines,
        plan,
        vec![with_update(update), spec("last", vec![])],
    )
    .await;
    (ran, machines.calls())
}

fn action(action: FailureAction, max_failure_ratio: f64) -> UpdatePolicy {
    UpdatePolicy {
        failure_action: action.into(),
        max_failure_ratio,
        ..UpdatePolicy::default()
    }
}

#[tokio::test]
async fn a_failure_ends_the_update_as_the_policy_says() {
    for (policy, pause) in [
        (FailureAction::Unspecified, false),
        (FailureAction::Rollback, false),
        (FailureAction::Pause, true),
    ] {
        let (ran, calls) = failing(action(policy, 0.0)).await;
        let stopped = ran.result.unwrap_err();
        assert_eq!(
            (stopped.pause, stopped.failure.machine.as_deref()),
            (pause, Some("m1")),
            "{policy:?}"
        );
        let (forward, back) = calls.split_at(2);
        assert_eq!(
            forward,
            ["replace m0 old-0 web-r2", "replace m1 old-1 web-r2"],
            "the others stay as they were"
        );
        let undone = if pause { 0 } else { 2 };
        assert_eq!(back.len(), undone, "{back:?}");
    }
}

#[tokio::test]
async fn with_continue_the_others_are_replaced_all_the_same() {
    let (ran, calls) = failing(action(FailureAction::Continue, 0.0)).await;
    let failed: Vec<_> = ran
        .result
        .unwrap()
        .into_iter()
        .filter_map(|failure| failure.machine)
        .collect();
    assert_eq!(failed, ["m1", "m3"]);
    assert_eq!(
        calls,
        [
            "replace m0 old-0 web-r2",
            "replace m1 old-1 web-r2",
            "replace m2 old-2 web-r2",
            "replace m3 old-3 web-r2",
            "replace m4 old-4 web-r2",
            "new m1 last-r2"
        ],
        "those that failed take themselves back, and later services come"
    );
}

#[tokio::test]
async fn so_large_a_share_may_fail() {
    // One of five is a fifth, two are two fifths.
    for (ratio, failed) in [
        (0.19, Err(1)),
        (0.2, Err(3)),
        (0.39, Err(3)),
        (0.4, Ok(2)),
        (1.0, Ok(2)),
    ] {
        let (ran, _) = failing(action(FailureAction::Pause, ratio)).await;
        match (failed, ran.result) {
            (Ok(count), Ok(failures)) => assert_eq!(failures.len(), count, "{ratio}"),
            (Err(at), Err(stopped)) => {
                assert_eq!(stopped.failure.machine, Some(format!("m{at}")), "{ratio}");
                assert!(stopped.pause);
            }
            (expected, found) => panic!("{ratio}: {expected:?} and {found:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_wants_all_taken_back_is_not_overruled() {
    // Both are under way when the first one fails.
    let machines = Machines::refusing(vec!["replace m0"]).with_slow_changes();
    let named = |name: &str, failure_action: FailureAction| {
        let (name, one) = spec(name, vec![]);
        (
            name,
            ServiceSpec {
                update: Some(action(failure_action, 0.0)),
                ..one
            },
        )
    };
    for (first, second, pause) in [
        (FailureAction::Pause, FailureAction::Rollback, false),
        (FailureAction::Rollback, FailureAction::Pause, false),
        (FailureAction::Pause, FailureAction::Pause, true),
        (FailureAction::Pause, FailureAction::Continue, true),
    ] {
        let plan = vec![service("a", 0, replaced(1)), service("b", 0, replaced(1))];
        let specs = vec![named("a", first), named("b", second)];
        let ran = run_plan(&machines, plan, specs).await;
        assert_eq!(ran.result.unwrap_err().pause, pause, "{first:?} {second:?}");
    }
}

fn with_command(mut plan: ServicePlan) -> ServicePlan {
    plan.pre_deploy = Some(PreDeployStep {
        id: "p/web/pre-deploy".into(),
        machine_id: "m0".into(),
        machine_name: "m0".into(),
        command: vec!["migrate".into()],
    });
    plan
}

#[tokio::test]
async fn a_command_of_before_runs_before_anything_changes() {
    let machines = Machines::default();
    let plan = vec![with_command(service("web", 0, replaced(2)))];
    let ran = run_plan(&machines, plan, vec![spec("web", vec![])]).await;
    ran.result.clone().unwrap();
    assert_eq!(
        machines.calls()[..2],
        ["pre-deploy m0 web-r2", "replace m0 old-0 web-r2"]
    );
    let said: Vec<_> = ran
        .steps("p/web/pre-deploy")
        .map(|step| (step.phase(), step.message.clone()))
        .collect();
    assert_eq!(
        said,
        [
            (StepPhase::Started, "running".to_owned()),
            (StepPhase::Progress, "migrating".to_owned()),
            (StepPhase::Done, String::new()),
        ]
    );
}

#[tokio::test]
async fn a_command_of_before_that_fails_leaves_everything_as_it_was() {
    for (policy, pause) in [
        (FailureAction::Rollback, false),
        (FailureAction::Pause, true),
        // Without its migration no replica of the service can be new.
        (FailureAction::Continue, false),
    ] {
        let machines = Machines::refusing(vec!["pre-deploy"]);
        let plan = vec![with_command(service("web", 0, replaced(2)))];
        let ran = run_plan(&machines, plan, vec![with_update(action(policy, 1.0))]).await;
        let stopped = ran.result.clone().unwrap_err();
        assert_eq!(
            (stopped.pause, stopped.failure.machine.as_deref()),
            (pause, Some("m0"))
        );
        assert_eq!(stopped.failure.log_tail, ["boom"]);
        assert_eq!(machines.calls(), ["pre-deploy m0 web-r2"]);
        assert_eq!(
            ran.steps("p/web/pre-deploy").last().unwrap().phase(),
            StepPhase::Failed
        );
    }
}
