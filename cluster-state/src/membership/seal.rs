//! Proves which machine sent a membership datagram, and that it was not repeated. A process that
//! does not know a machine's key cannot speak as that machine, from whatever address it sends.
//!
//! A datagram on the wire, integers in big-endian order:
//!
//! | bytes | |
//! |---|---|
//! | 1 | format version |
//! | 16 | id of the sender |
//! | 8 | number of the sender's start |
//! | 8 | sequence number: grows with each datagram from this sender to this receiver |
//! | 16 | MAC: the first half of the keyed BLAKE3 hash of everything before and after it |
//! | rest | payload |
//!
//! The MAC's key is derived from the key of the pair for one direction, so a datagram that is sent
//! back to its sender is invalid. Payloads are not encrypted: the mesh does that.
//!
//! A receiver accepts each number once. The sender's clock is not used, because a machine with a
//! wrong clock must not count as down.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use super::MAX_DATAGRAM;
use crate::id::MachineId;

/// Bytes that sealing adds to a payload.
pub(crate) const OVERHEAD: usize = 1 + 16 + 8 + 8 + MAC;

/// A peer that was silent for this long is accepted with any numbers. Otherwise a machine whose
/// disk was restored to an earlier state would be refused forever.
pub(crate) const FORGET_AFTER: Duration = Duration::from_secs(60);

const VERSION: u8 = 1;
const MAC: usize = 16;

/// Datagrams can overtake each other by this many numbers. A peer sends fewer than a hundred in a
/// second.
const WINDOW: usize = 1_024;
const WORDS: usize = WINDOW / 64;

/// Never reuse this text for another purpose: it separates these keys from all others.
const DIRECTION: &str = "uc 2026 membership datagrams: pair key, sender, receiver";

/// A secret that only two machines know. `Debug` hides it.
#[derive(Clone, Copy)]
pub struct PairKey([u8; 32]);

impl PairKey {
    /// The key in these bytes, which must not be predictable for any other machine or process.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    fn direction(&self, from: MachineId, to: MachineId) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key(DIRECTION);
        hasher.update(&self.0).update(&from.0).update(&to.0);
        *hasher.finalize().as_bytes()
    }
}

impl fmt::Debug for PairKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PairKey(hidden)")
    }
}

/// Takes the same time for any two keys.
impl PartialEq for PairKey {
    fn eq(&self, other: &Self) -> bool {
        blake3::Hash::from(self.0) == blake3::Hash::from(other.0)
    }
}
impl Eq for PairKey {}

/// Why a datagram was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is too short or too long, or its payload cannot be decoded.
    Malformed,
    /// Its format is that of another version.
    UnknownVersion,
    /// Its sender is not a peer.
    UnknownSender,
    InvalidMac {
        claimed: MachineId,
    },
    /// It is from an earlier start of the sender.
    EarlierStart,
    /// A datagram with its number was accepted before, or could have been.
    Repeated,
    /// A peer sealed it, but its payload names another machine as the sender.
    OtherSender,
}

/// How many datagrams were dropped since the start, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) malformed: u64,
    pub(super) unknown_version: u64,
    pub(super) unknown_sender: u64,
    pub(super) invalid_mac: u64,
    pub(super) earlier_start: u64,
    pub(super) repeated: u64,
    pub(super) other_sender: u64,
}

impl Refused {
    pub(super) fn count(&mut self, refusal: Refusal) {
        *match refusal {
            Refusal::Malformed => &mut self.malformed,
            Refusal::UnknownVersion => &mut self.unknown_version,
            Refusal::UnknownSender => &mut self.unknown_sender,
            Refusal::InvalidMac { .. } => &mut self.invalid_mac,
            Refusal::EarlierStart => &mut self.earlier_start,
            Refusal::Repeated => &mut self.repeated,
            Refusal::OtherSender => &mut self.other_sender,
        } += 1;
    }
}

/// Seals datagrams to peers and opens those from them. Its memory is bounded by the number of
/// peers.
pub(crate) struct Sealer {
    me: MachineId,
    /// Number of this machine's start.
    start: u64,
    forget_after: Duration,
    /// Datagrams sealed so far, to all peers.
    sealed: u64,
    peers: BTreeMap<MachineId, Peer>,
}

struct Peer {
    key: PairKey,
    to_peer: [u8; 32],
    from_peer: [u8; 32],
    next: u64,
    received: Received,
}

impl Sealer {
    /// A sealer without peers. `start` must be higher at each start of this machine.
    pub(crate) fn new(me: MachineId, start: u64, forget_after: Duration) -> Self {
        Self {
            me,
            start,
            forget_after,
            sealed: 0,
            peers: BTreeMap::new(),
        }
    }

    /// Replaces the peers. Those that keep their key also keep their numbers.
    pub(crate) fn set_peers(&mut self, peers: impl Iterator<Item = (MachineId, PairKey)>) {
        let mut before = std::mem::take(&mut self.peers);
        self.peers = peers
            .map(|(id, key)| {
                let known = before.remove(&id).filter(|peer| peer.key == key);
                let peer = known.unwrap_or_else(|| Peer {
                    key,
                    to_peer: key.direction(self.me, id),
                    from_peer: key.direction(id, self.me),
                    // A peer that was removed and added again still remembers the numbers that
                    // this machine used before. They are lower than the number of all datagrams.
                    next: self.sealed,
                    received: Received::default(),
                });
                (id, peer)
            })
            .collect();
    }

