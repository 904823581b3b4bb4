//! The host's side of the interface: addresses, MTU, state and routes, through rtnetlink.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};
use tokio::task::JoinSet;

use super::TunnelError;

/// Marks our routes, so that no others are ever removed. The value is unassigned in
/// /etc/iproute2/rt_protos.
const ROUTE_PROTOCOL: RouteProtocol = RouteProtocol::Other(117);

/// Less preferred than the routes that the kernel creates for its own interfaces (metric 0): a peer
/// that claims the subnet of our own container bridge must not get its traffic.
const ROUTE_METRIC: u32 = 1024;

// Errors that mean that nothing is left to do: what is to be removed does not exist, or what is to
// be added exists.
const ENODEV: i32 = 19;
const EADDRNOTAVAIL: i32 = 99;
const ESRCH: i32 = 3;
const EEXIST: i32 = 17;

/// One interface of the host.
#[derive(Debug)]
pub(super) struct HostLink {
    handle: Handle,
    name: String,
    index: u32,
    /// The task that drives the netlink socket. It ends when this is dropped.
    _driver: JoinSet<()>,
}

impl HostLink {
    /// Finds the interface.
    pub(super) async fn find(name: &str) -> Result<Self, TunnelError> {
        let fail = |action: &str, reason: String| TunnelError::Netlink {
            action: action.to_owned(),
            interface: name.to_owned(),
            reason,
        };
        let (connection, handle, _) = rtnetlink::new_connection()
            .map_err(|error| fail("open a netlink socket", error.to_string()))?;
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let link = handle
            .link()
            .get()
            .match_name(name.to_owned())
            .execute()
            .try_next()
            .await;
        let index = match link {
            Ok(Some(link)) => link.header.index,
            Ok(None) => return Err(fail("start", "it does not exist".to_owned())),
            Err(error) => return Err(fail("look up its index", describe(&error))),
        };
        Ok(Self {
            handle,
            name: name.to_owned(),
            index,
            _driver: driver,
        })
    }

    /// Brings the interface up and enables IPv6 on it, which the management address needs.
    /// Distributions, administrators and (for containers) Docker disable IPv6 for new interfaces.
    pub(super) async fn bring_up(&self, mtu: u32) -> Result<(), TunnelError> {
        let path = format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", self.name);
        let enabled = match tokio::fs::read_to_string(&path).await {
            Ok(text) if text.trim() == "0" => Ok(()),
            Ok(_) => tokio::fs::write(&path, "0").await,
            Err(error) => Err(error),
        };
        enabled.map_err(|source| TunnelError::NoIpv6 { path, source })?;
        let message = LinkUnspec::new_with_index(self.index).mtu(mtu).up().build();
        let result = self.handle.link().set(message).execute().await;
        self.check("set the state up", result, &[])
    }

    /// What the kernel knows about the interface.
    async fn link(&self) -> Result<Option<LinkMessage>, rtnetlink::Error> {
        let request = self.handle.link().get().match_index(self.index);
        request.execute().try_next().await
    }

    /// Whether the interface exists and is up.
    pub(super) async fn is_up(&self) -> Result<bool, TunnelError> {
        match self.link().await {
            Ok(link) => Ok(link.is_some_and(|link| link.header.flags.contains(LinkFlags::Up))),
            Err(error) if errno(&error) == Some(ENODEV) => Ok(false),
            Err(error) => Err(self.fail("read the state", &error)),
        }
    }

    pub(super) async fn set_mtu(&self, mtu: u32) -> Result<(), TunnelError> {
        let message = LinkUnspec::new_with_index(self.index).mtu(mtu).build();
        let result = self.handle.link().set(message).execute().await;
        self.check("set the MTU", result, &[])
    }

    pub(super) async fn mtu(&self) -> Result<u32, TunnelError> {
        let link = self.link().await;
        let link = link.map_err(|error| self.fail("read the MTU", &error))?;
        let mut attributes = link.into_iter().flat_map(|link| link.attributes);
        let mtu = attributes.find_map(|attribute| match attribute {
            LinkAttribute::Mtu(mtu) => Some(mtu),
            _ => None,
        });
        mtu.ok_or_else(|| TunnelError::Netlink {
            action: "read the MTU".to_owned(),
            interface: self.name.clone(),
            reason: "the kernel did not report it".to_owned(),
        })
    }

    /// The addresses, without link-local ones, which the kernel creates itself.
    pub(super) async fn addresses(&self) -> Result<BTreeSet<IpNet>, TunnelError> {
        let mut stream = std::pin::pin!(
            self.handle
                .address()
                .get()
                .set_link_index_filter(self.index)
                .execute()
        );
        let mut addresses = BTreeSet::new();
        while let Some(message) = stream
            .try_next()
            .await
            .map_err(|error| self.fail("list the addresses", &error))?
        {
            let mut address = None;
            for attribute in &message.attributes {
                match attribute {
                    // On a point-to-point link, `Local` is our own address and `Address` the other
                    // end's.
                    AddressAttribute::Local(local) => address = Some(*local),
                    AddressAttribute::Address(other) => address = address.or(Some(*other)),
                    _ => {}
                }
            }
            let Some(address) = address else { continue };
            let link_local = match address {
                IpAddr::V4(v4) => v4.is_link_local(),
                IpAddr::V6(v6) => v6.is_unicast_link_local(),
            };
            if message.header.index == self.index
                && !link_local
                && let Ok(net) = IpNet::new(address, message.header.prefix_len)
            {
                addresses.insert(net);
            }
        }
        Ok(addresses)
    }

