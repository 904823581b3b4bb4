//! A guard that touches no firewall, for tests of the layers above it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{Guard, GuardSpec};
use crate::firewall::FirewallError;

/// Rules in memory. Clones share their state: a test keeps one to inspect and control it.
#[derive(Debug, Clone, Default)]
pub(crate) struct FakeGuard {
    state: Arc<Mutex<FakeGuardState>>,
}

/// What the fake recorded, and what it will do.
#[derive(Debug, Default)]
pub(crate) struct FakeGuardState {
    /// What is in place; `None` without rules.
    pub(crate) spec: Option<GuardSpec>,
    /// Everything that was put in place, in order.
    pub(crate) ensured: Vec<GuardSpec>,
    /// If set, nothing can be put in place, as without ip6tables.
    pub(crate) refuse: bool,
}

impl FakeGuard {
    /// The shared state, to read or change.
    pub(crate) fn state(&self) -> MutexGuard<'_, FakeGuardState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Guard for FakeGuard {
    async fn ensure(&mut self, spec: &GuardSpec) -> Result<(), FirewallError> {
        let mut state = self.state();
        if state.refuse {
            return Err(FirewallError::MissingProgram {
                program: "ip6tables-restore",
                package: "iptables",
            });
        }
        state.spec = Some(spec.clone());
        state.ensured.push(spec.clone());
        Ok(())
    }

    async fn remove(&mut self) -> Result<(), FirewallError> {
        self.state().spec = None;
        Ok(())
    }
}
