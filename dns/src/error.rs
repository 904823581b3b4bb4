//! What can go wrong when the server starts. Once it runs, a failure is an answer to whoever asked.

use std::io;
use std::net::SocketAddr;

use thiserror::Error;

/// Why there is no DNS server.
#[derive(Debug, Error)]
pub enum DnsError {
    /// No address to listen on was given.
    #[error("the DNS server has no address to listen on")]
    NoAddress,
    /// An address cannot be listened on.
    #[error("cannot serve DNS on {address} ({transport}): {advice}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// `udp` or `tcp`.
        transport: &'static str,
        /// Who is to be looked for, or what is missing.
        advice: String,
        /// What the system said.
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
                    "another program has it; `ss -lnp 'sport = :{port}'` shows which (often dnsmasq, named or systemd-resolved)"
                )
            }
            io::ErrorKind::AddrNotAvailable => {
                format!(
                    "{} is not an address of this machine; `ip address` lists them",
                    address.ip()
                )
            }
            io::ErrorKind::PermissionDenied => {
                format!("port {port} needs root or the capability CAP_NET_BIND_SERVICE")
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
