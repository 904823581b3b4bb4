//! Eviction of machines that have been down for too long. The others then forget deletes without
//! waiting for such a machine, and its observations are not shown. When it returns, its store
//! fetches what it missed and keeps what only it had (see `docs/replication.md`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use uc_cluster_state::membership::Liveness;
use uc_cluster_state::{MachineId, MemberStatus, Write};

use crate::cluster::member::Member;

/// How long a machine has to be Down without a break. A weekend without power is not enough.
const EVICT_AFTER: Duration = Duration::from_secs(72 * 3_600);
/// How often this is checked.
const LOOK: Duration = Duration::from_secs(60);

/// Since when this machine has seen others as Down without a break. A restart of the daemon starts
/// from scratch.
#[derive(Debug, Default)]
struct Silence {
    since: BTreeMap<MachineId, Instant>,
}

impl Silence {
    /// The machines that have been Down for at least `limit`.
    fn look(
        &mut self,
        alive: &BTreeMap<MachineId, Liveness>,
        now: Instant,
        limit: Duration,
    ) -> Vec<MachineId> {
        self.since
            .retain(|machine, _| alive.get(machine) == Some(&Liveness::Down));
        for (machine, _) in alive
            .iter()
            .filter(|(_, liveness)| **liveness == Liveness::Down)
        {
            self.since.entry(*machine).or_insert(now);
        }
        let silent = self
            .since
            .iter()
            .filter(|(_, since)| now.duration_since(**since) >= limit);
        silent.map(|(machine, _)| *machine).collect()
    }
}

/// Evicts machines until the daemon stops.
pub(crate) async fn run(member: Arc<Member>) {
    let mut silence = Silence::default();
    loop {
        tokio::select! {
            () = member.cancel.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        let alive = Arc::clone(&member.alive.borrow());
        let silent = silence.look(&alive, Instant::now(), EVICT_AFTER);
        let members = member.store.snapshot().members();
        for machine in silent {
            if !members.contains(&(machine, MemberStatus::Member)) {
                continue;
            }
            tracing::warn!(%machine, hours = EVICT_AFTER.as_secs() / 3_600, "evicting a machine that was down for too long");
            let evicted = Write::Declare {
                machine,
                status: MemberStatus::Evicted,
            };
            if let Err(failure) = member.write(vec![evicted]).await {
                tracing::warn!(%machine, %failure, "cannot record the eviction of the machine");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn look_counts_only_silence_without_a_break() {
        let (a, b) = (MachineId([1; 16]), MachineId([2; 16]));
        let hour = Duration::from_secs(3_600);
        let start = Instant::now();
        let mut silence = Silence::default();
        let down = BTreeMap::from([(a, Liveness::Down), (b, Liveness::Down)]);
        let b_back = BTreeMap::from([(a, Liveness::Down), (b, Liveness::Up)]);
        assert!(silence.look(&down, start, 72 * hour).is_empty());
        assert!(
            silence
                .look(&b_back, start + 50 * hour, 72 * hour)
                .is_empty()
        );
        assert_eq!(silence.look(&down, start + 72 * hour, 72 * hour), [a]);
        assert_eq!(silence.look(&down, start + 143 * hour, 72 * hour), [a]);
        assert_eq!(silence.look(&down, start + 144 * hour, 72 * hour), [a, b]);
    }
}
