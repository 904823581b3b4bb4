//! The fuzz target without a fuzzer: over the committed corpus, the cases beside Docker Compose,
//! and damaged copies of both.

use std::fs;

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

fn folder(path: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let mut found: Vec<_> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path())
        .collect();
    found.sort();
    found
}

/// Inputs that mean something: of the corpus, and the files of each case.
fn inputs() -> Vec<Vec<u8>> {
    let mut inputs: Vec<Vec<u8>> = folder("fuzz/corpus/load")
        .iter()
        .map(|path| fs::read(path).unwrap())
        .collect();
    for path in folder("src/load/cases") {
        let text = fs::read_to_string(path).unwrap();
        for case in text.split("\n=== ") {
            let files = case.find("\n--- ").map_or("", |at| &case[at + 1..]);
            let end = files
                .find("\n--- expected")
                .or_else(|| files.find("\n--- ours"))
                .unwrap_or(files.len());
            inputs.push(files.as_bytes()[..end].to_vec());
        }
    }
    inputs
}

#[test]
fn inputs_that_mean_something() {
    let inputs = inputs();
    assert!(inputs.len() > 400, "{}", inputs.len());
    let mut wrong = Vec::new();
    for input in &inputs {
        if std::panic::catch_unwind(|| load(input)).is_err() {
            wrong.push(String::from_utf8_lossy(input).into_owned());
        }
    }
    assert!(
        wrong.is_empty(),
        "{} inputs:\n{}",
        wrong.len(),
        wrong.join("\n\n")
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn damaged_inputs(
        which in any::<Index>(),
        other in any::<Index>(),
        damage in prop::collection::vec((any::<Index>(), 0..4_u8, any::<u8>()), 1..6),
    ) {
        let inputs = inputs();
        let mut input = inputs[which.index(inputs.len())].clone();
        let other = &inputs[other.index(inputs.len())];
        for (at, how, byte) in damage {
            let at = at.index(input.len() + 1);
            let piece = &other[at.min(other.len())..(at + usize::from(byte)).min(other.len())];
            match how {
                0 => input.insert(at, byte),
                1 => drop(input.drain(at..(at + usize::from(byte % 8)).min(input.len()))),
                2 => drop(input.splice(at..at, piece.iter().copied())),
                _ => drop(input.splice(at..at, *b": {a: &x [*x, !reset 1]}")),
            }
        }
        load(&input);
    }
}
