//! Many deployments ask for one project in random interleavings.

use std::collections::BTreeMap;
use std::sync::Mutex;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::*;
use crate::node::Leases;

const SEEDS: u64 = 400;
/// How long a machine is waited for.
const LEASE_LIMIT: Duration = Duration::from_secs(2);

fn id(number: u8) -> MachineId {
    MachineId::from_bytes([number; 16])
}

/// The machines as one deployment reaches them.
struct Network<'a> {
    tables: &'a BTreeMap<MachineId, Leases>,
    /// Machines that this deployment cannot reach in one direction or both.
    cut: BTreeSet<MachineId>,
    random: Mutex<StdRng>,
}

impl Network<'_> {
    async fn delay(&self) {
        let delay = self.random.lock().unwrap().random_range(0..400);
        sleep(Duration::from_millis(delay)).await;
    }

    /// Whether a message to or from this machine is lost.
    fn is_lost(&self, machine: MachineId) -> bool {
        self.cut.contains(&machine) && self.random.lock().unwrap().random_bool(0.7)
    }
}

#[async_trait]
impl Machines for Network<'_> {
    async fn lease(&self, machine: MachineId, request: LeaseRequest) -> Answer {
        self.delay().await;
        if self.is_lost(machine) {
            sleep(LEASE_LIMIT).await;
            return Answer::Silent;
        }
        let answer = self.tables[&machine].lease(&request, Instant::now());
        self.delay().await;
        if self.is_lost(machine) {
            sleep(LEASE_LIMIT).await;
            return Answer::Silent;
        }
        match answer {
            Ok(None) => Answer::Granted,
            Ok(Some(lease)) => Answer::Taken(lease),
            Err(failure) => Answer::Refused(failure),
        }
    }

    async fn release(&self, machine: MachineId, what: What) {
        self.delay().await;
        if !self.is_lost(machine) {
            self.tables[&machine].release(&what, Instant::now());
        }
    }
}

fn request(deployment: String) -> LeaseRequest {
    LeaseRequest {
        projects: vec!["shop".into()],
        machine_id: "m".into(),
        process: "p".into(),
        attempt: format!("attempt of {deployment}"),
        deployment_id: deployment,
        ..LeaseRequest::default()
    }
}

/// Runs several deployments over several machines. The first machine answers all of them; the
/// others answer each of them or not. Returns who continued.
async fn race(seed: u64, lossy: bool) -> Vec<String> {
    let mut random = StdRng::seed_from_u64(seed);
    let count = random.random_range(1..=5);
    let tables: BTreeMap<MachineId, Leases> = (0..count)
        .map(|number| (id(number), Leases::new(format!("p{number}").into())))
        .collect();
    let deployments = random.random_range(2..=4);
    let mut asking = Vec::new();
    for _ in 0..deployments {
        let cut = (1..count).map(id);
        let cut = cut.filter(|_| lossy && random.random_bool(0.4)).collect();
        let network = Network {
            tables: &tables,
            cut,
            random: StdRng::seed_from_u64(random.random()).into(),
        };
        let deployment = format!("{:016x}", random.random::<u64>());
        let start = Duration::from_millis(random.random_range(0..300));
        asking.push(async move {
            sleep(start).await;
            let ids: BTreeSet<MachineId> = network.tables.keys().copied().collect();
            let won = ask(&network, &ids, &request(deployment.clone()))
                .await
                .is_ok();
            won.then_some(deployment)
        });
    }
    let winners: Vec<String> = join_all(asking).await.into_iter().flatten().collect();
    if !lossy {
        let now = Instant::now();
        for table in tables.values() {
            let held: Vec<String> = table
                .list(now)
                .into_iter()
                .map(|lease| lease.deployment_id)
                .collect();
            assert_eq!(held, winners, "seed {seed}: leases after the race");
        }
    }
    winners
}

#[tokio::test(start_paused = true)]
async fn of_deployments_that_ask_together_exactly_one_continues() {
    for seed in 0..SEEDS {
        let winners = race(seed, false).await;
        assert_eq!(winners.len(), 1, "seed {seed}: {winners:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn exactly_one_continues_although_other_machines_do_not_answer() {
    for seed in 0..SEEDS {
        let winners = race(seed, true).await;
        assert_eq!(winners.len(), 1, "seed {seed}: {winners:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn deployment_that_died_while_it_asked_is_waited_for() {
    let tables = BTreeMap::from([(id(0), Leases::new("p".into()))]);
    let dead = LeaseRequest {
        ttl_ms: milliseconds(ASKING_TTL),
        ..request("b".into())
    };
    tables[&id(0)].lease(&dead, Instant::now()).unwrap();
    let network = Network {
        tables: &tables,
        cut: BTreeSet::new(),
        random: StdRng::seed_from_u64(1).into(),
    };
    let ids = BTreeSet::from([id(0)]);
    // The higher id does not wait; the lower one gets the project when the lease has expired.
    let refused = ask(&network, &ids, &request("c".into())).await.unwrap_err();
    assert!(
        matches!(&refused, Denial::Taken(held) if held.deployment_id == "b"),
        "{refused:?}"
    );
    ask(&network, &ids, &request("a".into())).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn deployments_without_a_common_machine_both_continue() {
    let tables: BTreeMap<_, _> = [0, 1]
        .map(|number| (id(number), Leases::new("p".into())))
        .into();
    for (number, deployment) in [(0, "a"), (1, "b")] {
        let network = Network {
            tables: &tables,
            cut: BTreeSet::new(),
            random: StdRng::seed_from_u64(1).into(),
        };
        let ids = BTreeSet::from([id(number)]);
        ask(&network, &ids, &request(deployment.into()))
            .await
            .unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn machine_that_refuses_ends_the_deployment_with_its_reason() {
    let tables: BTreeMap<_, _> = [0, 1]
        .map(|number| (id(number), Leases::new("p".into())))
        .into();
    // It is taking another subnet.
    assert!(tables[&id(1)].close(Instant::now()));
    let network = Network {
        tables: &tables,
        cut: BTreeSet::new(),
        random: StdRng::seed_from_u64(1).into(),
    };
    let ids = tables.keys().copied().collect();
    let denial = ask(&network, &ids, &request("a".into())).await.unwrap_err();
    assert!(
        matches!(&denial, Denial::Refused(failure) if failure.message.contains("another subnet")),
        "{denial:?}"
    );
    assert!(tables[&id(0)].list(Instant::now()).is_empty());
}
