//! This machine as a member of a cluster: its store, its connections and the tasks that keep mesh,
//! network, names and facts in step with the store. Starting it starts the tasks; each retries on
//! its own, so that a dead Docker or a missing tunnel takes down nothing but itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{Mutex, Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uc_api::v1::{ClusterRecord, MachineRecord};
use uc_api::{Code, Failure, MachineId};
use uc_cluster_state::membership::Liveness;
use uc_cluster_state::{MemberStatus, Options, Store, Write, WriteError};
use uc_mesh::{MeshClient, PrivateKey};

use crate::backoff::Backoff;
use crate::deploy::Running;
use crate::docker::DockerEngine;
use crate::endpoint_names::Resolved;
use crate::files::{self, Files};
use crate::identity::Membership;
use crate::mesh_sync::gateway;
use crate::node::{self, Draining, NodeService};
use crate::paths::Paths;
use crate::peers::Peers;
use crate::records::{self, View};
use crate::{
    dns_sync, endpoint_names, evict, grpc, host_network, listener, mesh_sync, observations,
};

// Waits between tries to clean up after a start: Docker may start later than this daemon.
const TIDY_FIRST: Duration = Duration::from_secs(1);
const TIDY_LIMIT: Duration = Duration::from_secs(30);
/// Most accepted connections that wait for the server.
const LINKS: usize = 16;
/// How long to wait for the tasks to end before closing the store without them.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Readiness of one part of the machine.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Stage {
    /// Not ready yet.
    #[default]
    Pending,
    /// It works.
    Ready,
    /// The last try failed. It is tried again.
    Failed(Failure),
}

/// Readiness of the parts that a machine needs.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Readiness {
    /// The tunnel has this machine's addresses.
    pub mesh: Stage,
    /// Other machines can talk to this daemon.
    pub listening: Stage,
    /// Containers have their network.
    pub network: Stage,
    /// Containers can look up names.
    pub dns: Stage,
}

impl Readiness {
    /// Whether all parts work.
    pub fn is_complete(&self) -> bool {
        self.parts()
            .iter()
            .all(|(_, stage)| **stage == Stage::Ready)
    }

    /// The first part that is not ready, with the reason.
    pub fn problem(&self) -> Option<Failure> {
        self.parts()
            .into_iter()
            .find_map(|(name, stage)| match stage {
                Stage::Ready => None,
                Stage::Pending => Some(Failure::new(
                    Code::TimedOut,
                    format!("{name} is not ready yet"),
                )),
                Stage::Failed(failure) => {
                    let message = format!("{name}: {}", failure.message);
                    Some(Failure {
                        message,
                        ..failure.clone()
                    })
                }
            })
    }

    /// The parts that are not ready, each with the reason.
    pub fn unready(&self) -> Vec<(&'static str, Failure)> {
        let parts = self.parts().into_iter();
        let unready = parts.filter_map(|(name, stage)| match stage {
            Stage::Ready => None,
            Stage::Pending => Some((name, Failure::new(Code::TimedOut, "not ready yet"))),
            Stage::Failed(failure) => Some((name, failure.clone())),
        });
        unready.collect()
    }

