use prost::Message as _;
use uc_api::v1::{MachineFacts, ReplicaRecord, TokenRecord};
use uc_cluster_state::{Options, Write};
use uc_mesh::PrivateKey;

use super::*;
use crate::cluster::labels;
use crate::cluster::records::{
    CLUSTER, CLUSTER_KEY, FACTS, FACTS_KEY, KINDS, MACHINE, REPLICA, SERVICE, TOKEN, delete, put,
};

struct Bench {
    store: Store,
    view: View,
    alive: Arc<Alive>,
    _directory: tempfile::TempDir,
}

fn id(number: u8) -> MachineId {
    MachineId::from_bytes([number; 16])
}

fn machine(number: u8) -> MachineRecord {
    MachineRecord {
        id: id(number).to_string(),
        name: format!("m{number}"),
        public_key: PrivateKey::from_bytes([number; 32]).public().to_string(),
        subnet: format!("10.210.{number}.0/24"),
        created_at_ms: i64::from(number),
        ..MachineRecord::default()
    }
}

fn view(store: &Store) -> View {
    let own = Own {
        id: id(1),
        key: PrivateKey::from_bytes([1; 32]).public(),
        network: "10.210.0.0/16".parse().unwrap(),
        prefix_length: 24,
    };
    View::new(store, own, vec![machine(1), machine(2)])
}

impl Bench {
    /// Machine 1, which knows itself and machine 2 from its join.
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let cluster = uc_api::ClusterId::from_bytes([9; 16]);
        let options = Options::new(directory.path().join("store"), cluster, id(1), KINDS);
        let store = Store::open(options).await.unwrap();
        let view = view(&store);
        Self {
            store,
            view,
            alive: Arc::default(),
            _directory: directory,
        }
    }

    /// The view of a daemon that starts now.
    fn reopened_view(&self) -> View {
        view(&self.store)
    }

    async fn write(&self, writes: Vec<Write>) -> Arc<Cluster> {
        self.store.write(writes).await.unwrap();
        self.now()
    }

    fn now(&self) -> Arc<Cluster> {
        self.view.now(&self.alive)
    }
}

fn names(cluster: &Cluster) -> Vec<String> {
    let machines = cluster.machines().iter();
    machines.map(|machine| machine.name.to_string()).collect()
}

fn problems(cluster: &Cluster) -> Vec<&str> {
    let problems = cluster.problems();
    problems.map(|problem| problem.record.as_str()).collect()
}

/// The records of a large cluster arrive in several parts, the cluster's own first.
#[tokio::test]
async fn members_of_the_join_count_until_the_own_record_has_arrived() {
    let bench = Bench::new().await;
    assert_eq!(names(&bench.now()), ["m1", "m2"]);
    let cluster = put(CLUSTER, CLUSTER_KEY, &ClusterRecord::default());
    let known = bench.write(vec![cluster]).await;
    assert_eq!(names(&known), ["m1", "m2"]);
    let third = put(MACHINE, machine(3).id, &machine(3));
    let known = bench.write(vec![third]).await;
    assert_eq!(names(&known), ["m1", "m2", "m3"]);
    assert!(!known.has_own_record());
    // One that has left since the join is not called.
    let declare = |number, status| Write::Declare {
        machine: id(number),
        status,
    };
    let left = bench.write(vec![declare(2, MemberStatus::Left)]).await;
    assert_eq!(names(&left), ["m1", "m2", "m3"], "no record has changed");
    let fourth = put(MACHINE, machine(4).id, &machine(4));
    assert_eq!(names(&*bench.write(vec![fourth]).await), ["m1", "m3", "m4"]);
    let own = put(MACHINE, machine(1).id, &machine(1));
    assert!(bench.write(vec![own]).await.has_own_record());
    // A machine that was removed is no member because of its own list.
    let removed = vec![
        delete(MACHINE, machine(1).id),
        declare(1, MemberStatus::Left),
    ];
    assert_eq!(names(&*bench.write(removed).await), ["m3", "m4"]);
}

