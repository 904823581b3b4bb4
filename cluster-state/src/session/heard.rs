//! Which machines this one hears itself: those with which a session is live and has spoken lately. Each session tells its
//! peer, which then need not pass on at once what these machines write.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::id::MachineId;

/// Sessions that hear a machine; usually one.
type Sessions = BTreeMap<MachineId, u32>;

/// Shared by the sessions of a store.
#[derive(Debug, Clone)]
pub(crate) struct Heard(Arc<watch::Sender<Sessions>>);

impl Default for Heard {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Sessions::new())))
    }
}

impl Heard {
    /// Says when the machines change.
    pub(crate) fn watch(&self) -> watch::Receiver<Sessions> {
        self.0.subscribe()
    }

    /// One session's part in it; nothing is heard yet.
    pub(crate) fn session(&self, peer: MachineId) -> Hearing {
        Hearing { heard: self.clone(), peer, on: false }
    }
}

/// Whether a session hears its peer; ends with it.
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
        let peer = self.peer;
        self.heard.0.send_if_modified(|sessions| {
            let count = sessions.entry(peer).or_default();
            let before = *count > 0;
            *count = if on { *count + 1 } else { count.saturating_sub(1) };
            let after = *count > 0;
            if !after {
                sessions.remove(&peer);
            }
            before != after
        });
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

    #[test]
    fn a_machine_is_heard_for_as_long_as_one_session_hears_it() {
        let heard = Heard::default();
        let watch = heard.watch();
        let peer = MachineId([1; 16]);
        let (mut old, mut new) = (heard.session(peer), heard.session(peer));
        old.set(true);
        new.set(true);
        new.set(true);
        drop(old);
        assert!(watch.borrow().contains_key(&peer));
        new.set(false);
        assert!(watch.borrow().is_empty());
        drop(new);
        assert!(watch.borrow().is_empty());
    }
}
