//! One change, as it is stored, relayed and merged. Only this module reads its body. A body that it
//! cannot decode (a class of a newer peer, or a damaged record) becomes `Content::Opaque`: it is
//! kept and relayed, but never merged.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::clock::Stamp;
use crate::id::{Actor, Dot, MAX_COUNTER};
use crate::kind::{self, Class, Kind, RecordKey, Slot};

/// Maximum number of actors in one causal context: the machines that wrote one record, each once
/// per incarnation.
pub(crate) const MAX_CONTEXT: usize = 1_024;

/// Maximum number of field groups in one record.
pub const MAX_GROUPS: usize = 64;

/// Class numbers on the wire and on disk.
pub(crate) const CLASS_INTENT: u8 = 1;
pub(crate) const CLASS_FACT: u8 = 2;
pub(crate) const CLASS_SWEEP: u8 = 3;
pub(crate) const CLASS_CLAIM: u8 = 4;
pub(crate) const CLASS_ENTRY: u8 = 5;
pub(crate) const CLASS_REGISTRY: u8 = 6;

/// Bytes that postcard copies in one piece.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Raw<'a>(pub(crate) &'a [u8]);

impl Serialize for Raw<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Raw<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&'de [u8]>::deserialize(deserializer).map(Raw)
    }
}

/// What a writer had seen of a record: for each actor, every dot up to a version. Ascending by
/// actor.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Context(Vec<(Actor, u64)>);

impl Context {
    pub(crate) fn covers(&self, dot: Dot) -> bool {
        self.0
            .binary_search_by(|(actor, _)| actor.cmp(&dot.actor))
            .ok()
            .and_then(|at| self.0.get(at))
            .is_some_and(|(_, version)| dot.version <= *version)
    }

    pub(crate) fn add(&mut self, dot: Dot) {
        match self.0.binary_search_by(|(actor, _)| actor.cmp(&dot.actor)) {
            Ok(at) => {
                if let Some((_, version)) = self.0.get_mut(at) {
                    *version = dot.version.max(*version);
                }
            }
            Err(at) => self.0.insert(at, (dot.actor, dot.version)),
        }
    }

    pub(crate) fn join(&mut self, other: &Self) {
        for (actor, version) in &other.0 {
            self.add(actor.dot(*version));
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Actor, u64)> {
        self.0.iter().copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    fn is_well_formed(&self) -> bool {
        self.0.len() <= MAX_CONTEXT
            && self.0.is_sorted_by(|(a, _), (b, _)| a < b)
            && self.0.iter().all(|(actor, version)| {
                actor.incarnation < MAX_COUNTER && (1..MAX_COUNTER).contains(version)
            })
    }
}

/// A group of fields of a record. Two users can change different groups at the same time without a
/// conflict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) id: u16,
    /// The write that last changed the group, and the time of its stamp.
    pub(crate) dot: Dot,
    pub(crate) hlc: u64,
    pub(crate) value: Bytes,
}

/// An intent or a claim. It carries the whole record, so that two creations of a record are never
/// mixed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Intent {
    pub(crate) hlc: u64,
    /// The record's creation: stamp and actor of the change that created (or claimed) it. A record
    /// that is deleted and created again gets a new one.
    pub(crate) creation: Stamp,
    pub(crate) context: Context,
    /// Ascending by id. `None` means a tombstone.
    pub(crate) groups: Option<Vec<Group>>,
}

impl Intent {
    pub(crate) fn group(&self, id: u16) -> Option<&Group> {
        self.groups.as_ref()?.iter().find(|group| group.id == id)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    Intent(Intent),
    Claim(Intent),
    /// An observation of the actor's machine. `None` means that the row no longer exists; the next
    /// sweep removes this tombstone.
    Fact(Option<Bytes>),
    /// An entry in the log of the actor's machine, and the wall clock's milliseconds when it was
    /// made.
    Entry {
        ms: u64,
        value: Bytes,
    },
    /// Removes all observations of this machine and kind that are older than `floor` (incarnation,
    /// version).
    Sweep {
        floor: (u64, u64),
    },
    /// A registry record. The highest epoch counts; of equal epochs, the highest stamp.
    Registry {
        epoch: u64,
        hlc: u64,
        value: Bytes,
    },
    Opaque,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Op {
    pub(crate) dot: Dot,
    pub(crate) kind: u16,
    pub(crate) class: u8,
    pub(crate) key: Arc<str>,
    pub(crate) body: Bytes,
    pub(crate) content: Content,
    /// Hash of everything above. Digests are sums of these.
    pub(crate) hash: u128,
}

#[derive(Serialize, Deserialize)]
struct GroupBody<'a> {
    id: u16,
    /// `None` means that this change set the group.
    set: Option<(Actor, u64, u64)>,
    #[serde(borrow)]
    value: Raw<'a>,
}

#[derive(Serialize, Deserialize)]
struct IntentBody<'a> {
    hlc: u64,
    /// `None` means that this change created the record.
    creation: Option<Stamp>,
    context: Vec<(Actor, u64)>,
    #[serde(borrow)]
    groups: Option<Vec<GroupBody<'a>>>,
}

