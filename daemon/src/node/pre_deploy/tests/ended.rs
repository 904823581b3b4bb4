//! Which exit code counts: many programs exit with code 0 when the engine or the machine ends them.

use super::*;

/// A command that was begun, and that nobody waits for.
async fn begin(bench: &Bench, script: &str) {
    let request = request("d1", spec(script));
    let mut events = bench.node.run_pre_deploy_from(request).unwrap();
    events.next().await.unwrap().unwrap();
}

/// The next process of the daemon.
async fn restart(bench: Bench) -> Bench {
    bench.stop_daemon();
    bench.node.finish().await;
    let bench = bench_on(bench.engine, bench.state);
    bench.node.take_over_pre_deploys(|_| true).await.unwrap();
    bench
}

async fn assert_interrupted(bench: &Bench, script: &str) {
    let failure = run(bench, "d1", spec(script)).await.unwrap_err();
    assert_eq!(failure.code, Code::Refused);
    let wanted = "ended in the middle of the pre-deploy command";
    assert!(failure.message.contains(wanted), "{failure}");
}

const LONG: &str = "echo up; sleep 1000";

#[tokio::test(start_paused = true)]
async fn pre_deploy_that_the_engine_ended_fails_although_it_exits_with_zero() {
    let bench = bench();
    begin(&bench, LONG).await;
    bench.engine.stop_engine(0);
    let away = run(&bench, "d1", spec(LONG)).await.unwrap_err();
    assert_eq!(away.code, Code::Unreachable);
    bench.engine.set_offline(false);
    assert_interrupted(&bench, LONG).await;
}

#[tokio::test(start_paused = true)]
async fn pre_deploy_that_ended_with_the_machine_fails() {
    let bench = bench();
    begin(&bench, LONG).await;
    bench.stop_daemon();
    bench.node.finish().await;
    bench.engine.stop_engine(0);
    bench.engine.set_offline(false);
    let bench = restart(bench).await;
    assert_interrupted(&bench, LONG).await;
}

#[tokio::test(start_paused = true)]
async fn pre_deploy_that_ended_on_its_own_is_known_to_the_next_daemon() {
    let bench = bench();
    let script = "echo one; sleep 5";
    begin(&bench, script).await;
    // No caller sees the end.
    sleep(Duration::from_secs(10)).await;
    let bench = restart(bench).await;
    for _ in 0..2 {
        let said = run(&bench, "d1", spec(script)).await.unwrap();
        assert_eq!(said, ["|one", "exit 0"]);
    }
    let directory = bench.state.path().join("pre-deploys");
    let files = || std::fs::read_dir(&directory).unwrap().count();
    assert_eq!(files(), 1);
    settle(&bench, "d1").await;
    assert_eq!(files(), 0);
}

#[tokio::test(start_paused = true)]
async fn pre_deploy_continues_while_the_engine_does_not_answer() {
    let bench = bench();
    let script = "echo one; sleep 60";
    begin(&bench, script).await;
    bench.engine.set_offline(true);
    sleep(Duration::from_secs(10)).await;
    bench.engine.set_offline(false);
    let said = run(&bench, "d1", spec(script)).await.unwrap();
    assert_eq!(said, ["|one", "exit 0"]);
}
