//! Connections to the daemons of all members, this machine's own included: one [`Remote`] for each
//! machine, whose calls have their deadlines.
//!
//! A connection to another machine begins with a handshake in which both daemons prove their
//! machine's key ([`uc_mesh::noise`]). This machine's own daemon is called through memory, so that
//! every machine is called the same way and no socket of the host has to be trusted.

mod link;
mod remote;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::{Mutex, PoisonError};

use link::Traffic;
pub(crate) use link::{CONNECTION_WINDOW, Caller, Link, STREAM_WINDOW};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};
use uc_api::MachineId;
use uc_api::version::{CLIENT_VERSION_KEY, PROTOCOL, PROTOCOL_KEY, VERSION};
use uc_mesh::{PrivateKey, PublicKey};

pub(crate) use self::remote::{LOOK_LIMIT, PATIENT_LOOK_LIMIT, Remote};
use super::machines::Machine;
use super::view::Cluster;

/// Most open connections of one member. Its daemon has two; after a network failure, those that
/// this side does not know to be dead yet come on top.
const MAX_OF_MEMBER: usize = 16;
/// Most open connections of the holders of one join token. One machine joins with it, and has one.
const MAX_OF_TOKEN: usize = 4;

/// A channel that sends our version with each call.
pub(crate) type PeerChannel = InterceptedService<Channel, SpeaksVersion>;

/// Adds our version to each call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SpeaksVersion;

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

/// The connections of one daemon.
#[derive(Debug)]
pub(crate) struct Peers {
    own_id: MachineId,
    own_key: PrivateKey,
    /// To this daemon's own server for peers.
    own_server: mpsc::Sender<Link>,
    /// By the machine's key. A machine that leaves and joins again has another one.
    channels: Mutex<HashMap<PublicKey, Channels>>,
    /// The accepted connections that are open, each with what ends it.
    accepted: Mutex<Vec<(Caller, CancellationToken)>>,
    /// Ends all connections to this daemon's server for peers.
    end: CancellationToken,
}

/// Two connections to one machine. A stream whose reader is slow holds up its connection, so what
/// waits for users and disks has a connection of its own.
#[derive(Debug, Clone)]
struct Channels {
    calls: Channel,
    bulk: Channel,
}

impl Peers {
    /// For the machine `own_id`. Calls to it go to the server that reads from `own_server`.
    pub(crate) fn new(
        own_id: MachineId,
        own_key: PrivateKey,
        own_server: mpsc::Sender<Link>,
    ) -> Self {
        Self {
            own_id,
            own_key,
            own_server,
            channels: Mutex::default(),
            accepted: Mutex::default(),
            end: CancellationToken::new(),
        }
    }

    /// A member's daemon. It is connected on the first call, which then reports a failure.
    pub(crate) fn machine(&self, machine: &Machine) -> Remote {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let channels = channels.entry(machine.key).or_insert_with(|| {
            let channel = |traffic| {
                if machine.id == self.own_id {
                    link::in_memory(self.own_server.clone(), self.end.clone(), traffic)
                } else {
                    link::remote(self.own_key.clone(), machine.key, traffic)
                }
            };
            Channels {
                calls: channel(Traffic::Calls),
                bulk: channel(Traffic::Bulk),
            }
        });
        let speaking = |channel: &Channel| InterceptedService::new(channel.clone(), SpeaksVersion);
        Remote::new(
            machine.name.as_str(),
            speaking(&channels.calls),
            speaking(&channels.bulk),
        )
    }

    /// Completes a connection from another machine and hands it to this daemon's server for peers.
    /// Fails if the caller does not prove `key`. If the caller has too many open connections, the
    /// oldest one ends: whoever holds the key could otherwise use up this daemon's file
    /// descriptors, and a daemon that starts again is not kept out by its dead connections.
    pub(crate) async fn accept(
        &self,
        stream: TcpStream,
        key: &PublicKey,
        caller: Caller,
    ) -> io::Result<()> {
        let end = self.end.child_token();
        let link = Link::accept(stream, &self.own_key, key, caller.clone(), end.clone()).await?;
        self.count(caller, end);
        self.own_server.send(link).await.map_err(|_| {
            io::Error::new(io::ErrorKind::ConnectionRefused, "this daemon is stopping")
        })
    }

    /// Takes an accepted connection into the list, and ends the caller's oldest ones above its
    /// limit.
    fn count(&self, caller: Caller, end: CancellationToken) {
        let most = match caller {
            Caller::Own => return,
            Caller::Member { .. } => MAX_OF_MEMBER,
            Caller::Token { .. } => MAX_OF_TOKEN,
        };
        let mut accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        accepted.retain(|(_, end)| !end.is_cancelled());
        let open = accepted.iter().filter(|(of, _)| *of == caller);
        let too_many = (open.count() + 1).saturating_sub(most);
        let of_caller = accepted.iter().filter(|(of, _)| *of == caller);
        for (_, oldest) in of_caller.take(too_many) {
            oldest.cancel();
        }
        accepted.push((caller, end));
    }

    /// Ends the accepted connections whose caller is not to be served any longer.
    pub(crate) fn end_links(&self, keep: impl Fn(&Caller) -> bool) {
        let mut accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        accepted.retain(|(caller, end)| {
            let kept = !end.is_cancelled() && keep(caller);
            if !kept {
                end.cancel();
            }
            kept
        });
    }

    /// Ends all connections to this daemon's server for peers.
    pub(crate) fn close_links(&self) {
        self.end.cancel();
    }

    /// Drops the connections to machines that are no longer members.
    pub(crate) fn retain(&self, cluster: &Cluster) {
        let keys: BTreeSet<PublicKey> = cluster.machines().iter().map(|m| m.key).collect();
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels.retain(|key, _| keys.contains(key));
    }
}

/// A channel to the member with this key for the holder of a join token, whose key is `own`.
pub(crate) fn channel_with_token(own: PrivateKey, member: PublicKey) -> PeerChannel {
    InterceptedService::new(link::remote(own, member, Traffic::Calls), SpeaksVersion)
}

#[cfg(test)]
pub(crate) mod tests;
