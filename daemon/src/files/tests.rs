//! The contents of a machine on a real disk.

use std::time::Duration;

use tokio_stream::iter;

use super::unpack::tests::{archive, entry};
use super::*;

struct Bench {
    files: Files,
    directory: tempfile::TempDir,
}

fn bench() -> Bench {
    let directory = tempfile::tempdir().unwrap();
    Bench {
        files: Files::new(directory.path().join("files")),
        directory,
    }
}

/// Returns an archive of one file.
pub(crate) fn one_file(text: &str) -> (ContentHash, Vec<u8>) {
    let bytes = archive(&[entry(
        tar::EntryType::Regular,
        ROOT.as_bytes(),
        0o444,
        text.as_bytes(),
    )]);
    (ContentHash::of(&bytes), bytes)
}

/// Returns an archive of a folder with a program and a link to a text.
pub(crate) fn small_folder() -> (ContentHash, Vec<u8>) {
    let bytes = archive(&[
        entry(tar::EntryType::Directory, b"content", 0o755, b""),
        entry(tar::EntryType::Directory, b"content/deep", 0o755, b""),
        entry(
            tar::EntryType::Regular,
            b"content/deep/text",
            0o644,
            b"hello",
        ),
        entry(
            tar::EntryType::Symlink,
            b"content/link",
            0o777,
            b"deep/text",
        ),
        entry(
            tar::EntryType::Regular,
            b"content/run.sh",
            0o755,
            b"#!/bin/sh\n",
        ),
    ]);
    (ContentHash::of(&bytes), bytes)
}

fn start(hash: &ContentHash, secret: bool) -> Part {
    Part::Start(ContentStart {
        hash: hash.to_string(),
        secret,
    })
}

/// Returns the start and then the archive in chunks.
pub(crate) fn parts(hash: &ContentHash, secret: bool, archive: &[u8]) -> Vec<Part> {
    let chunks = archive.chunks(700).map(|chunk| Part::Chunk(chunk.to_vec()));
    std::iter::once(start(hash, secret)).chain(chunks).collect()
}

pub(crate) async fn receive(files: &Files, parts: Vec<Part>) -> Result<(), Failure> {
    files
        .receive(iter(
            parts
                .into_iter()
                .map(|part| Ok(ContentPart { part: Some(part) })),
        ))
        .await
}

impl Bench {
    async fn put(&self, text: &str, secret: bool) -> ContentHash {
        let (hash, bytes) = one_file(text);
        receive(&self.files, parts(&hash, secret, &bytes))
            .await
            .unwrap();
        hash
    }

    fn names(&self) -> Vec<String> {
        let listed = entries(&self.directory.path().join("files")).unwrap();
        let mut names: Vec<_> = listed
            .iter()
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn mode(&self, hash: &ContentHash) -> u32 {
        fs::metadata(self.files.folder(hash))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    }
}

#[tokio::test]
async fn receive_stores_whole_content_that_can_be_sent_again() {
    let bench = bench();
    let (hash, bytes) = one_file("hello");
    assert_eq!(
        bench.files.missing(vec![hash.clone()]).await.unwrap(),
        std::slice::from_ref(&hash)
    );
    receive(&bench.files, parts(&hash, false, &bytes))
        .await
        .unwrap();
    assert!(
        bench
            .files
            .missing(vec![hash.clone()])
            .await
            .unwrap()
            .is_empty()
    );
    let path = bench.files.path(hash.clone(), false).await.unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"hello");
    assert_eq!(
        path,
        bench
            .directory
            .path()
            .join("files")
            .join(hash.as_str())
            .join("content")
    );
    assert_eq!(
        bench.files.archive(hash.clone()).await.unwrap(),
        (false, bytes.clone())
    );
    assert_eq!(bench.files.value(hash.clone()).await.unwrap(), "hello");
    // Receiving it again changes nothing.
    receive(&bench.files, parts(&hash, false, &bytes))
        .await
        .unwrap();
    assert_eq!(bench.names(), [hash.to_string()]);
}

#[tokio::test]
async fn receive_makes_secrets_readable_by_root_only() {
    let bench = bench();
    let open = bench.put("open", false).await;
    let secret = bench.put("secret", true).await;
    assert_eq!((bench.mode(&open), bench.mode(&secret)), (0o755, 0o700));
    assert!(bench.files.archive(secret.clone()).await.unwrap().0);
    // The same text is public for one service and secret for another: it is treated as a secret.
    bench.put("secret", false).await;
    assert_eq!(bench.mode(&secret), 0o700);
    bench.put("open", true).await;
    assert_eq!(bench.mode(&open), 0o700);
    let other = bench.put("other", false).await;
    bench.files.path(other.clone(), true).await.unwrap();
    assert_eq!(bench.mode(&other), 0o700);
}

