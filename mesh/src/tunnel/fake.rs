//! A tunnel that moves no packets, for tests of the layers above it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::Notify;

use super::{Applied, Tunnel, TunnelError, TunnelPeer};
use crate::config::MeshConfig;
use crate::key::PublicKey;

/// A tunnel in memory. Clones share its state: a test keeps one to inspect and control it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fake {
    state: Arc<Mutex<FakeState>>,
    broken: Arc<Notify>,
}

/// What the fake recorded, and what it will report.
#[derive(Debug, Default)]
pub(crate) struct FakeState {
    /// The last configuration that was applied; `None` when closed.
    pub(crate) config: Option<MeshConfig>,
    /// Number of configurations that were applied.
    pub(crate) applied: usize,
    /// All endpoints that were set, in order.
    pub(crate) endpoints: Vec<(PublicKey, SocketAddr)>,
    /// What the fake reports about its peers.
    pub(crate) peers: BTreeMap<PublicKey, TunnelPeer>,
    /// If set, configurations are refused with this reason.
    pub(crate) refuse: Option<String>,
    pub(crate) closed: bool,
}

impl Fake {
    /// The shared state, to read or change.
    pub(crate) fn state(&self) -> MutexGuard<'_, FakeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes [`Tunnel::failed`] return.
    pub(crate) fn fail(&self) {
        self.broken.notify_one();
    }
}

#[async_trait]
impl Tunnel for Fake {
    async fn apply(&mut self, config: &MeshConfig) -> Result<Applied, TunnelError> {
        let mut state = self.state();
        if let Some(reason) = state.refuse.clone() {
            return Err(TunnelError::Other {
                action: "apply",
                reason,
            });
        }
        let same = state.config.as_ref().is_some_and(|old| {
            old.private_key == config.private_key && old.interface == config.interface
        });
        if !same {
            state.peers.clear();
        }
        let (allocation, _) = config.allocation();
        state.peers.retain(|key, _| allocation.contains_key(key));
        for (key, allowed_ips) in allocation {
            let new = TunnelPeer {
                public_key: key,
                endpoint: None,
                handshake_age: None,
                rx_bytes: 0,
                tx_bytes: 0,
                allowed_ips: Vec::new(),
            };
            state.peers.entry(key).or_insert(new).allowed_ips = allowed_ips.into_iter().collect();
        }
        state.config = Some(config.clone());
        state.applied += 1;
        Ok(if same {
            Applied::Changed
        } else {
            Applied::Opened
        })
    }

    async fn set_endpoints(
        &mut self,
        endpoints: &[(PublicKey, SocketAddr)],
    ) -> Result<(), TunnelError> {
        let mut state = self.state();
        for (key, endpoint) in endpoints {
            state.endpoints.push((*key, *endpoint));
            if let Some(peer) = state.peers.get_mut(key) {
                peer.endpoint = Some(*endpoint);
            }
        }
        Ok(())
    }

    async fn peers(&mut self) -> Result<Vec<TunnelPeer>, TunnelError> {
        Ok(self.state().peers.values().cloned().collect())
    }

    async fn failed(&mut self) -> TunnelError {
        self.broken.notified().await;
        TunnelError::Lost {
            interface: "fake".to_owned(),
        }
    }

    async fn close(&mut self) -> Result<(), TunnelError> {
        let mut state = self.state();
        state.config = None;
        state.peers.clear();
        state.closed = true;
        Ok(())
    }
}
