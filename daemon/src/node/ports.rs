//! Checks that the host ports of a new replica are free. This happens before the pull, so that the
//! user gets the answer immediately.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::net::{TcpSocket, UdpSocket};
use uc_api::{Code, Failure, v1};

use crate::engine::PortHolder;

/// Refuses a spec whose published ports are taken. Of a range, one free port is enough. A port that
/// another replica of the same service holds is allowed, because that replica is perhaps about to
/// be replaced; the start finds out.
pub(super) async fn check_ports(
    spec: &v1::ServiceSpec,
    holders: &[PortHolder],
) -> Result<(), Failure> {
    // A container in another container's network publishes no ports.
    let published = spec
        .ports
        .iter()
        .filter(|port| port.published_port != 0 && spec.network_mode.is_empty());
    for port in published {
        let mut refused = None;
        let mut possible = false;
        for one in ports_of_range(port) {
            let found = match holder_of(&one, holders) {
                Some(holder) if holder.project == spec.project && holder.service == spec.name => {
                    Ok(())
                }
                Some(holder) => Err(port_taken(&one, holder)),
                None => probe(&one).await,
            };
            match found {
                Ok(()) => {
                    possible = true;
                    break;
                }
                Err(failure) => refused = refused.or(Some(failure)),
            }
        }
        match refused {
            Some(failure) if !possible && port.published_last > port.published_port => {
                let message = format!(
                    "no port of {} is free: {}",
                    describe_port(port),
                    failure.message
                );
                return Err(Failure { message, ..failure });
            }
            Some(failure) if !possible => return Err(failure),
            _ => {}
        }
    }
    Ok(())
}

/// Returns each port of a range as a spec of its own.
fn ports_of_range(port: &v1::PortSpec) -> impl Iterator<Item = v1::PortSpec> {
    let last = port.published_last.max(port.published_port);
    (port.published_port..=last).map(|number| v1::PortSpec {
        published_port: number,
        published_last: 0,
        ..port.clone()
    })
}

/// Returns the container that holds the port. Of a range whose ports are all taken, returns the
/// holder of the first.
pub(super) fn find_holder<'a>(
    port: &v1::PortSpec,
    holders: &'a [PortHolder],
) -> Option<(v1::PortSpec, &'a PortHolder)> {
    let held: Option<Vec<_>> = ports_of_range(port)
        .map(|one| holder_of(&one, holders).map(|holder| (one, holder)))
        .collect();
    held?.into_iter().next()
}

fn holder_of<'a>(port: &v1::PortSpec, holders: &'a [PortHolder]) -> Option<&'a PortHolder> {
    let protocol = transport(port);
    holders.iter().find(|holder| {
        u32::from(holder.port) == port.published_port
            && holder.protocol == protocol
            && addresses_overlap(&holder.host_ip, &port.host_ip)
    })
}

/// Makes the failure for a port that another container holds.
pub(super) fn port_taken(port: &v1::PortSpec, holder: &PortHolder) -> Failure {
    let whose = if holder.service.is_empty() {
        format!("container `{}`", holder.container_name)
    } else {
        format!(
            "`{}/{}` (container `{}`)",
            holder.project, holder.service, holder.container_name
        )
    };
    Failure::new(
        Code::Refused,
        format!("port {} is taken by {whose}", describe_port(port)),
    )
    .hint("publish another port, or remove the container that has it")
}

fn describe_port(port: &v1::PortSpec) -> String {
    let protocol = match transport(port) {
        v1::Protocol::Udp => "udp",
        v1::Protocol::Sctp => "sctp",
        _ => "tcp",
    };
    let number = match (port.published_port, port.published_last) {
        (first, last) if last > first => format!("{first}-{last}"),
        (one, _) => one.to_string(),
    };
    match port.host_ip.as_str() {
        "" => format!("{number}/{protocol}"),
        ip => format!("{ip}:{number}/{protocol}"),
    }
}

fn transport(port: &v1::PortSpec) -> v1::Protocol {
    match port.protocol() {
        v1::Protocol::Unspecified => v1::Protocol::Tcp,
        said => said,
    }
}

fn addresses_overlap(a: &str, b: &str) -> bool {
    let all = |ip: &str| ip.is_empty() || ip == "0.0.0.0" || ip == "::";
    a == b || all(a) || all(b)
}

