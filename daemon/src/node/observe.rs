//! Observes this machine's engine and passes the result to a sink: the complete list of replicas
//! and volumes and the machine's facts, whenever one of them has changed. Events make it fast, and
//! a full look every 30 s makes it correct.
//!
//! While the engine does not answer, the last observation is kept. After [`AWAY_AFTER`] the machine
//! publishes that it is away, so that nobody takes the last observation for the present.

pub(crate) mod facts;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use uc_api::{Failure, v1};

use crate::backoff::Backoff;
use crate::clock::now_ms;
use crate::engine::{Container, Engine, EngineError, EngineEvent};
use crate::node::Marks;
use crate::node::marks::MarkSet;

/// Events within this time after the first are handled together. The start of one container is four
/// events.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// Time between two full looks, for changes without an event.
const FULL_SYNC: Duration = Duration::from_secs(30);
/// Waits between attempts to reach an engine that is away.
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LAST_RETRY: Duration = Duration::from_secs(10);

/// How long the engine has to be silent until the machine publishes it. A restart of Docker takes a
/// few seconds, and then the containers of before run again.
pub(crate) const AWAY_AFTER: Duration = Duration::from_secs(15);
/// An engine that takes longer to answer the simplest questions is as good as away.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);

/// All that a machine says about itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Observation {
    /// In the order of their ids.
    pub replicas: Vec<v1::ReplicaRecord>,
    /// In the order of their names.
    pub volumes: Vec<v1::VolumeRecord>,
    /// The machine.
    pub facts: v1::MachineFacts,
}

/// Where observations go: the machine's own part of the replicated store.
#[async_trait]
pub(crate) trait ObservationSink: Send + Sync + 'static {
    /// Takes in the complete truth; returns when others can be told. After a failure the same is
    /// offered again.
    async fn publish(&self, observation: &Observation) -> Result<(), Failure>;

    /// Takes in the machine's facts alone. What it runs is as before.
    async fn publish_facts(&self, facts: &v1::MachineFacts) -> Result<(), Failure>;
}

/// Observes until `cancel`. `host` is what the operating system says ([`facts::host`]); the
/// engine's version is added. `bridge` is the machine's address on the cluster network.
pub(crate) async fn run(
    engine: Arc<dyn Engine>,
    marks: Marks,
    host: v1::MachineFacts,
    bridge: Ipv4Addr,
    sink: Arc<dyn ObservationSink>,
    cancel: CancellationToken,
) {
    let mut observer = Observer {
        engine,
        marked: marks.changes(),
        looks: marks.looks(),
        marks,
        sink,
        known: Known::default(),
        host,
        bridge,
        published: None,
    };
    let ended = cancel.clone();
    tokio::select! {
        () = observer.run() => {}
        () = ended.cancelled() => {}
    }
}

/// What has to be inspected again.
#[derive(Debug, Default, PartialEq, Eq)]
struct Batch {
    everything: bool,
    containers: BTreeSet<String>,
    volumes: bool,
}

impl Batch {
    fn add(&mut self, event: EngineEvent) {
        match event {
            EngineEvent::Container(id) => {
                self.containers.insert(id);
            }
            EngineEvent::Volume => self.volumes = true,
        }
    }
}

/// The last observation.
#[derive(Debug, Default)]
struct Known {
    replicas: BTreeMap<String, v1::ReplicaRecord>,
    /// For each container that shares the network, and so the address, of another: that container.
    joined: BTreeMap<String, String>,
    volumes: Vec<v1::VolumeRecord>,
    docker_version: String,
}

impl Known {
    fn take(&mut self, container: Container, bridge: Ipv4Addr) {
        let id = container.record.container_id.clone();
        if container.network_of.is_empty() {
            self.joined.remove(&id);
        } else {
            self.joined.insert(id.clone(), container.network_of.clone());
        }
        self.replicas.insert(id, container.record_on(bridge));
    }
}

/// An engine that does not answer.
#[derive(Debug)]
struct Away {
    since: Instant,
    since_ms: i64,
    published: bool,
}

impl Away {
    fn now() -> Self {
        Self {
            since: Instant::now(),
            since_ms: now_ms(),
            published: false,
        }
    }

    fn is_due(&self) -> bool {
        !self.published && self.since.elapsed() >= AWAY_AFTER
    }

    /// The time until it has to be published. `None` if that time has come.
    fn until_due(&self) -> Option<Duration> {
        AWAY_AFTER
            .checked_sub(self.since.elapsed())
            .filter(|time| !time.is_zero())
    }
}

/// The engine's answer, if it comes in time.
async fn answer<T>(asked: impl Future<Output = Result<T, EngineError>>) -> Result<T, EngineError> {
    let silent = |_| EngineError::Broken {
        message: format!("no answer within {} s", ANSWER_LIMIT.as_secs()),
    };
    timeout(ANSWER_LIMIT, asked).await.map_err(silent)?
}

struct Observer {
    engine: Arc<dyn Engine>,
    marks: Marks,
    marked: watch::Receiver<MarkSet>,
    /// Somebody waits until containers are inspected.
    looks: watch::Receiver<BTreeSet<String>>,
    sink: Arc<dyn ObservationSink>,
    known: Known,
    host: v1::MachineFacts,
    bridge: Ipv4Addr,
    published: Option<Observation>,
}

