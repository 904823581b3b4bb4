use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{DuplexStream, duplex};
use tokio::time::timeout;

use super::*;

fn key(seed: u8) -> PrivateKey {
    PrivateKey::from_bytes([seed; 32])
}

type Ends = (
    io::Result<NoiseStream<DuplexStream>>,
    io::Result<NoiseStream<DuplexStream>>,
);

/// A handshake in which the caller has key 1 and expects `wanted`, and the listener has key 2 and
/// expects `known`.
async fn handshake(wanted: u8, known: u8) -> Ends {
    let (one, two) = duplex(64);
    let (first, second) = (key(1), key(2));
    let (wanted, known) = (key(wanted).public(), key(known).public());
    let connecting = connect(one, &first, &wanted);
    // Each side drops its stream when it fails, so that the other one ends too.
    tokio::join!(connecting, accept(two, &second, &known))
}

#[tokio::test]
async fn both_sides_read_what_the_other_wrote() {
    let (one, two) = handshake(2, 1).await;
    let (mut one, mut two) = (one.unwrap(), two.unwrap());
    let text = vec![7; 100_000];
    let copy = text.clone();
    let sender = tokio::spawn(async move {
        one.write_all(&copy).await.unwrap();
        one.shutdown().await.unwrap();
        let mut answer = Vec::new();
        one.read_to_end(&mut answer).await.unwrap();
        answer
    });
    let mut read = Vec::new();
    two.read_to_end(&mut read).await.unwrap();
    assert_eq!(read, text);
    two.write_all(b"thanks").await.unwrap();
    two.shutdown().await.unwrap();
    assert_eq!(sender.await.unwrap(), b"thanks");
}

#[tokio::test]
async fn caller_without_the_expected_key_is_refused() {
    let (one, two) = handshake(2, 3).await;
    let refused = two.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
    assert!(
        one.unwrap_err()
            .to_string()
            .contains("does not know this machine")
    );
}

#[tokio::test]
async fn listener_without_the_expected_key_is_refused() {
    let (one, two) = handshake(3, 1).await;
    one.unwrap_err();
    two.unwrap_err();
}

#[tokio::test]
async fn http_2_without_handshake_is_refused() {
    let (mut one, two) = duplex(1024);
    one.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    let refused = accept(two, &key(2), &key(1).public()).await.unwrap_err();
    assert!(
        refused.to_string().contains("another protocol"),
        "{refused}"
    );
}

/// Carries bytes from one stream to another and returns them.
async fn carry(from: &mut DuplexStream, to: &mut DuplexStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes).await.unwrap();
    to.write_all(&bytes).await.unwrap();
    bytes
}

#[tokio::test]
async fn recorded_handshake_cannot_be_repeated() {
    let (caller, mut from_caller) = duplex(1024);
    let (listener, mut to_listener) = duplex(1024);
    let accepting = tokio::spawn(async move { accept(listener, &key(2), &key(1).public()).await });
    let connecting = tokio::spawn(async move { connect(caller, &key(1), &key(2).public()).await });
    let first = carry(&mut from_caller, &mut to_listener, 52).await;
    carry(&mut to_listener, &mut from_caller, 48).await;
    let third = carry(&mut from_caller, &mut to_listener, 18).await;
    accepting.await.unwrap().unwrap();
    connecting.await.unwrap().unwrap();

    let (listener, mut replayer) = duplex(1024);
    replayer.write_all(&first).await.unwrap();
    replayer.write_all(&third).await.unwrap();
    let refused = accept(listener, &key(2), &key(1).public())
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
}

#[tokio::test]
async fn all_zero_shared_secret_is_refused() {
    // A point of small order: the shared secret would be known to everybody.
    let small = PublicKey::from_bytes({
        let mut bytes = [0; 32];
        bytes[0] = 1;
        bytes
    })
    .unwrap();
    let (one, _two) = duplex(1024);
    connect(one, &key(1), &small).await.unwrap_err();
}

#[tokio::test]
async fn end_within_a_message_is_an_error() {
    let (one, two) = handshake(2, 1).await;
    let (mut one, mut two) = (one.unwrap(), two.unwrap());
    one.encrypt(b"hello").unwrap();
    let half = one.sending[..10].to_vec();
    one.inner.write_all(&half).await.unwrap();
    drop(one);
    let error = two.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn changed_repeated_and_oversized_messages_end_the_connection() {
    type Change = fn(&mut Vec<u8>);
    let changes: [Change; 5] = [
        |frame| frame[5] ^= 1,
        |frame| {
            let last = frame.len() - 1;
            frame[last] ^= 0x80;
        },
        |frame| frame.extend(frame.clone()),
        |frame| frame[..2].copy_from_slice(&u16::MAX.to_be_bytes()),
        |frame| frame[..2].copy_from_slice(&3u16.to_be_bytes()),
    ];
    for change in changes {
        let (one, two) = handshake(2, 1).await;
        let (mut one, mut two) = (one.unwrap(), two.unwrap());
        one.encrypt(b"hello").unwrap();
        let mut frame = one.sending.clone();
        change(&mut frame);
        let reading = async {
            let mut read = [0; 1024];
            loop {
                match two.read(&mut read).await {
                    Ok(0) => panic!("the stream ended without an error"),
                    Ok(_) => {}
                    Err(error) => return error,
                }
            }
        };
        let writing = async {
            one.inner.write_all(&frame).await.unwrap();
            std::future::pending::<()>().await;
        };
        let error = tokio::select! {
            error = timeout(Duration::from_secs(10), reading) => error.expect("an error at once"),
            () = writing => unreachable!(),
        };
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}

#[tokio::test]
async fn nothing_of_the_plaintext_is_on_the_wire() {
    let (one, two) = handshake(2, 1).await;
    let (mut one, _two) = (one.unwrap(), two.unwrap());
    one.encrypt(b"a secret of sixteen").unwrap();
    let windows = one.sending.windows(6);
    assert!(windows.into_iter().all(|part| part != b"secret"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any sequence of writes arrives in order, whatever the sizes of writes, reads and the pipe.
    #[test]
    fn any_writes_arrive_in_order(
        writes in proptest::collection::vec(0usize..40_000, 1..8),
        read_size in 1usize..20_000,
        pipe in 60usize..70_000,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (one, two) = duplex(pipe);
            let (first, second) = (key(1), key(2));
            let (to, from) = (second.public(), first.public());
            let (one, two) = tokio::join!(connect(one, &first, &to), accept(two, &second, &from));
            let (mut one, mut two) = (one.unwrap(), two.unwrap());
            let total: usize = writes.iter().sum();
            let sent: Vec<u8> = (0..total).map(|n| (n % 251) as u8).collect();
            let copy = sent.clone();
            let writer = tokio::spawn(async move {
                let mut rest = copy.as_slice();
                for length in writes {
                    let (now, later) = rest.split_at(length);
                    one.write_all(now).await.unwrap();
                    rest = later;
                }
                one.shutdown().await.unwrap();
            });
            let mut received = Vec::new();
            let mut buffer = vec![0; read_size];
            loop {
                let length = two.read(&mut buffer).await.unwrap();
                if length == 0 {
                    break;
                }
                received.extend_from_slice(&buffer[..length]);
            }
            writer.await.unwrap();
            assert!(received == sent);
        });
    }
}
