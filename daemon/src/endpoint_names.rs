//! Resolves the host names among the endpoints of other machines, so that a machine behind a
//! changing address can be given a DynDNS name.
//!
//! Each machine resolves the names itself: before it first needs them, again every few minutes, and
//! sooner for a machine that does not answer at the addresses known so far. Only [`Resolved`] is
//! kept here; the mesh's configuration turns it into addresses to try. A slow or dead resolver
//! therefore holds up nothing else. The addresses of a name that fails to resolve later are kept.

mod resolver;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tokio::sync::watch;
use tokio::time::Instant;
use uc_api::endpoint::is_reachable_elsewhere;
use uc_api::v1::MachineRecord;
use uc_api::{Endpoint, EndpointHost, HostName};
use uc_mesh::MeshStatus;
use uc_mesh::config::MAX_ENDPOINTS;

pub(crate) use self::resolver::{Resolver, SystemResolver};

/// How long a name's addresses count without a further look, as with the usual TTL of DynDNS.
const REFRESH: Duration = Duration::from_mins(5);
/// How soon a name is resolved again if it failed, or if its machine does not answer.
const RETRY: Duration = Duration::from_secs(30);
/// A machine without a handshake for this long does not answer: keepalives make WireGuard renew
/// each session after 120 s.
const SILENT_AFTER: Duration = Duration::from_secs(150);
/// How long one look-up may take.
const LOOKUP_LIMIT: Duration = Duration::from_secs(5);
/// Look-ups at the same time. A thousand names that time out take about ten minutes.
const PARALLEL_LOOKUPS: usize = 8;
/// Addresses that are used of one name: each wrong one costs 15 s when the mesh tries it.
const MAX_ADDRESSES: usize = 8;

/// What the names resolved to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Resolved {
    names: BTreeMap<HostName, Answer>,
}

/// The state of one name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Answer {
    /// From the last look-up that succeeded, in a fixed order.
    addresses: Vec<IpAddr>,
    /// Why the last look-up failed; `None` if it succeeded.
    failure: Option<String>,
}

impl Resolved {
    /// The socket addresses to try for these endpoints, best first and each once. A name gives all
    /// of its addresses. Text that is not an endpoint, and a name that is not resolved, give none.
    pub(crate) fn socket_addresses(&self, endpoints: &[String]) -> Vec<SocketAddr> {
        let mut found = Vec::new();
        for endpoint in endpoints.iter().filter_map(|text| parse(text)) {
            let addresses = match endpoint.host() {
                EndpointHost::Address(address) => std::slice::from_ref(address),
                EndpointHost::Name(name) => self
                    .names
                    .get(name)
                    .map_or(&[][..], |answer| answer.addresses.as_slice()),
            };
            let port = endpoint.port().unwrap_or(uc_api::layout::WIREGUARD_PORT);
            for address in addresses {
                let candidate = SocketAddr::new(*address, port);
                if !found.contains(&candidate) {
                    found.push(candidate);
                }
            }
        }
        found.truncate(MAX_ENDPOINTS);
        found
    }

    /// The names that did not resolve when last looked up, each with the reason.
    pub(crate) fn failures(&self) -> impl Iterator<Item = (&HostName, &str)> {
        self.names
            .iter()
            .filter_map(|(name, answer)| Some((name, answer.failure.as_deref()?)))
    }
}

/// The endpoint of a record; `None` if the text is not one, which [`warn_of_invalid`] reports.
fn parse(text: &str) -> Option<Endpoint> {
    text.parse().ok()
}

/// The names among the endpoints of these machines.
pub(crate) fn names_of<'a>(
    machines: impl IntoIterator<Item = &'a MachineRecord>,
) -> BTreeSet<HostName> {
    let endpoints = machines.into_iter().flat_map(|machine| &machine.endpoints);
    endpoints
        .filter_map(|text| match parse(text)?.host() {
            EndpointHost::Name(name) => Some(name.clone()),
            EndpointHost::Address(_) => None,
        })
        .collect()
}

/// Which name is to be resolved when: without a clock or a resolver.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    resolved: Resolved,
    /// When each name was last looked up.
    asked: BTreeMap<HostName, Instant>,
}

impl Schedule {
    /// The names to resolve now. `wanted` are all names in use, `unreachable` those of machines
    /// that do not answer. Names that are no longer in use are forgotten.
    fn due(
        &mut self,
        now: Instant,
        wanted: &BTreeSet<HostName>,
        unreachable: &BTreeSet<HostName>,
    ) -> Vec<HostName> {
        self.asked.retain(|name, _| wanted.contains(name));
        self.resolved.names.retain(|name, _| wanted.contains(name));
        let is_due = |name: &&HostName| {
            let Some(asked) = self.asked.get(*name) else {
                return true;
            };
            let answer = self.resolved.names.get(*name);
            let failed = answer.is_none_or(|answer| answer.failure.is_some());
            let wait = if failed || unreachable.contains(*name) {
                RETRY
            } else {
                REFRESH
            };
            now.duration_since(*asked) >= wait
        };
        wanted.iter().filter(is_due).cloned().collect()
    }

