//! Frames between two machines. Each is one message: a tag byte and a postcard body.
//!
//! A newer peer can send unknown tags, and bodies with additional bytes at the end. Both are
//! ignored. Decoding never panics and allocates no more than a small multiple of the frame.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::id::{Actor, ClusterId, MAX_COUNTER, MachineId};
use crate::kind::{Kind, MAX_KEY, MAX_RECORD};
use crate::op::{Op, Raw};
use crate::state::{BUCKETS, Batch, Standing};

/// Frames are filled up to this size.
pub const FRAME_TARGET: usize = 16 * 1024;
/// A record that does not fit into `FRAME_TARGET` is sent alone, in a frame of at most this size.
pub const MAX_FRAME: usize = MAX_RECORD + 64 * 1024;
/// Watermarks and gc watermarks in one frame.
pub(crate) const WATERMARKS_CHUNK: usize = 400;

const TAG_HELLO: u8 = 1;
const TAG_WATERMARKS: u8 = 2;
const TAG_CHANGES: u8 = 3;
const TAG_REFUSE: u8 = 4;
const TAG_DIGEST: u8 = 5;
const TAG_BUCKETS: u8 = 6;
const TAG_HEARS: u8 = 7;
/// Machines in one such frame.
pub(crate) const MAX_HEARD: usize = 16;

/// The first message in each direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// The newest protocol that the sender supports.
    pub(crate) protocol: u16,
    /// The oldest protocol that the sender supports.
    pub(crate) oldest: u16,
    pub(crate) cluster: ClusterId,
    pub(crate) machine: MachineId,
    pub(crate) incarnation: u64,
    /// The sender fetches everything again. What it had before does not count.
    pub(crate) rejoin: bool,
    /// The sender has never received anything.
    pub(crate) new: bool,
    pub(crate) standing: Standing,
}

/// The sender's watermarks that changed since it last reported them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Watermarks {
    /// `Changes` frames of this session that the sender has processed.
    pub(crate) handled: u64,
    pub(crate) entries: Vec<(Actor, u64)>,
    /// All of the sender's watermarks have now been sent.
    pub(crate) complete: bool,
    /// The sender's gc watermarks. Sent once, before the first `complete`.
    pub(crate) gc_watermarks: Vec<(Actor, u64)>,
}

/// Digests of what the sender has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Digest {
    /// Digest of its watermarks and of the changes above them.
    pub(crate) watermarks: [u8; 32],
    /// Digest of its records.
    pub(crate) records: [u8; 32],
}

/// The bucket sums of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BucketSums {
    pub(crate) kind: u16,
    pub(crate) sums: Vec<u128>,
    /// This is the last kind.
    pub(crate) last: bool,
}

/// Why a peer ends the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Refusal {
    OtherCluster,
    WrongMachine,
    Protocol,
    BadFrame,
    Behind,
}

#[derive(Debug)]
pub(crate) enum Message {
    Hello(Hello),
    Watermarks(Watermarks),
    Changes(Batch),
    Digest(Digest),
    Buckets(BucketSums),
    /// The machines that the sender hears directly.
    Hears(Vec<MachineId>),
    Refuse(Refusal),
    /// From a newer peer.
    Unknown,
}

/// A frame that no correct peer sends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Longer than `MAX_FRAME`.
    #[error("the frame has {bytes} bytes, but at most {MAX_FRAME} are allowed")]
    TooLong { bytes: usize },
    /// The frame cannot be decoded.
    #[error("cannot decode the frame: {0}")]
    Malformed(String),
    /// The message contradicts itself.
    #[error("the frame contradicts itself: {0}")]
    Senseless(&'static str),
}

#[derive(Serialize, Deserialize)]
struct WireChanges<'a> {
    #[serde(borrow)]
    runs: Vec<WireRun<'a>>,
    watermarks: Vec<(Actor, u64)>,
    repair: bool,
    gc_watermarks: Vec<(Actor, u64)>,
}

/// Consecutive changes of one actor.
#[derive(Serialize, Deserialize)]
struct WireRun<'a> {
    actor: Actor,
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
    postcard::to_extend(body, vec![tag])
        .expect("encoding into memory cannot fail")
        .into()
}

pub(crate) fn encode_hello(hello: &Hello) -> Bytes {
    frame(TAG_HELLO, hello)
}

pub(crate) fn encode_watermarks(watermarks: &Watermarks) -> Bytes {
    frame(TAG_WATERMARKS, watermarks)
}

pub(crate) fn encode_refusal(refusal: Refusal) -> Bytes {
    frame(TAG_REFUSE, &refusal)
}

pub(crate) fn encode_digest(digest: &Digest) -> Bytes {
    frame(TAG_DIGEST, digest)
}

pub(crate) fn encode_buckets(sums: &BucketSums) -> Bytes {
    frame(TAG_BUCKETS, sums)
}

pub(crate) fn encode_hears(machines: &BTreeSet<MachineId>) -> Bytes {
    frame(TAG_HEARS, machines)
}