#[tokio::test]
async fn receive_of_wrong_content_leaves_nothing() {
    let bench = bench();
    let (hash, bytes) = one_file("hello");
    let (other, _) = one_file("other");
    let chunk = |length: usize| Part::Chunk(vec![0; length]);
    let too_large = std::iter::once(start(&hash, false)).chain((0..257).map(|_| chunk(64 * 1024)));
    let hostile = archive(&[entry(tar::EntryType::Regular, b"../x", 0o644, b"x")]);
    let hostile_hash = ContentHash::of(&hostile);
    let bad = [
        (
            "another content",
            parts(&other, false, &bytes),
            "changed or truncated",
        ),
        (
            "cut",
            parts(&hash, false, &bytes[..600]),
            "changed or truncated",
        ),
        ("nothing", vec![start(&hash, false)], "changed or truncated"),
        ("too large", too_large.collect(), "16 MiB"),
        ("no start", vec![chunk(1)], "must be a start"),
        (
            "two starts",
            vec![start(&hash, false), start(&hash, false)],
            "second start",
        ),
        (
            "no hash",
            vec![Part::Start(ContentStart {
                hash: "../x".into(),
                secret: false,
            })],
            "64 lower-case hexadecimal",
        ),
        (
            "hostile",
            parts(&hostile_hash, false, &hostile),
            "invalid path `../x`",
        ),
    ];
    for (what, parts, expected) in bad {
        let failure = receive(&bench.files, parts).await.unwrap_err();
        assert_eq!(failure.code, Code::Invalid, "{what}");
        assert!(failure.message.contains(expected), "{what}: {failure:?}");
        assert!(bench.names().is_empty(), "{what}: {:?}", bench.names());
    }
    let broken = iter([
        Ok(ContentPart {
            part: Some(start(&hash, false)),
        }),
        Err(Status::cancelled("the client went away")),
    ]);
    assert!(
        bench
            .files
            .receive(broken)
            .await
            .unwrap_err()
            .message
            .contains("went away")
    );
    assert!(bench.names().is_empty());
}

#[tokio::test(start_paused = true)]
async fn receive_gives_up_on_silent_sender() {
    let bench = bench();
    let (hash, _) = one_file("hello");
    let silent = iter([Ok(ContentPart {
        part: Some(start(&hash, false)),
    })])
    .chain(tokio_stream::pending());
    let failure = bench.files.receive(silent).await.unwrap_err();
    assert_eq!(failure.code, Code::TimedOut);
}

#[tokio::test]
async fn clear_incoming_removes_leftovers_of_a_crash() {
    let bench = bench();
    bench.files.clear_incoming().await.unwrap();
    let kept = bench.put("kept", false).await;
    // A daemon that was killed between two writes leaves this.
    let room = bench.files.incoming_folder(7);
    fs::create_dir(&room).unwrap();
    fs::write(room.join(ARCHIVE), "half").unwrap();
    bench.files.clear_incoming().await.unwrap();
    assert_eq!(bench.names(), [kept.to_string()]);
    assert_eq!(bench.files.stored().await.unwrap().len(), 1);
}

#[tokio::test]
async fn settle_removes_contents_and_refreshes_used_ones() {
    let bench = bench();
    let (a, b) = (bench.put("a", false).await, bench.put("b", true).await);
    let long_ago = SystemTime::now() - Duration::from_secs(86_400);
    for hash in [&a, &b] {
        File::open(bench.files.folder(hash))
            .unwrap()
            .set_modified(long_ago)
            .unwrap();
    }
    let used = |stored: &[Stored], hash: &ContentHash| {
        stored
            .iter()
            .find(|stored| stored.hash == *hash)
            .unwrap()
            .used
    };
    assert!(
        bench
            .files
            .missing(vec![a.clone()])
            .await
            .unwrap()
            .is_empty()
    );
    let stored = bench.files.stored().await.unwrap();
    assert!(used(&stored, &a) > long_ago + Duration::from_secs(3_600));
    assert!(used(&stored, &b) < long_ago + Duration::from_secs(3_600));
    // It was requested after it was listed, so it is not removed.
    let stale = vec![Stored {
        hash: a.clone(),
        used: long_ago,
    }];
    let old = stored.into_iter().find(|stored| stored.hash == b).unwrap();
    bench
        .files
        .settle(Vec::new(), [stale, vec![old]].concat())
        .await
        .unwrap();
    bench
        .files
        .settle(vec![a.clone()], Vec::new())
        .await
        .unwrap();
    assert_eq!(bench.names(), [a.to_string()]);
    assert_eq!(
        bench.files.archive(b).await.unwrap_err().code,
        Code::NotFound
    );
}

#[tokio::test]
async fn value_accepts_only_text_of_one_file() {
    let bench = bench();
    let folder = archive(&[entry(
        tar::EntryType::Directory,
        ROOT.as_bytes(),
        0o755,
        b"",
    )]);
    let bytes =
        |data: &[u8]| archive(&[entry(tar::EntryType::Regular, ROOT.as_bytes(), 0o444, data)]);
    for (archive, reason) in [
        (folder, "a directory"),
        (bytes(b"a\0b"), "a zero byte"),
        (bytes(&[0xff, 0xfe]), "not UTF-8"),
        (bytes(&vec![b'x'; 121 * 1024]), "too long"),
    ] {
        let hash = ContentHash::of(&archive);
        receive(&bench.files, parts(&hash, true, &archive))
            .await
            .unwrap();
        let failure = bench.files.value(hash).await.unwrap_err();
        assert!(failure.message.contains(reason), "{failure:?}");
    }
    let line = bench.put("line\n", true).await;
    assert_eq!(bench.files.value(line).await.unwrap(), "line\n");
}

#[tokio::test]
async fn receive_accepts_concurrent_senders_of_one_content() {
    let bench = bench();
    let (hash, bytes) = one_file("hello");
    let all = (0..8).map(|_| receive(&bench.files, parts(&hash, false, &bytes)));
    for received in futures_util::future::join_all(all).await {
        received.unwrap();
    }
    assert_eq!(bench.names(), [hash.to_string()]);
}