    fn parts(&self) -> [(&'static str, &Stage); 4] {
        [
            ("the mesh", &self.mesh),
            ("the listener for other machines", &self.listening),
            ("the container network", &self.network),
            ("DNS", &self.dns),
        ]
    }
}

/// What is needed to start a member.
#[derive(Debug)]
pub struct Parts {
    pub paths: Paths,
    pub membership: Membership,
    pub key: PrivateKey,
    pub engine: Arc<DockerEngine>,
}

/// A running member.
#[derive(Debug)]
pub struct Member {
    pub membership: Membership,
    pub paths: Paths,
    pub key: PrivateKey,
    /// The replicated records.
    pub store: Store,
    /// Connections to other daemons.
    pub(crate) peers: Peers,
    /// Controls the tunnel's process.
    pub mesh: MeshClient,
    pub engine: Arc<DockerEngine>,
    /// Acts on this machine's containers.
    pub node: NodeService,
    /// Locked while a machine is registered or renamed, so that no two get the same name or
    /// subnet.
    pub registering: Mutex<()>,
    /// Notified when another member removed this machine, which then leaves.
    pub leave: Notify,
    /// Deployments that this daemon executes.
    pub running: Arc<Running>,
    pub tasks: TaskTracker,
    /// Cancelled to end all tasks.
    pub cancel: CancellationToken,
    /// This machine's identity for its node service. It changes when the machine is renamed.
    pub identity: watch::Sender<Option<node::Identity>>,
    /// Start time in Unix milliseconds.
    pub started_at_ms: i64,
    pub readiness: watch::Sender<Readiness>,
    /// Liveness of the other machines, as membership sees it.
    pub alive: watch::Sender<BTreeMap<uc_cluster_state::MachineId, Liveness>>,
    /// Addresses of the host names among other machines' endpoints.
    pub(crate) endpoint_names: watch::Sender<Resolved>,
}

impl Member {
    /// Opens the store and starts the tasks. Fails only if the store cannot be opened.
    pub async fn start(parts: Parts) -> Result<Arc<Self>, Failure> {
        let Parts {
            paths,
            membership,
            key,
            engine,
        } = parts;
        let bad_id = |_| Failure::new(Code::Internal, "machine.json contains an invalid id");
        let machine: MachineId = membership.machine_id.parse().map_err(bad_id)?;
        let cluster: uc_api::ClusterId = membership.cluster_id.parse().map_err(bad_id)?;
        let options = Options::new(
            paths.store(),
            uc_cluster_state::ClusterId(*cluster.as_bytes()),
            uc_cluster_state::MachineId(*machine.as_bytes()),
            records::KINDS,
        );
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
        let node = NodeService::new(
            Arc::clone(&engine) as _,
            files,
            identity.subscribe(),
            Draining::new(),
            cancel.child_token(),
        );
        let (own_server, links) = mpsc::channel(LINKS);
        let member = Arc::new(Self {
            peers: Peers::new(&membership.machine_id, key.clone(), own_server),
            mesh: MeshClient::new(paths.mesh_socket()),
            membership,
            paths,
            key,
            store,
            engine,
            node,
            registering: Mutex::new(()),
            leave: Notify::new(),
            running: Arc::default(),
            tasks: TaskTracker::new(),
            cancel,
            identity,
            started_at_ms: now_ms(),
            readiness: watch::Sender::default(),
            alive: watch::Sender::default(),
            endpoint_names: watch::Sender::default(),
        });
        member.name_node();
        member.tasks.spawn(follow_name(Arc::clone(&member)));
        member.tasks.spawn(endpoint_names::run(Arc::clone(&member)));
        member.tasks.spawn(mesh_sync::run(Arc::clone(&member)));
        member
            .tasks
            .spawn(grpc::serve_peers(Arc::clone(&member), links));
        member.tasks.spawn(listener::run(Arc::clone(&member)));
        member.tasks.spawn(host_network::run(Arc::clone(&member)));
        member.tasks.spawn(dns_sync::run(Arc::clone(&member)));
        member.tasks.spawn(observations::run(Arc::clone(&member)));
        member.tasks.spawn(evict::run(Arc::clone(&member)));
        member.tasks.spawn(files::sweep::run(Arc::clone(&member)));
        member.tasks.spawn(tidy_up(Arc::clone(&member)));
        Ok(member)
    }

    /// Writes the first records of a new cluster, if the machine died before `init` did. A machine
    /// that joined has other members in its bootstrap list, and gets these records from them.
    pub async fn finish_init(&self) -> Result<(), Failure> {
        let membership = &self.membership;
        let [machine] = membership.bootstrap.as_slice() else {
            return Ok(());
        };
        if self.view().cluster().is_some() {
            return Ok(());
        }
        let cluster = ClusterRecord {
            id: membership.cluster_id.clone(),
            network: membership.network.to_string(),
            created_at_ms: machine.created_at_ms,
        };
        self.write(vec![
            records::put(records::CLUSTER, records::CLUSTER_KEY, &cluster),
            records::put(records::MACHINE, machine.id.clone(), machine),
        ])
        .await
    }

