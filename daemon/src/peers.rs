//! Connections to the daemons of other machines, one channel each, which tonic keeps and
//! reconnects. This machine is called through the Unix socket of its API, so that every machine is
//! called the same way.

use std::collections::HashMap;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use uc_api::layout::PEER_API_PORT;
use uc_api::v1::MachineRecord;
use uc_api::version::{CLIENT_VERSION_KEY, PROTOCOL, PROTOCOL_KEY, VERSION};
use uc_api::{Code, Failure};

/// A machine whose TCP handshake takes longer counts as unreachable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Interval and time limit of HTTP/2 pings, which detect a peer that vanished without closing its
/// connection.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// A channel that sends our version with each call.
pub(crate) type PeerChannel = InterceptedService<Channel, SpeaksVersion>;

/// Adds our version to each call.
#[derive(Debug, Clone, Copy)]
pub struct SpeaksVersion;

impl Interceptor for SpeaksVersion {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request
            .metadata_mut()
            .insert(CLIENT_VERSION_KEY, MetadataValue::from_static(VERSION));
        request
            .metadata_mut()
            .insert(PROTOCOL_KEY, MetadataValue::from(PROTOCOL));
        Ok(request)
    }
}

/// The channels of one daemon.
#[derive(Debug)]
pub struct Peers {
    own_id: String,
    own_socket: PathBuf,
    channels: Mutex<HashMap<Ipv6Addr, Channel>>,
}

impl Peers {
    /// For the machine `own_id`, whose API listens on `own_socket`.
    pub fn new(own_id: impl Into<String>, own_socket: &Path) -> Self {
        Self {
            own_id: own_id.into(),
            own_socket: own_socket.to_owned(),
            channels: Mutex::default(),
        }
    }

    /// A channel to a member. It connects on first use, and the call then reports a failure.
    pub fn channel(&self, machine: &MachineRecord) -> Result<PeerChannel, Failure> {
        if machine.id == self.own_id {
            let endpoint = endpoint(&format!("unix://{}", self.own_socket.display()))?;
            return Ok(InterceptedService::new(
                endpoint.connect_lazy(),
                SpeaksVersion,
            ));
        }
        let address = address_of(machine)?;
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(&address) {
            return Ok(InterceptedService::new(channel.clone(), SpeaksVersion));
        }
        let channel = connect(address)?;
        channels.insert(address, channel.clone());
        Ok(InterceptedService::new(channel, SpeaksVersion))
    }

    /// Drops the channels of machines that are no longer members.
    pub fn retain(&self, members: &[MachineRecord]) {
        let addresses: Vec<Ipv6Addr> = members
            .iter()
            .filter_map(|machine| address_of(machine).ok())
            .collect();
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels.retain(|address, _| addresses.contains(address));
    }
}

/// The address on which a member's daemon listens inside the mesh.
pub(crate) fn address_of(machine: &MachineRecord) -> Result<Ipv6Addr, Failure> {
    let key = machine.public_key.parse().map_err(|_| {
        Failure::new(
            Code::Internal,
            format!(
                "the record of machine {} has no WireGuard key",
                machine.name
            ),
        )
    })?;
    Ok(uc_mesh::management_address(&key))
}

/// A channel to the daemon at this management address.
pub(crate) fn connect(address: Ipv6Addr) -> Result<Channel, Failure> {
    Ok(endpoint(&format!("http://[{address}]:{PEER_API_PORT}"))?.connect_lazy())
}

fn endpoint(uri: &str) -> Result<Endpoint, Failure> {
    let endpoint = Endpoint::from_shared(uri.to_owned())
        .map_err(|error| Failure::new(Code::Internal, format!("{uri}: {error}")))?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true))
}
