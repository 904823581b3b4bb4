//! Frames between two machines: one message each, a tag byte and a postcard body.
//!
//! A newer peer may send tags we do not know (ignored) and bodies with more at the end (ignored). Decoding never
//! panics and allocates no more than a small multiple of the frame.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::id::{Actor, ClusterId, Dot, MAX_COUNTER, MachineId};
use crate::kind::{Kind, MAX_KEY, MAX_RECORD};
use crate::op::{Op, Raw};
use crate::state::Range;

/// Frames are filled up to this.
pub const FRAME_TARGET: usize = 16 * 1024;
/// A record that does not fit `FRAME_TARGET` travels alone in a frame of at most this.
pub const MAX_FRAME: usize = MAX_RECORD + 64 * 1024;
/// Entries of a version vector in one frame.
pub(crate) const VECTOR_CHUNK: usize = 400;

const TAG_HELLO: u8 = 1;
const TAG_VECTOR: u8 = 2;
const TAG_CHANGES: u8 = 3;
const TAG_REFUSE: u8 = 4;

/// The first message each way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// The newest protocol the sender speaks.
    pub(crate) protocol: u16,
    /// The oldest it speaks.
    pub(crate) oldest: u16,
    pub(crate) cluster: ClusterId,
    pub(crate) machine: MachineId,
    pub(crate) incarnation: u64,
}

/// What the sender has, as far as it changed since it last said so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Vector {
    /// `Changes` frames of this session that the sender has dealt with.
    pub(crate) handled: u64,
    pub(crate) entries: Vec<(Actor, u64)>,
    /// The sender's whole vector has now been told.
    pub(crate) complete: bool,
}

/// Why a peer ends the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Refusal {
    OtherCluster,
    WrongMachine,
    Protocol,
    BadFrame,
}

#[derive(Debug)]
pub(crate) enum Message {
    Hello(Hello),
    Vector(Vector),
    Changes(Vec<Range>),
    Refuse(Refusal),
    /// From a newer peer.
    Unknown,
}

/// A frame that no sound peer sends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Longer than `MAX_FRAME`.
    #[error("frame of {bytes} bytes, at most {MAX_FRAME} are allowed")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Not a message.
    #[error("frame cannot be read: {0}")]
    Malformed(String),
    /// A message that contradicts itself.
    #[error("frame makes no sense: {0}")]
    Senseless(&'static str),
}

#[derive(Serialize, Deserialize)]
struct WireRange<'a> {
    actor: Actor,
    from: u64,
    to: u64,
    #[serde(borrow)]
    ops: Vec<WireOp<'a>>,
}

#[derive(Serialize, Deserialize)]
struct WireOp<'a> {
    version: u64,
    kind: u16,
    class: u8,
    key: &'a str,
    #[serde(borrow)]
    body: Raw<'a>,
}

fn frame(tag: u8, body: &impl Serialize) -> Bytes {
    // Writing to memory cannot fail for these types; an empty body would be refused by the peer.
    postcard::to_extend(body, vec![tag]).map(Bytes::from).unwrap_or_default()
}

pub(crate) fn encode_hello(hello: &Hello) -> Bytes {
    frame(TAG_HELLO, hello)
}

pub(crate) fn encode_vector(vector: &Vector) -> Bytes {
    frame(TAG_VECTOR, vector)
}

pub(crate) fn encode_refusal(refusal: Refusal) -> Bytes {
    frame(TAG_REFUSE, &refusal)
}

pub(crate) fn encode_changes(ranges: &[Range]) -> Bytes {
    let wire: Vec<WireRange<'_>> = ranges
        .iter()
        .map(|range| WireRange {
            actor: range.actor,
            from: range.from,
            to: range.to,
            ops: range
                .ops
                .iter()
                .map(|op| WireOp {
                    version: op.dot.version,
                    kind: op.kind,
                    class: op.class,
                    key: &op.key,
                    body: Raw(&op.body),
                })
                .collect(),
        })
        .collect();
    frame(TAG_CHANGES, &wire)
}

/// Upper bound of an op's share of a frame.
pub(crate) fn weight(op: &Op) -> usize {
    op.key.len() + op.body.len() + 24
}

fn body<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, FrameError> {
    postcard::take_from_bytes(bytes)
        .map(|(body, _)| body)
        .map_err(|error| FrameError::Malformed(error.to_string()))
}

fn check_actor(actor: Actor) -> Result<(), FrameError> {
    if actor.incarnation >= MAX_COUNTER {
        return Err(FrameError::Senseless("incarnation out of range"));
    }
    Ok(())
}

/// Reads a frame. Records it cannot read become opaque ops; only the frame itself can be bad.
pub(crate) fn decode(bytes: &[u8], kinds: &[Kind]) -> Result<Message, FrameError> {
    if bytes.len() > MAX_FRAME {
        return Err(FrameError::TooLong { bytes: bytes.len() });
    }
    let (tag, rest) = bytes.split_first().ok_or(FrameError::Senseless("empty"))?;
    match *tag {
        TAG_HELLO => body(rest).map(Message::Hello),
        TAG_REFUSE => body(rest).map(Message::Refuse),
        TAG_VECTOR => {
            let vector: Vector = body(rest)?;
            for (actor, version) in &vector.entries {
                check_actor(*actor)?;
                if *version >= MAX_COUNTER {
                    return Err(FrameError::Senseless("version out of range"));
                }
            }
            Ok(Message::Vector(vector))
        }
        TAG_CHANGES => {
            let ranges: Vec<WireRange<'_>> = body(rest)?;
            ranges
                .into_iter()
                .map(|range| decode_range(range, kinds))
                .collect::<Result<_, _>>()
                .map(Message::Changes)
        }
        _ => Ok(Message::Unknown),
    }
}

