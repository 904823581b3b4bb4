use std::sync::Mutex;

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::*;
use crate::engine::fake::FakeEngine;
use crate::engine::spec;
use crate::engine::suite::{IMAGE, service};

const BRIDGE: Ipv4Addr = Ipv4Addr::new(10, 210, 7, 1);

/// Hands on what is published; can be made to fail.
#[derive(Debug)]
struct Sink {
    observations: mpsc::Sender<Observation>,
    /// Since when the engine is away.
    aways: mpsc::Sender<i64>,
    failing: Mutex<u32>,
}

#[async_trait]
impl ObservationSink for Sink {
    async fn publish(&self, observation: &Observation) -> Result<(), Failure> {
        {
            let mut failing = self.failing.lock().unwrap();
            if *failing > 0 {
                *failing -= 1;
                return Err(Failure::new(uc_api::Code::Exhausted, "disk full"));
            }
        }
        self.observations.send(observation.clone()).await.unwrap();
        Ok(())
    }

    async fn publish_facts(&self, facts: &v1::MachineFacts) -> Result<(), Failure> {
        self.aways.send(facts.engine_away_since_ms).await.unwrap();
        Ok(())
    }
}

struct Bench {
    engine: FakeEngine,
    marks: Marks,
    observations: mpsc::Receiver<Observation>,
    aways: mpsc::Receiver<i64>,
    cancel: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

fn bench(engine: FakeEngine, failing: u32) -> Bench {
    engine.add_image(IMAGE);
    let (sender, observations) = mpsc::channel(100);
    let (aways_sender, aways) = mpsc::channel(100);
    let sink = Arc::new(Sink {
        observations: sender,
        aways: aways_sender,
        failing: Mutex::new(failing),
    });
    let marks = Marks::default();
    let cancel = CancellationToken::new();
    let host = v1::MachineFacts {
        hostname: "m1".into(),
        ..Default::default()
    };
    let task = tokio::spawn(run(
        Arc::new(engine.clone()),
        marks.clone(),
        host,
        BRIDGE,
        sink,
        cancel.clone(),
    ));
    Bench {
        engine,
        marks,
        observations,
        aways,
        cancel,
        task,
    }
}

impl Bench {
    async fn next(&mut self) -> Observation {
        timeout(Duration::from_mins(5), self.observations.recv())
            .await
            .expect("something is published")
            .unwrap()
    }

    async fn nothing_for(&mut self, time: Duration) {
        if let Ok(observation) = timeout(time, self.observations.recv()).await {
            panic!("published: {observation:?}");
        }
    }

    async fn create(&self, script: &str) -> String {
        self.create_from(service("web", script)).await
    }

