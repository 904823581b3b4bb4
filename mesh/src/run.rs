//! The mesh process: `ucd mesh`.
//!
//! One loop owns the tunnel and the firewall rules that protect it. Every second it checks which
//! endpoints work. Every 30 s it applies its configuration again, which repairs what other programs
//! removed. In between it answers requests on the control socket.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::config::MeshConfig;
use crate::control::{self, Call, Request, Response};
use crate::endpoint::{EndpointChooser, Observation};
use crate::error::MeshError;
use crate::guard::{Guard, GuardSpec};
use crate::key::PublicKey;
use crate::status::{MeshStatus, PeerStatus};
use crate::store::Store;
use crate::tunnel::{Applied, Tunnel, TunnelPeer};

/// How often endpoints are checked.
const STEP: Duration = Duration::from_secs(1);

/// How often the configuration is applied again.
const REPAIR: Duration = Duration::from_secs(30);

/// Least time between two writes of the endpoints that work.
const REMEMBER: Duration = Duration::from_secs(10);

/// Most requests that wait for the loop: as many as there can be connections.
const WAITING_CALLS: usize = 16;

/// The files of the mesh process.
#[derive(Debug, Clone)]
pub struct MeshPaths {
    /// The configuration, written only by this process. Endpoints that worked are kept in a file
    /// beside it.
    pub config: PathBuf,
    pub socket: PathBuf,
}

/// Runs the mesh process until `cancel`, then removes the interface and returns. The firewall rules
/// are kept for the next start; only [`Request::Down`] removes them.
///
/// A configuration on disk is restored first, and from then on the control socket answers. If the
/// tunnel can no longer work, for example because its interface was removed, this returns an error.
/// When the process is started again, it restores everything.
pub async fn run<T: Tunnel, G: Guard>(
    paths: MeshPaths,
    tunnel: T,
    guard: G,
    cancel: CancellationToken,
) -> Result<(), MeshError> {
    let listener = control::listen(&paths.socket).await?;
    let (calls, called) = mpsc::channel(WAITING_CALLS);
    let mut tasks = JoinSet::new();
    let stop = CancellationToken::new();
    let _stop_on_return = stop.clone().drop_guard();
    tasks.spawn(control::serve(listener, calls, stop.clone()));

    let mut mesh = Mesh::new(Store::new(paths.config), tunnel, guard).await;
    let result = mesh.serve(called, cancel).await;
    // Include the handshakes and moves of the last second.
    if let Err(error) = mesh.step().await {
        tracing::debug!(%error, "cannot check the endpoints a last time");
    }
    mesh.remember().await;
    let closed = mesh.tunnel.close().await;
    if let Err(error) = tokio::fs::remove_file(&paths.socket).await {
        tracing::debug!(%error, "cannot remove the control socket");
    }
    stop.cancel();
    while tasks.join_next().await.is_some() {}
    result.and(closed.map_err(MeshError::from))
}

struct Mesh<T, G> {
    store: Store,
    tunnel: T,
    guard: G,
    /// The rules in place, as far as this process knows.
    guarded: Option<GuardSpec>,
    config: Option<MeshConfig>,
    /// The configuration on disk.
    saved: Option<MeshConfig>,
    chooser: EndpointChooser,
    /// The moment from which the chooser counts time.
    origin: Instant,
    /// The endpoints on disk.
    remembered: BTreeMap<PublicKey, SocketAddr>,
    remembered_at: Instant,
}

impl<T: Tunnel, G: Guard> Mesh<T, G> {
    async fn new(store: Store, tunnel: T, guard: G) -> Self {
        let remembered = store.load_endpoints().await;
        let origin = Instant::now();
        Self {
            store,
            tunnel,
            guard,
            guarded: None,
            config: None,
            saved: None,
            chooser: EndpointChooser::default(),
            origin,
            remembered,
            remembered_at: origin,
        }
    }

