//! Runs commands in a running container. The engine hands over the bare connection for this, so
//! this module uses the socket directly. The client library would take a terminal's output that
//! starts with a byte below 3 for a frame header, and wait forever for the frame.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;
use std::{fmt, io};

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio_util::codec::{Decoder, FramedRead};

use super::EngineError;
use super::error::classify;

/// Maximum size of the engine's answer before it hands over the connection. It normally has a few
/// hundred bytes.
const MAX_HEAD: usize = 16 * 1024;
/// Time limit for that answer.
const HEAD_LIMIT: Duration = Duration::from_secs(30);
/// Bytes of a frame header in the engine's stream format.
const FRAME_HEAD: usize = 8;

/// The command to run, and its options.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ExecOptions {
    /// Program and arguments.
    pub command: Vec<String>,
    /// True for a command with a terminal, whose output is a single stream.
    pub tty: bool,
    /// Variables as `NAME=value`.
    pub environment: Vec<String>,
    /// User name or id. Empty for the container's user.
    pub user: String,
    /// Working directory. Empty for the container's.
    pub working_dir: String,
    /// True for all privileges of root on the machine.
    pub privileged: bool,
}

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ExecOutput {
    /// Standard output, or everything that a terminal shows.
    Stdout(Bytes),
    Stderr(Bytes),
}

/// A running command. Dropping it closes the connection.
pub(crate) struct ExecSession {
    /// Id of the exec, for resizing and the exit code.
    pub id: String,
    /// The output. Ends when the command has ended.
    pub output: BoxStream<'static, Result<ExecOutput, EngineError>>,
    /// The standard input. Shutting it down ends the command's input.
    pub input: Pin<Box<dyn AsyncWrite + Send>>,
}

impl fmt::Debug for ExecSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecSession")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Starts a prepared exec and takes over its connection.
pub(crate) async fn attach(
    socket: &Path,
    exec_id: &str,
    tty: bool,
) -> Result<ExecSession, EngineError> {
    let to_error =
        |error: &io::Error| EngineError::from_io(error.kind(), &error.to_string(), socket);
    let start = async {
        let mut connection = UnixStream::connect(socket)
            .await
            .map_err(|e| to_error(&e))?;
        let body = format!(r#"{{"Detach":false,"Tty":{tty}}}"#);
        let request = format!(
            "POST /exec/{exec_id}/start HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\n\
             Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        connection
            .write_all(request.as_bytes())
            .await
            .map_err(|e| to_error(&e))?;
        let (status, rest) = read_head(&mut connection).await?;
        Ok((connection, status, rest))
    };
    let timed_out = |_| EngineError::TimedOut {
        what: "start a command",
        limit: HEAD_LIMIT,
    };
    let (connection, status, rest) = tokio::time::timeout(HEAD_LIMIT, start)
        .await
        .map_err(timed_out)??;
    if status != 101 && status != 200 {
        return Err(classify(status, &error_message(connection, rest).await));
    }
    let (reader, writer) = connection.into_split();
    let socket = PathBuf::from(socket);
    let mut frames = FramedRead::new(reader, OutputDecoder::new(tty));
    frames.read_buffer_mut().unsplit(rest);
    let output = frames
        .map(move |piece| {
            piece.map_err(|e: io::Error| EngineError::from_io(e.kind(), &e.to_string(), &socket))
        })
        .boxed();
    Ok(ExecSession {
        id: exec_id.to_owned(),
        output,
        input: Box::pin(writer),
    })
}

/// Reads the head of the answer. Returns the status and the bytes after the head.
async fn read_head(connection: &mut UnixStream) -> Result<(u16, BytesMut), EngineError> {
    let broken = |message: &str| EngineError::Broken {
        message: message.to_owned(),
    };
    let mut buffer = BytesMut::with_capacity(1024);
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = buffer.split_to(end + 4);
            let status =
                parse_status(&head).ok_or_else(|| broken("the engine's answer is not HTTP"))?;
            return Ok((status, buffer));
        }
        if buffer.len() > MAX_HEAD {
            return Err(broken("the engine's answer has no end"));
        }
        let read = connection
            .read_buf(&mut buffer)
            .await
            .map_err(|error| broken(&error.to_string()))?;
        if read == 0 {
            return Err(broken("the engine closed the connection without an answer"));
        }
    }
}

fn parse_status(head: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(head).ok()?.lines().next()?;
    let (version, rest) = line.split_once(' ')?;
    version.starts_with("HTTP/1.").then_some(())?;
    rest.get(..3)?.parse().ok()
}

/// Reads the engine's `{"message": …}`. Chunked or not, it is the only part of the body in braces.
async fn error_message(mut connection: UnixStream, mut body: BytesMut) -> String {
    let read = async {
        while body.len() < MAX_HEAD && !body.contains(&b'}') {
            if !matches!(connection.read_buf(&mut body).await, Ok(read) if read > 0) {
                break;
            }
        }
    };
    let _complete_or_not = tokio::time::timeout(Duration::from_secs(5), read).await;
    let text = String::from_utf8_lossy(&body).into_owned();
    let json = text
        .find('{')
        .zip(text.rfind('}'))
        .and_then(|(from, to)| text.get(from..=to));
    json.and_then(|json| serde_json::from_str::<serde_json::Value>(json).ok())
        .and_then(|value| value.get("message")?.as_str().map(str::to_owned))
        .unwrap_or(text)
}