    async fn create_from(&self, spec: v1::ServiceSpec) -> String {
        let placement = spec::Placement {
            cluster: "c1",
            machine: "m1",
            bridge: std::net::Ipv4Addr::LOCALHOST,
            revision: "r1",
            deployment: "d1",
            step: "",
            image_entrypoint: &[],
            api: crate::engine::ApiVersion::new(1, 46),
            shared: &std::collections::BTreeMap::new(),
            files: &std::collections::BTreeMap::new(),
            handed_on: &[],
            secrets: &std::collections::BTreeMap::new(),
        };
        let name = spec::container_name(&spec, rand::random());
        let body = spec::container(&spec, &name, &placement).unwrap();
        self.engine.create(&name, "", body).await.unwrap()
    }
}

fn states(observation: &Observation) -> Vec<v1::ReplicaState> {
    observation
        .replicas
        .iter()
        .map(v1::ReplicaRecord::state)
        .collect()
}

#[tokio::test(start_paused = true)]
async fn the_whole_truth_is_published_and_then_its_changes() {
    let mut bench = bench(FakeEngine::new(), 0);
    let first = bench.next().await;
    assert!(first.replicas.is_empty() && first.volumes.is_empty());
    assert_eq!(
        (
            first.facts.hostname.as_str(),
            first.facts.docker_version.as_str()
        ),
        ("m1", "27.0.0")
    );

    // Creation and start within the time of grace are one observation.
    let id = bench.create("sleep 5; exit 1").await;
    bench.engine.start(&id).await.unwrap();
    assert_eq!(states(&bench.next().await), [v1::ReplicaState::Running]);
    // It ends by itself.
    let ended = bench.next().await;
    assert_eq!(
        (states(&ended), ended.replicas[0].exit_code),
        (vec![v1::ReplicaState::Exited], Some(1))
    );

    let volume = v1::VolumeSpec {
        name: "v".into(),
        ..Default::default()
    };
    bench
        .engine
        .create_volume(&volume, Vec::new())
        .await
        .unwrap();
    assert_eq!(bench.next().await.volumes[0].name, "v");
    bench.engine.remove(&id).await.unwrap();
    assert!(bench.next().await.replicas.is_empty());
    // Full looks that find nothing new say nothing.
    bench.nothing_for(Duration::from_mins(5)).await;
    bench.cancel.cancel();
    bench.task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_shares_a_network_loses_its_address_with_the_other() {
    let mut bench = bench(FakeEngine::new(), 0);
    bench.next().await;
    let other = bench.create("sleep 1000").await;
    bench.engine.start(&other).await.unwrap();
    assert_eq!(states(&bench.next().await), [v1::ReplicaState::Running]);
    let joined = v1::ServiceSpec {
        network_mode: format!("container:{other}"),
        ..service("joined", "sleep 1000")
    };
    let id = bench.create_from(joined).await;
    bench.engine.start(&id).await.unwrap();
    let both = bench.next().await.replicas;
    assert!(!both[0].ip.is_empty());
    assert_eq!(both[0].ip, both[1].ip);
    // Told by one event of the other only.
    bench.engine.stop(&other, Duration::ZERO).await.unwrap();
    let after = bench.next().await.replicas;
    assert_eq!((after[0].ip.as_str(), after[1].ip.as_str()), ("", ""));
    assert_eq!(after[1].state(), v1::ReplicaState::Running);
}

#[tokio::test(start_paused = true)]
async fn address_in_the_machines_network_is_that_of_the_machine_now() {
    let mut bench = bench(FakeEngine::new(), 0);
    bench.next().await;
    // Created when the machine had another address.
    let on_host = v1::ServiceSpec {
        network_mode: "host".into(),
        ..service("web", "sleep 1000")
    };
    let id = bench.create_from(on_host).await;
    bench.engine.start(&id).await.unwrap();
    assert_eq!(bench.next().await.replicas[0].ip, BRIDGE.to_string());
}

#[tokio::test(start_paused = true)]
async fn containers_of_others_are_nobodys_business() {
    let mut bench = bench(FakeEngine::new(), 0);
    bench.next().await;
    let body = bollard::models::ContainerCreateBody {
        image: Some(IMAGE.into()),
        ..Default::default()
    };
    bench.engine.create("somebodys", "", body).await.unwrap();
    bench.nothing_for(Duration::from_mins(2)).await;
}

#[tokio::test(start_paused = true)]
async fn a_draining_mark_is_published_at_once() {
    let mut bench = bench(FakeEngine::new(), 0);
    bench.next().await;
    let id = bench.create("sleep 1000").await;
    assert!(!bench.next().await.replicas[0].draining);
    let began = Instant::now();
    bench.marks.drain(&id);
    assert!(
        bench
            .marks
            .published_draining(&id, Duration::from_secs(1))
            .await
    );
    assert_eq!(
        began.elapsed(),
        Duration::ZERO,
        "no debouncing, no engine asked"
    );
    assert!(bench.next().await.replicas[0].draining);
    bench.marks.clear(&id);
    assert!(!bench.next().await.replicas[0].draining);
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_goes_away_is_observed_again() {
    let engine = FakeEngine::new();
    engine.set_offline(true);
    let mut bench = bench(engine, 0);
    bench.nothing_for(Duration::from_mins(1)).await;
    bench.engine.set_offline(false);
    bench.next().await;
    let id = bench.create("sleep 1000").await;
    bench.next().await;
    bench.engine.set_offline(true);
    // What was known stays.
    bench.nothing_for(Duration::from_mins(1)).await;
    bench.engine.set_offline(false);
    bench.engine.start(&id).await.unwrap();
    let began = Instant::now();
    assert_eq!(states(&bench.next().await), [v1::ReplicaState::Running]);
    assert!(began.elapsed() <= LAST_RETRY);
    bench.engine.remove(&id).await.unwrap();
    assert!(
        bench.next().await.replicas.is_empty(),
        "events are heard again"
    );
}

#[tokio::test(start_paused = true)]
async fn engine_that_stays_away_is_published_once_until_it_answers() {
    let mut bench = bench(FakeEngine::new(), 0);
    assert_eq!(bench.next().await.facts.engine_away_since_ms, 0);
    // A restart of Docker says nothing.
    bench.engine.set_offline(true);
    tokio::time::sleep(Duration::from_secs(4)).await;
    bench.engine.set_offline(false);
    bench.nothing_for(Duration::from_mins(1)).await;
    assert!(bench.aways.try_recv().is_err());

    bench.engine.set_offline(true);
    let began = Instant::now();
    let since = timeout(Duration::from_mins(2), bench.aways.recv()).await;
    assert!(since.unwrap().unwrap() > 0);
    // It is noticed with the next full look at the latest.
    let limit = AWAY_AFTER + FULL_SYNC + Duration::from_secs(1);
    assert!(began.elapsed() >= AWAY_AFTER && began.elapsed() <= limit);
    bench.nothing_for(Duration::from_mins(5)).await;
    assert!(bench.aways.try_recv().is_err(), "once");
    bench.engine.set_offline(false);
    // The same as before, and published again.
    assert_eq!(bench.next().await.facts.engine_away_since_ms, 0);
}

#[tokio::test(start_paused = true)]
async fn engine_that_was_never_there_takes_nothing_away() {
    let engine = FakeEngine::new();
    engine.set_offline(true);
    let mut bench = bench(engine, 0);
    let since = timeout(Duration::from_mins(1), bench.aways.recv()).await;
    assert!(since.unwrap().unwrap() > 0);
    bench.nothing_for(Duration::from_mins(1)).await;
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_published_is_offered_again() {
    let mut bench = bench(FakeEngine::new(), 2);
    let began = Instant::now();
    let id = bench.create("sleep 1000").await;
    assert_eq!(bench.next().await.replicas[0].container_id, id);
    assert!(began.elapsed() <= FULL_SYNC * 2);
}

#[test]
fn events_name_what_to_look_at() {
    let mut batch = Batch::default();
    batch.add(EngineEvent::Container("a".into()));
    batch.add(EngineEvent::Container("a".into()));
    batch.add(EngineEvent::Volume);
    let expected = Batch {
        everything: false,
        containers: ["a".to_owned()].into(),
        volumes: true,
    };
    assert_eq!(batch, expected);
}
