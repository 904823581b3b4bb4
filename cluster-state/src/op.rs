//! One change, as it is stored, relayed and merged. Its body is bytes that only this module reads; a body it cannot
//! read (a class of a newer peer, a damaged record) is `Content::Opaque`: kept and relayed, never merged.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::clock::Stamp;
use crate::id::{Actor, Dot, MAX_COUNTER};
use crate::kind::{Class, Kind};

/// Most actors in one causal context: machines that wrote one record, restarts included.
pub(crate) const MAX_CONTEXT: usize = 1_024;

/// Numbers of the classes on the wire and on disk. Claims, logs and registries get the next ones.
pub(crate) const CLASS_INTENT: u8 = 1;
pub(crate) const CLASS_FACT: u8 = 2;
pub(crate) const CLASS_SWEEP: u8 = 3;

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
            self.add(Dot { actor: *actor, version: *version });
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    fn is_well_formed(&self) -> bool {
        self.0.len() <= MAX_CONTEXT
            && self.0.is_sorted_by(|(a, _), (b, _)| a < b)
            && self
                .0
                .iter()
                .all(|(actor, version)| actor.incarnation < MAX_COUNTER && (1..MAX_COUNTER).contains(version))
    }
}

/// What somebody asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Intent {
    pub(crate) hlc: u64,
    pub(crate) context: Context,
    /// None: a tombstone.
    pub(crate) value: Option<Bytes>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    Intent(Intent),
    /// An observation of the actor's machine; none: gone (until the next sweep takes the mark away).
    Fact(Option<Bytes>),
    /// "All my facts of this kind that are older than `floor` (incarnation, version) vanish."
    Sweep {
        floor: (u64, u64),
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
}

#[derive(Serialize, Deserialize)]
struct IntentBody<'a> {
    hlc: u64,
    context: Vec<(Actor, u64)>,
    #[serde(borrow)]
    value: Option<Raw<'a>>,
}

#[derive(Serialize, Deserialize)]
struct FactBody<'a> {
    #[serde(borrow)]
    value: Option<Raw<'a>>,
}

/// Serialising into memory cannot fail for these types; an empty body would come back as `Opaque`.
fn encode(body: &impl Serialize) -> Bytes {
    postcard::to_stdvec(body).map(Bytes::from).unwrap_or_default()
}

impl Op {
    pub(crate) fn intent(
        dot: Dot,
        kind: u16,
        key: Arc<str>,
        hlc: u64,
        context: Context,
        value: Option<&[u8]>,
    ) -> Self {
        let body = encode(&IntentBody { hlc, context: context.0, value: value.map(Raw) });
        Self::decode(dot, kind, CLASS_INTENT, key, body, &[])
    }

    pub(crate) fn fact(dot: Dot, kind: u16, key: Arc<str>, value: Option<&[u8]>) -> Self {
        let body = encode(&FactBody { value: value.map(Raw) });
        Self::decode(dot, kind, CLASS_FACT, key, body, &[])
    }

    pub(crate) fn sweep(dot: Dot, kind: u16, floor: (u64, u64)) -> Self {
        Self::decode(dot, kind, CLASS_SWEEP, Arc::from(""), encode(&floor), &[])
    }

    /// Never fails: what cannot be read, or contradicts the class that `kinds` declares, is opaque.
    pub(crate) fn decode(dot: Dot, kind: u16, class: u8, key: Arc<str>, body: Bytes, kinds: &[Kind]) -> Self {
        let declared = kinds.iter().find(|declared| declared.id == kind).map(|declared| declared.class);
        let content = match (class, declared) {
            (CLASS_INTENT, None | Some(Class::Intent)) => decode_intent(&body),
            (CLASS_FACT, None | Some(Class::Observation)) => decode_fact(&body),
            (CLASS_SWEEP, None | Some(Class::Observation)) => decode_sweep(&body, dot),
            _ => None,
        };
        Self { dot, kind, class, key, body, content: content.unwrap_or(Content::Opaque) }
    }

    /// The stamp of an intent.
    pub(crate) fn stamp(&self) -> Option<Stamp> {
        match &self.content {
            Content::Intent(intent) => Some(Stamp { hlc: intent.hlc, actor: self.dot.actor }),
            _ => None,
        }
    }
}

fn decode_intent(body: &Bytes) -> Option<Content> {
    let parsed: IntentBody<'_> = postcard::from_bytes(body).ok()?;
    let value = parsed.value.map(|Raw(value)| body.slice_ref(value));
    let context = Context(parsed.context);
    let sane = context.is_well_formed() && parsed.hlc < MAX_COUNTER;
    sane.then_some(Content::Intent(Intent { hlc: parsed.hlc, context, value }))
}

fn decode_fact(body: &Bytes) -> Option<Content> {
    let parsed: FactBody<'_> = postcard::from_bytes(body).ok()?;
    Some(Content::Fact(parsed.value.map(|Raw(value)| body.slice_ref(value))))
}

fn decode_sweep(body: &Bytes, dot: Dot) -> Option<Content> {
    let floor: (u64, u64) = postcard::from_bytes(body).ok()?;
    // A sweep of what has not happened yet would swallow later facts.
    (floor <= (dot.actor.incarnation, dot.version)).then_some(Content::Sweep { floor })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::MachineId;
    use proptest::prelude::*;

    fn dot(n: u8, version: u64) -> Dot {
        Dot { actor: Actor { machine: MachineId([n; 16]), incarnation: 1 }, version }
    }

    #[test]
    fn bodies_come_back() {
        let mut context = Context::default();
        context.add(dot(2, 4));
        context.add(dot(1, 4));
        context.add(dot(1, 2));
        let op = Op::intent(dot(1, 5), 7, Arc::from("k"), 99, context.clone(), Some(b"value"));
        let again = Op::decode(op.dot, 7, op.class, Arc::clone(&op.key), op.body.clone(), &[]);
        assert_eq!(again, op);
        let Content::Intent(intent) = again.content else { panic!("not an intent") };
        assert_eq!((intent.hlc, intent.value.as_deref()), (99, Some(&b"value"[..])));
        assert!(intent.context.covers(dot(1, 4)) && !intent.context.covers(dot(1, 5)));
        assert!(!intent.context.covers(dot(3, 1)));
    }

    #[test]
    fn what_contradicts_the_declared_class_is_opaque() {
        let kinds = [Kind { id: 7, name: "seven", class: Class::Observation }];
        let op = Op::intent(dot(1, 5), 7, Arc::from("k"), 99, Context::default(), None);
        assert_eq!(Op::decode(op.dot, 7, op.class, op.key, op.body, &kinds).content, Content::Opaque);
    }

    #[test]
    fn a_sweep_of_the_future_is_opaque() {
        assert_eq!(Op::sweep(dot(1, 5), 7, (1, 6)).content, Content::Opaque);
        assert_eq!(Op::sweep(dot(1, 5), 7, (2, 0)).content, Content::Opaque);
        assert_eq!(Op::sweep(dot(1, 5), 7, (1, 3)).content, Content::Sweep { floor: (1, 3) });
    }

    proptest! {
        #[test]
        fn any_body_decodes_to_something(class in 0u8..6, body in prop::collection::vec(any::<u8>(), 0..200)) {
            Op::decode(dot(1, 1), 7, class, Arc::from("k"), Bytes::from(body), &[]);
        }
    }
}
