//! How a machine enters a cluster: `init`, a join with the answer of a member, or a join with a
//! token through the mesh. [`crate::membership::leave`] is the way back.

use std::sync::Arc;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use tokio::time::{Instant, sleep, timeout};
use uc_api::layout::{DEFAULT_NETWORK, MESH_INTERFACE, WIREGUARD_PORT};
use uc_api::token::JoinToken;
use uc_api::v1::join_client::JoinClient;
use uc_api::v1::{
    AddMachineRequest, AddMachineResponse, ClusterRecord, InitRequest, JoinRequest,
    JoinWithTokenRequest, MachineRecord,
};
use uc_api::{ClusterId, Code, Failure, MachineId, MachineName};
use uc_mesh::endpoint::TRY_FOR;
use uc_mesh::{
    DEFAULT_MTU, MeshClient, MeshConfig, MeshError, MeshStatus, PeerConfig, PrivateKey, PublicKey,
    management_address,
};

use crate::app::{App, Joining};
use crate::clock::now_ms;
use crate::cluster::machines::free_subnet;
use crate::cluster::member::Member;
use crate::cluster::peers::channel_with_token;
use crate::endpoint_names::{self, Resolved, SystemResolver};
use crate::identity::{Identity, Membership, hostname};
use crate::membership::endpoints;
use crate::membership::leave::{leave, leave_failed_join, undo_entry};
use crate::reconcile::mesh::check_guard;

/// How long the machine may take to become ready. It downloads nothing for that, so a longer time
/// means that something is broken.
const READY_LIMIT: Duration = Duration::from_mins(1);
/// How long the first exchange with a member may take.
const FIRST_EXCHANGE_LIMIT: Duration = Duration::from_mins(1);
/// How long one member may take to answer a token, and the least time to wait for a handshake with
/// any of them.
const TOKEN_LIMIT: Duration = Duration::from_secs(30);
/// The longest time to wait for a handshake, if members have many endpoints to try.
const MAX_TOKEN_LIMIT: Duration = Duration::from_secs(90);

/// Creates a cluster of this machine alone.
pub(crate) async fn init(
    app: &App,
    request: &InitRequest,
) -> Result<(ClusterRecord, MachineRecord), Failure> {
    let machine_id = MachineId::from_bytes(rand::random()).to_string();
    let network: Ipv4Net = parse_network(&request.network)?;
    let name = machine_name(&request.name)?;
    let port = port(request.wireguard_port)?;
    let mut joining = app.begin_join(&machine_id);
    let mut identity = app.identity.lock().await;
    refuse_member(&identity)?;
    let cluster = ClusterRecord {
        id: ClusterId::from_bytes(rand::random()).to_string(),
        network: network.to_string(),
        created_at_ms: now_ms(),
    };
    let machine = MachineRecord {
        id: machine_id,
        name: name.to_string(),
        public_key: identity.public_key().map_err(internal)?.to_string(),
        subnet: free_subnet(network, &[], None)?.to_string(),
        endpoints: endpoints::candidates(
            &request.endpoints,
            &endpoints::local_addresses().await?,
            port,
        )?,
        created_at_ms: now_ms(),
        ..MachineRecord::default()
    };
    let entering = Entering {
        cluster,
        machine,
        members: Vec::new(),
        port,
    };
    let member = enter(app, &mut identity, &entering).await?;
    let written = member.finish_init().await;
    let ready = match written {
        Ok(()) => joining.unless_reset(member.wait_ready(READY_LIMIT)).await,
        Err(failure) => Err(failure),
    };
    if let Err(failure) = ready {
        leave(app, &mut identity, &member).await?;
        return Err(failure);
    }
    Ok((entering.cluster, entering.machine))
}

/// Joins with the answer of `Cluster.AddMachine` of a member.
pub(crate) async fn join(
    app: &App,
    request: JoinRequest,
) -> Result<(ClusterRecord, MachineRecord), Failure> {
    let (cluster, machine) = parts(request.cluster, request.machine)?;
    let entering = Entering {
        cluster,
        machine,
        members: request.members,
        port: port(request.wireguard_port)?,
    };
    let mut joining = app.begin_join(&entering.machine.id);
    let mut identity = app.identity.lock().await;
    refuse_member(&identity)?;
    enter_and_wait(app, &mut identity, &mut joining, entering).await
}

