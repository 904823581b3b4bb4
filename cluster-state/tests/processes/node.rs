//! A node process: a store, its links and its membership, controlled by the commands of the test.
//! It ends when the test hangs up or dies.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::{Arc, Mutex};

use rustix::process::{Signal, set_parent_process_death_signal};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, UdpSocket, UnixStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uc_cluster_state::membership::{Membership, Peer};
use uc_cluster_state::{ClusterId, MachineId, MemberStatus, Options, Snapshot, Store, Write};

use crate::datagrams::Doors;
use crate::links::{Links, View};
use crate::protocol::{
    Address, Command, FACT, Index, Judgement, KINDS, Reply, SPEC, Start, Summary, Value, Visible,
    index, machine, observation, pair_key,
};

type Seen = Arc<Mutex<BTreeMap<Index, BTreeSet<Judgement>>>>;

/// Runs a node until the test hangs up.
pub(crate) fn run(start: &str) {
    // A stopped process does not notice that its standard input ends, but this signal reaches it.
    set_parent_process_death_signal(Some(Signal::KILL)).expect("end with the test");
    let start: Start = serde_json::from_str(start).expect("what to start");
    let stdin = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .expect("standard input");
    // One thread besides the store's writer, because fifty nodes share a machine.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(serve(start, StdUnixStream::from(stdin)));
}

struct Node {
    index: Index,
    store: Store,
    view: watch::Sender<View>,
    links: Links,
    doors: Doors,
    membership: Membership,
    seen: Seen,
}

async fn serve(start: Start, stdin: StdUnixStream) {
    stdin
        .set_nonblocking(true)
        .expect("a socket as standard input");
    let (from_test, mut to_test) = UnixStream::from_std(stdin).expect("a socket").into_split();
    let (mut node, address) = Node::start(&start).await;
    let mut reply = Reply::Started(address);
    let mut commands = BufReader::new(from_test).lines();
    loop {
        let mut line = serde_json::to_vec(&reply).expect("a reply as JSON");
        line.push(b'\n');
        if to_test.write_all(&line).await.is_err() {
            return;
        }
        let Ok(Some(line)) = commands.next_line().await else {
            return;
        };
        match serde_json::from_str(&line).expect("a command") {
            Command::Close => {
                let closed = node.store.close().await;
                let reply =
                    closed.map_or_else(|error| Reply::Failed(error.to_string()), |()| Reply::Done);
                let line = serde_json::to_string(&reply).expect("a reply as JSON") + "\n";
                // The test may have ended. Then the answer is not needed.
                let _ = to_test.write_all(line.as_bytes()).await;
                return;
            }
            command => reply = node.obey(command).await,
        }
    }
}