fn decode_range(wire: WireRange<'_>, kinds: &[Kind]) -> Result<Range, FrameError> {
    check_actor(wire.actor)?;
    if wire.from >= wire.to || wire.to >= MAX_COUNTER {
        return Err(FrameError::Senseless("empty or endless range"));
    }
    let mut last = wire.from;
    let mut ops = Vec::with_capacity(wire.ops.len());
    for op in wire.ops {
        if op.version <= last || op.version > wire.to {
            return Err(FrameError::Senseless("change outside its range"));
        }
        if op.key.len() > MAX_KEY {
            return Err(FrameError::Senseless("key too long"));
        }
        last = op.version;
        let dot = Dot { actor: wire.actor, version: op.version };
        // Copied, so that a small record does not keep its whole frame in memory.
        let body = Bytes::copy_from_slice(op.body.0);
        ops.push(Arc::new(Op::decode(dot, op.kind, op.class, Arc::from(op.key), body, kinds)));
    }
    Ok(Range { actor: wire.actor, from: wire.from, to: wire.to, ops })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::Content;
    use proptest::prelude::*;

    fn actor() -> Actor {
        Actor { machine: MachineId([7; 16]), incarnation: 3 }
    }

    fn range() -> Range {
        let op = |version| {
            let dot = Dot { actor: actor(), version };
            Arc::new(Op::fact(dot, 9, Arc::from(format!("key-{version}")), Some(b"value")))
        };
        Range { actor: actor(), from: 4, to: 9, ops: vec![op(5), op(7)] }
    }

    #[test]
    fn changes_come_back() {
        let bytes = encode_changes(&[range()]);
        let Ok(Message::Changes(ranges)) = decode(&bytes, &[]) else { panic!("not changes") };
        let back = &ranges[0];
        assert_eq!((back.actor, back.from, back.to), (actor(), 4, 9));
        assert_eq!(back.ops, range().ops);
    }

    #[test]
    fn an_idle_vector_takes_a_few_bytes() {
        let bytes = encode_vector(&Vector { handled: 1_000, entries: Vec::new(), complete: true });
        assert!(bytes.len() <= 8, "{} bytes", bytes.len());
        let one = encode_vector(&Vector { handled: 1, entries: vec![(actor(), 70_000)], complete: true });
        assert!(one.len() <= 40, "{} bytes", one.len());
    }

    #[test]
    fn more_at_the_end_and_unknown_tags_are_ignored() {
        let hello = Hello {
            protocol: 1,
            oldest: 1,
            cluster: ClusterId([1; 16]),
            machine: MachineId([2; 16]),
            incarnation: 5,
        };
        let mut bytes = encode_hello(&hello).to_vec();
        bytes.extend_from_slice(b"a field of the future");
        assert!(matches!(decode(&bytes, &[]), Ok(Message::Hello(back)) if back == hello));
        assert!(matches!(decode(&[200, 1, 2], &[]), Ok(Message::Unknown)));
    }

    #[test]
    fn senseless_frames_are_refused() {
        let bad = |change: fn(&mut Range)| {
            let mut range = range();
            change(&mut range);
            decode(&encode_changes(&[range]), &[]).map(|_| ())
        };
        assert_eq!(bad(|range| range.to = 6), Err(FrameError::Senseless("change outside its range")));
        assert_eq!(bad(|range| range.ops.reverse()), Err(FrameError::Senseless("change outside its range")));
        assert_eq!(bad(|range| range.from = 9), Err(FrameError::Senseless("empty or endless range")));
        assert!(bad(|range| range.actor.incarnation = MAX_COUNTER).is_err());
        assert_eq!(decode(&[], &[]).map(|_| ()), Err(FrameError::Senseless("empty")));
        let long = vec![0; MAX_FRAME + 1];
        assert_eq!(decode(&long, &[]).map(|_| ()), Err(FrameError::TooLong { bytes: MAX_FRAME + 1 }));
    }

    #[test]
    fn a_record_that_cannot_be_read_is_opaque_and_the_others_are_not() {
        let mut range = range();
        let mut damaged = (*range.ops[0]).clone();
        damaged.class = 99;
        damaged.body = Bytes::from_static(b"??");
        range.ops[0] = Arc::new(damaged);
        let Ok(Message::Changes(ranges)) = decode(&encode_changes(&[range]), &[]) else { panic!("refused") };
        assert_eq!(ranges[0].ops[0].content, Content::Opaque);
        assert_eq!(ranges[0].ops[0].body, Bytes::from_static(b"??"));
        assert!(matches!(ranges[0].ops[1].content, Content::Fact(Some(_))));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(tag in 0u8..6, mut bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            bytes.insert(0, tag);
            let _ = decode(&bytes, &[]);
        }

        #[test]
        fn damaged_frames_never_panic(at in 0usize..400, value: u8, cut in 0usize..400) {
            let mut bytes = encode_changes(&[range(), range()]).to_vec();
            let len = bytes.len();
            bytes[at % len] = value;
            bytes.truncate(len.saturating_sub(cut % len));
            let _ = decode(&bytes, &[]);
        }
    }
}
