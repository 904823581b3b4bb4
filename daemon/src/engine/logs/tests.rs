use std::time::Duration;

use futures_util::stream::{self, BoxStream};

use super::*;

const PATIENCE: Patience =
    Patience::following(Duration::from_millis(50), Duration::from_millis(50));

fn frame(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn line(second: i64, message: &str) -> LogLine {
    LogLine {
        stream: LogStream::Stdout,
        time_ns: second * 1_000_000_000,
        message: frame(message),
    }
}

#[test]
fn assembler_reads_line_and_time_of_a_frame() {
    let mut assembler = LineAssembler::default();
    let got = assembler
        .push(
            LogStream::Stderr,
            &frame("1970-01-01T00:00:01.000000005Z hello world\n"),
        )
        .unwrap();
    assert_eq!(got.time_ns, 1_000_000_005);
    assert_eq!(&got.message[..], b"hello world");
    assert_eq!(got.stream, LogStream::Stderr);
    assert!(assembler.finish().is_empty());
}

#[test]
fn assembler_joins_pieces_per_stream() {
    let mut assembler = LineAssembler::default();
    assert_eq!(
        assembler.push(LogStream::Stdout, &frame("1970-01-01T00:00:01Z aaa")),
        None
    );
    let other = assembler
        .push(LogStream::Stderr, &frame("1970-01-01T00:00:02Z x\n"))
        .unwrap();
    assert_eq!(&other.message[..], b"x");
    let whole = assembler
        .push(LogStream::Stdout, &frame("1970-01-01T00:00:03Z bbb\r\n"))
        .unwrap();
    assert_eq!(
        (whole.time_ns, &whole.message[..]),
        (1_000_000_000, &b"aaabbb"[..])
    );
    assert_eq!(
        assembler.push(LogStream::Stdout, &frame("1970-01-01T00:00:04Z tail")),
        None
    );
    let rest = assembler.finish();
    assert_eq!((rest.len(), &rest[0].message[..]), (1, &b"tail"[..]));
}

#[test]
fn assembler_keeps_empty_and_binary_lines() {
    let mut assembler = LineAssembler::default();
    assert_eq!(
        &assembler
            .push(LogStream::Stdout, &frame("1970-01-01T00:00:01Z \n"))
            .unwrap()
            .message[..],
        b""
    );
    let binary = Bytes::from_static(b"1970-01-01T00:00:01Z \xff\x00\x01\n");
    assert_eq!(
        &assembler.push(LogStream::Stdout, &binary).unwrap().message[..],
        b"\xff\x00\x01"
    );
    let unstamped = assembler
        .push(LogStream::Stdout, &frame("no time\n"))
        .unwrap();
    assert_eq!(
        (unstamped.time_ns, &unstamped.message[..]),
        (0, &b"no time"[..])
    );
}

#[test]
fn assembler_bounds_line_without_end() {
    let mut assembler = LineAssembler::default();
    let piece = frame(&format!("1970-01-01T00:00:01Z {}", "x".repeat(100_000)));
    let got = (0..10)
        .filter_map(|_| assembler.push(LogStream::Stdout, &piece))
        .collect::<Vec<_>>();
    assert_eq!(got.len(), 3);
    assert!(
        got.iter()
            .all(|line| line.message.len() < MAX_LINE + 100_000)
    );
}

#[test]
fn is_in_time_range_includes_bounds_to_the_millisecond() {
    let options = LogOptions {
        since_ms: Some(1500),
        until_ms: Some(2000),
        ..Default::default()
    };
    let at = |ms: i64| {
        is_in_time_range(
            &LogLine {
                time_ns: ms * 1_000_000,
                ..line(0, "")
            },
            &options,
        )
    };
    assert_eq!([1499, 1500, 2000, 2001].map(at), [false, true, true, false]);
    assert!(is_in_time_range(&line(0, ""), &LogOptions::default()));
}

type Lines = BoxStream<'static, Result<LogLine, EngineError>>;

fn ready(lines: Vec<LogLine>) -> Lines {
    stream::iter(lines.into_iter().map(Ok)).boxed()
}

async fn collect(sources: Vec<(&'static str, Lines)>) -> Vec<String> {
    merge(sources, time_of, PATIENCE)
        .map(|(tag, line)| match line {
            Ok(line) => format!("{tag}{}", String::from_utf8_lossy(&line.message)),
            Err(error) => format!("{tag}!{error}"),
        })
        .collect()
        .await
}

#[tokio::test]
async fn merge_orders_lines_by_time() {
    let a = ready(vec![line(1, "1"), line(4, "4")]);
    let b = ready(vec![line(2, "2"), line(3, "3"), line(5, "5")]);
    assert_eq!(
        collect(vec![("a", a), ("b", b)]).await,
        ["a1", "b2", "b3", "a4", "b5"]
    );
    assert!(collect(Vec::new()).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn merge_waits_for_a_quiet_stream_once() {
    let start = tokio::time::Instant::now();
    let quiet = stream::once(async {
        tokio::time::sleep(Duration::from_mins(1)).await;
        Ok(line(9, "9"))
    })
    .boxed();
    let busy = ready((0..100).map(|_| line(1, "x")).collect());
    let mut merged = merge(vec![("q", quiet), ("b", busy)], time_of, PATIENCE).boxed();
    for _ in 0..100 {
        assert_eq!(merged.next().await.unwrap().0, "b");
    }
    assert_eq!(start.elapsed(), Duration::from_millis(50));
    assert_eq!(merged.next().await.unwrap().0, "q");
    assert!(merged.next().await.is_none());
}

#[tokio::test]
async fn merge_passes_on_an_error_and_continues() {
    let broken = stream::iter([Err(EngineError::Broken {
        message: "gone".into(),
    })])
    .boxed();
    let got = collect(vec![("a", ready(vec![line(1, "1")])), ("b", broken)]).await;
    assert_eq!(got, ["b!the connection to Docker broke: gone", "a1"]);
}

/// The stream's items, each after its delay in milliseconds.
fn delayed(lines: Vec<(u64, LogLine)>) -> Lines {
    stream::iter(lines)
        .then(|(delay, line)| async move {
            tokio::time::sleep(Duration::from_millis(delay)).await;
            Ok(line)
        })
        .boxed()
}

#[tokio::test(start_paused = true)]
async fn merge_waits_longer_for_the_first_line_than_for_the_next() {
    let patience = Patience::following(Duration::from_millis(500), Duration::from_millis(50));
    let order = |slow: Lines| async {
        let fast = delayed(vec![(0, line(2, "2")), (700, line(9, "9"))]);
        let merged = merge(vec![("f", fast), ("s", slow)], time_of, patience);
        merged.map(|(tag, _)| tag).collect::<Vec<_>>().await
    };
    let history = delayed(vec![(400, line(1, "1"))]);
    assert_eq!(order(history).await, ["s", "f", "f"]);
    let too_late = delayed(vec![(600, line(1, "1"))]);
    assert_eq!(order(too_late).await, ["f", "s", "f"]);
    let pause_within = delayed(vec![(0, line(0, "0")), (100, line(1, "1"))]);
    assert_eq!(order(pause_within).await, ["s", "f", "s", "f"]);
}

#[tokio::test(start_paused = true)]
async fn merge_until_end_never_gives_up_on_a_stream() {
    let slow = delayed(vec![(600_000, line(1, "1"))]);
    let fast = ready(vec![line(2, "2")]);
    let merged = merge(vec![("f", fast), ("s", slow)], time_of, Patience::UNTIL_END);
    let order: Vec<_> = merged.map(|(tag, _)| tag).collect().await;
    assert_eq!(order, ["s", "f"]);
}

/// A stream that sends these lines and then follows.
fn following(lines: Vec<LogLine>) -> Lines {
    ready(lines).chain(stream::pending()).boxed()
}

#[tokio::test(start_paused = true)]
async fn merge_holds_simultaneous_lines_of_fifty_streams_back_once() {
    let start = tokio::time::Instant::now();
    let sources = (0..50)
        .map(|number| (number, following(vec![line(1, "x")])))
        .collect();
    let mut merged = merge(sources, time_of, PATIENCE).boxed();
    for number in 0..50 {
        assert_eq!(merged.next().await.unwrap().0, number);
    }
    assert_eq!(start.elapsed(), Duration::from_millis(50));
}

#[tokio::test(start_paused = true)]
async fn merge_passes_on_a_line_from_the_future_while_the_others_send() {
    let now = jiff::Timestamp::now().as_second();
    let fast_clock = following(vec![line(now + 3600, "1"), line(now + 3601, "2")]);
    let busy = delayed((0..1000).map(|_| (10, line(now + 60, "x"))).collect());
    let busy = busy.chain(stream::pending()).boxed();
    let merged = merge(vec![("b", busy), ("f", fast_clock)], time_of, PATIENCE);
    // The lines that arrive later are later, though they have the earlier time.
    let order: Vec<_> = merged.map(|(tag, _)| tag).take(10).collect().await;
    assert_eq!(
        order.iter().filter(|tag| **tag == "f").count(),
        2,
        "{order:?}"
    );
}

#[tokio::test]
async fn merge_until_end_orders_lines_from_the_future_by_their_time() {
    let future = jiff::Timestamp::now().as_second() + 3600;
    let a = ready(vec![line(future + 1, "1"), line(future + 3, "3")]);
    let b = ready(vec![line(future, "0"), line(future + 2, "2")]);
    let merged = merge(vec![("a", a), ("b", b)], time_of, Patience::UNTIL_END);
    let order: Vec<_> = merged.map(|(tag, _)| tag).collect().await;
    assert_eq!(order, ["b", "a", "b", "a"]);
}