/// Joins through the mesh. The token's key opens the mesh, a member registers this machine, and
/// then the machine's own key replaces the token's.
///
/// The identity is locked from beginning to end, so no mesh of a member is replaced or closed here.
pub(crate) async fn join_with_token(
    app: &App,
    request: JoinWithTokenRequest,
) -> Result<(ClusterRecord, MachineRecord), Failure> {
    let machine_id = MachineId::from_bytes(rand::random()).to_string();
    let token: JoinToken = request
        .token
        .parse()
        .map_err(|error: uc_api::token::TokenError| {
            Failure::new(Code::Invalid, error.to_string())
        })?;
    if token.expires_at_ms <= now_ms() {
        return Err(Failure::new(Code::Refused, "the join token has expired")
            .hint("create a new one on a member with `uc machine token`"));
    }
    let port = port(request.wireguard_port)?;
    let mut joining = app.begin_join(&machine_id);
    let mut identity = app.identity.lock().await;
    refuse_member(&identity)?;
    let add = AddMachineRequest {
        machine_id,
        name: if request.name.is_empty() {
            hostname()
        } else {
            request.name.clone()
        },
        public_key: identity.public_key().map_err(internal)?.to_string(),
        endpoints: endpoints::candidates(
            &request.endpoints,
            &endpoints::local_addresses().await?,
            port,
        )?,
    };
    let mesh = MeshClient::new(app.paths.mesh_socket());
    let joined = async {
        let names = async { Ok(member_names(&token).await) };
        let names = joining.unless_ended(names).await?;
        // This step is not ended half-way: a request that is still on its way could reach the mesh
        // process after the one that closes the mesh.
        mesh.apply(&token_mesh(&token, &names, port)?)
            .await
            .map_err(|error| no_mesh(&error))?;
        let registered = register_by_token(&mesh, &token, &add);
        let answer = joining.unless_ended(registered).await?;
        let (cluster, machine) = parts(answer.cluster, answer.machine)?;
        let entering = Entering {
            cluster,
            machine,
            members: answer.members,
            port,
        };
        enter_and_wait(app, &mut identity, &mut joining, entering).await
    }
    .await;
    if joined.is_err() && identity.membership.is_none() {
        // The daemon's next start, and `ucd reset`, close it if this fails.
        if let Err(failure) = close_mesh(&mesh).await {
            tracing::warn!("{failure}");
        }
    }
    joined
}

fn parts(
    cluster: Option<ClusterRecord>,
    machine: Option<MachineRecord>,
) -> Result<(ClusterRecord, MachineRecord), Failure> {
    cluster.zip(machine).ok_or_else(|| {
        let reason = "the registration of this machine has no cluster or no machine";
        Failure::new(Code::Invalid, reason)
    })
}

async fn register_by_token(
    mesh: &MeshClient,
    token: &JoinToken,
    add: &AddMachineRequest,
) -> Result<AddMachineResponse, Failure> {
    let mut last = Failure::new(Code::Invalid, "the join token has no members");
    if token.members.is_empty() {
        return Err(last);
    }
    let token_key = token_key(token)?;
    let status = await_handshake(mesh, token).await?;
    for key in answering_first(token, &status) {
        let mut member = JoinClient::new(channel_with_token(token_key.clone(), key));
        let started = Instant::now();
        // The daemon behind the tunnel may be starting, so a refused connection is tried again
        // until the limit.
        while started.elapsed() < TOKEN_LIMIT {
            match timeout(TOKEN_LIMIT, member.register(add.clone())).await {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) => {
                    let failure = Failure::from(status);
                    if failure.code != Code::Unreachable {
                        return Err(failure);
                    }
                    last = failure;
                }
                Err(_) => break,
            }
            sleep(Duration::from_millis(500)).await;
        }
        last = Failure::new(
            Code::Unreachable,
            format!("no member of the cluster answers: {}", last.message),
        )
        .hint("the mesh reaches a member, but not its daemon: check `systemctl status ucd` on it");
    }
    Err(last)
}

