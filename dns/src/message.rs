//! DNS messages, as far as the server must understand them: header, question and EDNS of a query.
//! Records are only skipped.
//!
//! RFC 1035 section 4 (format), RFC 6891 (EDNS), RFC 2308 (SOA in negative answers).

use std::net::Ipv4Addr;

use uc_api::layout::DOMAIN;

use crate::zone::{ANSWER_TTL_S, Kind, Lookup};

/// Bytes of a header.
pub const HEADER: usize = 12;
/// Maximum UDP message without EDNS.
pub const PLAIN_UDP: usize = 512;
/// The largest UDP message that we send or accept. It fits an IPv6 packet of 1,280 bytes, so it is
/// never fragmented.
pub const EDNS_UDP: usize = 1232;
/// Maximum TCP message.
pub const MAX_MESSAGE: usize = 65_535;

const CLASS_IN: u16 = 1;
const CLASS_ANY: u16 = 255;
const TYPE_A: u16 = 1;
const TYPE_SOA: u16 = 6;
const TYPE_PTR: u16 = 12;
const TYPE_OPT: u16 = 41;
const TYPE_ANY: u16 = 255;
/// Compression pointer to the name of the question, which always starts right after the header.
const QUESTION_NAME: [u8; 2] = [0xc0, HEADER as u8];
/// First flags byte of a response with no other flags set.
const RESPONSE: u8 = 0x80;
const TRUNCATED: u8 = 0x02;
const AUTHORITATIVE: u8 = 0x04;

/// Response codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// No error.
    NoError = 0,
    /// The query is malformed.
    FormErr = 1,
    /// The server cannot answer now.
    ServFail = 2,
    /// The name does not exist.
    NxDomain = 3,
    /// Not implemented.
    NotImp = 4,
    /// Refused by policy.
    Refused = 5,
    /// Unsupported EDNS version. The code 16 needs the upper bits in the OPT record.
    BadVers = 16,
}

/// A parsed query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query<'a> {
    /// Repeated in the response.
    pub id: u16,
    flags: [u8; 2],
    /// The question section as received.
    question: &'a [u8],
    /// The name in lower case, without the trailing dot. Bytes that are invalid in our names are
    /// replaced by `*`.
    pub name: String,
    /// The type of the question.
    pub kind: Kind,
    class: u16,
    edns: Option<Edns>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Edns {
    size: u16,
    version: u8,
    dnssec_ok: bool,
    /// True if the query has no EDNS options, so that the answer is the same for every client.
    bare: bool,
}

/// What the server does with a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// Do not answer: the message is too short, or it is itself a response.
    Ignore,
    /// Answer with this error response.
    Decline(Vec<u8>),
    Query(Query<'a>),
}

/// Parses a message. Accepts any bytes.
pub fn parse(bytes: &[u8]) -> Parsed<'_> {
    let Some(header) = bytes.first_chunk::<HEADER>() else {
        return Parsed::Ignore;
    };
    let [id_high, id_low, flags_high, flags_low, counts @ ..] = *header;
    if flags_high & RESPONSE != 0 {
        return Parsed::Ignore;
    }
    let decline = |code| {
        let flags = [flags_high, flags_low];
        Parsed::Decline(bare(u16::from_be_bytes([id_high, id_low]), flags, code))
    };
    if flags_high & 0x78 != 0 {
        return decline(Code::NotImp);
    }
    let count = |at: usize| u16::from_be_bytes([counts[at], counts[at + 1]]);
    if count(0) != 1 {
        return decline(Code::FormErr);
    }
    let mut reader = Reader { bytes, at: HEADER };
    let Some(name) = reader.name() else {
        return decline(Code::FormErr);
    };
    let (Some(kind), Some(class)) = (reader.u16(), reader.u16()) else {
        return decline(Code::FormErr);
    };
    let question = &bytes[HEADER..reader.at];
    let records = [count(2), count(4), count(6)]
        .into_iter()
        .map(u32::from)
        .sum();
    let mut edns = None;
    for _ in 0..records {
        let Some(record) = reader.record() else {
            return decline(Code::FormErr);
        };
        if record.kind == TYPE_OPT {
            // RFC 6891, 6.1.1: more than one OPT record is a format error.
            if edns.is_some() {
                return decline(Code::FormErr);
            }
            let [_, version, flags, _] = record.ttl.to_be_bytes();
            edns = Some(Edns {
                size: record.class,
                version,
                dnssec_ok: flags & 0x80 != 0,
                bare: record.length == 0,
            });
        }
    }
    let kind = match kind {
        TYPE_A => Kind::A,
        TYPE_PTR => Kind::Ptr,
        TYPE_ANY => Kind::Any,
        _ => Kind::Other,
    };
    let id = u16::from_be_bytes([id_high, id_low]);
    let query = Query {
        id,
        flags: [flags_high, flags_low],
        question,
        name,
        kind,
        class,
        edns,
    };
    if query.edns.is_some_and(|edns| edns.version != 0) {
        return Parsed::Decline(query.respond(Code::BadVers));
    }
    Parsed::Query(query)
}