pub(crate) fn encode_changes(batch: &Batch) -> Bytes {
    let mut runs: Vec<WireRun<'_>> = Vec::new();
    for op in &batch.ops {
        let wire = WireOp {
            version: op.dot.version,
            kind: op.kind,
            class: op.class,
            key: &op.key,
            body: Raw(&op.body),
        };
        match runs.last_mut() {
            Some(run) if run.actor == op.dot.actor => run.ops.push(wire),
            _ => runs.push(WireRun {
                actor: op.dot.actor,
                ops: vec![wire],
            }),
        }
    }
    let (watermarks, gc_watermarks) = (batch.watermarks.clone(), batch.gc_watermarks.clone());
    frame(
        TAG_CHANGES,
        &WireChanges {
            runs,
            watermarks,
            repair: batch.repair,
            gc_watermarks,
        },
    )
}

/// Upper bound of a change's bytes in a frame.
pub(crate) fn weight(op: &Op) -> usize {
    op.key.len() + op.body.len() + 24 + 40
}

/// Upper bound of the bytes of a watermark with its gc watermark in a frame.
pub(crate) const WATERMARK_WEIGHT: usize = 80;

fn body<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, FrameError> {
    postcard::take_from_bytes(bytes)
        .map(|(body, _)| body)
        .map_err(|error| FrameError::Malformed(error.to_string()))
}

fn check(actor: Actor, version: u64) -> Result<(), FrameError> {
    if actor.incarnation >= MAX_COUNTER {
        return Err(FrameError::Senseless("incarnation out of range"));
    }
    if version >= MAX_COUNTER {
        return Err(FrameError::Senseless("version out of range"));
    }
    Ok(())
}

/// Decodes a frame. A record that cannot be decoded becomes an opaque change; only the frame itself
/// can be invalid.
pub(crate) fn decode(bytes: &[u8], kinds: &[Kind]) -> Result<Message, FrameError> {
    if bytes.len() > MAX_FRAME {
        return Err(FrameError::TooLong { bytes: bytes.len() });
    }
    let (tag, rest) = bytes.split_first().ok_or(FrameError::Senseless("empty"))?;
    match *tag {
        TAG_HELLO => body(rest).map(Message::Hello),
        TAG_REFUSE => body(rest).map(Message::Refuse),
        TAG_WATERMARKS => {
            let watermarks: Watermarks = body(rest)?;
            let told = watermarks.entries.iter().chain(&watermarks.gc_watermarks);
            told.into_iter()
                .try_for_each(|(actor, version)| check(*actor, *version))?;
            Ok(Message::Watermarks(watermarks))
        }
        TAG_CHANGES => decode_changes(body(rest)?, kinds).map(Message::Changes),
        TAG_DIGEST => body(rest).map(Message::Digest),
        TAG_BUCKETS => {
            let sums: BucketSums = body(rest)?;
            if sums.sums.len() != BUCKETS && !sums.sums.is_empty() {
                return Err(FrameError::Senseless("wrong number of buckets"));
            }
            Ok(Message::Buckets(sums))
        }
        TAG_HEARS => {
            let machines: Vec<MachineId> = body(rest)?;
            if machines.len() > MAX_HEARD {
                return Err(FrameError::Senseless("too many machines"));
            }
            Ok(Message::Hears(machines))
        }
        _ => Ok(Message::Unknown),
    }
}