impl Node {
    async fn start(start: &Start) -> (Self, Address) {
        let options = Options {
            seed: start.seed,
            ..Options::new(
                start.directory.join("state.db"),
                ClusterId(start.cluster),
                machine(start.index),
                KINDS,
            )
        };
        let store = Store::open(options)
            .await
            .unwrap_or_else(|error| panic!("{error}"));
        let view = watch::Sender::new(View::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a TCP port");
        let front = Arc::new(UdpSocket::bind("127.0.0.1:0").await.expect("a UDP port"));
        let inner = UdpSocket::bind("127.0.0.1:0").await.expect("a UDP port");
        let address = Address {
            tcp: listener.local_addr().expect("our address"),
            udp: front.local_addr().expect("our address"),
        };
        let doors = Doors::open(
            front,
            inner.local_addr().expect("our address"),
            view.subscribe(),
        );
        let links = Links::start(
            start.index,
            listener,
            store.clone(),
            view.subscribe(),
            start.seed,
        );
        let never = CancellationToken::new();
        let membership = Membership::start(inner, machine(start.index), store.starts(), never)
            .expect("membership");
        let seen = Seen::default();
        tokio::spawn(remember(membership.liveness(), Arc::clone(&seen)));
        (
            Self {
                index: start.index,
                store,
                view,
                links,
                doors,
                membership,
                seen,
            },
            address,
        )
    }

    async fn obey(&mut self, command: Command) -> Reply {
        match command {
            Command::Peers(peers) => {
                let mut known = BTreeMap::new();
                for peer in peers.keys() {
                    let address = self.doors.door(*peer).await;
                    let key = pair_key(self.index, *peer);
                    known.insert(machine(*peer), Peer { address, key });
                    self.links.call(*peer);
                }
                self.view.send_modify(|view| view.peers = peers);
                self.membership.set_peers(known).await;
                Reply::Done
            }
            Command::Cut(peers) => {
                self.view.send_modify(|view| view.cut.clone_from(&peers));
                self.links.wait_for_none_of(&peers).await;
                Reply::Done
            }
            Command::Write(writes) => committed(
                self.store
                    .write(writes.into_iter().map(write).collect())
                    .await,
            ),
            Command::Enrol(nodes) => {
                let declare = |index| Write::Declare {
                    machine: machine(index),
                    status: MemberStatus::Member,
                };
                let declared = nodes.into_iter().map(declare).collect();
                match self.store.write(declared).await {
                    Ok(_) => Reply::Done,
                    Err(error) => Reply::Failed(error.to_string()),
                }
            }
            Command::Publish(rows) => {
                let rows = rows
                    .into_iter()
                    .map(|(key, value)| (key, value.into_bytes()))
                    .collect();
                committed(self.store.publish(FACT, rows).await)
            }
            Command::Get(key) => Reply::Record(values(&self.store.snapshot(), &key)),
            Command::Summary => Reply::Summary(summary(&self.store)),
            Command::Tombstones => Reply::Tombstones(self.store.status().tombstones),
            Command::Dump => Reply::Visible(visible(&self.store.snapshot())),
            Command::Liveness => {
                let liveness = self.membership.liveness();
                let now = liveness
                    .borrow()
                    .iter()
                    .map(|(peer, state)| (index(*peer), (*state).into()))
                    .collect();
                Reply::Liveness {
                    now,
                    seen: self.seen.lock().expect("no panic with the lock").clone(),
                }
            }
            Command::Forget => {
                self.seen.lock().expect("no panic with the lock").clear();
                Reply::Done
            }
            Command::Close => Reply::Failed("close is handled elsewhere".to_owned()),
        }
    }
}

fn write((key, value): (String, Option<String>)) -> Write {
    match value {
        Some(value) => Write::Put {
            kind: SPEC,
            key,
            value: value.into_bytes(),
        },
        None => Write::Delete { kind: SPEC, key },
    }
}

fn committed(outcome: Result<uc_cluster_state::Commit, uc_cluster_state::WriteError>) -> Reply {
    match outcome {
        Ok(commit) => Reply::Committed {
            actor: commit.actor.to_string(),
            version: commit.version,
        },
        Err(error) => Reply::Failed(error.to_string()),
    }
}

/// Notes every judgement.
async fn remember(
    mut liveness: watch::Receiver<BTreeMap<MachineId, uc_cluster_state::membership::Liveness>>,
    seen: Seen,
) {
    while liveness.changed().await.is_ok() {
        let now = liveness.borrow_and_update().clone();
        let mut seen = seen.lock().expect("no panic with the lock");
        for (peer, state) in now {
            seen.entry(index(peer)).or_default().insert(state.into());
        }
    }
}

fn values(snapshot: &Snapshot, key: &str) -> Vec<Value> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let siblings = snapshot.siblings(SPEC, key).into_iter();
    siblings
        .map(|sibling| Value {
            dot: sibling.dot.to_string(),
            hlc: sibling.stamp.hlc,
            value: sibling.value.map(text),
        })
        .collect()
}

fn visible(snapshot: &Snapshot) -> Visible {
    let intents = snapshot
        .intents(SPEC)
        .map(|(key, _)| (key.to_owned(), values(snapshot, key)))
        .collect();
    let observations = snapshot
        .observations(FACT)
        .map(|(owner, key, value)| {
            (
                observation(index(owner), key),
                String::from_utf8_lossy(value).into_owned(),
            )
        })
        .collect();
    Visible {
        intents,
        observations,
    }
}

fn summary(store: &Store) -> Summary {
    let (snapshot, status) = (store.snapshot(), store.status());
    // All nodes run the same program, so they hash the same way.
    let mut hasher = DefaultHasher::new();
    visible(&snapshot).hash(&mut hasher);
    let known = snapshot.version_vector();
    let vector = known
        .iter()
        .map(|(actor, version)| (actor.to_string(), version));
    Summary {
        contents: hasher.finish(),
        digest: snapshot.digest(),
        vector: vector.collect(),
        hidden: (status.quarantined + status.opaque) as usize,
    }
}
