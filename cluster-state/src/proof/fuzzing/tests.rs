//! Runs the fuzz targets without a fuzzer: over the committed corpus, over real conversations, and
//! over a few thousand damaged copies of both. `UC_FUZZ_SEED` repeats a failure.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::datagram::{Detector, sealer};
use super::*;
use crate::id::{Actor, MAX_COUNTER, MachineId};
use crate::state::{BUCKETS, Batch};
use crate::wire::{BucketSums, Digest, Refusal};

/// Damaged inputs for each target.
const ROUNDS: usize = 3_000;
/// Maximum bytes of a damaged input.
const LONGEST: usize = 4_000;

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target)
}

/// Encodes a piece as `Input::piece` reads it.
fn piece(what: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
    [&[what], &length[..], bytes].concat()
}

/// Returns what two machines send to each other until neither has anything more to send.
fn conversation() -> [Vec<Bytes>; 2] {
    let mut states = [session::known(0), session::known(1)];
    let mut cores = [session::core(&states[0], 1), session::core(&states[1], 0)];
    let mut said = [Vec::new(), Vec::new()];
    for round in 0..70 {
        for side in 0..2 {
            // Close to the minute, so that the comparison of digests takes part.
            cores[side].tick(&states[side]);
            while let Some(frame) = cores[side].next_frame(&states[side], true) {
                let effect = cores[1 - side].handle(&frame, &states[1 - side]).unwrap();
                if let Some(crate::session::Effect::Apply(batch)) = effect {
                    states[1 - side]
                        .apply_batch(&batch, NOW, &mut Default::default())
                        .unwrap();
                    cores[1 - side].applied();
                }
                let idle = said[side].len() > 8 && frame.len() < 10;
                if !idle {
                    said[side].push(frame);
                }
            }
        }
        assert!(round < 69 || states[0].digest() == states[1].digest());
    }
    said
}

/// A digest of a peer with the same watermarks and other records.
fn digest() -> Bytes {
    let state = session::known(0);
    wire::encode_digest(&Digest {
        watermarks: state.watermarks_hash(),
        records: [7; 32],
    })
}

fn buckets() -> Bytes {
    wire::encode_buckets(&BucketSums {
        kind: SPEC,
        sums: vec![0; BUCKETS],
        last: true,
    })
}

/// Watermarks whose sum overflows.
fn tall() -> Bytes {
    let actor = |incarnation| Actor {
        machine: history::machine(3),
        incarnation,
    };
    let watermarks = (0..5).map(|n| (actor(n), MAX_COUNTER - 1)).collect();
    wire::encode_changes(&Batch {
        watermarks,
        ..Batch::default()
    })
}

/// Returns what two failure detectors send to each other.
fn datagrams() -> Vec<Vec<u8>> {
    let mut detectors = [Detector::new(1), Detector::new(2)];
    detectors[1].announce(1);
    let mut said = Vec::new();
    for round in 0..40 {
        let side = 1 - round % 2;
        for datagram in detectors[side].flush() {
            detectors[1 - side].receive(&datagram);
            if side == 1 {
                said.push(datagram);
            }
        }
        detectors[side].fire();
    }
    said.sort();
    said.dedup();
    said
}

