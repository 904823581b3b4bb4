//! Changes that are not carried out, and what comes too late.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_container_that_is_created_after_its_undo_looked_is_removed() {
    let bench = bench();
    let _observer = observe(&bench);
    let old = bench.old().await;
    let change = change("s1", Some(web("sleep 100000")), &old);
    bench.engine.set_create_delay(Duration::from_mins(1));
    let _applied = bench.node.apply_from(&change).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    bench.undo(&change).await.unwrap();
    assert_eq!(states(&bench.containers().await), [RUNNING]);
    // The engine finishes what it began.
    tokio::time::sleep(Duration::from_mins(2)).await;
    assert_eq!(bench.containers().await.len(), 2);
    bench.node.remove_late_containers().await.unwrap();
    let containers = bench.containers().await;
    assert_eq!(states(&containers), [RUNNING]);
    assert_eq!(containers[0].0, old);
    bench.settle().await;
    assert_eq!(bench.containers().await, containers);
}

/// Knows whether all deployments have ended.
#[derive(Debug, Default)]
struct Ended(AtomicBool);

#[async_trait]
impl Audience for Ended {
    async fn seen(&self) -> Vec<String> {
        Vec::new()
    }

    fn has_ended(&self, _deployment: &str) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_whose_deployment_has_ended_without_it_is_not_carried_out() {
    let bench = bench();
    let _observer = observe(&bench);
    let ended = Arc::new(Ended::default());
    bench.node.set_audience(ended.clone());
    let old = bench.old().await;
    let before = bench.containers().await;
    // It is under way when its deployment ends: nothing waits for it.
    let late = change("s1", Some(web("sleep 100000")), &old);
    drop(bench.node.apply_from(&late).unwrap());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.containers().await.len(), 2);
    ended.0.store(true, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_mins(2)).await;
    assert_eq!(bench.containers().await, before);
    let stages = bench.node.changes().stages("d1");
    assert_eq!(stages, [(ChangeStage::Undone, late)]);
    // It arrives after that.
    let later = change("s2", Some(web("sleep 100000")), &old);
    let refused = bench.apply(&later).await.unwrap_err();
    assert!(refused.message.contains("has ended"), "{refused}");
    assert_eq!(bench.containers().await, before);
}

#[tokio::test(start_paused = true)]
async fn a_change_is_refused_while_another_deployment_has_its_project() {
    let bench = bench();
    let old = bench.old().await;
    let change = change("s1", Some(web("sleep 100000")), &old);
    let mut lease = v1::LeaseRequest {
        projects: vec![change.project.clone()],
        deployment_id: "d2".into(),
        ttl_ms: 60_000,
        ..v1::LeaseRequest::default()
    };
    let now = tokio::time::Instant::now();
    // One that still asks does not count.
    bench.node.leases().lease(&lease, now).unwrap();
    bench.node.refuse_foreign(&change).unwrap();
    lease.confirmed = true;
    bench.node.leases().lease(&lease, now).unwrap();
    let refused = [bench.apply(&change).await, bench.undo(&change).await];
    for refused in refused {
        let failure = refused.unwrap_err();
        assert_eq!(failure.code, Code::Refused);
        assert!(
            failure.message.contains("deployment d2 has project"),
            "{failure}"
        );
    }
    assert_eq!(states(&bench.containers().await), [RUNNING]);
    assert!(bench.node.changes().deployments().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_ends_with_code_0_does_not_replace_a_server() {
    for stop_first in [false, true] {
        let bench = bench();
        let _observer = observe(&bench);
        let by_default = |script: &str| {
            let mut spec = web(script);
            spec.restart = RestartPolicy::Unspecified.into();
            spec
        };
        let old = bench.create(by_default("sleep 100000")).await.unwrap();
        bench.engine.start(&old).await.unwrap();
        let server = RestartPolicy::UnlessStopped;
        bench.engine.set_restart(&old, server, 0).await.unwrap();
        let change = ReplicaChange {
            stop_first,
            ..change("s1", Some(by_default("true")), &old)
        };
        let failure = bench.apply(&change).await.unwrap_err();
        assert!(failure.message.contains("is a server"), "{failure}");
        let serving = (ReplicaState::Running, server, Kept::Unspecified);
        assert_eq!(states(&bench.containers().await), [serving]);
    }
}
