//! The other machines, as those who have to see what this machine publishes.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use futures_util::future::join_all;

use super::deployments::deployments;
use super::member::Member;
use crate::node::Audience;

/// The machines that are up. The member owns the node service that asks, so it is not owned here.
#[derive(Debug)]
pub(crate) struct OtherMachines(Weak<Member>);

impl OtherMachines {
    pub(crate) fn of(member: &Arc<Member>) -> Self {
        Self(Arc::downgrade(member))
    }
}

#[async_trait]
impl Audience for OtherMachines {
    async fn seen(&self) -> Vec<String> {
        let Some(member) = self.0.upgrade() else {
            return Vec::new();
        };
        let snapshot = member.store.snapshot();
        let actor = member.store.actor();
        let version = snapshot.watermark(actor);
        let cluster = member.cluster();
        let others = cluster
            .others()
            .filter(|machine| !cluster.is_down(machine.id));
        let answers = others.map(|machine| {
            let remote = member.peers.machine(machine);
            async move { (machine, remote.seen(actor, version).await) }
        });
        let late = join_all(answers).await.into_iter();
        late.filter(|(_, seen)| seen.is_err())
            .map(|(machine, _)| machine.name.to_string())
            .collect()
    }

    fn has_ended(&self, deployment: &str) -> bool {
        let Some(member) = self.0.upgrade() else {
            return false;
        };
        let all = deployments(&member.store.snapshot());
        let of_it = all.iter().find(|of| of.id == deployment);
        of_it.is_some_and(|of| of.ended.is_some())
    }
}