impl Query<'_> {
    /// Returns the longest response that the client accepts over UDP.
    pub fn udp_limit(&self) -> usize {
        self.edns.map_or(PLAIN_UDP, |edns| {
            usize::from(edns.size).clamp(PLAIN_UDP, EDNS_UDP)
        })
    }

    /// Reports whether the class is IN, the only class that our zone has.
    pub fn is_internet(&self) -> bool {
        matches!(self.class, CLASS_IN | CLASS_ANY)
    }

    /// Returns the key for caching a forwarded answer. Returns `None` if the answer can be specific
    /// to this client.
    pub fn cache_key(&self) -> Option<Vec<u8>> {
        let edns = match self.edns {
            None => 0,
            Some(Edns {
                bare: true,
                dnssec_ok,
                ..
            }) => 1 + u8::from(dnssec_ok),
            Some(_) => return None,
        };
        let mut key = vec![edns, self.flags[0] & 0x01, self.flags[1] & 0x30];
        key.extend(self.question.iter().map(u8::to_ascii_lowercase));
        Some(key)
    }

    /// Makes the zone's response, of at most `limit` bytes. Returns `None` if the name is not ours.
    pub fn answer(&self, lookup: &Lookup, limit: usize) -> Option<Vec<u8>> {
        let (code, negative) = match lookup {
            Lookup::NotOurs => return None,
            Lookup::Addresses(_) | Lookup::Pointer(_) => (Code::NoError, false),
            Lookup::NoData => (Code::NoError, true),
            Lookup::NxDomain => (Code::NxDomain, true),
        };
        let mut message = self.begin(code, AUTHORITATIVE);
        let room = limit.saturating_sub(self.edns.map_or(0, |_| OPT_LENGTH));
        match lookup {
            Lookup::Addresses(addresses) => {
                let fit = room.saturating_sub(message.len()) / (RECORD_HEAD + 4);
                let given = addresses.iter().take(fit);
                message[7] = given.len() as u8;
                if given.len() < addresses.len() {
                    message[2] |= TRUNCATED;
                }
                for address in given {
                    record_head(&mut message, TYPE_A, 4);
                    message.extend(Ipv4Addr::octets(address));
                }
            }
            Lookup::Pointer(name) => {
                let target = encode_name(name);
                message[7] = 1;
                record_head(&mut message, TYPE_PTR, target.len() as u16);
                message.extend(target);
            }
            Lookup::NoData | Lookup::NxDomain | Lookup::NotOurs => {}
        }
        if negative {
            message[9] = 1;
            soa(&mut message, &self.name);
        }
        self.end(&mut message, code);
        Some(message)
    }

    /// Makes a response without records.
    pub fn respond(&self, code: Code) -> Vec<u8> {
        let mut message = self.begin(code, 0);
        self.end(&mut message, code);
        message
    }

    /// Makes a truncated response, so that the client retries over TCP.
    pub fn truncated(&self) -> Vec<u8> {
        let mut message = self.respond(Code::NoError);
        message[2] |= TRUNCATED;
        message
    }

    /// Reports whether a response has the same question section, ignoring case.
    pub fn is_answered_by(&self, response: &[u8]) -> bool {
        let end = HEADER + self.question.len();
        response.get(2).is_some_and(|flags| flags & RESPONSE != 0)
            && response.get(4..6) == Some(&[0, 1])
            && response
                .get(HEADER..end)
                .is_some_and(|question| question.eq_ignore_ascii_case(self.question))
    }

    fn begin(&self, code: Code, flags: u8) -> Vec<u8> {
        let mut message = bare(self.id, self.flags, code);
        message[2] |= flags;
        message[5] = 1;
        message.extend(self.question);
        message
    }

    fn end(&self, message: &mut Vec<u8>, code: Code) {
        let Some(edns) = self.edns else { return };
        message[11] = 1;
        message.push(0);
        message.extend(TYPE_OPT.to_be_bytes());
        message.extend((EDNS_UDP as u16).to_be_bytes());
        message.extend([code as u8 >> 4, 0, u8::from(edns.dnssec_ok) << 7, 0, 0, 0]);
    }
}

/// Bytes of our OPT record.
const OPT_LENGTH: usize = 11;
/// Bytes of a record before its data. The name is a pointer.
const RECORD_HEAD: usize = 12;

/// Makes a response header with all counts zero and recursion available. Copies the client's
/// recursion-desired flag.
fn bare(id: u16, flags: [u8; 2], code: Code) -> Vec<u8> {
    let mut message = Vec::with_capacity(PLAIN_UDP);
    message.extend(id.to_be_bytes());
    message.push(RESPONSE | (flags[0] & 0x79));
    message.push(0x80 | (flags[1] & 0x10) | (code as u8 & 0x0f));
    message.extend([0; 8]);
    message
}

