//! Why the server cannot start. Once it runs, every failure is an answer to the client.

use std::io;
use std::net::SocketAddr;

use thiserror::Error;

/// Why the DNS server cannot start.
#[derive(Debug, Error)]
pub enum DnsError {
    /// The configuration has no address to listen on.
    #[error("the DNS server has no address to listen on")]
    NoAddress,
    /// The server cannot listen on an address.
    #[error("cannot serve DNS on {address} ({transport}): {advice}")]
    Bind {
        address: SocketAddr,
        /// `udp` or `tcp`.
        transport: &'static str,
        /// The cause, and how to find the other program or get the permission.
        advice: String,
        #[source]
        source: io::Error,
    },
}

impl DnsError {
    pub(crate) fn bind(address: SocketAddr, transport: &'static str, source: io::Error) -> Self {
        let port = address.port();
        let advice = match source.kind() {
            io::ErrorKind::AddrInUse => {
                format!(
                    "another program uses the port; `ss -lnp 'sport = :{port}'` shows which one (often dnsmasq, named or systemd-resolved)"
                )
            }
            io::ErrorKind::AddrNotAvailable => {
                format!(
                    "{} is not an address of this machine; `ip address` lists them",
                    address.ip()
                )
            }
            io::ErrorKind::PermissionDenied => {
                format!("port {port} requires root or the capability CAP_NET_BIND_SERVICE")
            }
            _ => source.to_string(),
        };
        Self::Bind {
            address,
            transport,
            advice,
            source,
        }
    }
}