fn decode_changes(wire: WireChanges<'_>, kinds: &[Kind]) -> Result<Batch, FrameError> {
    let told = wire.watermarks.iter().chain(&wire.gc_watermarks);
    told.into_iter()
        .try_for_each(|(actor, version)| check(*actor, *version))?;
    let mut ops = Vec::new();
    for run in wire.runs {
        for op in run.ops {
            check(run.actor, op.version)?;
            if op.version == 0 {
                return Err(FrameError::Senseless("change without a version"));
            }
            if op.key.len() > MAX_KEY {
                return Err(FrameError::Senseless("key too long"));
            }
            let dot = run.actor.dot(op.version);
            // Copied, so that a small record does not keep its whole frame in memory.
            let body = Bytes::copy_from_slice(op.body.0);
            ops.push(Arc::new(Op::decode(
                dot,
                op.kind,
                op.class,
                Arc::from(op.key),
                body,
                kinds,
            )));
        }
    }
    Ok(Batch {
        ops,
        watermarks: wire.watermarks,
        gc_watermarks: wire.gc_watermarks,
        repair: wire.repair,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::op::Content;

    fn actor() -> Actor {
        Actor {
            machine: MachineId([7; 16]),
            incarnation: 3,
        }
    }

    fn batch() -> Batch {
        let op = |version| {
            let dot = actor().dot(version);
            Arc::new(Op::fact(
                dot,
                9,
                Arc::from(format!("key-{version}")),
                Some(b"value"),
            ))
        };
        Batch {
            ops: vec![op(5), op(7)],
            watermarks: vec![(actor(), 9)],
            gc_watermarks: vec![(actor(), 4)],
            repair: false,
        }
    }

    #[test]
    fn wire_changes_survive_encoding() {
        let bytes = encode_changes(&batch());
        let Ok(Message::Changes(back)) = decode(&bytes, &[]) else {
            panic!("not changes")
        };
        assert_eq!(back.ops, batch().ops);
        assert_eq!((back.watermarks, back.repair), (batch().watermarks, false));
        assert!(
            bytes.len()
                <= batch().ops.iter().map(|op| weight(op)).sum::<usize>() + WATERMARK_WEIGHT
        );
    }

    #[test]
    fn wire_idle_watermarks_take_a_few_bytes() {
        let bytes = encode_watermarks(&Watermarks {
            handled: 1_000,
            entries: Vec::new(),
            complete: true,
            gc_watermarks: Vec::new(),
        });
        assert!(bytes.len() <= 8, "{} bytes", bytes.len());
        let one = encode_watermarks(&Watermarks {
            handled: 1,
            entries: vec![(actor(), 70_000)],
            complete: true,
            gc_watermarks: Vec::new(),
        });
        assert!(one.len() <= 40, "{} bytes", one.len());
    }

    #[test]
    fn wire_ignores_unknown_tags_and_trailing_bytes() {
        let hello = Hello {
            protocol: 1,
            oldest: 1,
            cluster: ClusterId([1; 16]),
            machine: MachineId([2; 16]),
            incarnation: 5,
            rejoin: false,
            new: false,
            standing: Standing::default(),
        };
        let mut bytes = encode_hello(&hello).to_vec();
        bytes.extend_from_slice(b"a field of the future");
        assert!(matches!(decode(&bytes, &[]), Ok(Message::Hello(back)) if back == hello));
        assert!(matches!(decode(&[200, 1, 2], &[]), Ok(Message::Unknown)));
    }

    #[test]
    fn wire_refuses_contradictory_frames() {
        let bad = |change: fn(&mut Batch)| {
            let mut batch = batch();
            change(&mut batch);
            decode(&encode_changes(&batch), &[]).map(|_| ())
        };
        let far = || {
            (
                Actor {
                    machine: MachineId([1; 16]),
                    incarnation: 1,
                },
                MAX_COUNTER,
            )
        };
        assert_eq!(bad(|batch| batch.watermarks.clear()), Ok(()));
        assert!(
            bad(|batch| batch.watermarks = vec![(
                Actor {
                    incarnation: MAX_COUNTER,
                    ..actor()
                },
                1
            )])
            .is_err()
        );
        assert_eq!(
            decode(
                &encode_watermarks(&Watermarks {
                    handled: 0,
                    entries: vec![far()],
                    complete: true,
                    gc_watermarks: Vec::new()
                }),
                &[]
            )
            .map(|_| ()),
            Err(FrameError::Senseless("version out of range"))
        );
        let sums = BucketSums {
            kind: 1,
            sums: vec![0; 3],
            last: true,
        };
        assert!(decode(&encode_buckets(&sums), &[]).is_err());
        let many = (0..=MAX_HEARD)
            .map(|n| MachineId((n as u128).to_le_bytes()))
            .collect();
        assert!(decode(&encode_hears(&many), &[]).is_err());
        assert_eq!(
            decode(&[], &[]).map(|_| ()),
            Err(FrameError::Senseless("empty"))
        );
        let long = vec![0; MAX_FRAME + 1];
        assert_eq!(
            decode(&long, &[]).map(|_| ()),
            Err(FrameError::TooLong {
                bytes: MAX_FRAME + 1
            })
        );
    }

    #[test]
    fn wire_makes_only_unreadable_record_opaque() {
        let mut batch = batch();
        let mut damaged = (*batch.ops[0]).clone();
        damaged.class = 99;
        damaged.body = Bytes::from_static(b"??");
        batch.ops[0] = Arc::new(damaged);
        let Ok(Message::Changes(back)) = decode(&encode_changes(&batch), &[]) else {
            panic!("refused")
        };
        assert_eq!(back.ops[0].content, Content::Opaque);
        assert_eq!(back.ops[0].body, Bytes::from_static(b"??"));
        assert!(matches!(back.ops[1].content, Content::Fact(Some(_))));
    }

    proptest! {
        #[test]
        fn wire_decode_never_panics_on_any_bytes(tag in 0u8..9, mut bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            bytes.insert(0, tag);
            let _ = decode(&bytes, &[]);
        }

        #[test]
        fn wire_decode_never_panics_on_damaged_frames(at in 0usize..400, value: u8, gc_watermark in 0usize..400) {
            let mut bytes = encode_changes(&batch()).to_vec();
            let len = bytes.len();
            bytes[at % len] = value;
            bytes.truncate(len.saturating_sub(gc_watermark % len));
            let _ = decode(&bytes, &[]);
        }
    }
}
