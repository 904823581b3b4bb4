//! This machine as a member of a cluster: its store, its connections, and what its tasks share.

use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;
use tokio::sync::{Mutex, Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uc_api::v1::ClusterRecord;
use uc_api::{Code, Failure, MachineId};
use uc_cluster_state::{MemberStatus, Options, Store, Watch, Write, WriteError};
use uc_mesh::{MeshClient, PrivateKey};

use super::executing::Executing;
use super::machines::{Own, canonical_id};
use super::peers::{Link, Peers, Remote};
use super::readiness::Readiness;
use super::records;
use super::view::{Alive, Cluster, View};
use crate::clock::now_ms;
use crate::endpoint_names::Resolved;
use crate::engine::DockerEngine;
use crate::files::Files;
use crate::identity::Membership;
use crate::network::gateway;
use crate::node::{self, Marks, NodeService};
use crate::paths::Paths;

/// Most accepted connections that wait for the server.
const LINKS: usize = 16;
/// How long to wait for the tasks to end before closing the store without them.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// What is needed to open a member.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) paths: Paths,
    pub(crate) membership: Membership,
    pub(crate) key: PrivateKey,
    pub(crate) engine: Arc<DockerEngine>,
}

/// A member. Its tasks are started by [`crate::reconcile::start`].
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) membership: Membership,
    pub(crate) id: MachineId,
    pub(crate) paths: Paths,
    pub(crate) key: PrivateKey,
    /// The replicated records.
    pub(crate) store: Store,
    view: View,
    /// Connections to other daemons.
    pub(crate) peers: Peers,
    /// Controls the tunnel's process.
    pub(crate) mesh: MeshClient,
    pub(crate) engine: Arc<DockerEngine>,
    /// Acts on this machine's containers.
    pub(crate) node: NodeService,
    /// Locked while a machine is registered or renamed, so that no two get the same name or
    /// subnet.
    pub(crate) registering: Mutex<()>,
    /// Notified when another member removed this machine, which then leaves.
    pub(crate) leave: Notify,
    /// The subnet that this machine has to take: its record has another one than its identity.
    pub(crate) new_subnet: watch::Sender<Option<Ipv4Net>>,
    /// Deployments that this daemon executes, for those who watch or cancel them.
    pub(crate) executing: Arc<Executing>,
    pub(crate) tasks: TaskTracker,
    /// Cancelled to end all tasks.
    pub(crate) cancel: CancellationToken,
    /// This machine's identity for its node service. It changes when the machine is renamed.
    pub(crate) identity: watch::Sender<Option<node::Identity>>,
    /// Start time in Unix milliseconds.
    pub(crate) started_at_ms: i64,
    pub(crate) readiness: watch::Sender<Readiness>,
    /// Liveness of the other machines, as membership sees it.
    pub(crate) alive: watch::Sender<Arc<Alive>>,
    /// Addresses of the host names among other machines' endpoints.
    pub(crate) endpoint_names: watch::Sender<Resolved>,
}

/// Notifies of what tasks of a member wait for.
#[derive(Debug)]
pub(crate) struct Changes {
    cancel: CancellationToken,
    records: Watch,
    alive: watch::Receiver<Arc<Alive>>,
}

impl Changes {
    /// Waits for a change of records or liveness. False when the member stops.
    pub(crate) async fn next(&mut self) -> bool {
        tokio::select! {
            () = self.cancel.cancelled() => false,
            changed = self.records.changed() => changed.is_ok(),
            changed = self.alive.changed() => changed.is_ok(),
        }
    }

    /// As [`next`](Self::next), but also returns true after `limit`.
    pub(crate) async fn next_within(&mut self, limit: Duration) -> bool {
        tokio::time::timeout(limit, self.next())
            .await
            .unwrap_or(true)
    }
}