/// Waits until one of the token's members has answered through the mesh. The mesh tries all of them
/// at the same time, so one that is off does not delay the others.
async fn await_handshake(mesh: &MeshClient, token: &JoinToken) -> Result<MeshStatus, Failure> {
    let turns = token
        .members
        .iter()
        .map(|member| member.endpoints.len())
        .max()
        .unwrap_or(0);
    let limit = TRY_FOR
        .saturating_mul(turns.try_into().unwrap_or(u32::MAX))
        .clamp(TOKEN_LIMIT, MAX_TOKEN_LIMIT);
    let started = Instant::now();
    loop {
        let status = mesh.status().await.map_err(|error| no_mesh(&error))?;
        check_guard(&status)?;
        if status
            .peers
            .iter()
            .any(|peer| peer.latest_handshake.is_some())
        {
            return Ok(status);
        }
        if started.elapsed() >= limit {
            let endpoints: Vec<&str> = token
                .members
                .iter()
                .flat_map(|member| &member.endpoints)
                .map(String::as_str)
                .collect();
            let reason = format!(
                "no member of the cluster answered within {} s",
                limit.as_secs()
            );
            return Err(Failure::new(Code::Unreachable, reason).hint(format!(
                "one of these endpoints must be reachable from this machine by UDP: {}; \
                 members do not answer a token that was removed: `uc machine token ls` lists those that exist",
                endpoints.join(", ")
            )));
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// The token's members, first those with which there was a handshake.
fn answering_first(token: &JoinToken, status: &MeshStatus) -> Vec<PublicKey> {
    let mut keys: Vec<PublicKey> = token
        .members
        .iter()
        .filter_map(|member| member.public_key.parse().ok())
        .collect();
    keys.sort_by_key(|key| {
        status
            .peer(key)
            .is_none_or(|peer| peer.latest_handshake.is_none())
    });
    keys
}

fn no_mesh(error: &MeshError) -> Failure {
    Failure::new(Code::Unreachable, format!("cannot open the mesh: {error}"))
}

/// The addresses of the names among the members' endpoints.
async fn member_names(token: &JoinToken) -> Resolved {
    let endpoints = token.members.iter().flat_map(|member| &member.endpoints);
    endpoint_names::resolve_once(&SystemResolver, endpoints.cloned()).await
}

fn token_key(token: &JoinToken) -> Result<PrivateKey, Failure> {
    let damaged = |_| Failure::new(Code::Invalid, "the join token is damaged");
    token.private_key.parse().map_err(damaged)
}

fn token_mesh(token: &JoinToken, names: &Resolved, port: u16) -> Result<MeshConfig, Failure> {
    let damaged = |()| Failure::new(Code::Invalid, "the join token is damaged");
    let private_key = token_key(token)?;
    let mut peers = Vec::new();
    for member in &token.members {
        let public_key: PublicKey = member.public_key.parse().map_err(|_| damaged(()))?;
        peers.push(PeerConfig {
            public_key,
            endpoints: names.socket_addresses(&member.endpoints),
            allowed_ips: vec![IpNet::from(std::net::IpAddr::V6(management_address(
                &public_key,
            )))],
            keepalive_s: 5,
            guest: false,
        });
    }
    Ok(empty_mesh(&private_key, port, peers))
}

fn empty_mesh(key: &PrivateKey, port: u16, peers: Vec<PeerConfig>) -> MeshConfig {
    MeshConfig {
        private_key: key.clone(),
        listen_port: port,
        interface: MESH_INTERFACE.to_owned(),
        addresses: vec![IpNet::from(std::net::IpAddr::V6(management_address(
            &key.public(),
        )))],
        mtu: DEFAULT_MTU,
        peers,
    }
}

pub(crate) async fn close_mesh(mesh: &MeshClient) -> Result<(), Failure> {
    mesh.down()
        .await
        .map_err(|error| Failure::new(Code::Unreachable, format!("cannot close the mesh: {error}")))
}

/// What a machine needs to become a member.
#[derive(Debug)]
struct Entering {
    cluster: ClusterRecord,
    /// This machine, as it was registered.
    machine: MachineRecord,
    members: Vec<MachineRecord>,
    port: u16,
}

/// Becomes a member, and waits until a member has answered.
async fn enter_and_wait(
    app: &App,
    identity: &mut Identity,
    joining: &mut Joining,
    entering: Entering,
) -> Result<(ClusterRecord, MachineRecord), Failure> {
    let own_key = identity.public_key().map_err(internal)?.to_string();
    if entering.machine.public_key != own_key {
        return Err(
            Failure::new(Code::Invalid, "the join request is for another machine")
                .hint("add the machine again: its key has changed since it was registered"),
        );
    }
    let member = enter(app, identity, &entering).await?;
    if let Err(failure) = joining.unless_reset(wait_joined(&member)).await {
        leave_failed_join(app, identity, &member).await?;
        return Err(failure);
    }
    Ok((entering.cluster, entering.machine))
}

/// Becomes a member: first on disk, then as running tasks.
async fn enter(
    app: &App,
    identity: &mut Identity,
    entering: &Entering,
) -> Result<Arc<Member>, Failure> {
    let Entering {
        cluster, machine, ..
    } = entering;
    let bad =
        |what: &str| Failure::new(Code::Invalid, format!("the {what} is not an IPv4 network"));
    let mut bootstrap = entering.members.clone();
    if !bootstrap.iter().any(|member| member.id == machine.id) {
        bootstrap.push(machine.clone());
    }
    let membership = Membership {
        cluster_id: cluster.id.clone(),
        machine_id: machine.id.clone(),
        network: cluster
            .network
            .parse()
            .map_err(|_| bad("cluster's network"))?,
        subnet: machine
            .subnet
            .parse()
            .map_err(|_| bad("machine's subnet"))?,
        wireguard_port: entering.port,
        bootstrap,
    };
    let entered = Identity {
        membership: Some(membership.clone()),
        ..identity.clone()
    };
    let key = entered.key().map_err(internal)?;
    entered
        .save(&app.paths.identity())
        .map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
    let before = std::mem::replace(identity, entered);
    match app.enter(membership, key).await {
        Ok(member) => Ok(member),
        // No member exists that could leave, so the files are put back here.
        Err(failure) => Err(match undo_entry(app, identity, before).await {
            Ok(()) => failure,
            Err(undoing) => Failure {
                message: format!("{}; {}", failure.message, undoing.message),
                ..failure
            }
            .hint("run `sudo ucd reset --yes` on the machine"),
        }),
    }
}

async fn wait_joined(member: &Member) -> Result<(), Failure> {
    member.wait_ready(READY_LIMIT).await?;
    let mut changes = member.changes();
    let known = async {
        let is_known = || {
            let cluster = member.cluster();
            cluster.record().is_some() && cluster.has_own_record()
        };
        while !is_known() && changes.next().await {}
    };
    timeout(FIRST_EXCHANGE_LIMIT, known).await.map_err(|_| {
        let endpoints: Vec<String> = member
            .membership
            .bootstrap
            .iter()
            .filter(|machine| machine.id != member.membership.machine_id)
            .flat_map(|machine| machine.endpoints.clone())
            .collect();
        Failure::new(
            Code::Unreachable,
            format!(
                "no member of the cluster was reachable within {} s",
                FIRST_EXCHANGE_LIMIT.as_secs()
            ),
        )
        .hint(format!(
            "this machine or a member must reach the other by UDP; the endpoints of the members are {}",
            endpoints.join(", ")
        ))
    })
}

fn refuse_member(identity: &Identity) -> Result<(), Failure> {
    match &identity.membership {
        None => Ok(()),
        Some(membership) => Err(Failure::new(
            Code::Exists,
            format!("this machine already belongs to cluster {}", uc_api::id::short(&membership.cluster_id)),
        )
        .hint("remove it first: `uc machine rm NAME` in that cluster, or `sudo ucd reset --yes` on the machine")),
    }
}

fn internal(reason: String) -> Failure {
    Failure::new(Code::Internal, reason)
}

fn port(port: u32) -> Result<u16, Failure> {
    match port {
        0 => Ok(WIREGUARD_PORT),
        port => u16::try_from(port).map_err(|_| {
            Failure::new(Code::Invalid, format!("invalid UDP port {port}"))
                .hint("use a port from 1 to 65535")
        }),
    }
}

fn parse_network(text: &str) -> Result<Ipv4Net, Failure> {
    let text = if text.is_empty() {
        DEFAULT_NETWORK
    } else {
        text
    };
    let network: Ipv4Net = text.parse().map_err(|_| {
        Failure::new(
            Code::Invalid,
            format!("invalid network `{text}`: it is not an IPv4 network"),
        )
        .hint("write a network such as 10.210.0.0/16")
    })?;
    if network.prefix_len() > 23 {
        return Err(Failure::new(
            Code::Invalid,
            format!("{network} is too small for a cluster"),
        )
        .hint("each machine gets a /24 of the network, so use a /16"));
    }
    Ok(network.trunc())
}

fn machine_name(wanted: &str) -> Result<MachineName, Failure> {
    if wanted.is_empty() {
        return MachineName::from_hostname(&hostname()).ok_or_else(|| {
            Failure::new(
                Code::Invalid,
                "cannot make a machine name from the host name",
            )
            .hint("choose a name with `--name`")
        });
    }
    wanted
        .parse()
        .map_err(|error: uc_api::name::NameError| Failure::new(Code::Invalid, error.to_string()))
}

#[cfg(test)]
mod tests;