    async fn serve(
        &mut self,
        mut calls: mpsc::Receiver<Call>,
        cancel: CancellationToken,
    ) -> Result<(), MeshError> {
        self.restore().await?;
        let mut step = tokio::time::interval(STEP);
        step.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut repair = tokio::time::interval_at(Instant::now() + REPAIR, REPAIR);
        repair.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                error = self.tunnel.failed() => return Err(error.into()),
                Some((request, answer)) = calls.recv() => {
                    let response = self.answer(request).await.unwrap_or_else(|error| {
                        tracing::warn!(%error, "request failed");
                        Response::Error(error.to_string())
                    });
                    // The client may have hung up. The request was carried out anyway.
                    let _ = answer.send(response);
                }
                _ = step.tick() => self.step().await?,
                _ = repair.tick() => self.repair().await,
            }
        }
    }

    /// Restores the configuration on disk. A damaged one is renamed: the daemon of a member has all
    /// of it, and applies it at least every 30 s.
    async fn restore(&mut self) -> Result<(), MeshError> {
        let config = match self.store.load().await {
            Ok(config) => config,
            Err(error @ MeshError::Damaged { .. }) => {
                tracing::error!(%error, "starting without a configuration");
                self.store.put_aside().await?;
                None
            }
            Err(error) => return Err(error),
        };
        if let Some(config) = config {
            self.saved = Some(config.clone());
            self.apply(config).await?;
            tracing::info!("configuration restored");
        }
        Ok(())
    }

    async fn answer(&mut self, request: Request) -> Result<Response, MeshError> {
        match request {
            Request::Apply(config) => {
                config.validate()?;
                self.apply(*config).await?;
                if self.saved != self.config
                    && let Some(config) = &self.config
                {
                    self.store.save(config).await?;
                    self.saved.clone_from(&self.config);
                }
                Ok(Response::Applied)
            }
            Request::Down => {
                self.down().await?;
                Ok(Response::Down)
            }
            Request::Status => Ok(Response::Status(self.status().await?)),
        }
    }

    /// Removes the mesh. The files are removed first, so that a process that dies half-way restores
    /// nothing.
    async fn down(&mut self) -> Result<(), MeshError> {
        self.store.forget().await?;
        self.config = None;
        self.saved = None;
        self.chooser = EndpointChooser::default();
        self.remembered.clear();
        self.tunnel.close().await?;
        self.guarded = None;
        self.guard.remove().await?;
        tracing::info!("mesh removed");
        Ok(())
    }

    /// Changes the firewall and the tunnel to the configuration, then chooses endpoints
    /// immediately, so that a new peer does not wait for the next step.
    async fn apply(&mut self, config: MeshConfig) -> Result<(), MeshError> {
        let guard = GuardSpec::of(&config);
        // Until the tunnel has changed, the previous address and guests still exist.
        let meanwhile = match &self.config {
            Some(previous) => guard.clone().and(&GuardSpec::of(previous)),
            None => guard.clone(),
        };
        if let Err(error) = self.protect(meanwhile).await {
            self.remove_peers(&config).await;
            return Err(error);
        }
        let applied = match self.tunnel.apply(&config).await {
            Ok(applied) => applied,
            Err(error) => {
                self.roll_back().await;
                return Err(error.into());
            }
        };
        if let Err(error) = self.protect(guard).await {
            tracing::warn!(%error, "cannot remove firewall rules that are no longer needed");
        }
        for conflict in config.allocation().1 {
            tracing::warn!("{conflict}");
        }
        if applied == Applied::Opened {
            self.chooser.reopened();
        }
        let now = self.origin.elapsed();
        self.chooser.configure(now, &config.peers, &self.remembered);
        self.config = Some(config);
        self.step().await
    }

    /// Applies what the configuration takes away, and nothing that it adds: a machine or a token
    /// that was removed must lose its access although the firewall cannot be changed.
    async fn remove_peers(&mut self, config: &MeshConfig) {
        let Some(previous) = &self.config else { return };
        let Some(reduced) = previous.reduced_to(config) else {
            return;
        };
        match self.tunnel.apply(&reduced).await {
            Ok(_) => {
                let now = self.origin.elapsed();
                self.chooser
                    .configure(now, &reduced.peers, &self.remembered);
                self.config = Some(reduced);
            }
            Err(error) => tracing::error!(%error, "cannot remove peers from the tunnel"),
        }
    }

    /// Puts the firewall rules in place, unless they are.
    async fn protect(&mut self, spec: GuardSpec) -> Result<(), MeshError> {
        if self.guarded.as_ref() != Some(&spec) {
            self.guarded = None;
            self.guard.ensure(&spec).await?;
            self.guarded = Some(spec);
        }
        Ok(())
    }

    /// Applies the previous configuration again: one that failed may have been applied in part.
    async fn roll_back(&mut self) {
        let Some(config) = &self.config else { return };
        match self.tunnel.apply(config).await {
            Ok(Applied::Opened) => self.chooser.reopened(),
            Ok(Applied::Changed) => {}
            Err(error) => tracing::error!(%error, "cannot restore the previous configuration"),
        }
    }

    async fn repair(&mut self) {
        // Another program can have removed the rules.
        self.guarded = None;
        if let Some(config) = self.config.clone()
            && let Err(error) = self.apply(config).await
        {
            tracing::warn!(%error, "cannot apply the mesh configuration again");
        }
    }

    async fn step(&mut self) -> Result<(), MeshError> {
        let observed = observations(&self.tunnel.peers().await?);
        let now = self.origin.elapsed();
        let changes = self.chooser.step(now, &observed);
        if !changes.is_empty() {
            for (peer, endpoint) in &changes {
                tracing::debug!(peer = %peer.short(), %endpoint, "trying an endpoint");
            }
            self.tunnel.set_endpoints(&changes).await?;
        }
        if self.remembered_at.elapsed() >= REMEMBER {
            self.remember().await;
        }
        Ok(())
    }

    /// Writes the endpoints that work to disk if they differ from those there. A peer that is down
    /// keeps its entry: its last known address is the best guess.
    async fn remember(&mut self) {
        self.remembered_at = Instant::now();
        let Some(config) = &self.config else { return };
        let mut endpoints = self.remembered.clone();
        endpoints.extend(self.chooser.working(self.origin.elapsed()));
        endpoints.retain(|key, _| config.peers.iter().any(|peer| peer.public_key == *key));
        if endpoints != self.remembered {
            self.store.save_endpoints(&endpoints).await;
            self.remembered = endpoints;
        }
    }

    async fn status(&mut self) -> Result<MeshStatus, MeshError> {
        let Some(config) = &self.config else {
            return Ok(MeshStatus::unconfigured());
        };
        let mut peers = self.tunnel.peers().await?;
        let now = self.origin.elapsed();
        self.chooser.observe(now, &observations(&peers));
        peers.sort_by_key(|peer| peer.public_key);
        Ok(MeshStatus {
            interface: config.interface.clone(),
            public_key: Some(config.private_key.public()),
            listen_port: config.listen_port,
            peers: peers
                .into_iter()
                .map(|peer| self.peer_status(now, peer))
                .collect(),
            conflicts: config.allocation().1,
            guarded: self.guarded == Some(GuardSpec::of(config)),
        })
    }

    fn peer_status(&self, now: Duration, peer: TunnelPeer) -> PeerStatus {
        PeerStatus {
            public_key: peer.public_key,
            endpoint: peer.endpoint,
            latest_handshake: peer.handshake_age.map(|age| age.as_millis() as u64),
            rx_bytes: peer.rx_bytes,
            tx_bytes: peer.tx_bytes,
            allowed_ips: peer.allowed_ips,
            reach: self.chooser.reach(now, &peer.public_key),
        }
    }
}

fn observations(peers: &[TunnelPeer]) -> BTreeMap<PublicKey, Observation> {
    let observation = |peer: &TunnelPeer| Observation {
        endpoint: peer.endpoint,
        handshake_age: peer.handshake_age,
    };
    peers
        .iter()
        .map(|peer| (peer.public_key, observation(peer)))
        .collect()
}

#[cfg(test)]
mod tests;