impl Member {
    /// Opens the store. Connections to this machine's server for daemons arrive on the receiver.
    pub(crate) async fn open(parts: Parts) -> Result<(Arc<Self>, mpsc::Receiver<Link>), Failure> {
        let Parts {
            paths,
            membership,
            key,
            engine,
        } = parts;
        let bad_id = |_| Failure::new(Code::Internal, "machine.json contains an invalid id");
        let id: MachineId = membership.machine_id.parse().map_err(bad_id)?;
        let cluster = membership.cluster_id.parse().map_err(bad_id)?;
        let options = Options::new(paths.store(), cluster, id, records::KINDS);
        let store = Store::open(options).await.map_err(|error| {
            Failure::new(
                Code::Internal,
                format!("cannot open the store {}: {error}", paths.store().display()),
            )
        })?;
        let cancel = CancellationToken::new();
        let identity = watch::Sender::new(None);
        let files = Files::new(paths.files());
        files.clear_incoming().await?;
        let marks = Marks::default();
        let saved = node::NodeState::open(&paths, &marks)?;
        let node = NodeService::new(
            Arc::clone(&engine) as _,
            files,
            identity.subscribe(),
            marks,
            saved,
            cancel.child_token(),
        );
        let own = Own {
            id,
            key: key.public(),
            network: membership.network,
            prefix_length: membership.subnet.prefix_len(),
        };
        let (own_server, links) = mpsc::channel(LINKS);
        let member = Arc::new(Self {
            peers: Peers::new(id, key.clone(), own_server),
            mesh: MeshClient::new(paths.mesh_socket()),
            view: View::new(&store, own, membership.bootstrap.clone()),
            membership,
            id,
            paths,
            key,
            store,
            engine,
            node,
            registering: Mutex::new(()),
            leave: Notify::new(),
            new_subnet: watch::Sender::default(),
            executing: Arc::default(),
            tasks: TaskTracker::new(),
            cancel,
            identity,
            started_at_ms: now_ms(),
            readiness: watch::Sender::default(),
            alive: watch::Sender::default(),
            endpoint_names: watch::Sender::default(),
        });
        member.name_node();
        Ok((member, links))
    }

    /// Writes the first records of a new cluster, if the machine died before `init` did, or if it
    /// is alone and has lost its store. A machine of several members has the others in its list of
    /// members, and gets these records from them. A cluster record that cannot be read is written
    /// again.
    pub(crate) async fn finish_init(&self) -> Result<(), Failure> {
        let membership = &self.membership;
        let [machine] = membership.bootstrap.as_slice() else {
            return Ok(());
        };
        if self.cluster().record().is_some() {
            return Ok(());
        }
        let cluster = ClusterRecord {
            id: membership.cluster_id.clone(),
            network: membership.network.to_string(),
            created_at_ms: machine.created_at_ms,
        };
        let mut writes = vec![records::put(
            records::CLUSTER,
            records::CLUSTER_KEY,
            &cluster,
        )];
        // The bootstrap list is older than any record in the store.
        if self
            .store
            .snapshot()
            .intents(records::MACHINE)
            .next()
            .is_none()
        {
            writes.push(records::put(records::MACHINE, machine.id.clone(), machine));
        }
        self.write(writes).await
    }

    /// Ends all tasks and closes the store cleanly. Containers and mesh keep running.
    pub(crate) async fn stop(&self) {
        self.cancel.cancel();
        self.tasks.close();
        if tokio::time::timeout(STOP_LIMIT, self.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!("some tasks did not end within {} s", STOP_LIMIT.as_secs());
        }
        self.node.finish().await;
        if let Err(error) = self.store.clone().close().await {
            tracing::warn!(%error, "the store was not closed cleanly; the next start begins a new incarnation");
        }
    }

    /// The cluster as it is now, with all writes that have returned.
    pub(crate) fn cluster(&self) -> Arc<Cluster> {
        self.view.now(&self.alive.borrow())
    }

    /// The subnet that this machine has to take, because its record has another one than its
    /// identity. A record from before the store was lost, or of a copy of the store, says nothing.
    pub(crate) fn wanted_subnet(&self) -> Option<Ipv4Net> {
        let cluster = self.cluster();
        if !cluster.has_own_record() || self.store.snapshot().is_rejoining() {
            return None;
        }
        let subnet = cluster.own().and_then(|own| own.subnet);
        subnet.filter(|subnet| *subnet != self.membership.subnet)
    }