type Events = BoxStream<'static, Result<EngineEvent, EngineError>>;

impl Observer {
    /// Connects, observes, and reconnects, forever.
    async fn run(&mut self) {
        let mut backoff = Backoff::new(FIRST_RETRY, LAST_RETRY);
        let mut away: Option<Away> = None;
        loop {
            let error = match self.connect().await {
                Ok(events) => {
                    backoff.reset();
                    away = None;
                    self.watch(events).await
                }
                Err(error) => error,
            };
            if away.is_none() {
                tracing::warn!(%error, "the Docker engine cannot be observed; trying again");
            }
            let away = away.get_or_insert_with(Away::now);
            if away.is_due() {
                self.publish_away(away).await;
            }
            let pause = backoff.wait(rand::random());
            tokio::time::sleep(away.until_due().map_or(pause, |due| pause.min(due))).await;
        }
    }

    /// Events first, then a full look: nothing that happens in between is missed.
    async fn connect(&mut self) -> Result<Events, EngineError> {
        self.known.docker_version = answer(self.engine.version()).await?.version;
        let events = answer(self.engine.events()).await?;
        self.look(Batch {
            everything: true,
            ..Batch::default()
        })
        .await?;
        self.publish().await;
        Ok(events)
    }

    async fn publish_away(&mut self, away: &mut Away) {
        let facts = v1::MachineFacts {
            docker_version: self.known.docker_version.clone(),
            engine_away_since_ms: away.since_ms,
            ..self.host.clone()
        };
        match self.sink.publish_facts(&facts).await {
            Ok(()) => {
                away.published = true;
                // What is observed next is published, also if it is the same as before.
                self.published = None;
            }
            Err(failure) => tracing::warn!(%failure, "cannot publish that Docker does not answer"),
        }
    }

    /// Until the engine goes away; says how.
    async fn watch(&mut self, mut events: Events) -> EngineError {
        let mut full = tokio::time::interval_at(Instant::now() + FULL_SYNC, FULL_SYNC);
        full.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Batch::default();
        let mut due: Option<Instant> = None;
        loop {
            let wait = due.unwrap_or_else(|| Instant::now() + FULL_SYNC);
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(event)) => {
                        batch.add(event);
                        due.get_or_insert_with(|| Instant::now() + DEBOUNCE);
                        continue;
                    }
                    Some(Err(error)) => return error,
                    None => return EngineError::Broken { message: "its events ended".to_owned() },
                },
                () = sleep_until(wait), if due.is_some() => {}
                _ = full.tick() => {
                    // The events of an engine that hangs stay open.
                    if let Err(error) = answer(self.engine.version()).await {
                        return error;
                    }
                    batch.everything = true;
                }
                // Only the marks changed, so there is no need to ask the engine. Events that wait are
                // handled first: a replica that is healthy by now may be what the marked one waits
                // for. The senders live in `self`.
                _ = self.marked.changed() => if due.is_none() {
                    self.publish().await;
                    continue;
                },
                _ = self.looks.changed() => batch.containers.extend(self.marks.take_looks()),
            }
            due = None;
            if let Err(error) = self.look(std::mem::take(&mut batch)).await {
                return error;
            }
            self.publish().await;
        }
    }

    async fn look(&mut self, batch: Batch) -> Result<(), EngineError> {
        if batch.everything {
            let (containers, volumes) =
                tokio::try_join!(self.engine.containers(), self.engine.volumes())?;
            self.known.replicas.clear();
            self.known.joined.clear();
            containers
                .into_iter()
                .filter(Container::is_replica)
                .for_each(|one| self.known.take(one, self.bridge));
            self.known.volumes = volumes.into_iter().map(|volume| volume.record).collect();
            return Ok(());
        }
        let joined = self
            .known
            .joined
            .iter()
            .filter(|(_, other)| batch.containers.contains(*other));
        let joined: Vec<String> = joined.map(|(id, _)| id.clone()).collect();
        for id in batch.containers.into_iter().chain(joined) {
            match self.engine.inspect(&id).await {
                Ok(container) if container.is_replica() => {
                    self.known.take(container, self.bridge);
                }
                Ok(_) | Err(EngineError::NotFound { .. }) => {
                    self.known.replicas.remove(&id);
                    self.known.joined.remove(&id);
                }
                Err(error) => return Err(error),
            }
        }
        if batch.volumes {
            let volumes = self.engine.volumes().await?;
            self.known.volumes = volumes.into_iter().map(|volume| volume.record).collect();
        }
        Ok(())
    }

    async fn publish(&mut self) {
        let replicas = self
            .known
            .replicas
            .values()
            .cloned()
            .map(|record| self.marks.marked(record))
            .collect();
        let facts = v1::MachineFacts {
            docker_version: self.known.docker_version.clone(),
            ..self.host.clone()
        };
        let now = Observation {
            replicas,
            volumes: self.known.volumes.clone(),
            facts,
        };
        if self.published.as_ref() == Some(&now) {
            return;
        }
        match self.sink.publish(&now).await {
            Ok(()) => {
                self.marks.note_published(now.replicas.iter());
                self.published = Some(now);
            }
            // Offered again with the next change or full look.
            Err(failure) => tracing::warn!(%failure, "cannot publish what this machine runs"),
        }
    }
}

#[cfg(test)]
mod tests;