    pub(super) async fn add_address(&self, address: IpNet) -> Result<(), TunnelError> {
        let request = self
            .handle
            .address()
            .add(self.index, address.addr(), address.prefix_len());
        self.check(
            &format!("add address {address}"),
            request.execute().await,
            &[EEXIST],
        )
    }

    pub(super) async fn remove_address(&self, address: IpNet) -> Result<(), TunnelError> {
        let mut request =
            self.handle
                .address()
                .add(self.index, address.addr(), address.prefix_len());
        let message = request.message_mut().clone();
        let result = self.handle.address().del(message).execute().await;
        self.check(
            &format!("remove address {address}"),
            result,
            &[EADDRNOTAVAIL],
        )
    }

    /// Our routes through the interface, with their preferred source addresses.
    pub(super) async fn routes(&self) -> Result<BTreeMap<IpNet, Option<IpAddr>>, TunnelError> {
        let mut routes = BTreeMap::new();
        for any in [
            RouteMessageBuilder::<Ipv4Addr>::new().build(),
            RouteMessageBuilder::<Ipv6Addr>::new().build(),
        ] {
            let mut stream = std::pin::pin!(self.handle.route().get(any).execute());
            while let Some(route) = stream
                .try_next()
                .await
                .map_err(|error| self.fail("list the routes", &error))?
            {
                routes.extend(self.own_route(&route));
            }
        }
        Ok(routes)
    }

    /// Adds or replaces a route.
    pub(super) async fn set_route(
        &self,
        prefix: IpNet,
        source: Option<IpAddr>,
    ) -> Result<(), TunnelError> {
        let message = self.route(prefix, source);
        let result = self.handle.route().add(message).replace().execute().await;
        self.check(&format!("route {prefix}"), result, &[])
    }

    pub(super) async fn remove_route(&self, prefix: IpNet) -> Result<(), TunnelError> {
        let message = self.route(prefix, None);
        let result = self.handle.route().del(message).execute().await;
        self.check(&format!("remove the route {prefix}"), result, &[ESRCH])
    }

    /// Deletes the interface with its addresses and routes.
    pub(super) async fn delete(&self) -> Result<(), TunnelError> {
        let result = self.handle.link().del(self.index).execute().await;
        self.check("delete the link", result, &[ENODEV])
    }

    fn route(&self, prefix: IpNet, source: Option<IpAddr>) -> RouteMessage {
        match prefix {
            IpNet::V4(net) => {
                let mut builder = RouteMessageBuilder::<Ipv4Addr>::new()
                    .destination_prefix(net.network(), net.prefix_len());
                if let Some(IpAddr::V4(source)) = source {
                    builder = builder.pref_source(source);
                }
                builder
                    .output_interface(self.index)
                    .priority(ROUTE_METRIC)
                    .protocol(ROUTE_PROTOCOL)
                    .scope(RouteScope::Link)
                    .build()
            }
            IpNet::V6(net) => RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(net.network(), net.prefix_len())
                .output_interface(self.index)
                .priority(ROUTE_METRIC)
                .protocol(ROUTE_PROTOCOL)
                .build(),
        }
    }

    fn own_route(&self, route: &RouteMessage) -> Option<(IpNet, Option<IpAddr>)> {
        if route.header.protocol != ROUTE_PROTOCOL
            || route.header.table != RouteHeader::RT_TABLE_MAIN
        {
            return None;
        }
        let (mut destination, mut source, mut interface) = (None, None, None);
        for attribute in &route.attributes {
            match attribute {
                RouteAttribute::Destination(address) => destination = ip(address),
                RouteAttribute::PrefSource(address) => source = ip(address),
                RouteAttribute::Oif(index) => interface = Some(*index),
                _ => {}
            }
        }
        if interface != Some(self.index) {
            return None;
        }
        let prefix = IpNet::new(destination?, route.header.destination_prefix_length).ok()?;
        Some((prefix, source))
    }

    fn check(
        &self,
        action: &str,
        result: Result<(), rtnetlink::Error>,
        fine: &[i32],
    ) -> Result<(), TunnelError> {
        match result {
            Err(error) if !fine.iter().any(|code| errno(&error) == Some(*code)) => {
                Err(self.fail(action, &error))
            }
            _ => Ok(()),
        }
    }

    fn fail(&self, action: &str, error: &rtnetlink::Error) -> TunnelError {
        TunnelError::Netlink {
            action: action.to_owned(),
            interface: self.name.clone(),
            reason: describe(error),
        }
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

fn errno(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.code.map(|code| code.get().abs()),
        _ => None,
    }
}

fn describe(error: &rtnetlink::Error) -> String {
    match errno(error) {
        Some(code) => io::Error::from_raw_os_error(code).to_string(),
        None => error.to_string(),
    }
}
