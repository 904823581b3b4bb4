//! Accepts the connections of other machines. Who the caller has to be follows from its address;
//! the handshake proves that it is.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};
use tokio_util::sync::{CancellationToken, DropGuard};
use uc_mesh::{PublicKey, management_address};

use crate::clock::now_ms;
use crate::cluster::member::Member;
use crate::cluster::peers::Caller;

/// Unfinished handshakes from one address. An honest one takes a round trip.
const MAX_HANDSHAKES: usize = 32;
/// Pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Least time between two warnings of refused connections: any process of any machine can cause
/// them.
const WARN_EVERY: Duration = Duration::from_mins(1);
/// How late a connection whose caller was removed may end. Records can change often.
const END_AFTER: Duration = Duration::from_secs(1);
/// Tokens expire without a write.
const RECHECK: Duration = Duration::from_secs(30);

/// Accepts connections until the member stops. Each handshake has its own task, so that a caller
/// that is slow holds up no other.
pub(super) async fn run(member: Arc<Member>, listener: TcpListener) {
    let mut handshakes = Handshakes::default();
    let mut warned: Option<Instant> = None;
    let (failures, mut failed) = tokio::sync::mpsc::channel(1);
    loop {
        let (stream, address) = tokio::select! {
            () = member.cancel.cancelled() => return,
            Some((address, error)) = failed.recv() => {
                let error: std::io::Error = error;
                if warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
                    warned = Some(Instant::now());
                    tracing::warn!(%address, %error, "refused a connection; others in the next minute are not logged");
                }
                continue;
            }
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Such as too many open files.
                    tracing::warn!(%error, "cannot accept a connection inside the mesh");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let IpAddr::V6(address) = address.ip() else {
            continue;
        };
        let (given_up, place) = handshakes.begin(address);
        let (task_member, failures) = (Arc::clone(&member), failures.clone());
        member.tasks.spawn(async move {
            let Some((key, caller)) = caller_at(&task_member, address) else {
                tracing::debug!(%address, "a connection from an address of no member and no token");
                return;
            };
            let accepted = tokio::select! {
                () = task_member.cancel.cancelled() => return,
                () = given_up.cancelled() => return,
                accepted = task_member.peers.accept(stream, &key, caller) => accepted,
            };
            drop(place);
            if let Err(error) = accepted {
                // If another failure waits to be logged, this one is not.
                let _logged_or_not = failures.try_send((address, error));
            }
        });
    }
}

/// Ends the connections of machines and tokens that are removed, until the member stops.
pub(super) async fn end_links(member: &Member) {
    let mut changes = member.changes();
    while changes.next_within(RECHECK).await {
        let cluster = member.cluster();
        member
            .peers
            .end_links(|caller| caller.is_served(&cluster, now_ms()));
        tokio::select! {
            () = member.cancel.cancelled() => return,
            () = sleep(END_AFTER) => {}
        }
    }
}

/// Which key the process at this address has to prove, and who it is if it does. `None` for an
/// address of no other member and of no valid token. This machine's own daemon is called through
/// memory, so a connection from its address is from some other process.
fn caller_at(member: &Member, address: Ipv6Addr) -> Option<(PublicKey, Caller)> {
    let cluster = member.cluster();
    let is_here = |key: &PublicKey| management_address(key) == address;
    let of_member = cluster.others().find(|machine| is_here(&machine.key));
    if let Some(machine) = of_member {
        let (id, key) = (machine.id, machine.key);
        return Some((key, Caller::Member { id, key }));
    }
    let now = now_ms();
    let token = cluster
        .tokens()
        .find(|token| is_here(&token.key) && token.opens_mesh(now))?;
    let id = token.record.id.clone();
    Some((token.key, Caller::Token { id }))
}

/// The unfinished handshakes by address. Another process of a machine can begin as many as it
/// likes, and must not keep the machine's daemon out: the oldest one is given up for a new one.
#[derive(Debug, Default)]
struct Handshakes {
    by_address: HashMap<Ipv6Addr, VecDeque<CancellationToken>>,
}

impl Handshakes {
    /// A handshake: what is cancelled when it is given up, and what is dropped when it has ended.
    fn begin(&mut self, address: Ipv6Addr) -> (CancellationToken, DropGuard) {
        for places in self.by_address.values_mut() {
            places.retain(|handshake| !handshake.is_cancelled());
        }
        self.by_address.retain(|_, places| !places.is_empty());
        let places = self.by_address.entry(address).or_default();
        if places.len() >= MAX_HANDSHAKES
            && let Some(oldest) = places.pop_front()
        {
            oldest.cancel();
        }
        let handshake = CancellationToken::new();
        places.push_back(handshake.clone());
        (handshake.clone(), handshake.drop_guard())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oldest_handshake_of_an_address_is_given_up_for_a_new_one() {
        let mut handshakes = Handshakes::default();
        let [one, other] = [1, 2].map(|n| Ipv6Addr::new(0xfdcc, 0, 0, 0, 0, 0, 0, n));
        let kept = handshakes.begin(other);
        let mut begun: Vec<_> = (0..=MAX_HANDSHAKES)
            .map(|_| handshakes.begin(one))
            .collect();
        assert!(begun[0].0.is_cancelled());
        assert!(
            begun[1..]
                .iter()
                .all(|(given_up, _)| !given_up.is_cancelled())
        );
        assert!(!kept.0.is_cancelled(), "another address");
        // One that has ended leaves its place.
        drop(begun.remove(5));
        let new = handshakes.begin(one);
        assert!(!begun[1].0.is_cancelled());
        drop((begun, kept, new));
        let _last = handshakes.begin(other);
        assert_eq!(handshakes.by_address.len(), 1);
    }
}
