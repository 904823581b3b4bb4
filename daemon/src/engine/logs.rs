//! Turns the engine's log frames into lines. A frame starts with a timestamp, and the engine splits
//! long lines into several frames.

mod merge;

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use uc_api::v1::LogStream;

pub(crate) use self::merge::{Patience, merge};
use super::EngineError;

/// Bytes of a line. A longer line is split into pieces of this size, so that a program that never
/// ends its line cannot fill the memory.
const MAX_LINE: usize = 256 * 1024;

/// Which lines the caller wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LogOptions {
    /// Whether to continue with lines written from now on.
    pub follow: bool,
    /// Number of lines from the end. `None` means all.
    pub tail: Option<u64>,
    /// Start of the time range in Unix milliseconds, inclusive.
    pub since_ms: Option<i64>,
    /// End of the time range in Unix milliseconds, inclusive.
    pub until_ms: Option<i64>,
}

/// One line without its line feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogLine {
    /// Standard output or standard error. A container with a terminal has only standard output.
    pub stream: LogStream,
    /// When the engine received the line, in Unix nanoseconds.
    pub time_ns: i64,
    /// Any bytes, not necessarily UTF-8.
    pub message: Bytes,
}

/// Joins frames to lines.
#[derive(Debug, Default)]
pub(crate) struct LineAssembler {
    open: HashMap<LogStream, (i64, BytesMut)>,
}

impl LineAssembler {
    /// Adds one frame, `<RFC 3339 time> <text>`. Returns a line when one is complete.
    pub(crate) fn push(&mut self, stream: LogStream, frame: &Bytes) -> Option<LogLine> {
        let (time_ns, text) = split_time(frame);
        let (since, buffer) = self
            .open
            .entry(stream)
            .or_insert_with(|| (time_ns, BytesMut::new()));
        let time_ns = if buffer.is_empty() { time_ns } else { *since };
        let (line, complete) = match text.strip_suffix(b"\n") {
            Some(line) => (line.strip_suffix(b"\r").unwrap_or(line), true),
            None => (text, false),
        };
        buffer.extend_from_slice(line);
        *since = time_ns;
        let full = complete || buffer.len() >= MAX_LINE;
        full.then(|| LogLine {
            stream,
            time_ns,
            message: buffer.split().freeze(),
        })
    }

    /// Returns the unfinished lines when the container's log ends.
    pub(crate) fn finish(self) -> Vec<LogLine> {
        let mut rest: Vec<LogLine> = self
            .open
            .into_iter()
            .filter(|(_, (_, buffer))| !buffer.is_empty())
            .map(|(stream, (time_ns, buffer))| LogLine {
                stream,
                time_ns,
                message: buffer.freeze(),
            })
            .collect();
        rest.sort_by_key(|line| line.time_ns);
        rest
    }
}

fn split_time(frame: &[u8]) -> (i64, &[u8]) {
    let split = frame
        .iter()
        .position(|byte| *byte == b' ')
        .and_then(|space| {
            let (stamp, text) = frame.split_at(space);
            let time: jiff::Timestamp = std::str::from_utf8(stamp).ok()?.parse().ok()?;
            Some((i64::try_from(time.as_nanosecond()).ok()?, text.get(1..)?))
        });
    // A frame without a timestamp (a notice of the engine itself) keeps its whole text.
    split.unwrap_or((0, frame))
}

/// Reports whether a line is in the wanted time range.
pub(crate) fn is_in_time_range(line: &LogLine, options: &LogOptions) -> bool {
    let ms = line.time_ns.div_euclid(1_000_000);
    options.since_ms.is_none_or(|since| ms >= since)
        && options.until_ms.is_none_or(|until| ms <= until)
}

/// Returns the last `count` lines as text for a failure message. Returns no lines if the log cannot
/// be read, because the failure matters more.
pub(crate) async fn tail(engine: &dyn super::Engine, id: &str, count: usize) -> Vec<String> {
    let options = LogOptions {
        tail: Some(count as u64),
        ..Default::default()
    };
    let Ok(mut lines) = engine.logs(id, options).await else {
        return Vec::new();
    };
    let mut text = Vec::new();
    let read = async {
        while let Some(Ok(line)) = lines.next().await {
            text.push(String::from_utf8_lossy(&line.message).into_owned());
        }
    };
    let _ended_or_not = tokio::time::timeout(std::time::Duration::from_secs(5), read).await;
    let surplus = text.len().saturating_sub(count);
    text.split_off(surplus)
}

/// When a line was written; an error is passed on immediately.
pub(crate) fn time_of(line: &Result<LogLine, EngineError>) -> i64 {
    line.as_ref().map_or(i64::MIN, |line| line.time_ns)
}

#[cfg(test)]
mod tests;
