//! What the test and its nodes say to each other, one JSON value a line. A node answers each
//! command, in order.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use uc_cluster_state::membership::Liveness;
use uc_cluster_state::{Class, Kind, MachineId};

/// What the tests call intent.
pub(crate) const SPEC: u16 = 1;
/// What the tests call observations.
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

/// The node of a machine id.
pub(crate) fn index(machine: MachineId) -> Index {
    u16::from_be_bytes([machine.0[14], machine.0[15]]) - 1
}

/// What a node is told at its birth.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Start {
    pub(crate) index: Index,
    /// Where the store's file is or will be.
    pub(crate) directory: PathBuf,
    pub(crate) cluster: [u8; 16],
    pub(crate) seed: u64,
}

/// Where a node listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Address {
    pub(crate) tcp: SocketAddr,
    pub(crate) udp: SocketAddr,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Command {
    /// All other nodes.
    Peers(BTreeMap<Index, Address>),
    /// From now on, exactly the links to these are cut. Answered when they are.
    Cut(BTreeSet<Index>),
    /// One transaction of intents; no value: a delete.
    Write(Vec<(String, Option<String>)>),
    /// Makes nodes members, whose acknowledgements decide when deletes are collected.
    Enrol(Vec<Index>),
    /// The complete set of the node's observations.
    Publish(Vec<(String, String)>),
    /// One intent.
    Get(String),
    /// Enough to see whether nodes hold the same.
    Summary,
    /// Everything visible.
    Dump,
    /// How many deletes the node still keeps.
    Tombstones,
    /// What the node thinks of the others.
    Liveness,
    /// Begins `Reply::Liveness::seen` anew.
    Forget,
    /// Closes the store cleanly and ends the node.
    Close,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// The first word of a node.
    Started(Address),
    Done,
    /// On the disk.
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

/// One of the values of an intent; the first is the active one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Value {
    pub(crate) dot: String,
    pub(crate) hlc: u64,
    /// None: a delete.
    pub(crate) value: Option<String>,
}

/// Equal on nodes that hold the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Summary {
    /// A hash of `Visible`'s contents.
    pub(crate) contents: u64,
    /// The store's own digest of all it holds, hidden records and deletes included.
    pub(crate) digest: [u8; 32],
    /// The version of each actor.
    pub(crate) vector: BTreeMap<String, u64>,
    /// Records that are held but not shown: quarantined and opaque ones.
    pub(crate) hidden: usize,
}

/// All a reader of the store can see.
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
