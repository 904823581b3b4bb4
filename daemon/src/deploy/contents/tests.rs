//! Which machine gives what to which.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use futures_util::StreamExt as _;
use uc_api::v1::FileSpec;
use uc_api::v1::deploy_event::Event;

use super::super::execute::progress;
use super::*;
use crate::cluster::events::Events;
use crate::cluster::peers::tests::remote_node;
use crate::files::tests::{one_file, parts, receive};
use crate::node::tests::bench;

/// Machines with contents; `m1` executes.
struct Machines {
    has: Mutex<BTreeMap<&'static str, BTreeSet<ContentHash>>>,
    /// Those that do not answer.
    silent: Vec<&'static str>,
    /// Copies from these break off.
    breaks: Vec<&'static str>,
    copies: Mutex<Vec<String>>,
    files: crate::files::Files,
}

fn machines(has: &[(&'static str, &[&str])]) -> Machines {
    let contents = |names: &[&str]| names.iter().map(|name| hash(name)).collect();
    Machines {
        has: Mutex::new(
            has.iter()
                .map(|(machine, names)| (*machine, contents(names)))
                .collect(),
        ),
        silent: Vec::new(),
        breaks: Vec::new(),
        copies: Mutex::default(),
        files: crate::files::Files::new("not used"),
    }
}

fn hash(name: &str) -> ContentHash {
    ContentHash::of(name.as_bytes())
}

fn spec(names: &[&str]) -> ServiceSpec {
    let file = |name: &&str| FileSpec {
        hash: hash(name).to_string(),
        name: format!("config {name}"),
        target: format!("/{name}"),
        secret: false,
    };
    ServiceSpec {
        name: "web".into(),
        files: names.iter().map(file).collect(),
        ..ServiceSpec::default()
    }
}

#[async_trait]
impl Holders for Machines {
    fn own(&self) -> &'static str {
        "m1"
    }

    fn others(&self) -> Vec<String> {
        self.has
            .lock()
            .unwrap()
            .keys()
            .filter(|id| **id != "m1")
            .map(ToString::to_string)
            .collect()
    }

    async fn missing(
        &self,
        machine: &str,
        hashes: &[ContentHash],
    ) -> Result<Vec<ContentHash>, Failure> {
        if self.silent.contains(&machine) {
            return Err(Failure::new(Code::TimedOut, "no answer"));
        }
        let has = self.has.lock().unwrap();
        let own = &has[machine];
        Ok(hashes
            .iter()
            .filter(|hash| !own.contains(hash))
            .cloned()
            .collect())
    }

    async fn turn(&self, machine: &str) -> OwnedMutexGuard<()> {
        self.files.turn(machine).await
    }

    async fn copy(&self, hash: &ContentHash, from: &str, to: &str) -> Result<(), Failure> {
        tokio::task::yield_now().await;
        if self.breaks.contains(&from) {
            return Err(Failure::new(Code::Unreachable, "the connection broke"));
        }
        let mut has = self.has.lock().unwrap();
        assert!(
            has[from].contains(hash),
            "{from} has not what it is to give"
        );
        has.get_mut(to).unwrap().insert(hash.clone());
        self.copies.lock().unwrap().push(format!("{from} -> {to}"));
        Ok(())
    }
}

async fn ensure_on(
    machines: &Machines,
    machine: &str,
    spec: &ServiceSpec,
) -> (Result<(), Failure>, Vec<String>) {
    let events = Events::default();
    let progress = progress(&events, "s1", "web", machine);
    let result = ensure(machines, machine, spec, &progress).await;
    let told = events.subscribe();
    drop((progress, events));
    let said = told.filter_map(async |event| match event.event {
        Some(Event::Step(step)) => Some(step.message),
        _ => None,
    });
    let said = said.collect().await;
    (result, said)
}

#[tokio::test]
async fn what_is_there_is_not_sent() {
    let machines = machines(&[("m1", &["a"]), ("m2", &["a"])]);
    let (result, said) = ensure_on(&machines, "m2", &spec(&["a"])).await;
    result.unwrap();
    assert!(said.is_empty() && machines.copies.lock().unwrap().is_empty());
    // Without contents nobody is asked.
    let silent = Machines {
        silent: vec!["m2"],
        ..machines
    };
    ensure_on(&silent, "m2", &ServiceSpec::default())
        .await
        .0
        .unwrap();
}

#[tokio::test]
async fn the_executing_machine_sends_its_own() {
    let machines = machines(&[("m1", &["a", "b"]), ("m2", &["b"]), ("m3", &["a"])]);
    let (result, said) = ensure_on(&machines, "m2", &spec(&["a", "b"])).await;
    result.unwrap();
    assert_eq!(*machines.copies.lock().unwrap(), ["m1 -> m2"]);
    assert_eq!(said, [format!("sending config a ({})", hash("a").short())]);
}

#[tokio::test]
async fn replicas_that_are_made_side_by_side_need_a_content_once() {
    let machines = machines(&[("m1", &["a"]), ("m2", &[]), ("m3", &[])]);
    let wanted = spec(&["a"]);
    let all = ["m2", "m2", "m3", "m2", "m3"].map(|machine| ensure_on(&machines, machine, &wanted));
    for (result, _) in join_all(all).await {
        result.unwrap();
    }
    let mut copies = machines.copies.lock().unwrap().clone();
    copies.sort();
    assert_eq!(copies, ["m1 -> m2", "m1 -> m3"]);
}

#[tokio::test]
async fn any_machine_that_has_it_gives_it() {
    for target in ["m1", "m2"] {
        let machines = machines(&[("m1", &[]), ("m2", &[]), ("m3", &[]), ("m4", &["a"])]);
        let machines = Machines {
            silent: vec!["m3"],
            ..machines
        };
        ensure_on(&machines, target, &spec(&["a"])).await.0.unwrap();
        assert_eq!(
            *machines.copies.lock().unwrap(),
            [format!("m4 -> {target}")]
        );
    }
}

#[tokio::test]
async fn one_that_breaks_off_is_not_the_last() {
    let has: &[(&'static str, &[&str])] =
        &[("m1", &[]), ("m2", &[]), ("m3", &["a"]), ("m4", &["a"])];
    let broken = Machines {
        breaks: vec!["m3"],
        ..machines(has)
    };
    ensure_on(&broken, "m2", &spec(&["a"])).await.0.unwrap();
    assert_eq!(*broken.copies.lock().unwrap(), ["m4 -> m2"]);
    let has_too: &[(&'static str, &[&str])] = &[("m1", &["a"]), ("m2", &[]), ("m3", &["a"])];
    let own_broken = Machines {
        breaks: vec!["m1"],
        ..machines(has_too)
    };
    ensure_on(&own_broken, "m2", &spec(&["a"])).await.0.unwrap();
    assert_eq!(*own_broken.copies.lock().unwrap(), ["m3 -> m2"]);
    let all_broken = Machines {
        breaks: vec!["m3", "m4"],
        ..machines(has)
    };
    let failure = ensure_on(&all_broken, "m2", &spec(&["a"]))
        .await
        .0
        .unwrap_err();
    assert_eq!(failure.code, Code::Unreachable);
    assert!(
        failure.message.contains("config a") && failure.message.contains("broke"),
        "{failure:?}"
    );
}

#[tokio::test]
async fn what_nobody_has_is_said_with_the_way_out() {
    let machines = machines(&[("m1", &[]), ("m2", &[])]);
    let mut spec = spec(&[]);
    spec.secret_environment
        .insert("PASSWORD".into(), hash("p").to_string());
    let failure = ensure_on(&machines, "m2", &spec).await.0.unwrap_err();
    assert_eq!(failure.code, Code::Refused);
    let expected = format!(
        "the value of PASSWORD ({}) (needed by web) was not found on any reachable machine",
        hash("p").short()
    );
    assert_eq!(failure.message, expected);
    assert!(
        failure
            .hint
            .unwrap()
            .contains("the computer that has the compose file")
    );
}

#[tokio::test]
async fn contents_go_from_store_to_store() {
    let (one, other) = (bench(), bench());
    let (content, archive) = one_file(&"x".repeat(1_000_000));
    receive(one.node.files(), parts(&content, true, &archive))
        .await
        .unwrap();
    transfer(&remote_node(&one.node), &remote_node(&other.node), &content)
        .await
        .unwrap();
    assert_eq!(
        other.node.files().archive(content.clone()).await.unwrap(),
        (true, archive)
    );
    // Once more does no harm.
    transfer(&remote_node(&one.node), &remote_node(&other.node), &content)
        .await
        .unwrap();

    let failure = transfer(
        &remote_node(&one.node),
        &remote_node(&other.node),
        &hash("absent"),
    )
    .await
    .unwrap_err();
    assert_eq!(failure.code, Code::NotFound);
    // A copy that was spoiled on the disk is not passed on.
    let (spoiled, archive) = one_file("as it was");
    receive(one.node.files(), parts(&spoiled, false, &archive))
        .await
        .unwrap();
    let path = one
        .state
        .path()
        .join("files")
        .join(spoiled.as_str())
        .join("archive");
    std::fs::write(path, one_file("as it is now").1).unwrap();
    let failure = transfer(&remote_node(&one.node), &remote_node(&other.node), &spoiled)
        .await
        .unwrap_err();
    assert!(
        failure.message.contains("changed or truncated"),
        "{failure:?}"
    );
    assert_eq!(
        other
            .node
            .files()
            .missing(vec![spoiled.clone()])
            .await
            .unwrap(),
        [spoiled]
    );
}
