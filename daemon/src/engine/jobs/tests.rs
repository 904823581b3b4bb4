use super::*;
use crate::engine::fake::FakeEngine;
use crate::engine::suite;

fn undecided(state: v1::ReplicaState, exit_code: Option<i32>) -> Container {
    let mut container = crate::engine::record::container(Default::default());
    container.restart_by_default = true;
    container.restart = v1::RestartPolicy::OnFailure;
    container.record.state = state.into();
    container.record.exit_code = exit_code;
    container.record.finished = exit_code == Some(0);
    container
}

#[test]
fn decide_waits_until_a_container_shows_what_it_is() {
    use v1::ReplicaState::{Created, Exited, Restarting, Running};
    let healthy = {
        let mut container = undecided(Running, None);
        container.record.set_health(v1::Health::Healthy);
        container
    };
    let decided = {
        let mut container = undecided(Running, None);
        container.restart = v1::RestartPolicy::UnlessStopped;
        container
    };
    let asked_for = {
        let mut container = undecided(Running, None);
        container.restart_by_default = false;
        container
    };
    let left = {
        let mut container = undecided(Running, None);
        container.restart = v1::RestartPolicy::Always;
        container
    };
    for (what, container, seconds, engine_was_away, expected) in [
        (
            "was undecided when a daemon stopped",
            left,
            59,
            false,
            Decision::Undecide,
        ),
        ("runs", undecided(Running, None), 59, false, Decision::Wait),
        (
            "runs long",
            undecided(Running, None),
            60,
            false,
            Decision::Server,
        ),
        ("is healthy", healthy, 0, false, Decision::Server),
        (
            "fails",
            undecided(Restarting, Some(1)),
            60,
            false,
            Decision::Wait,
        ),
        (
            "is done",
            undecided(Exited, Some(0)),
            0,
            false,
            Decision::Leave,
        ),
        (
            "ended with the engine",
            undecided(Exited, Some(0)),
            0,
            true,
            Decision::StartAgain,
        ),
        (
            "was stopped",
            undecided(Exited, Some(137)),
            0,
            false,
            Decision::Leave,
        ),
        (
            "never ran",
            undecided(Created, None),
            0,
            false,
            Decision::Leave,
        ),
        ("is decided", decided, 99, true, Decision::Leave),
        ("has its own policy", asked_for, 99, true, Decision::Leave),
    ] {
        let seen = Seen {
            running: Duration::from_secs(seconds),
            engine_was_away,
        };
        assert_eq!(decide(&container, seen), expected, "{what}");
    }
}

struct Bench {
    engine: FakeEngine,
    id: String,
    cancel: CancellationToken,
    watch: tokio::task::JoinHandle<()>,
}

async fn watched(script: &str) -> Bench {
    let engine = FakeEngine::new();
    engine.add_image(suite::IMAGE);
    let mut spec = suite::service("web", script);
    spec.restart = v1::RestartPolicy::Unspecified.into();
    let body = suite::body(&spec, "web");
    let id = engine.create("web", "", body).await.unwrap();
    engine.start(&id).await.unwrap();
    let cancel = CancellationToken::new();
    let shared: Arc<dyn Engine> = Arc::new(engine.clone());
    let watch = tokio::spawn(decide_restart(shared, id.clone(), cancel.clone()));
    Bench {
        engine,
        id,
        cancel,
        watch,
    }
}

impl Bench {
    async fn look(&self) -> Container {
        self.engine.inspect(&self.id).await.unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn server_gets_its_policy_after_a_minute() {
    let bench = watched("sleep 1000").await;
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert!(is_undecided(&bench.look().await));
    bench.watch.await.unwrap();
    let container = bench.engine.inspect(&bench.id).await.unwrap();
    assert_eq!(container.restart, v1::RestartPolicy::UnlessStopped);
}

#[tokio::test(start_paused = true)]
async fn job_runs_once() {
    let bench = watched("sleep 40; echo done").await;
    tokio::time::sleep(Duration::from_mins(5)).await;
    let container = bench.look().await;
    assert!(container.record.finished, "{container:?}");
    assert_eq!(container.record.restart_count, 0);
    bench.watch.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn job_that_fails_is_started_again_by_the_engine() {
    let bench = watched("sleep 1; exit 3").await;
    tokio::time::sleep(Duration::from_mins(2)).await;
    let container = bench.look().await;
    assert!(container.record.restart_count > 10);
    assert!(is_undecided(&container), "it never ran for a minute");
    bench.cancel.cancel();
    bench.watch.await.unwrap();
}

impl Bench {
    /// The daemon stops, and the next one takes the container over.
    async fn restart_daemon(mut self) -> Self {
        self.cancel.cancel();
        self.watch.await.unwrap();
        // It is started again with its machine.
        assert_eq!(
            self.engine.inspect(&self.id).await.unwrap().restart,
            v1::RestartPolicy::Always
        );
        self.cancel = CancellationToken::new();
        let shared: Arc<dyn Engine> = Arc::new(self.engine.clone());
        let watch = decide_restart(shared, self.id.clone(), self.cancel.clone());
        self.watch = tokio::spawn(watch);
        self
    }
}

#[tokio::test(start_paused = true)]
async fn job_runs_once_although_the_daemon_is_restarted() {
    let bench = watched("sleep 40; echo done").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let bench = bench.restart_daemon().await;
    tokio::time::sleep(Duration::from_mins(5)).await;
    let container = bench.look().await;
    assert!(container.record.finished, "{container:?}");
    assert_eq!(container.record.restart_count, 0);
}

#[tokio::test(start_paused = true)]
async fn server_gets_its_policy_although_the_daemon_is_restarted() {
    let bench = watched("sleep 1000").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let bench = bench.restart_daemon().await;
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert!(is_undecided(&bench.look().await));
    tokio::time::sleep(Duration::from_secs(15)).await;
    let container = bench.look().await;
    assert_eq!(container.restart, v1::RestartPolicy::UnlessStopped);
}

#[tokio::test(start_paused = true)]
async fn container_that_ended_with_its_engine_is_started_again() {
    let bench = watched("sleep 8").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    bench.engine.set_offline(true);
    tokio::time::sleep(Duration::from_secs(10)).await;
    bench.engine.set_offline(false);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let state = bench.look().await.record.state();
    assert_eq!(state, v1::ReplicaState::Running);
    bench.cancel.cancel();
    bench.watch.await.unwrap();
}