#[derive(Serialize, Deserialize)]
struct EntryBody<'a> {
    ms: u64,
    #[serde(borrow)]
    value: Raw<'a>,
}

#[derive(Serialize, Deserialize)]
struct RegistryBody<'a> {
    epoch: u64,
    hlc: u64,
    #[serde(borrow)]
    value: Raw<'a>,
}

#[derive(Serialize, Deserialize)]
struct FactBody<'a> {
    #[serde(borrow)]
    value: Option<Raw<'a>>,
}

/// Encodes a body, or the value of one of the store's own records.
pub(crate) fn encode(body: &impl Serialize) -> Bytes {
    postcard::to_stdvec(body)
        .expect("encoding into memory cannot fail")
        .into()
}

/// A group of fields to write: its number, the write that last changed it with that write's time
/// (`None` means this write), and its value.
pub(crate) type WantedGroup = (u16, Option<(Dot, u64)>, Bytes);

/// The content of a new intent or claim. The state that makes the change adds the dot.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) record: RecordKey,
    pub(crate) hlc: u64,
    /// `None` creates the record.
    pub(crate) creation: Option<Stamp>,
    pub(crate) context: Context,
    /// `None` writes a tombstone. This change sets the groups that have no dot.
    pub(crate) groups: Option<Vec<WantedGroup>>,
}

impl Op {
    pub(crate) fn intent(dot: Dot, wanted: &Wanted) -> Self {
        let mut groups = None;
        if let Some(wanted) = &wanted.groups {
            let set =
                |set: &Option<(Dot, u64)>| set.map(|(dot, hlc)| (dot.actor, dot.version, hlc));
            let bodies = wanted.iter().map(|(id, by, value)| GroupBody {
                id: *id,
                set: set(by),
                value: Raw(value),
            });
            groups = Some(bodies.collect());
        }
        let body = IntentBody {
            hlc: wanted.hlc,
            creation: wanted.creation,
            context: wanted.context.0.clone(),
            groups,
        };
        let RecordKey { slot, kind, key } = &wanted.record;
        let class = match slot {
            Slot::Intent => CLASS_INTENT,
            Slot::Claim => CLASS_CLAIM,
        };
        Self::make(dot, *kind, class, Arc::clone(key), &body)
    }

    pub(crate) fn fact(dot: Dot, kind: u16, key: Arc<str>, value: Option<&[u8]>) -> Self {
        let value = value.map(Raw);
        Self::make(dot, kind, CLASS_FACT, key, &FactBody { value })
    }

    pub(crate) fn sweep(dot: Dot, kind: u16, floor: (u64, u64)) -> Self {
        Self::make(dot, kind, CLASS_SWEEP, Arc::from(""), &floor)
    }

    /// Makes a log entry. Its key is its position: entries sort by the incarnation and version that
    /// wrote them.
    pub(crate) fn entry(dot: Dot, kind: u16, ms: u64, value: &[u8]) -> Self {
        let key = format!("{:016x}.{:016x}", dot.actor.incarnation, dot.version);
        let value = Raw(value);
        Self::make(dot, kind, CLASS_ENTRY, key.into(), &EntryBody { ms, value })
    }

    pub(crate) fn registry(
        dot: Dot,
        kind: u16,
        key: Arc<str>,
        epoch: u64,
        hlc: u64,
        value: &[u8],
    ) -> Self {
        let value = Raw(value);
        let body = RegistryBody { epoch, hlc, value };
        Self::make(dot, kind, CLASS_REGISTRY, key, &body)
    }

    fn make(dot: Dot, kind: u16, class: u8, key: Arc<str>, body: &impl Serialize) -> Self {
        Self::decode(dot, kind, class, key, encode(body), &[])
    }

