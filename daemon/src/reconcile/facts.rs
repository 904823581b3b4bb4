//! Publishes this machine's observations in the store, as Docker reports them.

use std::sync::Arc;

use async_trait::async_trait;
use prost::Message as _;
use uc_api::Failure;
use uc_api::v1::MachineFacts;

use crate::cluster::member::{Member, write_failure};
use crate::cluster::records::{FACTS, FACTS_KEY, REPLICA, VOLUME};
use crate::engine::Engine;
use crate::network::gateway;
use crate::node::observe::{self, Observation, ObservationSink};

/// Runs until the member stops.
pub(crate) async fn run(member: Arc<Member>) {
    let sink = StoreSink {
        member: Arc::clone(&member),
    };
    let engine: Arc<dyn Engine> = Arc::clone(&member.engine) as _;
    let marks = member.node.marks().clone();
    let cancel = member.cancel.child_token();
    observe::run(
        engine,
        marks,
        observe::facts::host(),
        gateway(member.membership.subnet),
        Arc::new(sink),
        cancel,
    )
    .await;
}

#[derive(Debug)]
struct StoreSink {
    member: Arc<Member>,
}

impl StoreSink {
    async fn publish_kind(&self, kind: u16, rows: Vec<(String, Vec<u8>)>) -> Result<(), Failure> {
        let published = self.member.store.publish(kind, rows).await;
        published.map(drop).map_err(|error| write_failure(&error))
    }
}

#[async_trait]
impl ObservationSink for StoreSink {
    async fn publish(&self, observation: &Observation) -> Result<(), Failure> {
        let Observation {
            replicas,
            volumes,
            facts,
        } = observation;
        let replicas = replicas
            .iter()
            .map(|r| (r.container_id.clone(), r.encode_to_vec()))
            .collect();
        let volumes = volumes
            .iter()
            .map(|v| (v.name.clone(), v.encode_to_vec()))
            .collect();
        for (kind, rows) in [(REPLICA, replicas), (VOLUME, volumes)] {
            self.publish_kind(kind, rows).await?;
        }
        self.publish_facts(facts).await
    }

    async fn publish_facts(&self, facts: &MachineFacts) -> Result<(), Failure> {
        let facts = vec![(FACTS_KEY.to_owned(), facts.encode_to_vec())];
        self.publish_kind(FACTS, facts).await
    }
}