    /// Notifies of changes from now on.
    pub(crate) fn changes(&self) -> Changes {
        Changes {
            cancel: self.cancel.clone(),
            records: self.store.watch(),
            alive: self.alive.subscribe(),
        }
    }

    /// The daemon of a machine by name, id or unique beginning of an id.
    pub(crate) fn remote(&self, machine: &str) -> Result<Remote, Failure> {
        Ok(self.peers.machine(self.cluster().machine(machine)?))
    }

    /// The name of this machine; its id while it has no record.
    pub(crate) fn own_name(&self) -> String {
        let cluster = self.cluster();
        let name = cluster.own().map(|own| own.name.to_string());
        name.unwrap_or_else(|| self.id.to_string())
    }

    /// Updates the identity that the node service uses.
    pub(crate) fn name_node(&self) {
        let cluster = self.membership.cluster_id.parse();
        let cluster = cluster.expect("checked when the member was opened");
        let identity = self.cluster().own().map(|machine| node::Identity {
            cluster,
            machine: self.id,
            name: machine.name.clone(),
            bridge: gateway(self.membership.subnet),
        });
        self.identity.send_if_modified(|known| {
            let changed = identity.is_some() && *known != identity;
            if changed {
                *known = identity;
            }
            changed
        });
    }

    /// Commits the writes. They are on the disk when this returns.
    pub(crate) async fn write(&self, mut writes: Vec<Write>) -> Result<(), Failure> {
        // Deletes wait for all members, so a machine is declared a member together with its record.
        let declared: Vec<Write> = writes.iter().filter_map(declaration).collect();
        writes.extend(declared);
        match self.store.write(writes).await {
            Ok(_) => Ok(()),
            Err(error) => Err(write_failure(&error)),
        }
    }

    /// Waits until all parts work. After `limit`, returns the first part that does not.
    pub(crate) async fn wait_ready(&self, limit: Duration) -> Result<(), Failure> {
        let mut readiness = self.readiness.subscribe();
        let ready = tokio::time::timeout(limit, readiness.wait_for(Readiness::is_complete)).await;
        match ready {
            Ok(Ok(_)) => Ok(()),
            _ => Err(self
                .readiness
                .borrow()
                .problem()
                .unwrap_or_else(|| Failure::new(Code::Internal, "the machine is stopping"))),
        }
    }
}

/// The membership that goes with a write of a machine's record; `None` for other writes.
fn declaration(write: &Write) -> Option<Write> {
    let (key, status) = match write {
        Write::Put {
            kind: records::MACHINE,
            key,
            ..
        } => (key, MemberStatus::Member),
        Write::Delete {
            kind: records::MACHINE,
            key,
        } => (key, MemberStatus::Left),
        _ => return None,
    };
    let machine = canonical_id(key)?;
    Some(Write::Declare { machine, status })
}

/// The failure to show when nothing could be written because the disk is full.
pub(crate) fn disk_full() -> Failure {
    let message = "the disk of this machine is full, so nothing was written";
    Failure::new(Code::Exhausted, message)
        .hint("free some space (`docker image prune` often helps) and try again; nothing was lost")
}

/// The failure to show for a refused write.
pub(crate) fn write_failure(error: &WriteError) -> Failure {
    match error {
        WriteError::DiskFull { .. } => disk_full(),
        WriteError::Changed { key, .. } => {
            Failure::new(Code::Refused, format!("{key} has changed in the meantime, so nothing was settled"))
                .hint("see the current conflicts with `uc conflicts ls`")
        }
        WriteError::Twin { .. } => Failure::new(Code::Exhausted, error.to_string()).hint(
            "two daemons run with copies of one data directory: stop one, reset it, and add it again with `uc machine add`",
        ),
        other => Failure::new(Code::Internal, format!("cannot write to the store: {other}")),
    }
}
