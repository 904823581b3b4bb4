//! One change, as it is stored, relayed and merged. Its body is bytes that only this module reads;
//! a body it cannot read (a class of a newer peer, a damaged record) is `Content::Opaque`: kept and
//! relayed, never merged.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::clock::Stamp;
use crate::id::{Actor, Dot, MAX_COUNTER};
use crate::kind::{self, Class, Kind};

/// Most actors in one causal context: machines that wrote one record, restarts included.
pub(crate) const MAX_CONTEXT: usize = 1_024;

/// Most groups of fields in one record.
pub const MAX_GROUPS: usize = 64;

/// Numbers of the classes on the wire and on disk.
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

/// What a writer had seen of a record: every dot of an actor up to its version. Ascending by actor.
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
            self.add(Dot {
                actor: *actor,
                version: *version,
            });
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

/// A group of fields of a record: the unit that two people can change at the same time without a
/// conflict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) id: u16,
    /// Who changed it last, and its stamp's time.
    pub(crate) dot: Dot,
    pub(crate) hlc: u64,
    pub(crate) value: Bytes,
}

/// What somebody asked for, or claimed. It carries the whole record, so that no mixture of two
/// lives can arise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Intent {
    pub(crate) hlc: u64,
    /// When the record was created (claimed), and by whom: a record that was deleted and made
    /// again is another life.
    pub(crate) life: (u64, Actor),
    pub(crate) context: Context,
    /// Ascending by id. None: a tombstone.
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
    /// An observation of the actor's machine; none: gone (until the next sweep takes the mark
    /// away).
    Fact(Option<Bytes>),
    /// An entry of the actor's machine's log, and the wall clock's milliseconds when it was made.
    Entry {
        ms: u64,
        value: Bytes,
    },
    /// "All my facts of this kind that are older than `floor` (incarnation, version) vanish."
    Sweep {
        floor: (u64, u64),
    },
    /// The highest epoch stands; between equals the highest stamp.
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
    /// Of everything above: what digests are made of.
    pub(crate) hash: u128,
}

#[derive(Serialize, Deserialize)]
struct GroupBody<'a> {
    id: u16,
    /// None: this op changed it.
    set: Option<(Actor, u64, u64)>,
    #[serde(borrow)]
    value: Raw<'a>,
}

#[derive(Serialize, Deserialize)]
struct IntentBody<'a> {
    hlc: u64,
    /// None: this op began it.
    life: Option<(u64, Actor)>,
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

/// Serialising into memory cannot fail for these types; an empty body would come back as `Opaque`.
fn encode(body: &impl Serialize) -> Bytes {
    postcard::to_stdvec(body)
        .map(Bytes::from)
        .unwrap_or_default()
}

/// A group of fields to be written: its number, who changed it and when (none: this write), and its
/// value.
pub(crate) type WantedGroup = (u16, Option<(Dot, u64)>, Bytes);