/// Binds the port for a moment, without listening, to learn whether a process of the machine has
/// it.
async fn probe(port: &v1::PortSpec) -> Result<(), Failure> {
    let ip = port
        .host_ip
        .parse()
        .unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let address = SocketAddr::new(ip, u16::try_from(port.published_port).unwrap_or(u16::MAX));
    let bound = match transport(port) {
        v1::Protocol::Udp => UdpSocket::bind(address).await.map(drop),
        // SCTP is left to the start: the standard library has no such socket, and hardly any
        // machine supports it.
        v1::Protocol::Sctp => Ok(()),
        _ => bind_tcp(address),
    };
    match bound.map_err(|error| error.kind()) {
        Err(io::ErrorKind::AddrInUse) => Err(Failure::new(
            Code::Refused,
            format!(
                "port {} is taken by a process on this machine",
                describe_port(port)
            ),
        )
        .hint(format!(
            "find the process with `ss -lntup 'sport = :{}'`, or publish another port",
            port.published_port
        ))),
        Err(io::ErrorKind::AddrNotAvailable) => Err(Failure::new(
            Code::Refused,
            format!(
                "port {}: {ip} is not an address of this machine",
                describe_port(port)
            ),
        )
        .hint("publish on an address of this machine, or on all addresses")),
        // Without permission to bind (a daemon without root), the start finds out.
        _ => Ok(()),
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<()> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    // Connections in TIME_WAIT do not count as a listener.
    socket.set_reuseaddr(true)?;
    socket.bind(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(port: v1::PortSpec) -> v1::ServiceSpec {
        v1::ServiceSpec {
            project: "shop".into(),
            name: "web".into(),
            ports: vec![port],
            ..Default::default()
        }
    }

    fn port(host_ip: &str, published_port: u16) -> v1::PortSpec {
        v1::PortSpec {
            container_port: 80,
            published_port: published_port.into(),
            host_ip: host_ip.into(),
            protocol: v1::Protocol::Tcp.into(),
            ..Default::default()
        }
    }

    fn holder(service: &str, host_ip: &str, port: u16) -> PortHolder {
        PortHolder {
            container_id: "abc".into(),
            container_name: "one".into(),
            project: if service.is_empty() {
                String::new()
            } else {
                "shop".into()
            },
            service: service.into(),
            host_ip: host_ip.into(),
            port,
            protocol: v1::Protocol::Tcp,
        }
    }

    #[tokio::test]
    async fn check_ports_refuses_port_of_another_container() {
        let spec = spec(port("", 1));
        let refused = check_ports(&spec, &[holder("db", "0.0.0.0", 1)])
            .await
            .unwrap_err();
        assert_eq!(refused.code, Code::Refused);
        assert_eq!(
            refused.message,
            "port 1/tcp is taken by `shop/db` (container `one`)"
        );
        let refused = check_ports(&spec, &[holder("", "::", 1)])
            .await
            .unwrap_err();
        assert_eq!(refused.message, "port 1/tcp is taken by container `one`");
        assert!(
            check_ports(&spec, &[holder("web", "0.0.0.0", 1)])
                .await
                .is_ok(),
            "its own old replica can be replaced"
        );
    }

    #[test]
    fn holder_of_distinguishes_addresses_and_protocols() {
        let holders = [holder("db", "127.0.0.1", 80)];
        assert!(holder_of(&port("127.0.0.2", 80), &holders).is_none());
        assert!(holder_of(&port("127.0.0.1", 80), &holders).is_some());
        assert!(holder_of(&port("", 80), &holders).is_some());
        assert!(holder_of(&port("", 81), &holders).is_none());
        let udp = v1::PortSpec {
            protocol: v1::Protocol::Udp.into(),
            ..port("", 80)
        };
        assert!(holder_of(&udp, &holders).is_none());
        let unsaid = v1::PortSpec {
            protocol: 0,
            ..port("", 80)
        };
        assert!(holder_of(&unsaid, &holders).is_some(), "tcp is the default");
    }

    #[tokio::test]
    async fn check_ports_refuses_port_of_a_process() {
        // Other tests take the ports of 127.0.0.1 as soon as they are free, so this one uses its
        // own address.
        let listener = tokio::net::TcpListener::bind("127.53.0.2:0").await.unwrap();
        let taken = listener.local_addr().unwrap().port();
        let refused = check_ports(&spec(port("127.53.0.2", taken)), &[])
            .await
            .unwrap_err();
        assert!(
            refused.message.contains("a process on this machine"),
            "{refused}"
        );
        assert!(refused.hint.unwrap().contains(&taken.to_string()));
        drop(listener);
        assert!(
            check_ports(&spec(port("127.53.0.2", taken)), &[])
                .await
                .is_ok()
        );
    }

    #[tokio::test]
    async fn check_ports_accepts_range_with_one_free_port() {
        let range = |first, last: u16| v1::PortSpec {
            published_last: last.into(),
            ..port("127.0.0.1", first)
        };
        let holders = [holder("db", "0.0.0.0", 8000), holder("", "0.0.0.0", 8001)];
        let refused = check_ports(&spec(range(8000, 8001)), &holders)
            .await
            .unwrap_err();
        assert_eq!(
            refused.message,
            "no port of 127.0.0.1:8000-8001/tcp is free: port 127.0.0.1:8000/tcp is taken by `shop/db` (container `one`)"
        );
        let host = v1::ServiceSpec {
            network_mode: "host".into(),
            ..spec(range(8000, 8001))
        };
        assert!(
            check_ports(&host, &holders).await.is_ok(),
            "nothing is published"
        );
        let own = [
            holder("db", "0.0.0.0", 8000),
            holder("web", "0.0.0.0", 8001),
        ];
        assert!(
            check_ports(&spec(range(8000, 8001)), &own).await.is_ok(),
            "its own old replica can be replaced"
        );
        assert!(
            find_holder(&range(8000, 8001), &holders)
                .is_some_and(|(port, _)| port.published_port == 8000)
        );
        assert!(find_holder(&range(8000, 8002), &holders).is_none());
    }

    #[test]
    fn holder_of_distinguishes_sctp() {
        let sctp = v1::PortSpec {
            protocol: v1::Protocol::Sctp.into(),
            ..port("", 80)
        };
        assert_eq!(describe_port(&sctp), "80/sctp");
        assert!(holder_of(&sctp, &[holder("db", "", 80)]).is_none());
    }

    #[tokio::test]
    async fn check_ports_refuses_address_of_another_machine() {
        let refused = check_ports(&spec(port("203.0.113.1", 8080)), &[])
            .await
            .unwrap_err();
        assert!(
            refused.message.contains("not an address of this machine"),
            "{refused}"
        );
    }

    #[tokio::test]
    async fn check_ports_accepts_port_chosen_by_the_machine() {
        assert!(
            check_ports(&spec(port("203.0.113.1", 0)), &[])
                .await
                .is_ok()
        );
    }
}
