//! Two stores that write without knowing of each other, then meet.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use uc_api::v1::conflict_side::Value;
use uc_api::v1::{ConflictSide, ServiceRecord, ServiceSpec, VolumeSpec};
use uc_cluster_state::{Changed, Clock, ClusterId, MachineId, Options, Session, Store};

use super::*;
use crate::cluster::labels as machine_labels;
use crate::cluster::records::{self, delete, put};

/// 2026-11-21T12:00:00Z
const NOON: u64 = 1_795_262_400_000;
/// The stores answer in milliseconds.
const LIMIT: Duration = Duration::from_secs(20);

#[derive(Debug)]
struct Stopped(u64);

impl Clock for Stopped {
    fn now_ms(&self) -> u64 {
        self.0
    }
}

/// Stores of machines m1, m2, …; the later ones have clocks that are a second ahead of the one
/// before.
struct Cluster {
    stores: Vec<Store>,
    machines: Vec<MachineRecord>,
    _directory: tempfile::TempDir,
}

fn machine_id(index: usize) -> MachineId {
    MachineId([u8::try_from(index).unwrap() + 1; 16])
}

/// Carries frames both ways until one of the sessions ends.
fn connect(mut a: Session, mut b: Session) {
    tokio::spawn(async move {
        loop {
            tokio::select! {
                Some(frame) = a.outgoing.recv() => if b.incoming.send(frame).await.is_err() { return },
                Some(frame) = b.outgoing.recv() => if a.incoming.send(frame).await.is_err() { return },
                else => return,
            }
        }
    });
}

impl Cluster {
    async fn of(count: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (mut stores, mut machines) = (Vec::new(), Vec::new());
        for index in 0..count {
            let path = directory.path().join(format!("{index}.db"));
            let mut options = Options::new(path, ClusterId([9; 16]), machine_id(index), KINDS);
            options.clock = Arc::new(Stopped(NOON + index as u64 * 1000));
            stores.push(Store::open(options).await.unwrap());
            let id = machine_id(index).to_string();
            machines.push(MachineRecord {
                id,
                name: format!("m{}", index + 1),
                ..MachineRecord::default()
            });
        }
        Self {
            stores,
            machines,
            _directory: directory,
        }
    }

    async fn write(&self, at: usize, write: Write) {
        self.stores[at].write(vec![write]).await.unwrap();
    }

    /// Connects these two and waits until each has what the other has now.
    async fn meet(&self, a: usize, b: usize) {
        connect(
            self.stores[a].session(machine_id(b)),
            self.stores[b].session(machine_id(a)),
        );
        self.agree(&[a, b]).await;
    }

    async fn agree(&self, members: &[usize]) {
        for one in members.iter().map(|index| &self.stores[*index]) {
            let (actor, version) = (one.actor(), one.snapshot().watermark(one.actor()));
            for other in members.iter().map(|index| &self.stores[*index]) {
                tokio::time::timeout(LIMIT, other.wait_for(actor, version))
                    .await
                    .unwrap()
                    .unwrap();
            }
        }
    }

    fn list(&self, at: usize) -> Vec<v1::Conflict> {
        list(&self.stores[at].snapshot(), &self.machines)
    }

    fn settle(&self, at: usize, request: &SettleConflictRequest) -> Result<Write, Failure> {
        settle(&self.stores[at].snapshot(), &self.machines, request)
    }
}

fn service(image: &str, change: impl FnOnce(&mut ServiceSpec)) -> Write {
    let mut spec = ServiceSpec {
        project: "shop".into(),
        name: "web".into(),
        image: image.into(),
        replicas: 2,
        ..ServiceSpec::default()
    };
    change(&mut spec);
    let record = ServiceRecord {
        spec: Some(spec),
        revision: image.into(),
        ..ServiceRecord::default()
    };
    put(records::SERVICE, "shop/web", &record)
}

/// Keeps a side, as a user who saw exactly this conflict.
fn keep(conflict: &v1::Conflict, side: usize) -> SettleConflictRequest {
    SettleConflictRequest {
        kind: conflict.kind.clone(),
        key: conflict.key.clone(),
        group: conflict.group,
        seen: conflict.sides.iter().map(|side| side.dot.clone()).collect(),
        keep: conflict.sides[side - 1].dot.clone(),
    }
}