/// What a new intent or claim says; its dot is given by the state that makes it.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) kind: u16,
    pub(crate) claim: bool,
    pub(crate) key: Arc<str>,
    pub(crate) hlc: u64,
    /// None: begins a new life.
    pub(crate) life: Option<(u64, Actor)>,
    pub(crate) context: Context,
    /// None: a tombstone. Groups without a dot are changed by this op.
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
            life: wanted.life,
            context: wanted.context.0.clone(),
            groups,
        };
        let class = if wanted.claim {
            CLASS_CLAIM
        } else {
            CLASS_INTENT
        };
        Self::decode(
            dot,
            wanted.kind,
            class,
            Arc::clone(&wanted.key),
            encode(&body),
            &[],
        )
    }

    pub(crate) fn fact(dot: Dot, kind: u16, key: Arc<str>, value: Option<&[u8]>) -> Self {
        let body = encode(&FactBody {
            value: value.map(Raw),
        });
        Self::decode(dot, kind, CLASS_FACT, key, body, &[])
    }

    pub(crate) fn sweep(dot: Dot, kind: u16, floor: (u64, u64)) -> Self {
        Self::decode(dot, kind, CLASS_SWEEP, Arc::from(""), encode(&floor), &[])
    }

    /// Its key is its place: entries sort by the incarnation and version that wrote them.
    pub(crate) fn entry(dot: Dot, kind: u16, ms: u64, value: &[u8]) -> Self {
        let key = format!("{:016x}.{:016x}", dot.actor.incarnation, dot.version);
        Self::decode(
            dot,
            kind,
            CLASS_ENTRY,
            key.into(),
            encode(&EntryBody {
                ms,
                value: Raw(value),
            }),
            &[],
        )
    }

    pub(crate) fn registry(
        dot: Dot,
        kind: u16,
        key: Arc<str>,
        epoch: u64,
        hlc: u64,
        value: &[u8],
    ) -> Self {
        let body = encode(&RegistryBody {
            epoch,
            hlc,
            value: Raw(value),
        });
        Self::decode(dot, kind, CLASS_REGISTRY, key, body, &[])
    }

    /// Never fails: what cannot be read, or contradicts the class that `kinds` declares, is opaque.
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

    /// What somebody asked for or claimed.
    pub(crate) fn asked(&self) -> Option<&Intent> {
        match &self.content {
            Content::Intent(intent) | Content::Claim(intent) => Some(intent),
            _ => None,
        }
    }

    /// The time of its stamp, for the classes that have one.
    pub(crate) fn hlc(&self) -> Option<u64> {
        match &self.content {
            Content::Intent(intent) | Content::Claim(intent) => Some(intent.hlc),
            Content::Registry { hlc, .. } => Some(*hlc),
            _ => None,
        }
    }

    /// The stamp, for the classes that have one.
    pub(crate) fn stamp(&self) -> Option<Stamp> {
        self.hlc().map(|hlc| Stamp {
            hlc,
            actor: self.dot.actor,
        })
    }

    /// Which of two changes of a registry record stands; the lowest for other classes.
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

    /// What is sent first: what people asked for, and who is a member.
    pub(crate) fn lane(&self) -> Lane {
        match &self.content {
            Content::Intent(_) | Content::Claim(_) | Content::Registry { .. } => Lane::Intent,
            Content::Fact(_) | Content::Entry { .. } | Content::Sweep { .. } | Content::Opaque => {
                Lane::Fact
            }
        }
    }
}

/// The place of a change among those of its registry record: the highest stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub(crate) struct Rank {
    pub(crate) epoch: u64,
    pub(crate) hlc: u64,
    /// None: no change at all.
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
    let mut half = [0; 16];
    half.iter_mut()
        .zip(hasher.finalize().as_bytes())
        .for_each(|(to, from)| *to = *from);
    u128::from_le_bytes(half)
}

fn decode_intent(body: &Bytes, dot: Dot) -> Option<Intent> {
    let parsed: IntentBody<'_> = postcard::from_bytes(body).ok()?;
    let context = Context(parsed.context);
    let life = parsed.life.unwrap_or((parsed.hlc, dot.actor));
    let sane = context.is_well_formed() && parsed.hlc < MAX_COUNTER && life.0 < MAX_COUNTER;
    let groups = match parsed.groups {
        None => None,
        Some(groups) => Some(decode_groups(groups, body, dot, parsed.hlc)?),
    };
    sane.then_some(Intent {
        hlc: parsed.hlc,
        life,
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
            (Dot { actor, version }, hlc)
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
    // A sweep of what has not happened yet would swallow later facts.
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
    fn bodies_come_back() {
        let mut context = Context::default();
        context.add(dot(2, 4));
        context.add(dot(1, 4));
        context.add(dot(1, 2));
        let wanted = Wanted {
            kind: 7,
            claim: false,
            key: Arc::from("k"),
            hlc: 99,
            life: Some((50, dot(2, 4).actor)),
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
        assert_eq!((intent.hlc, intent.life.0), (99, 50));
        assert_eq!(intent.group(0).unwrap().value, Bytes::from_static(b"value"));
        assert_eq!(
            (intent.group(0).unwrap().dot, intent.group(3).unwrap().dot),
            (dot(1, 5), dot(2, 4))
        );
        assert!(intent.context.covers(dot(1, 4)) && !intent.context.covers(dot(1, 5)));
        assert!(!intent.context.covers(dot(3, 1)));
    }

    #[test]
    fn what_contradicts_the_declared_class_is_opaque() {
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
    fn a_sweep_of_the_future_is_opaque() {
        assert_eq!(Op::sweep(dot(1, 5), 7, (1, 6)).content, Content::Opaque);
        assert_eq!(Op::sweep(dot(1, 5), 7, (2, 0)).content, Content::Opaque);
        assert_eq!(
            Op::sweep(dot(1, 5), 7, (1, 3)).content,
            Content::Sweep { floor: (1, 3) }
        );
    }

    proptest! {
        #[test]
        fn any_body_decodes_to_something(class in 0u8..8, body in prop::collection::vec(any::<u8>(), 0..200)) {
            Op::decode(dot(1, 1), 7, class, Arc::from("k"), Bytes::from(body), &[]);
        }
    }
}
