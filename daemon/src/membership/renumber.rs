//! How this machine takes another subnet: its identity gets it, and the member starts again. Only
//! the first step cannot be repeated, and it is written completely or not at all.

use std::sync::Arc;

use ipnet::Ipv4Net;
use uc_api::{Code, Failure};

use crate::app::App;
use crate::cluster::member::Member;
use crate::identity::{Identity, Membership};

/// Takes another subnet whenever the member has to, until the process ends.
pub(crate) async fn renumber_when_needed(app: Arc<App>) {
    let mut members = app.watch_member();
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
                if let Err(failure) = renumber(&app, &member, subnet).await {
                    tracing::error!(%failure, "cannot take the subnet {subnet}; `systemctl restart ucd` tries again");
                }
            }
        }
    }
}

async fn renumber(app: &App, member: &Member, subnet: Ipv4Net) -> Result<(), Failure> {
    let mut identity = app.identity.lock().await;
    let membership = match &identity.membership {
        Some(membership) if membership.machine_id == member.membership.machine_id => Membership {
            subnet,
            ..membership.clone()
        },
        // The machine has left meanwhile.
        _ => return Ok(()),
    };
    tracing::warn!(from = %member.membership.subnet, to = %subnet, "taking another subnet");
    let next = Identity {
        membership: Some(membership.clone()),
        ..identity.clone()
    };
    let internal = |text: String| Failure::new(Code::Internal, text);
    let key = next.key().map_err(internal)?;
    next.save(&app.paths.identity())
        .map_err(|error| internal(error.to_string()))?;
    *identity = next;
    app.set_member(None);
    member.stop().await;
    app.enter(membership, key).await.map(drop)
}

#[cfg(test)]
mod tests;
