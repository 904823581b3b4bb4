//! Who may call what. On the Unix socket the file's mode decides, and the versions must fit. Inside
//! the mesh WireGuard has proved which key a packet came from, and the management address is made
//! from the key: so the caller's address says who it is.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use tonic::service::Interceptor;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Request, Status};
use uc_api::version::{CLIENT_VERSION_KEY, PROTOCOL_KEY, check_client};
use uc_api::{Code, Failure};
use uc_mesh::management_address;

use crate::member::Member;
use crate::peers::address_of;
use crate::register::token_opens_mesh;

/// Lets a caller in whose protocol fits.
pub(super) fn versioned(request: Request<()>) -> Result<Request<()>, Status> {
    let text = |key| {
        request
            .metadata()
            .get(key)
            .and_then(|value| value.to_str().ok())
    };
    let version = text(CLIENT_VERSION_KEY)
        .unwrap_or("of unknown version")
        .to_owned();
    let protocol = text(PROTOCOL_KEY).and_then(|number| number.parse().ok());
    check_client(&version, protocol)?;
    Ok(request)
}

/// The caller's address inside the mesh.
pub(super) fn caller<T>(request: &Request<T>) -> Option<Ipv6Addr> {
    match request
        .extensions()
        .get::<TcpConnectInfo>()?
        .remote_addr()?
        .ip()
    {
        IpAddr::V6(address) => Some(address),
        IpAddr::V4(_) => None,
    }
}

/// The token whose key the caller came in with, if it is none of a member's.
pub(super) fn token_of(member: &Member, address: Ipv6Addr) -> Option<String> {
    let now = member.now_ms();
    member.view().tokens().into_iter().find_map(|token| {
        let key = token.public_key.parse().ok()?;
        (management_address(&key) == address && token_opens_mesh(&token, now)).then_some(token.id)
    })
}

/// Whether this address is a member's.
pub(super) fn is_member(member: &Member, address: Ipv6Addr) -> bool {
    member
        .machines()
        .iter()
        .any(|machine| address_of(machine).is_ok_and(|known| known == address))
}

fn refused() -> Status {
    Failure::new(Code::Refused, "the caller is not a member of this cluster").into()
}

/// Lets members in.
#[derive(Debug, Clone)]
pub(super) struct MembersOnly {
    member: Arc<Member>,
}

impl MembersOnly {
    pub(super) fn new(member: Arc<Member>) -> Self {
        Self { member }
    }
}

impl Interceptor for MembersOnly {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        match caller(&request) {
            Some(address) if is_member(&self.member, address) => Ok(request),
            _ => Err(refused()),
        }
    }
}

/// Lets members in, and machines that hold a join token.
#[derive(Debug, Clone)]
pub(super) struct MembersOrToken {
    member: Arc<Member>,
}

impl MembersOrToken {
    pub(super) fn new(member: Arc<Member>) -> Self {
        Self { member }
    }
}

impl Interceptor for MembersOrToken {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        match caller(&request) {
            Some(address)
                if is_member(&self.member, address)
                    || token_of(&self.member, address).is_some() =>
            {
                Ok(request)
            }
            _ => Err(refused()),
        }
    }
}

#[cfg(test)]
mod tests {
    use uc_api::version::PROTOCOL;

    use super::*;

    #[test]
    fn the_unix_socket_wants_a_protocol_it_speaks() {
        let with = |protocol: Option<u32>| {
            let mut request = Request::new(());
            if let Some(protocol) = protocol {
                request.metadata_mut().insert(PROTOCOL_KEY, protocol.into());
            }
            versioned(request)
        };
        assert!(with(Some(PROTOCOL)).is_ok());
        let newer = Failure::from(with(Some(PROTOCOL + 1)).unwrap_err());
        assert_eq!(newer.code, Code::Version);
        assert!(with(None).is_err());
    }
}
