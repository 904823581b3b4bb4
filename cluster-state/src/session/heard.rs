//! Which machines this one hears directly: those with a live session and a recent frame. Each
//! session reports them to its peer, which then need not relay immediately what these machines
//! write.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::id::MachineId;
use crate::wire::MAX_HEARD;

/// Shared by the sessions of a store: how many sessions hear a machine, usually one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heard(Arc<Mutex<BTreeMap<MachineId, u32>>>);

impl Heard {
    /// Returns what to report to a peer: the heard machines without the peer itself. Returns none
    /// if there are many: reports from all to all about each change would then cost more than
    /// duplicate changes.
    pub(crate) fn except(&self, peer: MachineId) -> Vec<MachineId> {
        let sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let others = sessions.keys().copied().filter(|machine| *machine != peer);
        if sessions.len() > MAX_HEARD {
            Vec::new()
        } else {
            others.collect()
        }
    }

    /// Makes the entry of one session, in which nothing is heard yet.
    pub(crate) fn session(&self, peer: MachineId) -> Hearing {
        Hearing {
            heard: self.clone(),
            peer,
            on: false,
        }
    }
}

/// Whether one session hears its peer. Ends with the session.
#[derive(Debug)]
pub(crate) struct Hearing {
    heard: Heard,
    peer: MachineId,
    on: bool,
}

impl Hearing {
    pub(crate) fn set(&mut self, on: bool) {
        if on == self.on {
            return;
        }
        self.on = on;
        let mut sessions = self.heard.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = sessions.entry(self.peer).or_default();
        *count = if on {
            *count + 1
        } else {
            count.saturating_sub(1)
        };
        if *count == 0 {
            sessions.remove(&self.peer);
        }
    }
}

impl Drop for Hearing {
    fn drop(&mut self) {
        self.set(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(n: usize) -> MachineId {
        MachineId([n as u8; 16])
    }

    #[test]
    fn heard_lists_machine_while_any_session_hears_it() {
        let heard = Heard::default();
        let (mut old, mut new) = (heard.session(machine(1)), heard.session(machine(1)));
        old.set(true);
        new.set(true);
        new.set(true);
        drop(old);
        assert_eq!(heard.except(machine(2)), [machine(1)]);
        assert_eq!(heard.except(machine(1)), []);
        new.set(false);
        assert_eq!(heard.except(machine(2)), []);
        drop(new);
        assert_eq!(heard.except(machine(2)), []);
    }

    #[test]
    fn heard_reports_nothing_about_many_machines() {
        let heard = Heard::default();
        let sessions: Vec<Hearing> = (0..=MAX_HEARD)
            .map(|n| {
                let mut session = heard.session(machine(n));
                session.set(true);
                session
            })
            .collect();
        assert_eq!(heard.except(machine(99)), []);
        drop(sessions);
    }
}
