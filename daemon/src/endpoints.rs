//! Under which addresses other machines may reach this one's WireGuard port: what the person gave,
//! then the addresses of the machine's own interfaces. Docker's bridges, the mesh itself and
//! addresses that mean nothing elsewhere are left out.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::LinkAttribute;
use uc_api::layout::MESH_INTERFACE;
use uc_api::{Code, Failure};

/// An address and the interface that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LocalAddress {
    /// eth0, …
    pub interface: String,
    /// One of its addresses.
    pub address: IpAddr,
}

/// Candidates, best first and without repetition: the person's own, then IPv4, then IPv6.
/// An entry of `given` is an address, `address:port` or `[address]:port`; names are not possible.
pub(crate) fn candidates(
    given: &[String],
    local: &[LocalAddress],
    port: u16,
) -> Result<Vec<String>, Failure> {
    let mut found = Vec::new();
    for text in given {
        found.push(parse_endpoint(text, port)?);
    }
    let mut detected: Vec<IpAddr> = local
        .iter()
        .filter(|local| meaningful_elsewhere(local))
        .map(|local| local.address)
        .collect();
    detected.sort_by_key(IpAddr::is_ipv6);
    found.extend(
        detected
            .into_iter()
            .map(|address| SocketAddr::new(address, port)),
    );
    let mut texts: Vec<String> = Vec::new();
    for endpoint in found {
        let text = endpoint.to_string();
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    Ok(texts)
}

fn parse_endpoint(text: &str, port: u16) -> Result<SocketAddr, Failure> {
    text.parse::<SocketAddr>()
        .or_else(|_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, port)))
        .map_err(|_| {
            Failure::new(
                Code::Invalid,
                format!("`{text}` is not a WireGuard endpoint"),
            )
            .hint("write an address or address:port, for example 203.0.113.7:51820")
        })
}

fn meaningful_elsewhere(local: &LocalAddress) -> bool {
    let made_here = [
        "docker",
        "br-",
        "veth",
        MESH_INTERFACE,
        "lo",
        "cni",
        "virbr",
        "tailscale",
    ];
    if made_here
        .iter()
        .any(|prefix| local.interface.starts_with(prefix))
    {
        return false;
    }
    match local.address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local() && !v4.is_unspecified(),
        IpAddr::V6(v6) => !v6.is_loopback() && !is_link_local(v6) && !v6.is_unspecified(),
    }
}

fn is_link_local(address: Ipv6Addr) -> bool {
    address.segments()[0] & 0xffc0 == 0xfe80
}

/// The addresses of this machine's interfaces, from the kernel.
pub(crate) async fn local_addresses() -> Result<Vec<LocalAddress>, Failure> {
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        Failure::new(
            Code::Internal,
            format!("cannot list this machine's {what}: {error}"),
        )
    };
    let (connection, handle, _) =
        rtnetlink::new_connection().map_err(|e| failed("network interfaces", &e))?;
    let driver = tokio::spawn(connection);
    let links = handle.link().get().execute().try_collect::<Vec<_>>().await;
    let addresses = handle
        .address()
        .get()
        .execute()
        .try_collect::<Vec<_>>()
        .await;
    driver.abort();
    let links = links.map_err(|e| failed("network interfaces", &e))?;
    let addresses = addresses.map_err(|e| failed("addresses", &e))?;
    let name_of = |index: u32| {
        links
            .iter()
            .find(|link| link.header.index == index)
            .and_then(|link| {
                link.attributes
                    .iter()
                    .find_map(|attribute| match attribute {
                        LinkAttribute::IfName(name) => Some(name.clone()),
                        _ => None,
                    })
            })
    };
    let mut found = Vec::new();
    for message in addresses {
        let address = message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                AddressAttribute::Local(address) => Some(*address),
                _ => None,
            });
        let address = address.or_else(|| {
            message
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    AddressAttribute::Address(address) => Some(*address),
                    _ => None,
                })
        });
        if let (Some(interface), Some(address)) = (name_of(message.header.index), address) {
            found.push(LocalAddress { interface, address });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(interface: &str, address: &str) -> LocalAddress {
        LocalAddress {
            interface: interface.into(),
            address: address.parse().unwrap(),
        }
    }

    #[test]
    fn the_persons_own_come_first_and_bridges_never() {
        let found = candidates(
            &["203.0.113.7".into(), "[2001:db8::1]:5000".into()],
            &[
                local("lo", "127.0.0.1"),
                local("eth0", "2001:db8::5"),
                local("eth0", "fe80::1"),
                local("eth0", "10.0.0.5"),
                local("docker0", "172.17.0.1"),
                local("br-uc", "10.210.0.1"),
                local("eth1", "203.0.113.7"),
            ],
            51820,
        );
        assert_eq!(
            found.unwrap(),
            [
                "203.0.113.7:51820",
                "[2001:db8::1]:5000",
                "10.0.0.5:51820",
                "[2001:db8::5]:51820"
            ]
        );
    }

    #[test]
    fn what_is_no_endpoint_is_refused_with_an_example() {
        let failure = candidates(&["example.org".into()], &[], 1).unwrap_err();
        assert!(failure.message.contains("example.org") && failure.hint.is_some());
    }

    #[tokio::test]
    async fn this_machine_has_a_loopback() {
        let found = local_addresses().await.unwrap();
        assert!(found.contains(&local("lo", "127.0.0.1")), "{found:?}");
    }
}