    /// Ends all tasks and closes the store cleanly. Containers and mesh keep running.
    pub async fn stop(&self) {
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

    /// A view of the current records.
    pub fn view(&self) -> View {
        View::new(self.store.snapshot())
    }

    /// Liveness by machine id (hexadecimal); this machine is Up.
    pub fn liveness(&self) -> BTreeMap<String, Liveness> {
        let mut liveness: BTreeMap<String, Liveness> = self
            .alive
            .borrow()
            .iter()
            .map(|(id, liveness)| (id.to_string(), *liveness))
            .collect();
        liveness.insert(self.membership.machine_id.clone(), Liveness::Up);
        liveness
    }

    /// The members in the store. Until the first exchange, the members known when this one joined.
    pub fn machines(&self) -> Vec<MachineRecord> {
        let view = self.view();
        let machines = view.machines();
        if view.cluster().is_some() {
            machines
        } else {
            self.membership.bootstrap.clone()
        }
    }

    /// This machine's record in the store.
    pub fn own_record(&self) -> Option<MachineRecord> {
        self.machines()
            .into_iter()
            .find(|machine| machine.id == self.membership.machine_id)
    }

    /// Updates the identity that the node service uses.
    fn name_node(&self) {
        let membership = &self.membership;
        let identity = self.own_record().and_then(|record| {
            Some(node::Identity {
                cluster: membership.cluster_id.parse().ok()?,
                machine: membership.machine_id.parse().ok()?,
                name: record.name.parse().ok()?,
                bridge: gateway(membership.subnet),
            })
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
    pub async fn write(&self, mut writes: Vec<Write>) -> Result<(), Failure> {
        // Deletes wait for all members, so a machine is declared a member together with its record.
        let declared: Vec<Write> = writes.iter().filter_map(declaration).collect();
        writes.extend(declared);
        match self.store.write(writes).await {
            Ok(_) => Ok(()),
            Err(error) => Err(write_failure(&error)),
        }
    }

    /// Unix milliseconds.
    pub fn now_ms(&self) -> i64 {
        now_ms()
    }

    /// Changes one part's stage.
    pub fn stage(&self, set: impl FnOnce(&mut Readiness)) {
        self.readiness.send_modify(set);
    }

    /// Waits until all parts work. After `limit`, returns the first part that does not.
    pub async fn wait_ready(&self, limit: Duration) -> Result<(), Failure> {
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
    let id: MachineId = key.parse().ok()?;
    Some(Write::Declare {
        machine: uc_cluster_state::MachineId(*id.as_bytes()),
        status,
    })
}

async fn follow_name(member: Arc<Member>) {
    let mut records = member.store.watch();
    loop {
        tokio::select! {
            () = member.cancel.cancelled() => return,
            changed = records.changed() => if changed.is_err() { return },
        }
        member.name_node();
    }
}

/// Removes pre-deploy containers that were left when the daemon died. Retries until Docker answers.
async fn tidy_up(member: Arc<Member>) {
    let mut backoff = Backoff::new(TIDY_FIRST, TIDY_LIMIT);
    let tidied = async {
        while let Err(error) = member.node.remove_left_pre_deploys().await {
            tracing::debug!(%error, "cannot remove leftover pre-deploy containers yet");
            tokio::time::sleep(backoff.wait(rand::random())).await;
        }
    };
    tokio::select! {
        () = member.cancel.cancelled() => {}
        () = tidied => {}
    }
}

/// Unix milliseconds.
pub fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as i64)
}

/// The failure to show for a refused write.
pub fn write_failure(error: &WriteError) -> Failure {
    match error {
        WriteError::DiskFull { .. } => {
            Failure::new(Code::Exhausted, "the disk of this machine is full, so nothing was written")
                .hint("free some space (`docker image prune` often helps) and try again; nothing was lost")
        }
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
