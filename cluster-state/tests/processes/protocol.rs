//! The protocol between the test and its nodes: one JSON value on each line. A node answers each
//! command, in order.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use uc_cluster_state::membership::{Liveness, PairKey};
use uc_cluster_state::{Class, Kind, MachineId};

/// The kind of the tests' intents.
pub(crate) const SPEC: u16 = 1;
/// The kind of the tests' observations.
pub(crate) const FACT: u16 = 2;
pub(crate) const KINDS: &[Kind] = &[
    Kind {
        id: SPEC,
        name: "spec",
        class: Class::Intent,
    },
    Kind {
        id: FACT,
        name: "fact",
        class: Class::Observation,
    },
];

/// A node of the test, counted from 0.
pub(crate) type Index = u16;

/// The machine id of a node.
pub(crate) fn machine(index: Index) -> MachineId {
    let mut id = [0; 16];
    let [high, low] = (index + 1).to_be_bytes();
    (id[14], id[15]) = (high, low);
    MachineId(id)
}

/// The key of two nodes, known to the tests only.
pub(crate) fn pair_key(a: Index, b: Index) -> PairKey {
    let mut key = [0x5e; 32];
    key[..2].copy_from_slice(&a.min(b).to_be_bytes());
    key[2..4].copy_from_slice(&a.max(b).to_be_bytes());
    PairKey::from_bytes(key)
}

/// The node of a machine id.
pub(crate) fn index(machine: MachineId) -> Index {
    u16::from_be_bytes([machine.0[14], machine.0[15]]) - 1
}

/// What a node receives at its start.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Start {
    pub(crate) index: Index,
    /// Where the store's file is or will be.
    pub(crate) directory: PathBuf,
    pub(crate) cluster: [u8; 16],
    pub(crate) seed: u64,
}

/// The addresses on which a node listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Address {
    pub(crate) tcp: SocketAddr,
    pub(crate) udp: SocketAddr,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Command {
    /// All other nodes.
    Peers(BTreeMap<Index, Address>),
    /// From now on, exactly the links to these nodes are cut. Answered when they are.
    Cut(BTreeSet<Index>),
    /// One transaction of intents. `None` deletes.
    Write(Vec<(String, Option<String>)>),
    /// Makes nodes members, so that deletes wait for their acknowledgements.
    Enrol(Vec<Index>),
    /// The complete set of the node's observations.
    Publish(Vec<(String, String)>),
    /// Reads one intent.
    Get(String),
    /// Requests enough to compare the content of nodes.
    Summary,
    /// Requests everything visible.
    Dump,
    /// Requests the number of tombstones that the node still keeps.
    Tombstones,
    /// Requests the node's view of the others.
    Liveness,
    /// Clears `Reply::Liveness::seen`.
    Forget,
    /// Closes the store cleanly and ends the node.
    Close,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// The first message of a node.
    Started(Address),
    Done,
    /// The write is on the disk.
    Committed {
        actor: String,
        version: u64,
    },
    Record(Vec<Value>),
    Summary(Summary),
    Tombstones(u64),
    Visible(Visible),
    Liveness {
        now: BTreeMap<Index, Judgement>,
        /// All judgements since the start or the last `Forget`.
        seen: BTreeMap<Index, BTreeSet<Judgement>>,
    },
    Failed(String),
}

/// `Liveness`, for JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Judgement {
    Up,
    Suspect,
    Down,
}

impl From<Liveness> for Judgement {
    fn from(liveness: Liveness) -> Self {
        match liveness {
            Liveness::Up => Self::Up,
            Liveness::Suspect => Self::Suspect,
            Liveness::Down => Self::Down,
        }
    }
}

/// One of the values of an intent. The first is the active one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Value {
    pub(crate) dot: String,
    pub(crate) hlc: u64,
    /// `None` means a delete.
    pub(crate) value: Option<String>,
}

/// Equal on nodes with the same content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Summary {
    /// A hash of `Visible`'s contents.
    pub(crate) contents: u64,
    /// The store's own digest of everything it holds, hidden records and tombstones included.
    pub(crate) digest: [u8; 32],
    /// The version of each actor.
    pub(crate) vector: BTreeMap<String, u64>,
    /// Records that are held but not shown: quarantined and opaque ones.
    pub(crate) hidden: usize,
}

/// Everything that a reader of the store can see.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub(crate) struct Visible {
    /// All values of each intent that is not deleted.
    pub(crate) intents: BTreeMap<String, Vec<Value>>,
    /// By owner and key.
    pub(crate) observations: BTreeMap<String, String>,
}

/// The name of an observation in `Visible`.
pub(crate) fn observation(owner: Index, key: &str) -> String {
    format!("node {owner} {key}")
}
