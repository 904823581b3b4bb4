//! Checks that an HTTP/2 server is at the other end of a pipe, without a call of its own.
//!
//! The first frame of a server is SETTINGS (RFC 9113, section 3.4). Its header is checked as
//! it passes; anything else, such as the greeting of a login shell, is reported as text.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

/// Length of a frame's header.
const HEADER: usize = 9;
/// How much of something else is shown.
const SHOWN: usize = 200;

/// What came in place of a server's first frame.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoGreeting {
    #[error("the daemon closed the connection immediately")]
    End,
    #[error("lost the connection: {0}")]
    Io(String),
    #[error("expected the daemon, but received `{0}`")]
    Other(String),
}

/// A reader that reports once how the conversation began.
#[derive(Debug)]
pub(super) struct Greeted<R> {
    inner: R,
    begin: Vec<u8>,
    tell: Option<oneshot::Sender<Result<(), NoGreeting>>>,
}

impl<R> Greeted<R> {
    /// Around a reader; the receiver gets the report.
    pub(super) fn new(inner: R) -> (Self, oneshot::Receiver<Result<(), NoGreeting>>) {
        let (tell, told) = oneshot::channel();
        (
            Self {
                inner,
                begin: Vec::new(),
                tell: Some(tell),
            },
            told,
        )
    }

    fn report(&mut self, report: Result<(), NoGreeting>) {
        if let Some(tell) = self.tell.take() {
            // If another connection was faster, the receiver no longer exists.
            _ = tell.send(report);
        }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Greeted<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = ready!(Pin::new(&mut self.inner).poll_read(cx, buf));
        if self.tell.is_none() {
            return Poll::Ready(result);
        }
        let new = &buf.filled()[before..];
        let room = SHOWN.saturating_sub(self.begin.len());
        self.begin.extend_from_slice(&new[..new.len().min(room)]);
        let ended = new.is_empty();
        if let Err(error) = &result {
            let report = NoGreeting::Io(error.to_string());
            self.report(Err(report));
        } else if let Some(report) = judge(&self.begin, ended) {
            self.report(report);
        }
        Poll::Ready(result)
    }
}

/// A writer that hides that the other side has closed the pipe. The reader still has to read the
/// last bytes, which contain the reason, and then reports the end itself.
#[derive(Debug)]
pub(super) struct Patient<W> {
    inner: W,
    gone: bool,
}

impl<W> Patient<W> {
    /// Around a writer.
    pub(super) fn new(inner: W) -> Self {
        Self { inner, gone: false }
    }

    fn settle<T>(&mut self, result: io::Result<T>, instead: T) -> io::Result<T> {
        match result {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
                ) =>
            {
                self.gone = true;
                Ok(instead)
            }
            result => result,
        }
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Patient<W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.gone {
            return Poll::Ready(Ok(buf.len()));
        }
        let result = ready!(Pin::new(&mut self.inner).poll_write(cx, buf));
        Poll::Ready(self.settle(result, buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.gone {
            return Poll::Ready(Ok(()));
        }
        let result = ready!(Pin::new(&mut self.inner).poll_flush(cx));
        Poll::Ready(self.settle(result, ()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.gone {
            return Poll::Ready(Ok(()));
        }
        let result = ready!(Pin::new(&mut self.inner).poll_shutdown(cx));
        Poll::Ready(self.settle(result, ()))
    }
}

/// What the first bytes mean. `None`: more bytes are needed.
fn judge(begin: &[u8], ended: bool) -> Option<Result<(), NoGreeting>> {
    if begin.len() >= HEADER {
        // Length below 64 KiB, type SETTINGS, stream 0.
        let settings = begin[0] == 0 && begin[3] == 4 && begin[5..HEADER] == [0; 4];
        return Some(if settings { Ok(()) } else { Err(other(begin)) });
    }
    ended.then(|| {
        Err(if begin.is_empty() {
            NoGreeting::End
        } else {
            other(begin)
        })
    })
}

fn other(begin: &[u8]) -> NoGreeting {
    let text = String::from_utf8_lossy(begin);
    let line = text.trim_start().chars().take_while(|c| *c != '\n');
    NoGreeting::Other(line.filter(|c| !c.is_control()).collect())
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    async fn greeting(bytes: &'static [u8]) -> String {
        let (mut reader, told) = Greeted::new(bytes);
        let mut all = Vec::new();
        reader.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, bytes, "nothing is taken out of the stream");
        told.await
            .unwrap()
            .map_or_else(|error| error.to_string(), |()| "a server".into())
    }

    #[tokio::test]
    async fn only_a_settings_frame_is_a_daemon() {
        assert_eq!(
            greeting(&[0, 0, 18, 4, 0, 0, 0, 0, 0, 1, 2]).await,
            "a server"
        );
        assert_eq!(
            greeting(b"").await,
            "the daemon closed the connection immediately"
        );
        assert_eq!(
            greeting(b"\nWelcome to m1!\nbye").await,
            "expected the daemon, but received `Welcome to m1!`"
        );
        assert_eq!(
            greeting(b"hi").await,
            "expected the daemon, but received `hi`"
        );
        let http = greeting(b"HTTP/1.1 400 Bad Request\r\n").await;
        assert_eq!(
            http,
            "expected the daemon, but received `HTTP/1.1 400 Bad Request`"
        );
    }

    #[test]
    fn a_header_may_come_in_pieces() {
        assert!(judge(&[0, 0, 18, 4], false).is_none());
        assert!(judge(&[0, 0, 18, 4], true).is_some_and(|report| report.is_err()));
    }
}