/// Makes inputs from what correct peers send. They stay valid when the formats change.
fn sound_inputs(target: &str) -> Vec<Vec<u8>> {
    match target {
        "frame" => {
            let mut frames: Vec<_> = conversation()
                .concat()
                .iter()
                .map(|frame| frame.to_vec())
                .collect();
            frames.extend([buckets(), wire::encode_refusal(Refusal::BadFrame)].map(Vec::from));
            frames.sort();
            frames.dedup();
            frames
        }
        "session" => {
            let [_, theirs] = conversation();
            let all: Vec<u8> = theirs.iter().flat_map(|frame| piece(9, frame)).collect();
            let later: Vec<u8> = theirs
                .iter()
                .skip(2)
                .flat_map(|frame| piece(0, frame))
                .collect();
            let repair = [piece(0, &digest()), piece(9, &buckets())].concat();
            let insistent = [
                piece(0, &digest()).repeat(4),
                piece(0, &buckets()).repeat(3),
            ]
            .concat();
            vec![
                [&[4][..], &all].concat(),
                [&[0][..], &later].concat(),
                [&[6][..], &all].concat(),
                [&[0][..], &repair].concat(),
                [&[0][..], &insistent].concat(),
                [&[0][..], &piece(0, &tall())].concat(),
            ]
        }
        "ops" => {
            let ops = session::known(1);
            let raw = ops.ops().flat_map(|op| {
                let head = [
                    1 | (op.kind as u8 & 15) << 2,
                    1,
                    op.dot.version as u8,
                    op.class,
                    5,
                ];
                let body = piece(0, &op.body);
                [&head[..], &body[1..]].concat()
            });
            let raw = [vec![1], raw.collect()].concat();
            let mut chance = SmallRng::seed_from_u64(7);
            let sound = (0..4).map(|_| {
                let mut bytes: Vec<u8> = (0..400).map(|_| chance.random()).collect();
                bytes[0] = 0;
                bytes
            });
            sound.chain([raw]).collect()
        }
        "datagram" => {
            let all: Vec<u8> = datagrams()
                .iter()
                .flat_map(|datagram| piece(1, datagram))
                .collect();
            let mut theirs = sealer(2);
            let sealed = datagrams()
                .iter()
                .filter_map(|datagram| theirs.seal(MachineId([1; 16]), datagram))
                .flat_map(|datagram| piece(1, &datagram))
                .collect();
            vec![
                all,
                datagrams()
                    .iter()
                    .take(3)
                    .flat_map(|datagram| piece(0x0b, datagram))
                    .collect(),
                sealed,
            ]
        }
        other => panic!("no target {other}"),
    }
}

fn damage(input: &mut Vec<u8>, other: &[u8], chance: &mut SmallRng) {
    for _ in 0..chance.random_range(1..6) {
        let at = chance.random_range(0..=input.len());
        match chance.random_range(0..6) {
            0 | 1 if at < input.len() => input[at] = chance.random(),
            2 if at < input.len() => input[at] ^= 1 << chance.random_range(0..8),
            3 => input.insert(at, chance.random()),
            4 => input.truncate(at.max(1)),
            _ if !other.is_empty() => {
                let from = chance.random_range(0..other.len());
                let to = chance.random_range(from..=other.len());
                input.splice(at..at, other[from..to].iter().copied());
            }
            _ => {}
        }
    }
    input.truncate(LONGEST);
}

fn exercise(target: &str, run: fn(&[u8])) {
    let mut inputs = sound_inputs(target);
    for entry in std::fs::read_dir(corpus(target)).unwrap() {
        inputs.push(std::fs::read(entry.unwrap().path()).unwrap());
    }
    inputs.sort();
    for input in &inputs {
        run(input);
    }
    let seed = std::env::var("UC_FUZZ_SEED").map_or_else(
        |_| RandomState::new().build_hasher().finish(),
        |seed| seed.parse().expect("UC_FUZZ_SEED is a number"),
    );
    println!("UC_FUZZ_SEED={seed}");
    let mut chance = SmallRng::seed_from_u64(seed);
    for round in 0..ROUNDS {
        let mut input = if round % 4 == 0 {
            (0..chance.random_range(0..300))
                .map(|_| chance.random())
                .collect()
        } else {
            inputs[chance.random_range(0..inputs.len())].clone()
        };
        let other = &inputs[chance.random_range(0..inputs.len())];
        damage(&mut input, other, &mut chance);
        run(&input);
    }
}

#[test]
fn fuzz_frame_accepts_any_bytes() {
    exercise("frame", frame);
}

#[test]
fn fuzz_session_accepts_any_bytes() {
    exercise("session", session);
}

#[test]
fn fuzz_ops_accepts_any_bytes() {
    exercise("ops", ops);
}

#[test]
fn fuzz_datagram_accepts_any_bytes() {
    exercise("datagram", datagram);
}

/// Run this after a change of a format: `cargo test -p uc-cluster-state -- --ignored
/// corpus_is_rewritten`.
#[test]
#[ignore = "writes into the source tree"]
fn corpus_is_rewritten() {
    for target in ["frame", "session", "ops", "datagram"] {
        let directory = corpus(target);
        std::fs::create_dir_all(&directory).unwrap();
        for (n, input) in sound_inputs(target).iter().enumerate() {
            std::fs::write(directory.join(format!("sound-{n}")), input).unwrap();
        }
    }
}