    /// Makes a datagram for a peer. Returns `None` if the machine is not a peer.
    pub(crate) fn seal(&mut self, to: MachineId, payload: &[u8]) -> Option<Vec<u8>> {
        let peer = self.peers.get_mut(&to)?;
        let mut datagram = Vec::with_capacity(OVERHEAD + payload.len());
        datagram.push(VERSION);
        datagram.extend_from_slice(&self.me.0);
        datagram.extend_from_slice(&self.start.to_be_bytes());
        datagram.extend_from_slice(&peer.next.to_be_bytes());
        let hash = hash(&peer.to_peer, &datagram, payload);
        datagram.extend(hash.as_bytes().iter().take(MAC));
        datagram.extend_from_slice(payload);
        peer.next += 1;
        self.sealed += 1;
        Some(datagram)
    }

    /// Returns the sender of a datagram, and the payload.
    pub(crate) fn open<'a>(
        &mut self,
        datagram: &'a [u8],
        now: Instant,
    ) -> Result<(MachineId, &'a [u8]), Refusal> {
        if datagram.first().is_some_and(|version| *version != VERSION) {
            return Err(Refusal::UnknownVersion);
        }
        let parts = Parts::split(datagram).ok_or(Refusal::Malformed)?;
        let peer = self
            .peers
            .get_mut(&parts.sender)
            .ok_or(Refusal::UnknownSender)?;
        if !matches(
            &hash(&peer.from_peer, parts.header, parts.payload),
            parts.mac,
        ) {
            return Err(Refusal::InvalidMac {
                claimed: parts.sender,
            });
        }
        peer.received
            .accept(parts.start, parts.sequence, now, self.forget_after)?;
        Ok((parts.sender, parts.payload))
    }
}

struct Parts<'a> {
    header: &'a [u8],
    sender: MachineId,
    start: u64,
    sequence: u64,
    mac: &'a [u8; MAC],
    payload: &'a [u8],
}

impl<'a> Parts<'a> {
    fn split(datagram: &'a [u8]) -> Option<Self> {
        if datagram.len() > MAX_DATAGRAM {
            return None;
        }
        let (header, rest) = datagram.split_at_checked(OVERHEAD - MAC)?;
        let (mac, payload) = rest.split_first_chunk()?;
        let (_version, fields) = header.split_first()?;
        let (sender, fields) = fields.split_first_chunk()?;
        let (start, sequence) = fields.split_first_chunk()?;
        Some(Self {
            header,
            sender: MachineId(*sender),
            start: u64::from_be_bytes(*start),
            sequence: u64::from_be_bytes(sequence.try_into().ok()?),
            mac,
            payload,
        })
    }
}

fn hash(key: &[u8; 32], header: &[u8], payload: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(header).update(payload);
    hasher.finalize()
}

/// Compares in constant time, which `blake3` does for whole hashes: the half that is not on the
/// wire is compared with itself.
fn matches(hash: &blake3::Hash, mac: &[u8; MAC]) -> bool {
    let mut received = *hash.as_bytes();
    for (byte, mac) in received.iter_mut().zip(mac) {
        *byte = *mac;
    }
    *hash == blake3::Hash::from(received)
}

/// The numbers that were accepted from one peer. Empty before the first datagram.
#[derive(Default)]
struct Received(Option<Numbers>);

struct Numbers {
    /// The peer's latest start. The window counts within it.
    start: u64,
    window: Window,
    /// When a datagram was accepted last.
    last: Instant,
}

impl Received {
    /// Accepts the numbers of a valid datagram and remembers them, or refuses them.
    fn accept(
        &mut self,
        start: u64,
        sequence: u64,
        now: Instant,
        forget_after: Duration,
    ) -> Result<(), Refusal> {
        let known = self.0.as_mut().filter(|known| {
            now.saturating_duration_since(known.last) < forget_after && start <= known.start
        });
        let Some(known) = known else {
            self.0 = Some(Numbers {
                start,
                window: Window::new(sequence),
                last: now,
            });
            return Ok(());
        };
        if start < known.start {
            return Err(Refusal::EarlierStart);
        }
        if !known.window.accept(sequence) {
            return Err(Refusal::Repeated);
        }
        known.last = now;
        Ok(())
    }
}

/// Which of the last numbers were accepted: one bit for each, at the number modulo the size.
struct Window {
    highest: u64,
    bits: [u64; WORDS],
}

impl Window {
    fn new(first: u64) -> Self {
        let mut window = Self {
            highest: first,
            bits: [0; WORDS],
        };
        window.set(first, true);
        window
    }

    /// Returns false if the number was accepted before, or is so low that this is not known.
    fn accept(&mut self, number: u64) -> bool {
        const SIZE: u64 = WINDOW as u64;
        if number > self.highest {
            // The bits of the numbers in between were those of numbers below the window.
            let skipped = (self.highest + 1).max(number.saturating_sub(SIZE - 1));
            for between in skipped..number {
                self.set(between, false);
            }
            self.highest = number;
        } else if self.highest - number >= SIZE || self.get(number) {
            return false;
        }
        self.set(number, true);
        true
    }

    fn place(number: u64) -> (usize, u64) {
        let bit = (number % WINDOW as u64) as usize;
        (bit / 64, 1 << (bit % 64))
    }

    fn get(&self, number: u64) -> bool {
        let (word, mask) = Self::place(number);
        self.bits.get(word).is_some_and(|bits| bits & mask != 0)
    }

    fn set(&mut self, number: u64, seen: bool) {
        let (word, mask) = Self::place(number);
        if let Some(bits) = self.bits.get_mut(word) {
            *bits = if seen { *bits | mask } else { *bits & !mask };
        }
    }
}

#[cfg(test)]
mod tests;