    /// Never fails: a body that cannot be decoded, or that contradicts the class that `kinds`
    /// declares, becomes opaque.
    pub(crate) fn decode(
        dot: Dot,
        kind: u16,
        class: u8,
        key: Arc<str>,
        body: Bytes,
        kinds: &[Kind],
    ) -> Self {
        let declared = kind::find(kinds, kind).map(|declared| declared.class);
        let content = match (class, declared) {
            (CLASS_INTENT, None | Some(Class::Intent)) => {
                decode_intent(&body, dot).map(Content::Intent)
            }
            (CLASS_CLAIM, None | Some(Class::Claim)) => {
                decode_intent(&body, dot).map(Content::Claim)
            }
            (CLASS_FACT, None | Some(Class::Observation)) => decode_fact(&body),
            (CLASS_ENTRY, None | Some(Class::Log)) => decode_entry(&body),
            (CLASS_SWEEP, None | Some(Class::Observation | Class::Log)) => decode_sweep(&body, dot),
            (CLASS_REGISTRY, None | Some(Class::Registry)) => decode_registry(&body),
            _ => None,
        };
        let hash = hash(dot, kind, class, &key, &body);
        Self {
            dot,
            kind,
            class,
            key,
            body,
            content: content.unwrap_or(Content::Opaque),
            hash,
        }
    }

    /// Returns the record that an intent or a claim is about.
    pub(crate) fn record(&self) -> Option<RecordKey> {
        let slot = match &self.content {
            Content::Intent(_) => Slot::Intent,
            Content::Claim(_) => Slot::Claim,
            _ => return None,
        };
        Some(RecordKey {
            slot,
            kind: self.kind,
            key: Arc::clone(&self.key),
        })
    }

    /// Returns the intent or claim, for these classes.
    pub(crate) fn asked(&self) -> Option<&Intent> {
        match &self.content {
            Content::Intent(intent) | Content::Claim(intent) => Some(intent),
            _ => None,
        }
    }

    /// Returns the time of its stamp, for the classes that have one.
    pub(crate) fn hlc(&self) -> Option<u64> {
        match &self.content {
            Content::Intent(intent) | Content::Claim(intent) => Some(intent.hlc),
            Content::Registry { hlc, .. } => Some(*hlc),
            _ => None,
        }
    }

    /// Returns the stamp, for the classes that have one.
    pub(crate) fn stamp(&self) -> Option<Stamp> {
        self.hlc().map(|hlc| Stamp {
            hlc,
            actor: self.dot.actor,
        })
    }

    /// Returns the rank among the changes of a registry record. For other classes it is the lowest
    /// rank.
    pub(crate) fn rank(&self) -> Rank {
        match &self.content {
            Content::Registry { epoch, hlc, .. } => Rank {
                epoch: *epoch,
                hlc: *hlc,
                by: Some(self.dot),
            },
            _ => Rank::default(),
        }
    }

    /// Returns the sending order: intents, claims and the registry are sent first.
    pub(crate) fn lane(&self) -> Lane {
        match &self.content {
            Content::Intent(_) | Content::Claim(_) | Content::Registry { .. } => Lane::Intent,
            Content::Fact(_) | Content::Entry { .. } | Content::Sweep { .. } | Content::Opaque => {
                Lane::Fact
            }
        }
    }
}

/// The rank of a change among those of its registry record. The highest counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub(crate) struct Rank {
    pub(crate) epoch: u64,
    pub(crate) hlc: u64,
    /// `None` means no change at all.
    pub(crate) by: Option<Dot>,
}

/// The order of sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    Intent,
    Fact,
}

fn hash(dot: Dot, kind: u16, class: u8, key: &str, body: &[u8]) -> u128 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&dot.actor.machine.0);
    hasher.update(&dot.actor.incarnation.to_le_bytes());
    hasher.update(&dot.version.to_le_bytes());
    hasher.update(&kind.to_le_bytes());
    hasher.update(&[class]);
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key.as_bytes());
    hasher.update(body);
    let hash = hasher.finalize();
    let half = hash.as_bytes().first_chunk().expect("a hash has 32 bytes");
    u128::from_le_bytes(*half)
}

fn decode_intent(body: &Bytes, dot: Dot) -> Option<Intent> {
    let parsed: IntentBody<'_> = postcard::from_bytes(body).ok()?;
    let context = Context(parsed.context);
    let creation = parsed.creation.unwrap_or(Stamp {
        hlc: parsed.hlc,
        actor: dot.actor,
    });
    let sane = context.is_well_formed() && parsed.hlc < MAX_COUNTER && creation.hlc < MAX_COUNTER;
    let groups = match parsed.groups {
        None => None,
        Some(groups) => Some(decode_groups(groups, body, dot, parsed.hlc)?),
    };
    sane.then_some(Intent {
        hlc: parsed.hlc,
        creation,
        context,
        groups,
    })
}