fn drawn(side: &ConflictSide) -> String {
    let mut text = format!(
        "{} {}",
        side.machine_name,
        describe::time(side.written_at_ms)
    );
    for field in &side.fields {
        let mark = if field.differs { '*' } else { ' ' };
        let or_dash = |text: &str| {
            if text.is_empty() {
                "-".to_owned()
            } else {
                text.to_owned()
            }
        };
        _ = write!(
            text,
            "\n{mark} {}: {} | {}",
            field.name,
            or_dash(&field.active),
            or_dash(&field.value)
        );
    }
    text
}

#[tokio::test]
async fn settle_resolves_a_conflict_on_all_machines() {
    let cluster = Cluster::of(2).await;
    cluster
        .write(
            0,
            service("web:1", |spec| {
                spec.environment.insert("MODE".into(), "fast".into());
                spec.environment.insert("PASSWORD".into(), "one".into());
            }),
        )
        .await;
    cluster
        .write(
            1,
            service("web:2", |spec| {
                spec.environment.insert("COLOUR".into(), "red".into());
                spec.environment.insert("PASSWORD".into(), "two".into());
                spec.replicas = 0;
            }),
        )
        .await;
    assert_eq!(cluster.list(0), []);
    cluster.meet(0, 1).await;
    let listed = cluster.list(0);
    assert_eq!(listed, cluster.list(1));
    let [conflict] = listed.as_slice() else {
        panic!("{listed:?}")
    };
    assert_eq!(
        (conflict.name.as_str(), conflict.id.len()),
        ("service/shop/web", 8)
    );
    insta::assert_snapshot!(drawn(&conflict.sides[0]), @r"
    m2 2026-11-21T12:00:01Z
      image: web:2 | web:2
      environment.COLOUR: red | red
      environment.PASSWORD: *** | ***
      deploy.replicas: 0 | 0
    ");
    insta::assert_snapshot!(drawn(&conflict.sides[1]), @r"
    m1 2026-11-21T12:00:00Z
    * image: web:2 | web:1
    * environment.COLOUR: red | -
    * environment.MODE: - | fast
    * environment.PASSWORD: *** | ***
    * deploy.replicas: 0 | 2
    ");

    let choice = keep(conflict, 2);
    let write = cluster.settle(0, &choice).unwrap();
    cluster.write(0, write).await;
    cluster.agree(&[0, 1]).await;
    for at in 0..2 {
        assert_eq!(cluster.list(at), []);
        let snapshot = cluster.stores[at].snapshot();
        let record =
            ServiceRecord::decode(snapshot.get(records::SERVICE, "shop/web").unwrap()).unwrap();
        assert_eq!(record.spec.unwrap().image, "web:1");
        let refused = cluster.settle(at, &choice).unwrap_err();
        assert_eq!(refused.code, Code::Refused);
        assert!(
            refused
                .message
                .contains("was already resolved: m1 wrote it at 2026-11-21T12:00:"),
            "{refused}"
        );
    }
}

#[tokio::test]
async fn settle_can_keep_a_delete() {
    let cluster = Cluster::of(2).await;
    cluster.write(0, service("web:1", |_| ())).await;
    cluster.write(0, delete(records::SERVICE, "shop/web")).await;
    cluster.write(1, service("web:2", |_| ())).await;
    cluster.meet(0, 1).await;
    let [conflict] = &cluster.list(1)[..] else {
        panic!("{:?}", cluster.list(1))
    };
    assert!(
        !conflict.sides[0].deleted && conflict.sides[1].deleted,
        "an edit stays active"
    );
    assert_eq!(conflict.sides[1].value, None);
    insta::assert_snapshot!(drawn(&conflict.sides[1]), @r"
    m1 2026-11-21T12:00:00Z
    * image: web:2 | -
    * deploy.replicas: 2 | -
    ");
    let write = cluster.settle(1, &keep(conflict, 2)).unwrap();
    assert!(
        matches!(&write, Write::Settle { key, value: None, .. } if key == "shop/web"),
        "{write:?}"
    );
    cluster.write(1, write).await;
    cluster.agree(&[0, 1]).await;
    for at in 0..2 {
        assert_eq!(cluster.list(at), []);
        assert_eq!(
            cluster.stores[at]
                .snapshot()
                .get(records::SERVICE, "shop/web"),
            None
        );
    }
    assert!(
        cluster
            .settle(0, &keep(conflict, 1))
            .unwrap_err()
            .message
            .contains("m2 removed it at")
    );
}

#[tokio::test]
async fn list_leaves_out_records_with_equal_sides() {
    let cluster = Cluster::of(2).await;
    for at in 0..2 {
        cluster.write(at, service("web:1", |_| ())).await;
    }
    cluster.meet(0, 1).await;
    let snapshot = cluster.stores[0].snapshot();
    assert_eq!(snapshot.siblings(records::SERVICE, "shop/web").len(), 1);
    assert_eq!(cluster.list(0), []);
}

#[tokio::test]
async fn settle_refuses_versions_that_were_not_seen() {
    let cluster = Cluster::of(3).await;
    for at in 0..3 {
        cluster
            .write(at, service(&format!("web:{at}"), |_| ()))
            .await;
    }
    cluster.meet(0, 1).await;
    let [before] = &cluster.list(0)[..] else {
        panic!("{:?}", cluster.list(0))
    };
    let choice = keep(before, 2);
    assert!(cluster.settle(0, &choice).is_ok());

    cluster.meet(0, 2).await;
    let [conflict] = &cluster.list(0)[..] else {
        panic!("{:?}", cluster.list(0))
    };
    let names: Vec<_> = conflict
        .sides
        .iter()
        .map(|side| side.machine_name.as_str())
        .collect();
    assert_eq!(names, ["m3", "m2", "m1"]);
    assert_ne!(conflict.id, before.id, "an id stands for these values only");
    let refused = cluster.settle(0, &choice).unwrap_err();
    assert_eq!(refused.code, Code::Refused);
    insta::assert_snapshot!(refused, @"service/shop/web has changed since it was shown: m3 wrote it at 2026-11-21T12:00:02Z; nothing was changed");
    assert_eq!(
        refused.hint.as_deref(),
        Some("show it again with `uc conflicts show service/shop/web`")
    );

    let mut gone = keep(conflict, 2);
    gone.seen.push("0/1:1".into());
    let refused = cluster.settle(0, &gone).unwrap_err();
    assert!(
        refused
            .message
            .contains("some of its versions were replaced"),
        "{refused}"
    );

    let mut other = keep(conflict, 1);
    other.keep = "0/1:1".into();
    assert_eq!(cluster.settle(0, &other).unwrap_err().code, Code::Invalid);

    let mut mistyped = keep(conflict, 1);
    mistyped.key = "shop/wbe".into();
    let missing = cluster.settle(0, &mistyped).unwrap_err();
    assert_eq!(missing.code, Code::NotFound);
    assert_eq!(
        missing.hint.as_deref(),
        Some("did you mean `service/shop/web`?")
    );
    mistyped.kind = "replica".into();
    assert_eq!(
        cluster.settle(0, &mistyped).unwrap_err().code,
        Code::NotFound
    );
}

#[tokio::test]
async fn later_write_settles_a_conflict() {
    let cluster = Cluster::of(2).await;
    for at in 0..2 {
        cluster
            .write(at, service(&format!("web:{at}"), |_| ()))
            .await;
    }
    cluster.meet(0, 1).await;
    assert_eq!(cluster.list(0).len(), 1);
    cluster.write(0, service("web:3", |_| ())).await;
    cluster.agree(&[0, 1]).await;
    assert_eq!((cluster.list(0), cluster.list(1)), (vec![], vec![]));
}

#[test]
fn name_has_kind_key_and_group() {
    assert_eq!(name("service", "shop/web", 0), "service/shop/web");
    assert_eq!(name("service", "shop/web", 2), "service/shop/web#2");
    assert_eq!(kind_name(700), "kind-700");
}

#[test]
fn decode_of_unknown_bytes_gives_length_and_digest() {
    let unknown = describe::decode(700, b"abc");
    let damaged = describe::decode(records::SERVICE, &[0xff; 3]);
    assert!(
        matches!(&unknown, Value::Opaque(opaque) if opaque.bytes == 3 && opaque.digest.len() == 64)
    );
    let fields = describe::compare(Some(&unknown), Some(&damaged));
    let differing: Vec<_> = fields
        .iter()
        .filter(|field| field.differs)
        .map(|field| field.name.as_str())
        .collect();
    assert_eq!(differing, ["blake3"]);
}

#[test]
fn merge_keeps_the_order_of_fields() {
    let record = |environment: &[&str], volume: &str| {
        let spec = ServiceSpec {
            image: "i".into(),
            environment: environment
                .iter()
                .map(|name| ((*name).to_owned(), "1".to_owned()))
                .collect(),
            ..ServiceSpec::default()
        };
        let volume = VolumeSpec {
            name: volume.into(),
            driver: "nfs".into(),
            ..VolumeSpec::default()
        };
        Value::Service(ServiceRecord {
            spec: Some(spec),
            volumes: vec![volume],
            ..ServiceRecord::default()
        })
    };
    let fields = describe::compare(
        Some(&record(&["A", "C", "D"], "v")),
        Some(&record(&["B", "C", "E"], "w")),
    );
    let names: Vec<_> = fields.iter().map(|field| field.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "image",
            "environment.A",
            "environment.B",
            "environment.C",
            "environment.D",
            "environment.E",
            "deploy.replicas",
            "volumes of the project"
        ]
    );
    let last = fields.last().unwrap();
    assert_eq!(
        (last.active.as_str(), last.value.as_str(), last.differs),
        ("v (nfs)", "w (nfs)", true)
    );
}

#[tokio::test]
async fn label_and_rename_on_two_sides_do_not_conflict() {
    let cluster = Cluster::of(3).await;
    let machine = |at: usize| {
        let mut records = records::Records::default();
        records.update(&Changed::Everything, &cluster.stores[at].snapshot());
        records.machines.values().next().cloned().unwrap()
    };
    let labels = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    };
    let id = uc_api::MachineId::from_bytes([7; 16]).to_string();
    let record = MachineRecord {
        id: id.clone(),
        name: "old".into(),
        ..MachineRecord::default()
    };
    cluster.write(0, put(records::MACHINE, &id, &record)).await;
    cluster
        .write(0, machine_labels::write(&id, labels(&[("zone", "a")])))
        .await;
    cluster.meet(0, 1).await;

    // On two sides of a partition. Who renames knows the labels and does not write them again.
    let renamed = MachineRecord {
        name: "new".into(),
        ..machine(0)
    };
    assert_eq!(renamed.labels, labels(&[("zone", "a")]));
    cluster
        .write(0, machine_labels::write_record(renamed))
        .await;
    cluster
        .write(1, machine_labels::write(&id, labels(&[("disk", "ssd")])))
        .await;
    cluster.meet(0, 2).await;
    cluster.meet(1, 2).await;
    let machine = machine(2);
    assert_eq!(
        (machine.name.as_str(), machine.labels),
        ("new", labels(&[("disk", "ssd")]))
    );
    assert!(cluster.list(2).is_empty(), "{:?}", cluster.list(2));
}

#[tokio::test]
async fn labels_of_two_sides_conflict_in_their_own_group() {
    let cluster = Cluster::of(2).await;
    let id = uc_api::MachineId::from_bytes([7; 16]).to_string();
    for (at, value) in ["a", "b"].into_iter().enumerate() {
        let labels = BTreeMap::from([("zone".to_owned(), value.to_owned())]);
        cluster.write(at, machine_labels::write(&id, labels)).await;
    }
    cluster.meet(0, 1).await;
    let conflicts = cluster.list(0);
    assert_eq!(conflicts.len(), 1);
    assert_eq!(conflicts[0].name, format!("machine/{id}#1"));
    let fields: Vec<_> = conflicts[0]
        .sides
        .iter()
        .flat_map(|side| &side.fields)
        .collect();
    assert!(
        fields.iter().all(|field| field.name == "labels"),
        "{fields:?}"
    );
    assert_eq!(conflicts[0].sides[1].fields[0].value, "zone=a");
    let settled = cluster.settle(0, &keep(&conflicts[0], 2)).unwrap();
    cluster.write(0, settled).await;
    assert!(cluster.list(0).is_empty());
}
