//! Checks our messages with hickory-dns, and our parser with arbitrary bytes.

use hickory_proto::op::{
    Edns as HickoryEdns, Message, MessageType, OpCode, Query as HickoryQuery, ResponseCode,
};
use hickory_proto::rr::{Name, RData, RecordType};
use proptest::prelude::*;

use super::*;

fn question(name: &str, kind: RecordType, edns: Option<u16>) -> Vec<u8> {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(HickoryQuery::query(Name::from_ascii(name).unwrap(), kind));
    if let Some(size) = edns {
        let mut edns = HickoryEdns::new();
        edns.set_max_payload(size);
        message.set_edns(edns);
    }
    message.to_vec().unwrap()
}

fn query(bytes: &[u8]) -> Query<'_> {
    match parse(bytes) {
        Parsed::Query(query) => query,
        other => panic!("{other:?}"),
    }
}

fn declined(bytes: &[u8]) -> Message {
    match parse(bytes) {
        Parsed::Decline(response) => Message::from_vec(&response).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn addresses(count: u8) -> Lookup {
    Lookup::Addresses(
        (0..count)
            .map(|host| Ipv4Addr::new(10, 210, 1, host))
            .collect(),
    )
}

#[test]
fn parse_reads_query() {
    let bytes = question("WeB.Shop.internal.", RecordType::A, None);
    let plain = query(&bytes);
    assert_eq!(
        (plain.id, plain.name.as_str(), plain.kind),
        (4711, "web.shop.internal", Kind::A)
    );
    assert!(plain.is_internet());
    assert_eq!(plain.udp_limit(), PLAIN_UDP);
    for (kind, expected) in [
        (RecordType::PTR, Kind::Ptr),
        (RecordType::ANY, Kind::Any),
        (RecordType::AAAA, Kind::Other),
        (RecordType::SRV, Kind::Other),
    ] {
        assert_eq!(query(&question("x.internal.", kind, None)).kind, expected);
    }
    for (size, limit) in [
        (0, 512),
        (511, 512),
        (900, 900),
        (1232, 1232),
        (4096, 1232),
        (65_535, 1232),
    ] {
        assert_eq!(
            query(&question("x.internal.", RecordType::A, Some(size))).udp_limit(),
            limit
        );
    }
    assert_eq!(query(&question(".", RecordType::NS, None)).name, "");
    // A dot, a star or a byte above ASCII inside a label is invalid in our names.
    let odd = query(b"\0\x01\0\0\0\x01\0\0\0\0\0\0\x04a.*\xe4\x08internal\0\0\x01\0\x01").name;
    assert_eq!(odd, "a***.internal");
}

#[test]
fn answer_is_readable_by_hickory() {
    for edns in [None, Some(1232)] {
        let bytes = question("web.shop.internal.", RecordType::A, edns);
        let response = query(&bytes).answer(&addresses(3), PLAIN_UDP).unwrap();
        let message = Message::from_vec(&response).unwrap();
        let head = message.metadata;
        assert_eq!(
            (head.id, head.message_type, head.response_code),
            (4711, MessageType::Response, ResponseCode::NoError)
        );
        assert!(
            head.authoritative
                && head.recursion_desired
                && head.recursion_available
                && !head.truncation
        );
        assert_eq!(message.queries[0].name.to_ascii(), "web.shop.internal.");
        let given: Vec<String> = message
            .answers
            .iter()
            .map(|record| record.data.to_string())
            .collect();
        assert_eq!(given, ["10.210.1.0", "10.210.1.1", "10.210.1.2"]);
        assert!(
            message
                .answers
                .iter()
                .all(|record| record.ttl == ANSWER_TTL_S && record.name == message.queries[0].name)
        );
        assert_eq!(
            message.edns.as_ref().map(HickoryEdns::max_payload),
            edns.map(|_| 1232)
        );
    }
}

#[test]
fn answer_repeats_case_of_the_question() {
    let bytes = question("WeB.Shop.InternaL.", RecordType::A, None);
    let response = query(&bytes).answer(&addresses(1), PLAIN_UDP).unwrap();
    assert_eq!(
        Message::from_vec(&response).unwrap().queries[0]
            .name
            .to_ascii(),
        "WeB.Shop.InternaL."
    );
}

#[test]
fn negative_answer_has_soa_with_ttl() {
    for (lookup, code) in [
        (Lookup::NoData, ResponseCode::NoError),
        (Lookup::NxDomain, ResponseCode::NXDomain),
    ] {
        for (name, apex) in [
            ("x.shop.internal.", "internal."),
            ("internal.", "internal."),
            ("7.1.210.10.in-addr.arpa.", "1.210.10.in-addr.arpa."),
        ] {
            let bytes = question(name, RecordType::AAAA, Some(1232));
            let message =
                Message::from_vec(&query(&bytes).answer(&lookup, PLAIN_UDP).unwrap()).unwrap();
            assert_eq!(message.metadata.response_code, code);
            assert!(message.metadata.authoritative && message.answers.is_empty());
            let [record] = message.authorities.as_slice() else {
                panic!("{message:?}")
            };
            let RData::SOA(soa) = &record.data else {
                panic!("{record:?}")
            };
            assert_eq!(
                (record.name.to_ascii().as_str(), record.ttl, soa.minimum),
                (apex, ANSWER_TTL_S, ANSWER_TTL_S)
            );
        }
    }
}

#[test]
fn answer_to_ptr_query_is_a_name() {
    let bytes = question("9.1.210.10.in-addr.arpa.", RecordType::PTR, None);
    let response = query(&bytes)
        .answer(&Lookup::Pointer("web.my_shop.internal".into()), PLAIN_UDP)
        .unwrap();
    let message = Message::from_vec(&response).unwrap();
    assert_eq!(message.answers[0].data.to_string(), "web.my_shop.internal.");
}

#[test]
fn answer_too_long_is_truncated_with_flag() {
    for (edns, count, limit, given, cut) in [
        (None, 28, 512, 28, false),
        (None, 29, 512, 29, false),
        (None, 30, 512, 29, true),
        (None, 64, 512, 29, true),
        (Some(1232), 64, 1232, 64, false),
        (Some(600), 64, 600, 34, true),
        (None, 64, MAX_MESSAGE, 64, false),
    ] {
        let bytes = question("web.shop.internal.", RecordType::A, edns);
        let response = query(&bytes).answer(&addresses(count), limit).unwrap();
        assert!(response.len() <= limit);
        let message = Message::from_vec(&response).unwrap();
        assert_eq!(
            (message.answers.len(), message.metadata.truncation),
            (given, cut),
            "{edns:?} {count}"
        );
        assert_eq!(message.edns.is_some(), edns.is_some());
    }
}

#[test]
fn parse_declines_unanswerable_queries() {
    let good = question("web.internal.", RecordType::A, None);
    assert_eq!(parse(b""), Parsed::Ignore);
    assert_eq!(parse(&good[..11]), Parsed::Ignore);
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    assert_eq!(
        parse(&with(2, 0x80)),
        Parsed::Ignore,
        "a response: two servers must not answer each other forever"
    );
    for (bytes, code) in [
        (with(2, 0x20), ResponseCode::NotImp),
        (with(5, 0), ResponseCode::FormErr),
        (with(5, 2), ResponseCode::FormErr),
        (with(11, 1), ResponseCode::FormErr),
        (with(12, 0x40), ResponseCode::FormErr),
        (with(12, 0xc0), ResponseCode::FormErr),
        (with(12, 63), ResponseCode::FormErr),
        (good[..good.len() - 1].to_vec(), ResponseCode::FormErr),
        (good[..12].to_vec(), ResponseCode::FormErr),
    ] {
        let message = declined(&bytes);
        assert_eq!(message.metadata.response_code, code, "{bytes:?}");
        assert_eq!(message.metadata.id, 4711);
    }
    let mut newer = question("web.internal.", RecordType::A, Some(1232));
    let version = newer.len() - 5;
    newer[version] = 1;
    let message = declined(&newer);
    assert_eq!(message.edns.as_ref().map(HickoryEdns::rcode_high), Some(1));
    // 16 means BADVERS, or BADSIG in a signed message.
    assert_eq!(u16::from(message.metadata.response_code), 16);
    // Two OPT records.
    let mut twice = question("web.internal.", RecordType::A, Some(1232));
    let opt = twice[twice.len() - 11..].to_vec();
    twice.extend(opt);
    twice[11] = 2;
    assert_eq!(
        declined(&twice).metadata.response_code,
        ResponseCode::FormErr
    );
}

#[test]
fn parse_refuses_name_over_255_bytes() {
    let long = |labels: usize, last: usize| {
        let mut bytes = vec![0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for _ in 0..labels {
            bytes.push(63);
            bytes.extend([b'a'; 63]);
        }
        bytes.push(last as u8);
        bytes.extend(vec![b'b'; last]);
        bytes.extend([0, 0, 1, 0, 1]);
        bytes
    };
    assert!(matches!(parse(&long(3, 61)), Parsed::Query(_)));
    assert!(matches!(parse(&long(3, 62)), Parsed::Decline(_)));
    assert!(matches!(parse(&long(4, 1)), Parsed::Decline(_)));
}

#[test]
fn is_answered_by_requires_same_question() {
    let bytes = question("Web.Example.org.", RecordType::A, None);
    let asked = query(&bytes);
    let answer = |name: &str, kind| {
        let bytes = question(name, kind, None);
        query(&bytes).respond(Code::NoError)
    };
    assert!(asked.is_answered_by(&answer("web.example.org.", RecordType::A)));
    assert!(!asked.is_answered_by(&answer("web.example.com.", RecordType::A)));
    assert!(!asked.is_answered_by(&answer("web.example.org.", RecordType::AAAA)));
    assert!(!asked.is_answered_by(&bytes), "a query is not an answer");
    assert!(!asked.is_answered_by(&[]));
}

#[test]
fn cache_key_exists_only_without_edns_options() {
    let key = |bytes: &[u8]| query(bytes).cache_key();
    let plain = key(&question("a.example.", RecordType::A, None));
    assert!(plain.is_some());
    assert_eq!(plain, key(&question("A.EXAMPLE.", RecordType::A, None)));
    assert_ne!(plain, key(&question("a.example.", RecordType::AAAA, None)));
    let edns = key(&question("a.example.", RecordType::A, Some(1232)));
    assert_ne!(plain, edns);
    assert_eq!(
        edns,
        key(&question("a.example.", RecordType::A, Some(4096)))
    );
    // An option (a cookie, a client subnet) makes the answer specific to the client.
    let mut bytes = question("a.example.", RecordType::A, Some(1232));
    let length = bytes.len() - 1;
    bytes[length] = 4;
    bytes.extend([0, 10, 0, 0]);
    assert_eq!(key(&bytes), None);
}

#[test]
fn age_reduces_every_ttl() {
    let bytes = question("web.shop.internal.", RecordType::A, Some(1232));
    let mut response = query(&bytes).answer(&addresses(2), PLAIN_UDP).unwrap();
    assert_eq!(lowest_ttl(&response), Some(ANSWER_TTL_S));
    age(&mut response, 100);
    let message = Message::from_vec(&response).unwrap();
    assert!(message.answers.iter().all(|record| record.ttl == 0));
    assert_eq!(message.edns.map(|edns| edns.max_payload()), Some(1232));
    assert_eq!(lowest_ttl(&query(&bytes).respond(Code::ServFail)), None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// Any bytes are parsed without a panic, and every response is a valid message.
    #[test]
    fn parse_survives_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        survive(&bytes)?;
    }

    /// The same with bytes that are nearly valid.
    #[test]
    fn parse_survives_damaged_query(at in 0_usize..60, byte: u8, cut in 0_usize..60, edns: bool) {
        let mut bytes = question("web.shop.internal.", RecordType::A, edns.then_some(1232));
        if let Some(place) = bytes.get_mut(at) {
            *place = byte;
        }
        bytes.truncate(bytes.len().saturating_sub(cut.saturating_sub(40)));
        survive(&bytes)?;
    }

    /// Our parser and hickory read the same name.
    #[test]
    fn parse_reads_same_name_as_hickory(labels in proptest::collection::vec("[a-zA-Z0-9_][a-zA-Z0-9_-]{0,19}", 0..8)) {
        let name = labels.iter().flat_map(|label| [label.as_str(), "."]).collect::<String>();
        let bytes = question(if name.is_empty() { "." } else { &name }, RecordType::A, None);
        prop_assert_eq!(&query(&bytes).name, &labels.join(".").to_ascii_lowercase());
    }
}

fn survive(bytes: &[u8]) -> Result<(), TestCaseError> {
    let mut copy = bytes.to_vec();
    age(&mut copy, 7);
    prop_assert_eq!(copy.len(), bytes.len());
    let _ = lowest_ttl(bytes);
    let responses = match parse(bytes) {
        Parsed::Ignore => vec![],
        Parsed::Decline(response) => vec![response],
        Parsed::Query(query) => {
            let _ = query.cache_key();
            let limit = query.udp_limit();
            [
                addresses(64),
                Lookup::NoData,
                Lookup::NxDomain,
                Lookup::Pointer("a.internal".into()),
            ]
            .iter()
            .filter_map(|lookup| query.answer(lookup, limit))
            .chain([query.respond(Code::ServFail), query.truncated()])
            .collect()
        }
    };
    for response in responses {
        prop_assert!(Message::from_vec(&response).is_ok(), "{response:?}");
        prop_assert_eq!(&response[..2], &bytes[..2]);
        prop_assert!(response[2] & RESPONSE != 0);
    }
    Ok(())
}