fn decode_groups(
    groups: Vec<GroupBody<'_>>,
    body: &Bytes,
    dot: Dot,
    hlc: u64,
) -> Option<Vec<Group>> {
    let sorted = groups.is_sorted_by(|a, b| a.id < b.id);
    if !sorted || groups.is_empty() || groups.len() > MAX_GROUPS {
        return None;
    }
    let group = |group: GroupBody<'_>| {
        let (set, hlc) = group.set.map_or((dot, hlc), |(actor, version, hlc)| {
            (actor.dot(version), hlc)
        });
        Group {
            id: group.id,
            dot: set,
            hlc,
            value: body.slice_ref(group.value.0),
        }
    };
    Some(groups.into_iter().map(group).collect())
}

fn decode_entry(body: &Bytes) -> Option<Content> {
    let parsed: EntryBody<'_> = postcard::from_bytes(body).ok()?;
    Some(Content::Entry {
        ms: parsed.ms,
        value: body.slice_ref(parsed.value.0),
    })
}

fn decode_registry(body: &Bytes) -> Option<Content> {
    let parsed: RegistryBody<'_> = postcard::from_bytes(body).ok()?;
    let sane = parsed.epoch < MAX_COUNTER && parsed.hlc < MAX_COUNTER;
    let value = body.slice_ref(parsed.value.0);
    sane.then_some(Content::Registry {
        epoch: parsed.epoch,
        hlc: parsed.hlc,
        value,
    })
}

fn decode_fact(body: &Bytes) -> Option<Content> {
    let parsed: FactBody<'_> = postcard::from_bytes(body).ok()?;
    Some(Content::Fact(
        parsed.value.map(|Raw(value)| body.slice_ref(value)),
    ))
}

fn decode_sweep(body: &Bytes, dot: Dot) -> Option<Content> {
    let floor: (u64, u64) = postcard::from_bytes(body).ok()?;
    // A sweep of versions that do not exist yet would remove later observations.
    (floor <= (dot.actor.incarnation, dot.version)).then_some(Content::Sweep { floor })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::MachineId;

    fn dot(n: u8, version: u64) -> Dot {
        Dot {
            actor: Actor {
                machine: MachineId([n; 16]),
                incarnation: 1,
            },
            version,
        }
    }

    #[test]
    fn op_body_survives_encoding() {
        let mut context = Context::default();
        context.add(dot(2, 4));
        context.add(dot(1, 4));
        context.add(dot(1, 2));
        let wanted = Wanted {
            record: RecordKey::intent(7, "k"),
            hlc: 99,
            creation: Some(Stamp {
                hlc: 50,
                actor: dot(2, 4).actor,
            }),
            context,
            groups: Some(vec![
                (0, None, Bytes::from_static(b"value")),
                (3, Some((dot(2, 4), 60)), Bytes::new()),
            ]),
        };
        let op = Op::intent(dot(1, 5), &wanted);
        let again = Op::decode(
            op.dot,
            7,
            op.class,
            Arc::clone(&op.key),
            op.body.clone(),
            &[],
        );
        assert_eq!(again, op);
        let Content::Intent(intent) = again.content else {
            panic!("not an intent")
        };
        assert_eq!((intent.hlc, intent.creation.hlc), (99, 50));
        assert_eq!(intent.group(0).unwrap().value, Bytes::from_static(b"value"));
        assert_eq!(
            (intent.group(0).unwrap().dot, intent.group(3).unwrap().dot),
            (dot(1, 5), dot(2, 4))
        );
        assert!(intent.context.covers(dot(1, 4)) && !intent.context.covers(dot(1, 5)));
        assert!(!intent.context.covers(dot(3, 1)));
    }

    #[test]
    fn op_contradicting_its_declared_class_is_opaque() {
        let kinds = [Kind {
            id: 7,
            name: "seven",
            class: Class::Observation,
        }];
        let op = Op::registry(dot(1, 5), 7, Arc::from("k"), 1, 99, b"");
        assert_eq!(
            Op::decode(op.dot, 7, op.class, op.key, op.body, &kinds).content,
            Content::Opaque
        );
    }

    #[test]
    fn op_sweeping_future_versions_is_opaque() {
        assert_eq!(Op::sweep(dot(1, 5), 7, (1, 6)).content, Content::Opaque);
        assert_eq!(Op::sweep(dot(1, 5), 7, (2, 0)).content, Content::Opaque);
        assert_eq!(
            Op::sweep(dot(1, 5), 7, (1, 3)).content,
            Content::Sweep { floor: (1, 3) }
        );
    }

    proptest! {
        #[test]
        fn op_decodes_any_body(class in 0u8..8, body in prop::collection::vec(any::<u8>(), 0..200)) {
            Op::decode(dot(1, 1), 7, class, Arc::from("k"), Bytes::from(body), &[]);
        }
    }
}
