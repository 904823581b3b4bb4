//! Changes that are cut short after each step of their task.

use std::future::poll_fn;
use std::task::Poll;

use futures_util::FutureExt as _;

use super::*;

/// Polls a future so many times, and then drops it.
async fn polled<F: Future>(times: usize, future: F) -> Option<F::Output> {
    let mut future = Box::pin(future);
    let mut left = times;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.poll_unpin(context).map(Some)
    })
    .await
}

/// The process dies at each await of a change, or of its undo if `back`; the next one finishes it.
async fn cut_short_anywhere(stop_first: bool, back: bool) {
    let mut cut = 0;
    loop {
        let bench = bench();
        let observer = observe(&bench);
        let old = bench.old().await;
        let change = ReplicaChange {
            stop_first,
            ..change("s1", Some(web("sleep 100000")), &old)
        };
        if back {
            bench.apply(&change).await.unwrap();
        }
        let forward = ChangeStage::Forward;
        let entry = bench.node.changes.enter(&change, forward).unwrap();
        if back {
            entry.record.lock().set_stage(ChangeStage::Backward);
        }
        cut += 1;
        let work = Work::new(&bench.node, &entry);
        let whole = polled(cut, work.to_end()).await.is_some();
        observer.abort();
        let bench = bench.restarted().await;
        let _observer = observe(&bench);
        if !back {
            bench.apply(&change).await.unwrap();
            let containers = bench.containers().await;
            assert_eq!(states(&containers), [REPLACED, RUNNING], "cut {cut}");
        }
        bench.undo(&change).await.unwrap();
        let containers = bench.containers().await;
        assert_eq!(states(&containers), [RUNNING], "cut {cut}");
        assert_eq!(containers[0].0, old);
        if whole {
            break;
        }
    }
    assert!(cut > 10, "{cut}");
}

#[tokio::test(start_paused = true)]
async fn a_change_that_is_cut_short_anywhere_is_continued() {
    for stop_first in [false, true] {
        cut_short_anywhere(stop_first, false).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_undo_that_is_cut_short_anywhere_is_continued() {
    for stop_first in [false, true] {
        cut_short_anywhere(stop_first, true).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_container_that_its_change_still_needs_is_not_taken_for_late() {
    let bench = bench();
    let old = bench.old().await;
    let change = change("s1", Some(web("sleep 100000")), &old);
    let forward = ChangeStage::Forward;
    let entry = bench.node.changes.enter(&change, forward).unwrap();
    let mut cut = 0;
    while bench.containers().await.len() < 2 {
        cut += 1;
        let _cut_short = polled(cut, Work::new(&bench.node, &entry).to_end()).await;
    }
    let states = states(&bench.containers().await);
    assert_eq!(states[1].0, ReplicaState::Created);
    bench.node.remove_late_containers().await.unwrap();
    assert_eq!(bench.containers().await.len(), 2);
}
