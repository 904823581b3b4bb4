//! The byte streams under the calls between daemons: from another machine, with a handshake, or
//! from this daemon itself, through memory.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;
use uc_api::MachineId;
use uc_api::layout::PEER_API_PORT;
use uc_mesh::noise::{self, NoiseStream};
use uc_mesh::{PrivateKey, PublicKey, management_address};

use crate::cluster::view::Cluster;

/// A machine that takes longer for the TCP connection and the handshake counts as unreachable.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// How long a caller may take for its side of the handshake.
const ACCEPT_LIMIT: Duration = Duration::from_secs(3);
/// Interval of HTTP/2 pings, which detect a peer that vanished without closing its connection.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Time limit for the answer to a ping.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// The same on a connection that carries images: the ping waits behind what is being sent.
const BULK_ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Buffer of a connection through memory, in bytes.
const MEMORY_BUFFER: usize = 64 * 1024;
/// What one stream of a connection can have in flight, in bytes: 5 MB a second over a line with a
/// round trip of 100 ms.
pub(crate) const STREAM_WINDOW: u32 = 512 * 1024;
/// The same for all streams together. As many as fit must have slow readers before they stop the
/// others.
pub(crate) const CONNECTION_WINDOW: u32 = 64 * STREAM_WINDOW;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Traffic {
    /// Calls that are answered soon, and replication.
    Calls,
    /// Streams that wait for users and disks.
    Bulk,
}

/// The process that calls, as its connection proved it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Caller {
    /// This daemon.
    Own,
    /// The daemon of a member.
    Member { id: MachineId, key: PublicKey },
    /// The holder of a join token.
    Token { id: String },
}

impl Caller {
    /// Whether the caller still has rights: a machine can be removed, and a token can be removed or
    /// expire, while they have a connection.
    pub(crate) fn is_served(&self, cluster: &Cluster, now_ms: i64) -> bool {
        match self {
            Self::Own => true,
            Self::Member { id, key } => {
                let machine = cluster.machine_by_id(*id);
                machine.is_some_and(|machine| machine.key == *key)
            }
            Self::Token { id } => {
                let token = cluster.token(id);
                token.is_some_and(|token| token.opens_mesh(now_ms))
            }
        }
    }
}

/// A connection whose caller is known.
#[derive(Debug)]
pub(crate) struct Link {
    caller: Caller,
    stream: Stream,
    /// Cancelled when the caller loses its rights or this daemon stops. Reading fails then, which
    /// ends the connection with all its calls.
    end: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Marks `end` when the connection is closed, so that it is not kept for an end that has come.
    _closed: Option<DropGuard>,
}

#[derive(Debug)]
enum Stream {
    Memory(DuplexStream),
    Noise(Box<NoiseStream<TcpStream>>),
}

impl Link {
    /// The handshake of a connection from another machine. It fails unless the process there proves
    /// the caller's `key`. `end` ends the connection.
    pub(crate) async fn accept(
        stream: TcpStream,
        own: &PrivateKey,
        key: &PublicKey,
        caller: Caller,
        end: CancellationToken,
    ) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let stream = within(ACCEPT_LIMIT, noise::accept(stream, own, key)).await?;
        Ok(Self {
            caller,
            stream: Stream::Noise(Box::new(stream)),
            _closed: Some(end.clone().drop_guard()),
            end: Box::pin(end.cancelled_owned()),
        })
    }
}

impl Connected for Link {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Link {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.end.as_mut().poll(context).is_ready() {
            let reason = "the caller is no longer served";
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                reason,
            )));
        }
        match &mut this.stream {
            Stream::Memory(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Noise(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Link {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::Memory(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Noise(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Memory(stream) => Pin::new(stream).poll_flush(context),
            Stream::Noise(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Memory(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Noise(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

/// A channel to the daemon that has `key`, for the process that has `own`. It connects on the first
/// call, and again after a failure.
pub(super) fn remote(own: PrivateKey, key: PublicKey, traffic: Traffic) -> Channel {
    let address = SocketAddr::new(management_address(&key).into(), PEER_API_PORT);
    let connector = service_fn(move |_: Uri| {
        let own = own.clone();
        async move {
            let connecting = async {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                noise::connect(stream, &own, &key).await
            };
            let stream = within(CONNECT_LIMIT, connecting).await?;
            Ok::<_, io::Error>(TokioIo::new(stream))
        }
    });
    endpoint(traffic).connect_with_connector_lazy(connector)
}

/// A channel to this daemon's own server for peers.
pub(super) fn in_memory(
    server: mpsc::Sender<Link>,
    end: CancellationToken,
    traffic: Traffic,
) -> Channel {
    let connector = service_fn(move |_: Uri| {
        let (server, end) = (server.clone(), end.clone());
        async move {
            let (client, accepted) = duplex(MEMORY_BUFFER);
            let link = Link {
                caller: Caller::Own,
                stream: Stream::Memory(accepted),
                end: Box::pin(end.cancelled_owned()),
                _closed: None,
            };
            server.send(link).await.map_err(|_| {
                io::Error::new(io::ErrorKind::ConnectionRefused, "this daemon is stopping")
            })?;
            Ok::<_, io::Error>(TokioIo::new(client))
        }
    });
    endpoint(traffic).connect_with_connector_lazy(connector)
}

/// The result of a step of connecting, which has to end within the limit.
async fn within<T>(limit: Duration, step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(limit, step).await.unwrap_or_else(|_| {
        let reason = format!("no connection within {} s", limit.as_secs());
        Err(io::Error::new(io::ErrorKind::TimedOut, reason))
    })
}

fn endpoint(traffic: Traffic) -> Endpoint {
    // The connectors above know where to connect to; HTTP/2 needs a name anyway.
    Endpoint::from_static("http://peer.uc")
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(match traffic {
            Traffic::Calls => ANSWER_LIMIT,
            Traffic::Bulk => BULK_ANSWER_LIMIT,
        })
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
}