#[tokio::test]
async fn view_has_each_write_that_returned_and_nothing_older() {
    let bench = Bench::new().await;
    let cluster = put(CLUSTER, CLUSTER_KEY, &ClusterRecord::default());
    let own = put(MACHINE, machine(1).id, &machine(1));
    let before = bench.write(vec![cluster, own]).await;
    let web = ServiceRecord {
        revision: "r1".into(),
        ..ServiceRecord::default()
    };
    let token = TokenRecord {
        id: "t".into(),
        public_key: machine(7).public_key,
        ..TokenRecord::default()
    };
    let after = bench
        .write(vec![
            put(MACHINE, machine(3).id, &machine(3)),
            labels::write(&machine(3).id, [("disk".into(), "ssd".into())].into()),
            put(SERVICE, "shop/web", &web),
            put(TOKEN, "t", &token),
        ])
        .await;
    assert_eq!(names(&before), ["m1"]);
    assert!(before.services().is_empty());
    assert_eq!(names(&after), ["m1", "m3"]);
    assert_eq!(after.machine("m3").unwrap().record.labels["disk"], "ssd");
    assert_eq!(after.service("web").unwrap().1.revision, "r1");
    assert_eq!(after.token("t").unwrap().key.to_string(), token.public_key);
    let gone = bench
        .write(vec![
            delete(MACHINE, machine(3).id),
            delete(SERVICE, "shop/web"),
            delete(TOKEN, "t"),
        ])
        .await;
    assert_eq!(names(&gone), ["m1"]);
    assert!(gone.services().is_empty());
    assert!(gone.token("t").is_none());
    let unchanged = bench.now();
    assert!(Arc::ptr_eq(&gone, &unchanged), "nothing is decoded again");
}

#[tokio::test]
async fn reported_replicas_are_those_of_known_machines() {
    let bench = Bench::new().await;
    let replica = |service: &str, ip: &str| ReplicaRecord {
        container_id: service.into(),
        project: "shop".into(),
        service: service.into(),
        ip: ip.into(),
        ..ReplicaRecord::default()
    };
    let rows = |replicas: &[ReplicaRecord]| {
        let rows = replicas.iter();
        rows.map(|replica| (replica.container_id.clone(), replica.encode_to_vec()))
            .collect()
    };
    assert_eq!(*bench.now().reported(id(1)), Reported::NOTHING);
    let published = rows(&[replica("web", "10.210.1.2"), replica("db", "")]);
    bench.store.publish(REPLICA, published).await.unwrap();
    let facts = vec![(FACTS_KEY.into(), MachineFacts::default().encode_to_vec())];
    bench.store.publish(FACTS, facts).await.unwrap();
    let cluster = bench.now();
    let found: Vec<_> = cluster
        .replicas()
        .map(|(machine, replica)| (machine.name.as_str(), replica.service.to_string()))
        .collect();
    assert_eq!(
        found,
        [("m1", "shop/db".to_owned()), ("m1", "shop/web".to_owned())]
    );
    let reported = cluster.reported(id(1));
    assert!(reported.facts.is_some());
    assert_eq!(reported.replicas["web"].ip, Some([10, 210, 1, 2].into()));
    assert_eq!(reported.replicas["db"].ip, None);
    let published = rows(&[replica("web", "10.210.1.3")]);
    bench.store.publish(REPLICA, published).await.unwrap();
    assert_eq!(bench.now().reported(id(1)).replicas.len(), 1);
}

