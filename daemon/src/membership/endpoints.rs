//! Under which endpoints other machines may reach this one's WireGuard port: those that the user
//! gave, then the addresses of the machine's own interfaces. Docker's bridges, the mesh itself and
//! addresses that mean nothing elsewhere are left out.

use std::net::IpAddr;

use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::LinkAttribute;
use uc_api::endpoint::is_reachable_elsewhere;
use uc_api::layout::MESH_INTERFACE;
use uc_api::{Code, Endpoint, Failure};

/// An address and the interface that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LocalAddress {
    /// Such as `eth0`.
    pub interface: String,
    pub address: IpAddr,
}

/// Candidates, best first and each once: those that the user gave, then IPv4, then IPv6. `port` is
/// for those without one.
pub(crate) fn candidates(
    given: &[String],
    local: &[LocalAddress],
    port: u16,
) -> Result<Vec<String>, Failure> {
    let mut texts = parse(given, port)?;
    let mut detected: Vec<IpAddr> = local
        .iter()
        .filter(|local| meaningful_elsewhere(local))
        .map(|local| local.address)
        .collect();
    detected.sort_by_key(IpAddr::is_ipv6);
    for address in detected {
        let text = Endpoint::from_address(address).with_port(port).to_string();
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    Ok(texts)
}

/// The text form of given endpoints, each once and with a port.
pub(crate) fn parse(given: &[String], port: u16) -> Result<Vec<String>, Failure> {
    let mut texts: Vec<String> = Vec::new();
    for text in given {
        let text = text.parse::<Endpoint>()?.or_port(port).to_string();
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    Ok(texts)
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
        // An address from a network without DHCP.
        IpAddr::V4(v4) if v4.is_link_local() => false,
        address => is_reachable_elsewhere(address),
    }
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
    fn candidates_are_given_ones_then_own_addresses_without_bridges() {
        let found = candidates(
            &[
                "203.0.113.7".into(),
                "[2001:db8::1]:5000".into(),
                "Home.example.org".into(),
            ],
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
                "home.example.org:51820",
                "10.0.0.5:51820",
                "[2001:db8::5]:51820"
            ]
        );
    }

    #[test]
    fn invalid_endpoint_is_refused_with_an_example() {
        let failure = candidates(&["my_host".into()], &[], 1).unwrap_err();
        assert_eq!(failure.code, Code::Invalid);
        assert!(failure.message.starts_with("invalid endpoint `my_host`: "));
        assert!(failure.hint.is_some());
    }

    #[tokio::test]
    async fn local_addresses_include_loopback() {
        let found = local_addresses().await.unwrap();
        assert!(found.contains(&local("lo", "127.0.0.1")), "{found:?}");
    }
}