    /// Takes in the result of a look-up.
    fn record(&mut self, now: Instant, name: HostName, result: Result<Vec<IpAddr>, String>) {
        let usable = result.and_then(|addresses| {
            let addresses = normalized(addresses);
            if addresses.is_empty() {
                return Err("it has no address that other machines can reach".to_owned());
            }
            Ok(addresses)
        });
        self.asked.insert(name.clone(), now);
        let answer = self.resolved.names.entry(name).or_default();
        match usable {
            Ok(addresses) => {
                *answer = Answer {
                    addresses,
                    failure: None,
                };
            }
            // The addresses known so far may still be right: only the resolver is not there.
            Err(reason) => answer.failure = Some(reason),
        }
    }
}

/// IPv4 before IPv6, then by number: resolvers rotate the addresses of a name, and a changed order
/// would be a changed mesh configuration.
fn normalized(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let sorted: BTreeSet<IpAddr> = addresses
        .into_iter()
        .filter(|address| is_reachable_elsewhere(*address))
        .collect();
    sorted.into_iter().take(MAX_ADDRESSES).collect()
}

/// Logs the endpoints that are not valid, once for as long as they are there.
pub(crate) fn warn_of_invalid(machines: &[&MachineRecord], known: &mut BTreeSet<String>) {
    let endpoints = machines.iter().flat_map(|machine| &machine.endpoints);
    let invalid: BTreeSet<String> = endpoints
        .filter(|text| parse(text).is_none())
        .cloned()
        .collect();
    for endpoint in invalid.difference(known) {
        tracing::warn!(
            endpoint,
            "ignoring an invalid endpoint in a machine's record"
        );
    }
    *known = invalid;
}

/// The peer's `reach` would not do: it is unknown again as soon as another endpoint is tried.
pub(crate) fn names_of_unreachable(
    machines: &[&MachineRecord],
    status: &MeshStatus,
) -> BTreeSet<HostName> {
    let is_silent = |machine: &&&MachineRecord| {
        let key = machine.public_key.parse().ok();
        let peer = key.and_then(|key| status.peer(&key));
        peer.is_some_and(|peer| {
            let age = peer.latest_handshake.map(Duration::from_millis);
            age.is_none_or(|age| age >= SILENT_AFTER)
        })
    };
    names_of(machines.iter().filter(is_silent).copied())
}

/// Resolves what is due, and publishes each result as soon as it is there: one slow name does not
/// hold up the others.
pub(crate) async fn refresh(
    schedule: &mut Schedule,
    resolver: &impl Resolver,
    wanted: &BTreeSet<HostName>,
    unreachable: &BTreeSet<HostName>,
    published: &watch::Sender<Resolved>,
) {
    let due = schedule.due(Instant::now(), wanted, unreachable);
    publish(published, &schedule.resolved);
    let mut lookups = stream::iter(due)
        .map(|name| async {
            let result = tokio::time::timeout(LOOKUP_LIMIT, resolver.lookup(&name)).await;
            let late = |_| Err(format!("no answer within {} s", LOOKUP_LIMIT.as_secs()));
            (name, result.unwrap_or_else(late))
        })
        .buffer_unordered(PARALLEL_LOOKUPS);
    while let Some((name, result)) = lookups.next().await {
        let before = schedule.resolved.names.get(&name).cloned();
        schedule.record(Instant::now(), name.clone(), result);
        let now = &schedule.resolved.names[&name];
        if before.as_ref() != Some(now) {
            match &now.failure {
                Some(reason) => tracing::warn!(%name, reason, "cannot resolve an endpoint"),
                None => tracing::info!(%name, addresses = ?now.addresses, "endpoint resolved"),
            }
        }
        publish(published, &schedule.resolved);
    }
}

fn publish(published: &watch::Sender<Resolved>, resolved: &Resolved) {
    published.send_if_modified(|known| {
        let changed = known != resolved;
        if changed {
            known.clone_from(resolved);
        }
        changed
    });
}

/// Resolves the names among these endpoints once, for a machine that is not a member yet.
pub(crate) async fn resolve_once(
    resolver: &impl Resolver,
    endpoints: impl IntoIterator<Item = String>,
) -> Resolved {
    let record = MachineRecord {
        endpoints: endpoints.into_iter().collect(),
        ..MachineRecord::default()
    };
    let published = watch::Sender::default();
    let wanted = names_of([&record]);
    refresh(
        &mut Schedule::default(),
        resolver,
        &wanted,
        &BTreeSet::new(),
        &published,
    )
    .await;
    published.borrow().clone()
}

#[cfg(test)]
mod tests;