#[tokio::test]
async fn faulty_record_is_named_and_affects_nothing_else() {
    let bench = Bench::new().await;
    let bytes = |kind, key: &str| Write::Put {
        kind,
        key: key.into(),
        value: vec![0xff; 3],
    };
    let cluster = bench
        .write(vec![
            put(CLUSTER, CLUSTER_KEY, &ClusterRecord::default()),
            put(MACHINE, machine(1).id, &machine(1)),
            put(SERVICE, "shop/web", &ServiceRecord::default()),
            bytes(SERVICE, "shop/db"),
            put(SERVICE, "no-project", &ServiceRecord::default()),
            bytes(TOKEN, "t"),
            bytes(MACHINE, &machine(2).id),
            // The record of one machine under the id of another.
            put(MACHINE, machine(3).id, &machine(1)),
        ])
        .await;
    assert_eq!(names(&cluster), ["m1"]);
    assert_eq!(cluster.services().len(), 1);
    assert_eq!(
        problems(&cluster),
        [
            format!("machine {}", machine(2).id).as_str(),
            format!("machine {}", machine(3).id).as_str(),
            "token t",
            "service no-project",
            "service shop/db",
        ]
    );
    let cluster = bench
        .write(vec![
            put(SERVICE, "shop/db", &ServiceRecord::default()),
            delete(SERVICE, "no-project"),
            delete(TOKEN, "t"),
            put(MACHINE, machine(2).id, &machine(2)),
            delete(MACHINE, machine(3).id),
        ])
        .await;
    assert_eq!(problems(&cluster), Vec::<&str>::new());
    assert_eq!(names(&cluster), ["m1", "m2"]);
    assert_eq!(cluster.services().len(), 2);

    // The record of the cluster becomes unreadable, and there are other keys of its kind.
    let known = cluster.record().cloned();
    let cluster = bench
        .write(vec![
            put(MACHINE, machine(3).id, &machine(3)),
            bytes(CLUSTER, CLUSTER_KEY),
            bytes(CLUSTER, "another"),
            put(CLUSTER, "third", &ClusterRecord::default()),
        ])
        .await;
    assert_eq!(names(&cluster), ["m1", "m2", "m3"]);
    assert_eq!(cluster.record().cloned(), known);
    assert_eq!(
        problems(&cluster),
        ["cluster another", "cluster cluster", "cluster third"]
    );
    // A view that has never seen a readable one, as after a start.
    let restarted = bench.reopened_view().now(&bench.alive);
    assert_eq!(names(&restarted), ["m1", "m2", "m3"]);
    assert_eq!(restarted.record(), None);
    let network = ClusterRecord {
        network: "10.210.0.0/16".into(),
        ..ClusterRecord::default()
    };
    let cluster = bench
        .write(vec![
            put(CLUSTER, CLUSTER_KEY, &network),
            delete(CLUSTER, "another"),
            delete(CLUSTER, "third"),
        ])
        .await;
    assert_eq!(cluster.record(), Some(&network));
    assert_eq!(problems(&cluster), Vec::<&str>::new());
    // Even without the record, no machine that joined later is lost.
    let cluster = bench.write(vec![delete(CLUSTER, CLUSTER_KEY)]).await;
    assert_eq!(names(&cluster), ["m1", "m2", "m3"]);
}

#[tokio::test]
async fn facts_count_under_their_own_key_only() {
    let bench = Bench::new().await;
    let facts = MachineFacts {
        cpus: 4,
        ..MachineFacts::default()
    };
    let other = MachineFacts::default().encode_to_vec();
    let all = vec![
        (FACTS_KEY.into(), facts.encode_to_vec()),
        ("later".into(), other),
    ];
    bench.store.publish(FACTS, all).await.unwrap();
    let cluster = bench.now();
    assert_eq!(cluster.reported(id(1)).facts.as_deref(), Some(&facts));
    assert_eq!(
        problems(&cluster),
        [format!("facts later of machine {}", id(1)).as_str()]
    );
    let only = vec![(FACTS_KEY.into(), facts.encode_to_vec())];
    bench.store.publish(FACTS, only).await.unwrap();
    let cluster = bench.now();
    assert_eq!(cluster.reported(id(1)).facts.as_deref(), Some(&facts));
    assert_eq!(problems(&cluster), Vec::<&str>::new());
}

#[tokio::test]
async fn machine_is_found_by_name_id_and_beginning_of_its_id() {
    let bench = Bench::new().await;
    let double = MachineRecord {
        name: "m1".into(),
        ..machine(3)
    };
    let cluster = bench
        .write(vec![
            put(CLUSTER, CLUSTER_KEY, &ClusterRecord::default()),
            put(MACHINE, machine(1).id, &machine(1)),
            put(MACHINE, double.id.clone(), &double),
        ])
        .await;
    let found = |wanted: &str| cluster.machine(wanted).map(|machine| machine.id);
    let ambiguous = found("m1").unwrap_err();
    assert_eq!(ambiguous.code, Code::Invalid);
    let hint = ambiguous.hint.unwrap();
    assert!(
        [id(1), id(3)]
            .iter()
            .all(|id| hint.contains(&id.to_string())),
        "{hint}"
    );
    assert_eq!(found(&id(1).to_string()), Ok(id(1)));
    assert_eq!(found(&id(3).to_string()), Ok(id(3)));
    assert_eq!(found("0303"), Ok(id(3)));
    assert!(found("030").is_err(), "too short");
    let failure = found("m2").unwrap_err();
    assert_eq!(failure.code, Code::NotFound);
    assert_eq!(failure.hint.as_deref(), Some("did you mean `m1`?"));
}

#[tokio::test]
async fn this_machine_is_up_and_others_are_as_membership_sees_them() {
    let mut bench = Bench::new().await;
    assert_eq!(bench.now().liveness(id(1)), Some(Liveness::Up));
    assert_eq!(bench.now().liveness(id(2)), None);
    bench.alive = Arc::new(BTreeMap::from([(id(2), Liveness::Down)]));
    assert!(bench.now().is_down(id(2)));
}