fn record_head(message: &mut Vec<u8>, kind: u16, length: u16) {
    message.extend(QUESTION_NAME);
    message.extend(kind.to_be_bytes());
    message.extend(CLASS_IN.to_be_bytes());
    message.extend(ANSWER_TTL_S.to_be_bytes());
    message.extend(length.to_be_bytes());
}

/// Writes the SOA record, which limits how long a negative answer can be cached (RFC 2308, section
/// 3). The TTL and the last field have the same value.
fn soa(message: &mut Vec<u8>, asked: &str) {
    let ours = asked == DOMAIN || asked.ends_with(&format!(".{DOMAIN}"));
    // Otherwise the name is the address of a container, and the zone is that of its /24.
    let apex = if ours {
        DOMAIN
    } else {
        asked.split_once('.').map_or(asked, |(_, network)| network)
    };
    let mut data = encode_name(&format!("ns.{DOMAIN}"));
    data.extend(encode_name(&format!("hostmaster.{DOMAIN}")));
    for number in [1, 3600, 600, 86_400, ANSWER_TTL_S] {
        data.extend(number.to_be_bytes());
    }
    message.extend(encode_name(apex));
    message.extend(TYPE_SOA.to_be_bytes());
    message.extend(CLASS_IN.to_be_bytes());
    message.extend(ANSWER_TTL_S.to_be_bytes());
    message.extend((data.len() as u16).to_be_bytes());
    message.extend(data);
}

/// Encodes a name. A label longer than 63 bytes cannot occur: our names are checked, and a question
/// cannot contain one.
fn encode_name(name: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.len() + 2);
    for label in name.split('.').filter(|label| !label.is_empty()) {
        let label = label.as_bytes();
        let label = label.get(..63).unwrap_or(label);
        bytes.push(label.len() as u8);
        bytes.extend(label);
    }
    bytes.push(0);
    bytes
}

/// Returns the lowest TTL in a response, in seconds. Returns `None` if the response has no records
/// or is damaged.
pub(crate) fn lowest_ttl(message: &[u8]) -> Option<u32> {
    ttls(message)?.into_iter().map(|(_, ttl)| ttl).min()
}

/// Subtracts `seconds` from each TTL. Leaves a damaged message as it is.
pub(crate) fn age(message: &mut [u8], seconds: u32) {
    let Some(found) = ttls(message) else { return };
    for (at, ttl) in found {
        if let Some(bytes) = message.get_mut(at..at + 4) {
            bytes.copy_from_slice(&ttl.saturating_sub(seconds).to_be_bytes());
        }
    }
}

/// Returns position and value of each TTL in a message. Leaves out OPT, which has none.
fn ttls(message: &[u8]) -> Option<Vec<(usize, u32)>> {
    let count = |at: usize| {
        Some(u32::from(u16::from_be_bytes([
            *message.get(at)?,
            *message.get(at + 1)?,
        ])))
    };
    let mut reader = Reader {
        bytes: message,
        at: HEADER,
    };
    for _ in 0..count(4)? {
        reader.name()?;
        reader.skip(4)?;
    }
    let mut found = Vec::new();
    for _ in 0..count(6)? + count(8)? + count(10)? {
        let record = reader.record()?;
        if record.kind != TYPE_OPT {
            found.push((record.ttl_at, record.ttl));
        }
    }
    Some(found)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

struct Record {
    kind: u16,
    class: u16,
    ttl: u32,
    ttl_at: usize,
    length: u16,
}

impl Reader<'_> {
    fn u8(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes([self.u8()?, self.u8()?]))
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        self.at = self
            .at
            .checked_add(count)
            .filter(|at| *at <= self.bytes.len())?;
        Some(())
    }

    /// Reads a name in lower case and stops at a pointer. A question has nothing to point back to,
    /// and the names of records are only skipped.
    fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        let start = self.at;
        loop {
            let length = self.u8()?;
            match length {
                0 => return Some(name),
                1..=63 => {
                    if !name.is_empty() {
                        name.push('.');
                    }
                    for _ in 0..length {
                        let byte = self.u8()?.to_ascii_lowercase();
                        let ours = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
                        name.push(if ours { char::from(byte) } else { '*' });
                    }
                    // RFC 1035, 2.3.4: at most 255 bytes, including the length bytes.
                    if self.at - start > 254 {
                        return None;
                    }
                }
                64..=191 => return None,
                192.. => {
                    self.u8()?;
                    return (start != HEADER).then_some(name);
                }
            }
        }
    }

    fn record(&mut self) -> Option<Record> {
        self.name()?;
        let (kind, class) = (self.u16()?, self.u16()?);
        let ttl_at = self.at;
        let ttl = u32::from_be_bytes([self.u8()?, self.u8()?, self.u8()?, self.u8()?]);
        let length = self.u16()?;
        self.skip(usize::from(length))?;
        Some(Record {
            kind,
            class,
            ttl,
            ttl_at,
            length,
        })
    }
}

#[cfg(test)]
mod tests;
