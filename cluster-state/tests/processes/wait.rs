//! Waits for conditions, with a deadline and a readable failure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::cluster::Cluster;
use crate::protocol::{Command, Index, Judgement, Reply, Summary, Visible};

/// Longer than anything here takes on a busy machine. Only a failure waits that long.
const PATIENCE: Duration = Duration::from_mins(4);
/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(100);
/// Maximum number of differences that a failure lists.
const LISTED: usize = 12;

impl Cluster {
    /// Looks repeatedly until `check` has no objection. Fails with the last objection.
    pub(crate) fn until(
        &mut self,
        what: &str,
        mut check: impl FnMut(&mut Self) -> Result<(), String>,
    ) {
        let deadline = Instant::now() + PATIENCE;
        while let Err(objection) = check(self) {
            assert!(
                Instant::now() < deadline,
                "waited in vain until {what}: {objection}"
            );
            std::thread::sleep(PAUSE);
        }
    }

    /// Waits until these nodes have the same content and the same version vectors.
    pub(crate) fn converge(&mut self, nodes: &[Index]) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let summaries = self.summaries(nodes);
            let mut different = summaries.values().skip(1).zip(summaries.values());
            let same = different.all(|(one, other)| one == other);
            if same && summaries.values().all(|summary| summary.hidden == 0) {
                return;
            }
            if Instant::now() >= deadline {
                let dumps = self.dump(nodes);
                panic!(
                    "nodes do not converge:\n{}",
                    differences(&summaries, &dumps).join("\n")
                );
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn summaries(&mut self, nodes: &[Index]) -> BTreeMap<Index, Summary> {
        let summary = |(index, reply)| match reply {
            Reply::Summary(summary) => (index, summary),
            other => panic!("node {index} answers a summary with {other:?}"),
        };
        self.ask_all(nodes, |_| Command::Summary)
            .into_iter()
            .map(summary)
            .collect()
    }

    /// Fails unless each of these keys has this one value, without a sibling, on each of these
    /// nodes.
    pub(crate) fn expect_values(&mut self, nodes: &[Index], expected: &BTreeMap<String, String>) {
        for (index, visible) in self.dump(nodes) {
            let wrong: Vec<String> = expected
                .iter()
                .filter_map(|(key, value)| {
                    let here = visible.intents.get(key);
                    let values: Vec<_> = here
                        .into_iter()
                        .flatten()
                        .map(|value| value.value.as_deref())
                        .collect();
                    (values != [Some(&**value)])
                        .then(|| format!("{key}: {value} expected, {values:?} found"))
                })
                .collect();
            let listed = &wrong[..wrong.len().min(LISTED)];
            assert!(
                wrong.is_empty(),
                "node {index}, {} records are wrong:\n{}",
                wrong.len(),
                listed.join("\n")
            );
        }
    }

    /// Waits until none of these nodes keeps a tombstone: all have acknowledged all.
    pub(crate) fn collected(&mut self, nodes: &[Index]) {
        self.until("all deletes are collected", |cluster| {
            let replies = cluster.ask_all(nodes, |_| Command::Tombstones);
            let kept = |reply: &Reply| !matches!(reply, Reply::Tombstones(0));
            if replies.values().any(kept) {
                Err(format!("{replies:?}"))
            } else {
                Ok(())
            }
        });
    }

    /// Waits until each of `judges` has this view of each of `judged` (except itself).
    pub(crate) fn judged(&mut self, judges: &[Index], judged: &[Index], wanted: Judgement) {
        let started = Instant::now();
        self.until(&format!("nodes {judged:?} are {wanted:?}"), |cluster| {
            let mut objections = Vec::new();
            for (judge, reply) in cluster.ask_all(judges, |_| Command::Liveness) {
                let Reply::Liveness { now, .. } = reply else {
                    return Err(format!("node {judge} answers liveness with {reply:?}"));
                };
                for peer in judged.iter().filter(|peer| **peer != judge) {
                    if now.get(peer) != Some(&wanted) {
                        objections.push(format!(
                            "node {judge} considers node {peer} {:?}",
                            now.get(peer)
                        ));
                    }
                }
            }
            objections.truncate(LISTED);
            if objections.is_empty() {
                Ok(())
            } else {
                Err(objections.join("; "))
            }
        });
        eprintln!(
            "nodes {judged:?} are {wanted:?} after {:?}",
            started.elapsed()
        );
    }

    /// Returns each node's views of the others since the last `forget`.
    pub(crate) fn seen(
        &mut self,
        judges: &[Index],
    ) -> BTreeMap<Index, BTreeMap<Index, BTreeSet<Judgement>>> {
        let seen = |(index, reply)| match reply {
            Reply::Liveness { seen, .. } => (index, seen),
            other => panic!("node {index} answers liveness with {other:?}"),
        };
        self.ask_all(judges, |_| Command::Liveness)
            .into_iter()
            .map(seen)
            .collect()
    }

    pub(crate) fn forget(&mut self, judges: &[Index]) {
        self.ask_all(judges, |_| Command::Forget);
    }
}

/// Returns which node lacks what another one has.
fn differences(
    summaries: &BTreeMap<Index, Summary>,
    dumps: &BTreeMap<Index, Visible>,
) -> Vec<String> {
    let mut watermarks: BTreeMap<&str, u64> = BTreeMap::new();
    let mut union = Visible::default();
    for summary in summaries.values() {
        for (actor, version) in &summary.vector {
            let watermark = watermarks.entry(actor).or_default();
            *watermark = (*watermark).max(*version);
        }
    }
    for visible in dumps.values() {
        for (key, values) in &visible.intents {
            union
                .intents
                .entry(key.clone())
                .or_insert_with(|| values.clone());
        }
        for (key, value) in &visible.observations {
            union
                .observations
                .entry(key.clone())
                .or_insert_with(|| value.clone());
        }
    }
    let mut all = Vec::new();
    for (index, summary) in summaries {
        let mut found = Vec::new();
        for (actor, highest) in &watermarks {
            let here = summary.vector.get(*actor).copied().unwrap_or(0);
            if here < *highest {
                found.push(format!(
                    "node {index} has {actor} up to {here} of {highest}"
                ));
            }
        }
        if summary.hidden > 0 {
            found.push(format!("node {index} hides {} records", summary.hidden));
        }
        if summaries
            .values()
            .any(|other| other.digest != summary.digest)
        {
            found.push(format!(
                "node {index} has digest {:02x?}",
                &summary.digest[..4]
            ));
        }
        let visible = dumps.get(index).cloned().unwrap_or_default();
        for (key, values) in &union.intents {
            if visible.intents.get(key) != Some(values) {
                found.push(format!(
                    "node {index} has {:?} for {key}, another node {values:?}",
                    visible.intents.get(key)
                ));
            }
        }
        for (key, value) in &union.observations {
            if visible.observations.get(key) != Some(value) {
                let here = visible.observations.get(key);
                found.push(format!(
                    "node {index} has {here:?} for observation {key}, another node {value:?}"
                ));
            }
        }
        let more = found.len().saturating_sub(LISTED);
        found.truncate(LISTED);
        all.append(&mut found);
        if more > 0 {
            all.push(format!("node {index}: {more} more"));
        }
    }
    all
}
