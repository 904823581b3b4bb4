//! Changes on an engine in memory.

mod cut_short;
mod refused;

use std::time::Duration;

use uc_api::v1::{self, Health, ReplicaState, RestartPolicy, SettleRequest, SettleResponse};

use super::super::tests::{Bench, bench, bench_on};
use super::*;
use crate::engine::Engine as _;
use crate::engine::suite::service;

/// Publishes as the observer does, without its delays.
fn observe(bench: &Bench) -> tokio::task::JoinHandle<()> {
    let node = bench.node.clone();
    tokio::spawn(async move {
        loop {
            if let Ok(observed) = node.observe_now().await {
                node.marks().note_published(observed.replicas.iter());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
}

fn web(script: &str) -> v1::ServiceSpec {
    v1::ServiceSpec {
        restart: RestartPolicy::Always.into(),
        stop_grace_period_ms: Some(0),
        ..service("web", script)
    }
}

fn change(step: &str, spec: Option<v1::ServiceSpec>, replaces: &str) -> ReplicaChange {
    ReplicaChange {
        deployment_id: "d1".into(),
        step_id: step.into(),
        project: "suite".into(),
        service: "web".into(),
        spec,
        revision: "r2".into(),
        replaces: replaces.into(),
        ..ReplicaChange::default()
    }
}

type Ended = Result<ChangeEnded, Failure>;

async fn end_of(mut events: Replies<ApplyEvent>) -> Ended {
    while let Some(event) = events.next().await {
        match event.map_err(Failure::from)?.event {
            Some(apply_event::Event::Ended(ended)) => return Ok(ended),
            Some(apply_event::Event::Failed(failure)) => return Err(failure.into()),
            Some(apply_event::Event::Progress(_)) | None => {}
        }
    }
    panic!("the stream has no end");
}

impl Bench {
    async fn apply(&self, change: &ReplicaChange) -> Ended {
        end_of(self.node.apply_from(change)?).await
    }

    async fn undo(&self, change: &ReplicaChange) -> Ended {
        end_of(self.node.undo_from(change)?).await
    }

    async fn settle(&self) {
        let request = SettleRequest {
            deployment_id: "d1".into(),
            services: vec!["suite/web".into()],
        };
        assert_eq!(self.node.settle(&request).await, SettleResponse::default());
    }

    /// A replica that runs, as an earlier deployment made it.
    async fn old(&self) -> String {
        let id = self.create(web("sleep 100000")).await.unwrap();
        self.engine.start(&id).await.unwrap();
        id
    }

    /// Each container: its id, state, restart policy and what it is kept for.
    async fn containers(&self) -> Vec<(String, ReplicaState, RestartPolicy, Kept)> {
        let containers = self.engine.containers().await.unwrap();
        containers
            .into_iter()
            .map(|container| {
                let record = self.node.marks().marked(container.record);
                assert!(!record.draining || record.state() != ReplicaState::Running);
                let (state, kept) = (record.state(), record.kept());
                (record.container_id, state, container.restart, kept)
            })
            .collect()
    }

    /// Another process of the daemon on the same machine.
    async fn restarted(self) -> Self {
        self.stop_daemon();
        self.node.finish().await;
        let next = bench_on(self.engine, self.state);
        next.node.resume_changes();
        next
    }
}

const RUNNING: (ReplicaState, RestartPolicy, Kept) = (
    ReplicaState::Running,
    RestartPolicy::Always,
    Kept::Unspecified,
);
const REPLACED: (ReplicaState, RestartPolicy, Kept) =
    (ReplicaState::Exited, RestartPolicy::No, Kept::Replaced);

fn states(
    containers: &[(String, ReplicaState, RestartPolicy, Kept)],
) -> Vec<(ReplicaState, RestartPolicy, Kept)> {
    containers
        .iter()
        .map(|(_, state, restart, kept)| (*state, *restart, *kept))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn replica_without_a_healthcheck_is_starting_until_it_has_run_for_the_monitor_period() {
    let bench = bench();
    let _observer = observe(&bench);
    let old = bench.old().await;
    let change = change("s1", Some(web("sleep 100000")), &old);
    let mut applied = std::pin::pin!(bench.apply(&change));
    let mut published = Vec::new();
    loop {
        tokio::select! {
            ended = &mut applied => break ended.map(drop).unwrap(),
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
        }
        for container in bench.engine.containers().await.unwrap() {
            let record = bench.node.marks().marked(container.record);
            if record.container_id != old && record.state() == ReplicaState::Running {
                published.push(record.health());
            }
        }
    }
    published.dedup();
    assert_eq!(published, [Health::Starting, Health::None]);
}

#[tokio::test(start_paused = true)]
async fn a_replaced_container_is_kept_until_the_deployment_ends() {
    for stop_first in [false, true] {
        let bench = bench();
        let _observer = observe(&bench);
        let old = bench.old().await;
        let change = ReplicaChange {
            stop_first,
            ..change("s1", Some(web("sleep 100000")), &old)
        };
        let ended = bench.apply(&change).await.unwrap();
        let containers = bench.containers().await;
        assert_eq!(states(&containers), [REPLACED, RUNNING]);
        assert_eq!(containers[1].0, ended.container_id);
        let stages = bench.node.changes().stages("d1");
        assert_eq!(stages, [(ChangeStage::Done, change.clone())]);
        // Once more: the same end, and nothing is done.
        assert_eq!(bench.apply(&change).await.unwrap(), ended);
        assert_eq!(bench.containers().await, containers);
        bench.settle().await;
        assert_eq!(states(&bench.containers().await), [RUNNING]);
        assert!(bench.node.changes().deployments().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn undo_starts_what_was_replaced() {
    for stop_first in [false, true] {
        let bench = bench();
        let _observer = observe(&bench);
        let old = bench.old().await;
        let change = ReplicaChange {
            stop_first,
            ..change("s1", Some(web("sleep 100000")), &old)
        };
        bench.apply(&change).await.unwrap();
        bench.undo(&change).await.unwrap();
        bench.undo(&change).await.unwrap();
        let containers = bench.containers().await;
        assert_eq!(states(&containers), [RUNNING]);
        assert_eq!(containers[0].0, old);
        let again = bench.apply(&change).await.unwrap_err();
        assert!(again.message.contains("undone"), "{again}");
        bench.settle().await;
        assert_eq!(bench.containers().await, containers);
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_replica_that_fails_is_kept_for_its_logs() {
    for stop_first in [false, true] {
        let bench = bench();
        let _observer = observe(&bench);
        let old = bench.old().await;
        let mut spec = web("echo boom; exit 3");
        spec.restart = RestartPolicy::No.into();
        let change = ReplicaChange {
            stop_first,
            ..change("s1", Some(spec), &old)
        };
        let failure = bench.apply(&change).await.unwrap_err();
        assert_eq!(failure.log_tail, ["boom"], "{failure:?}");
        assert_eq!(failure.machine.as_deref(), Some("m1"));
        let failed = (ReplicaState::Exited, RestartPolicy::No, Kept::Failed);
        let containers = bench.containers().await;
        assert_eq!(states(&containers), [RUNNING, failed]);
        assert_eq!(containers[0].0, old);
        // It has been undone already.
        bench.undo(&change).await.unwrap();
        assert_eq!(bench.containers().await, containers);
        // Not even the end of its deployment removes it, but that of the next one does.
        bench.settle().await;
        let bench = bench.restarted().await;
        assert_eq!(bench.containers().await, containers);
        let next = SettleRequest {
            deployment_id: "d2".into(),
            services: vec!["suite/web".into()],
        };
        bench.node.settle(&next).await;
        assert_eq!(states(&bench.containers().await), [RUNNING]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_failed_first_deployment_printed_is_kept_until_the_next_one() {
    let bench = bench();
    let _observer = observe(&bench);
    let mut spec = web("echo boom; exit 3");
    spec.restart = RestartPolicy::No.into();
    let change = change("s1", Some(spec), "");
    bench.apply(&change).await.unwrap_err();
    bench.undo(&change).await.unwrap();
    bench.settle().await;
    let failed = (ReplicaState::Exited, RestartPolicy::No, Kept::Failed);
    assert_eq!(states(&bench.containers().await), [failed]);
    assert_eq!(bench.node.changes().failed(), std::slice::from_ref(&change));
    // A later deployment has ended without this machine.
    bench.engine.set_offline(true);
    bench.node.abandon("d1", |of| *of == change).await;
    assert_eq!(bench.node.changes().failed(), std::slice::from_ref(&change));
    bench.engine.set_offline(false);
    bench.node.abandon("d1", |of| *of == change).await;
    assert!(bench.containers().await.is_empty());
    assert!(bench.node.changes().failed().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_job_that_had_ended_does_not_run_again_when_its_update_is_taken_back() {
    let bench = bench();
    let _observer = observe(&bench);
    let mut job = web("echo done");
    job.restart = RestartPolicy::No.into();
    let old = bench.create(job.clone()).await.unwrap();
    bench.engine.start(&old).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let change = ReplicaChange {
        stop_first: true,
        ..change("s1", Some(job), &old)
    };
    bench.apply(&change).await.unwrap();
    bench.undo(&change).await.unwrap();
    let containers = bench.engine.containers().await.unwrap();
    let [left] = containers.as_slice() else {
        panic!("{containers:?}")
    };
    assert_eq!(left.record.container_id, old);
    assert_eq!(left.record.state(), ReplicaState::Exited);
}

#[tokio::test(start_paused = true)]
async fn an_undo_that_comes_early_stops_the_change_under_way() {
    let bench = bench();
    let _observer = observe(&bench);
    let old = bench.old().await;
    let change = change("s1", Some(web("sleep 100000")), &old);
    let mut applied = bench.node.apply_from(&change).unwrap();
    for _ in 0..3 {
        applied.next().await.unwrap().unwrap();
    }
    bench.undo(&change).await.unwrap();
    let containers = bench.containers().await;
    assert_eq!(states(&containers), [RUNNING]);
    assert_eq!(containers[0].0, old);
}

#[tokio::test(start_paused = true)]
async fn the_update_of_a_replica_that_is_not_healthy_can_be_undone() {
    let bench = bench();
    let _observer = observe(&bench);
    let check = v1::Healthcheck {
        test: vec!["CMD".into(), "false".into()],
        interval_ms: Some(1000),
        retries: Some(1),
        ..v1::Healthcheck::default()
    };
    let ill = v1::ServiceSpec {
        healthcheck: Some(check),
        ..web("sleep 100000")
    };
    let old = bench.create(ill).await.unwrap();
    bench.engine.start(&old).await.unwrap();
    let change = change("s1", Some(web("sleep 100000")), &old);
    bench.apply(&change).await.unwrap();
    bench.undo(&change).await.unwrap();
    let containers = bench.containers().await;
    assert_eq!(states(&containers), [RUNNING]);
    assert_eq!(containers[0].0, old);
}

#[tokio::test(start_paused = true)]
async fn a_change_waits_for_an_engine_that_is_away() {
    let bench = bench();
    let _observer = observe(&bench);
    let old = bench.old().await;
    let change = change("s1", Some(web("sleep 100000")), &old);
    bench.engine.set_offline(true);
    let applied = bench.apply(&change);
    tokio::pin!(applied);
    let early = tokio::time::timeout(Duration::from_mins(2), &mut applied).await;
    assert!(early.is_err(), "{early:?}");
    bench.engine.set_offline(false);
    applied.await.unwrap();
    assert_eq!(states(&bench.containers().await), [REPLACED, RUNNING]);
}

/// Notes when it was asked.
#[derive(Debug, Default)]
struct Asked(Mutex<Vec<(usize, bool)>>, std::sync::OnceLock<NodeService>);

#[async_trait]
impl Audience for Asked {
    async fn seen(&self) -> Vec<String> {
        let node = self.1.get().unwrap();
        let replicas = node.observe_now().await.unwrap().replicas;
        let running = replicas
            .iter()
            .filter(|replica| replica.state() == ReplicaState::Running);
        let draining = replicas.iter().any(|replica| replica.draining);
        lock(&self.0).push((running.count(), draining));
        Vec::new()
    }

    fn has_ended(&self, _deployment: &str) -> bool {
        false
    }
}

#[tokio::test(start_paused = true)]
async fn the_others_see_the_new_replica_before_the_old_one_and_the_mark_before_it_stops() {
    let bench = bench();
    let _observer = observe(&bench);
    let asked = Arc::new(Asked::default());
    asked.1.set(bench.node.clone()).unwrap();
    bench.node.set_audience(asked.clone());
    let old = bench.old().await;
    let change = change("s1", Some(web("sleep 100000")), &old);
    let began = tokio::time::Instant::now();
    bench.apply(&change).await.unwrap();
    assert_eq!(*lock(&asked.0), [(2, false), (2, true)]);
    // The monitor period, and the time for clients to learn of it.
    assert!(
        began.elapsed() >= Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
}