/// Splits the engine's stream into frames. A header has the stream's number, three zeros and the
/// length in big endian. Payload is passed on as it arrives.
#[derive(Debug)]
struct OutputDecoder {
    raw: bool,
    payload: Option<(u8, usize)>,
}

impl OutputDecoder {
    fn new(tty: bool) -> Self {
        Self {
            raw: tty,
            payload: None,
        }
    }
}

impl Decoder for OutputDecoder {
    type Item = ExecOutput;
    type Error = io::Error;

    fn decode(&mut self, source: &mut BytesMut) -> io::Result<Option<ExecOutput>> {
        loop {
            if self.raw {
                return Ok(
                    (!source.is_empty()).then(|| ExecOutput::Stdout(source.split().freeze()))
                );
            }
            match self.payload {
                Some((_, 0)) => self.payload = None,
                Some((stream, left)) => {
                    let take = left.min(source.len());
                    if take == 0 {
                        return Ok(None);
                    }
                    self.payload = Some((stream, left - take));
                    let piece = source.split_to(take).freeze();
                    let output = if stream == 2 {
                        ExecOutput::Stderr(piece)
                    } else {
                        ExecOutput::Stdout(piece)
                    };
                    return Ok(Some(output));
                }
                None => {
                    // This is not a frame header but the engine's plain message about why it could
                    // not start the command.
                    if source.first().is_some_and(|first| *first > 2) {
                        self.raw = true;
                        continue;
                    }
                    if source.len() < FRAME_HEAD {
                        return Ok(None);
                    }
                    let stream = source.get_u8();
                    source.advance(3);
                    self.payload = Some((stream, source.get_u32() as usize));
                }
            }
        }
    }

    fn decode_eof(&mut self, source: &mut BytesMut) -> io::Result<Option<ExecOutput>> {
        let item = self.decode(source)?;
        if item.is_none() && !source.is_empty() {
            source.clear();
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the output ended within a frame",
            ));
        }
        Ok(item)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(stream: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![stream, 0, 0, 0];
        frame.extend((payload.len() as u32).to_be_bytes());
        frame.extend(payload);
        frame
    }

    fn decode(tty: bool, pieces: &[&[u8]]) -> io::Result<(Vec<u8>, Vec<u8>)> {
        let mut decoder = OutputDecoder::new(tty);
        let mut buffer = BytesMut::new();
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let mut take = |output| match output {
            ExecOutput::Stdout(bytes) => stdout.extend_from_slice(&bytes),
            ExecOutput::Stderr(bytes) => stderr.extend_from_slice(&bytes),
        };
        for piece in pieces {
            buffer.extend_from_slice(piece);
            while let Some(output) = decoder.decode(&mut buffer)? {
                take(output);
            }
        }
        while let Some(output) = decoder.decode_eof(&mut buffer)? {
            take(output);
        }
        Ok((stdout, stderr))
    }

    #[test]
    fn decoder_passes_terminal_output_unchanged() {
        let shown = [0u8, 1, 2, 0, 0, 0, 0, 9, 255];
        assert_eq!(decode(true, &[&shown]).unwrap().0, shown);
    }

    #[test]
    fn decoder_keeps_message_without_frames() {
        assert_eq!(
            decode(false, &[b"OCI runtime exec failed"]).unwrap().0,
            b"OCI runtime exec failed"
        );
    }

    #[test]
    fn decoder_refuses_truncated_frame() {
        assert!(decode(false, &[&[1, 0, 0]]).is_err());
    }

    #[test]
    fn parse_status_reads_status_lines() {
        assert_eq!(
            parse_status(b"HTTP/1.1 101 UPGRADED\r\nX: y\r\n\r\n"),
            Some(101)
        );
        assert_eq!(parse_status(b"HTTP/1.1 409 Conflict\r\n\r\n"), Some(409));
        assert_eq!(parse_status(b"SSH-2.0\r\n\r\n"), None);
    }

    proptest! {
        #[test]
        fn decoder_splits_streams_however_bytes_arrive(
            frames in prop::collection::vec((1u8..=2, prop::collection::vec(any::<u8>(), 0..50)), 0..10),
            cut in 1usize..20,
        ) {
            let bytes: Vec<u8> = frames.iter().flat_map(|(stream, payload)| frame(*stream, payload)).collect();
            let pieces: Vec<&[u8]> = bytes.chunks(cut).collect();
            let (stdout, stderr) = decode(false, &pieces).unwrap();
            let of = |wanted: u8| -> Vec<u8> {
                frames.iter().filter(|(stream, _)| *stream == wanted).flat_map(|(_, p)| p.clone()).collect()
            };
            prop_assert_eq!(stdout, of(1));
            prop_assert_eq!(stderr, of(2));
        }
    }
}
