//! The nodes of a test: starts, kills and stops them, cuts their links, and sends them commands.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;

use crate::process::Process;
use crate::protocol::{Address, Command, Index, Reply, Start, Value, Visible};

/// Only one cluster runs at a time, also under plain `cargo test`, because fifty processes leave no
/// room for others.
static ALONE: Mutex<()> = Mutex::new(());

/// A cluster of processes.
pub(crate) struct Cluster {
    pub(crate) rng: SmallRng,
    id: [u8; 16],
    nodes: Vec<Node>,
    /// Pairs with the lower index first.
    cuts: BTreeSet<(Index, Index)>,
    directory: TempDir,
    _alone: MutexGuard<'static, ()>,
}

struct Node {
    process: Option<Process>,
    stopped: bool,
    address: Option<Address>,
}

impl Cluster {
    /// Starts nodes 0 to `count` - 1, all linked and all members.
    pub(crate) fn start(count: Index) -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let seed = match std::env::var("UC_TEST_SEED") {
            Ok(seed) => seed.parse().expect("UC_TEST_SEED is a number"),
            Err(_) => RandomState::new().build_hasher().finish(),
        };
        eprintln!("UC_TEST_SEED={seed}");
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut cluster = Self {
            id: rng.random(),
            rng,
            nodes: Vec::new(),
            cuts: BTreeSet::new(),
            directory: tempfile::tempdir().expect("a directory"),
            _alone: alone,
        };
        let new: Vec<Index> = (0..count).map(|_| cluster.new_node()).collect();
        cluster.begin(&new);
        cluster.ask(0, &Command::Enrol(new));
        cluster
    }

    fn new_node(&mut self) -> Index {
        let index = Index::try_from(self.nodes.len()).expect("a few nodes");
        std::fs::create_dir(self.files(index)).expect("a directory");
        self.nodes.push(Node {
            process: None,
            stopped: false,
            address: None,
        });
        index
    }

    /// Starts one more node, with an empty store.
    pub(crate) fn join(&mut self) -> Index {
        let index = self.new_node();
        self.begin(&[index]);
        self.ask(0, &Command::Enrol(vec![index]));
        index
    }

    /// Restarts killed nodes with their present files.
    pub(crate) fn begin(&mut self, indices: &[Index]) {
        for index in indices {
            let start = Start {
                index: *index,
                directory: self.files(*index),
                cluster: self.id,
                seed: self.rng.random(),
            };
            let log = self.log(*index);
            self.node(*index).process = Some(Process::start(&start, &log));
        }
        for index in indices {
            let Reply::Started(address) = self.receive(*index) else {
                panic!("node {index} did not send its address first")
            };
            self.node(*index).address = Some(address);
        }
        for index in indices {
            self.tell_cuts(*index);
        }
        let awake = self.awake();
        self.tell_peers(&awake);
    }

    /// Returns the directory of a node's files.
    pub(crate) fn files(&self, index: Index) -> PathBuf {
        self.directory.path().join(index.to_string())
    }

    /// Makes a new directory next to those of the nodes.
    pub(crate) fn shelf(&self, name: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::create_dir(&path).expect("a directory");
        path
    }

    pub(crate) fn log(&self, index: Index) -> PathBuf {
        self.directory.path().join(format!("{index}.log"))
    }

    /// Returns the nodes that run and are not stopped.
    pub(crate) fn awake(&self) -> Vec<Index> {
        let awake = |(index, node): (usize, &Node)| {
            (node.process.is_some() && !node.stopped).then_some(index as Index)
        };
        self.nodes.iter().enumerate().filter_map(awake).collect()
    }

    fn node(&mut self, index: Index) -> &mut Node {
        self.nodes
            .get_mut(usize::from(index))
            .expect("a node of this cluster")
    }

    pub(crate) fn process(&mut self, index: Index) -> &mut Process {
        self.node(index).process.as_mut().expect("a running node")
    }

    /// Sends a command without waiting for the answer.
    pub(crate) fn send(&mut self, index: Index, command: &Command) {
        if let Err(error) = self.process(index).send(command) {
            panic!(
                "node {index} accepts no command: {error}; its output: {}",
                self.output_of(index)
            );
        }
    }

    /// Returns the next answer of a node.
    pub(crate) fn receive(&mut self, index: Index) -> Reply {
        match self.process(index).receive() {
            Ok(Some(Reply::Failed(reason))) => panic!("node {index}: {reason}"),
            Ok(Some(reply)) => reply,
            Ok(None) => panic!(
                "node {index} has died; its output: {}",
                self.output_of(index)
            ),
            Err(error) => panic!(
                "node {index} does not answer: {error}; its output: {}",
                self.output_of(index)
            ),
        }
    }

    /// Returns the end of what a node printed.
    pub(crate) fn output_of(&self, index: Index) -> String {
        let log = std::fs::read_to_string(self.log(index)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }

    pub(crate) fn ask(&mut self, index: Index, command: &Command) -> Reply {
        self.send(index, command);
        self.receive(index)
    }

    /// Asks several nodes at the same time.
    pub(crate) fn ask_all(
        &mut self,
        indices: &[Index],
        command: impl Fn(Index) -> Command,
    ) -> BTreeMap<Index, Reply> {
        for index in indices {
            self.send(*index, &command(*index));
        }
        indices
            .iter()
            .map(|index| (*index, self.receive(*index)))
            .collect()
    }

    /// Returns everything visible on these nodes.
    pub(crate) fn dump(&mut self, indices: &[Index]) -> BTreeMap<Index, Visible> {
        let visible = |(index, reply)| match reply {
            Reply::Visible(visible) => (index, visible),
            other => panic!("node {index} answers a dump with {other:?}"),
        };
        self.ask_all(indices, |_| Command::Dump)
            .into_iter()
            .map(visible)
            .collect()
    }

    /// Puts one intent. It is on the node's disk afterwards.
    pub(crate) fn put(&mut self, index: Index, key: &str, value: &str) {
        self.write(index, vec![(key.to_owned(), Some(value.to_owned()))]);
    }

    /// Writes one transaction. It is on the node's disk afterwards.
    pub(crate) fn write(&mut self, index: Index, writes: Vec<(String, Option<String>)>) {
        let reply = self.ask(index, &Command::Write(writes));
        assert!(
            matches!(reply, Reply::Committed { .. }),
            "node {index} answers a write with {reply:?}"
        );
    }

    /// Returns all values of an intent on a node, the active one first.
    pub(crate) fn get(&mut self, index: Index, key: &str) -> Vec<Value> {
        match self.ask(index, &Command::Get(key.to_owned())) {
            Reply::Record(values) => values,
            other => panic!("node {index} answers a get with {other:?}"),
        }
    }

    /// Sends SIGKILL. Returns what the node had already answered.
    pub(crate) fn kill(&mut self, index: Index) -> Vec<Reply> {
        let node = self.node(index);
        node.stopped = false;
        node.process.take().expect("a running node").kill()
    }

    /// Sends SIGSTOP. Returns when the node is stopped.
    pub(crate) fn stop(&mut self, index: Index) {
        self.process(index).stop();
        self.node(index).stopped = true;
    }

    /// Sends SIGCONT.
    pub(crate) fn resume(&mut self, index: Index) {
        self.process(index).resume();
        self.node(index).stopped = false;
        self.tell_cuts(index);
        self.tell_peers(&[index]);
    }

    /// Cuts every link between the two sides. Returns when no stream is left on any of them.
    pub(crate) fn cut(&mut self, left: &[Index], right: &[Index]) {
        for left in left {
            for right in right.iter().filter(|right| *right != left) {
                self.cuts.insert((*left.min(right), *left.max(right)));
            }
        }
        for index in self.awake() {
            self.tell_cuts(index);
        }
    }

    /// Heals all links.
    pub(crate) fn heal(&mut self) {
        self.cuts.clear();
        for index in self.awake() {
            self.tell_cuts(index);
        }
    }

    fn tell_cuts(&mut self, index: Index) {
        let other = |(low, high): &(Index, Index)| match index {
            _ if *low == index => Some(*high),
            _ if *high == index => Some(*low),
            _ => None,
        };
        let cut: BTreeSet<Index> = self.cuts.iter().filter_map(other).collect();
        self.ask(index, &Command::Cut(cut));
    }

    fn tell_peers(&mut self, indices: &[Index]) {
        let addresses: BTreeMap<Index, Address> = self
            .nodes
            .iter()
            .enumerate()
            .filter_map(|(index, node)| Some((index as Index, node.address?)))
            .collect();
        self.ask_all(indices, |index| {
            let mut peers = addresses.clone();
            peers.remove(&index);
            Command::Peers(peers)
        });
    }
}

/// Copies a store's files, whatever their names, over the existing ones.
pub(crate) fn copy_files(from: &Path, to: &Path) {
    for old in std::fs::read_dir(to).expect("a directory").flatten() {
        std::fs::remove_file(old.path()).expect("remove the old file");
    }
    for file in std::fs::read_dir(from).expect("a directory").flatten() {
        std::fs::copy(file.path(), to.join(file.file_name())).expect("copy a file of the store");
    }
}
