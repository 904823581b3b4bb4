//! What the fuzz targets run: one function for each decoder of input from a peer. Only for
//! `cluster-state/fuzz` and for the tests, which run the same functions over a small corpus and a
//! few thousand random inputs. Nothing of this is part of the product.
//!
//! Each function accepts any bytes and panics where a guarantee is broken. The meaning of the bytes
//! can change with the function: an old input stays valid, but tests something else.

use bytes::Bytes;

use crate::kind::{Class, Kind};
use crate::wire::{self, Message};

mod datagram;
mod history;
mod input;
mod session;
#[cfg(test)]
mod tests;

use input::Input;

/// The time of the clock.
const NOW: u64 = 1_000_000;

const SPEC: u16 = 1;
const FACT: u16 = 2;
const CLAIM: u16 = 3;
const LOG: u16 = 4;
const REGISTRY: u16 = 5;

/// One kind for each class. Every other kind is unknown.
static KINDS: [Kind; 5] = [
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
    Kind {
        id: CLAIM,
        name: "claim",
        class: Class::Claim,
    },
    Kind {
        id: LOG,
        name: "log",
        class: Class::Log,
    },
    Kind {
        id: REGISTRY,
        name: "registry",
        class: Class::Registry,
    },
];

/// A frame that can be decoded has the same content when it is encoded again, in at most as many
/// bytes.
pub fn frame(bytes: &[u8]) {
    let Some(once) = wire::decode(bytes, &KINDS).ok().as_ref().and_then(encoded) else {
        return;
    };
    assert!(
        once.len() <= bytes.len(),
        "{} bytes became {}",
        bytes.len(),
        once.len()
    );
    let twice = wire::decode(&once, &KINDS).map(|message| encoded(&message));
    assert_eq!(twice, Ok(Some(once)));
}

/// A session, greeted or not, accepts any frames. It can end, and it sends a bounded number of
/// valid frames.
pub fn session(bytes: &[u8]) {
    session::run(Input::new(bytes));
}

/// Two machines receive the changes of one valid history in different orders, some of them twice,
/// and end up with the same content. Changes of no valid history must not make them panic.
pub fn ops(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    if input.byte().is_multiple_of(2) {
        history::sound(input);
    } else {
        history::raw(input);
    }
}

/// The failure detector accepts any datagrams between its timers, sealed or not. A datagram is
/// opened once, and not at all if one bit differs.
pub fn datagram(bytes: &[u8]) {
    datagram::run(Input::new(bytes));
}

/// Returns `None` for a message of a newer peer, which has no encoding here.
fn encoded(message: &Message) -> Option<Bytes> {
    Some(match message {
        Message::Hello(hello) => wire::encode_hello(hello),
        Message::Watermarks(watermarks) => wire::encode_watermarks(watermarks),
        Message::Hears(machines) => wire::encode_hears(&machines.iter().copied().collect()),
        Message::Changes(batch) => wire::encode_changes(batch),
        Message::Digest(digest) => wire::encode_digest(digest),
        Message::Buckets(sums) => wire::encode_buckets(sums),
        Message::Refuse(refusal) => wire::encode_refusal(*refusal),
        Message::Unknown => return None,
    })
}
