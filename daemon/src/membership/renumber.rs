//! How this machine takes another subnet: its identity gets it, which is written completely or not
//! at all, and then the member starts again with it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use ipnet::Ipv4Net;
use tokio::time::{Instant, sleep};
use uc_api::{Code, Failure};

use crate::app::App;
use crate::backoff::Backoff;
use crate::cluster::member::Member;
use crate::identity::{Identity, Membership};

/// Takes another subnet whenever the member has to, until the process ends.
pub(crate) async fn renumber_when_needed(app: Arc<App>) {
    let mut members = app.watch_member();
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_mins(1));
    loop {
        let member = members.borrow_and_update().clone();
        let needed = async {
            let Some(member) = &member else {
                return std::future::pending().await;
            };
            let mut subnets = member.new_subnet.subscribe();
            let subnet = subnets.wait_for(Option::is_some).await.ok();
            match subnet.and_then(|subnet| *subnet) {
                Some(subnet) => (Arc::clone(member), subnet),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = app.cancel.cancelled() => return,
            changed = members.changed() => if changed.is_err() { return },
            (member, subnet) = needed => {
                match renumber(&app, &member, subnet).await {
                    Ok(()) => backoff.reset(),
                    Err(failure) => {
                        tracing::error!(%failure, "cannot take the subnet {subnet}");
                        tokio::select! {
                            () = app.cancel.cancelled() => return,
                            () = sleep(backoff.wait(rand::random())) => {}
                        }
                    }
                }
            }
        }
    }
}

async fn renumber(app: &App, member: &Arc<Member>, subnet: Ipv4Net) -> Result<(), Failure> {
    let mut identity = app.identity.lock().await;
    let membership = match &identity.membership {
        Some(membership) if membership.machine_id == member.membership.machine_id => Membership {
            subnet,
            ..membership.clone()
        },
        // The machine has left in the meantime.
        _ => return Ok(()),
    };
    if member.wanted_subnet() != Some(subnet) {
        // The record has changed again; its new subnet is announced next.
        member.new_subnet.send_replace(None);
        return Ok(());
    }
    let internal = |text: String| Failure::new(Code::Internal, text);
    let key = identity.key().map_err(internal)?;
    if !member.node.leases().close(Instant::now()) {
        let message = "a deployment is running";
        return Err(Failure::new(Code::Refused, message));
    }
    tracing::warn!(from = %member.membership.subnet, to = %subnet, "taking another subnet");
    let next = Identity {
        membership: Some(membership.clone()),
        ..identity.clone()
    };
    if let Err(error) = next.save(&app.paths.identity()) {
        member.node.leases().open();
        return Err(internal(error.to_string()));
    }
    *identity = next;
    app.set_member(None);
    member.stop().await;
    if app.cancel.is_cancelled() {
        // Nobody would stop the next member.
        return Ok(());
    }
    match app.enter(membership, key).await {
        Ok(entered) => {
            // It was asked of the member that has just stopped.
            if member.leave.notified().now_or_never().is_some() {
                entered.leave.notify_one();
            }
            Ok(())
        }
        Err(failure) => {
            // Nothing is left to try again with: the process ends, and its service starts it again.
            app.cancel.cancel();
            Err(failure)
        }
    }
}

#[cfg(test)]
mod tests;
