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
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;
use uc_api::layout::PEER_API_PORT;
use uc_mesh::noise::{self, NoiseStream};
use uc_mesh::{PrivateKey, PublicKey, management_address};

/// A machine that takes longer for the TCP connection and the handshake counts as unreachable.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// How long a caller may take for its side of the handshake.
const ACCEPT_LIMIT: Duration = Duration::from_secs(3);
/// Interval and time limit of HTTP/2 pings, which detect a peer that vanished without closing its
/// connection.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Buffer of a connection through memory, in bytes.
const MEMORY_BUFFER: usize = 64 * 1024;
/// What all streams of a connection together may have in flight, in bytes. With the 64 KiB that
/// HTTP/2 starts with, a few streams whose readers are slow would stop all others.
pub(crate) const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;

/// The process that calls, as its connection proved it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Caller {
    /// This daemon.
    Own,
    /// The daemon of a member.
    Member { id: String, key: PublicKey },
    /// The holder of a join token.
    Token { id: String },
}

/// A connection whose caller is known.
#[derive(Debug)]
pub(crate) struct Link {
    caller: Caller,
    stream: Stream,
}

#[derive(Debug)]
enum Stream {
    Memory(DuplexStream),
    Noise(Box<NoiseStream<TcpStream>>),
}

impl Link {
    /// The handshake of a connection from another machine. It fails unless the process there proves
    /// the caller's `key`.
    pub(crate) async fn accept(
        stream: TcpStream,
        own: &PrivateKey,
        key: &PublicKey,
        caller: Caller,
    ) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let stream = timeout(ACCEPT_LIMIT, noise::accept(stream, own, key)).await??;
        Ok(Self {
            caller,
            stream: Stream::Noise(Box::new(stream)),
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
        match &mut self.get_mut().stream {
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
pub(super) fn remote(own: PrivateKey, key: PublicKey) -> Channel {
    let address = SocketAddr::new(management_address(&key).into(), PEER_API_PORT);
    let connector = service_fn(move |_: Uri| {
        let own = own.clone();
        async move {
            let connecting = async {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                noise::connect(stream, &own, &key).await
            };
            let stream = timeout(CONNECT_LIMIT, connecting).await??;
            Ok::<_, io::Error>(TokioIo::new(stream))
        }
    });
    endpoint().connect_with_connector_lazy(connector)
}

/// A channel to this daemon's own server for peers.
pub(super) fn in_memory(server: mpsc::Sender<Link>) -> Channel {
    let connector = service_fn(move |_: Uri| {
        let server = server.clone();
        async move {
            let (client, accepted) = duplex(MEMORY_BUFFER);
            let link = Link {
                caller: Caller::Own,
                stream: Stream::Memory(accepted),
            };
            server.send(link).await.map_err(|_| {
                io::Error::new(io::ErrorKind::ConnectionRefused, "this daemon is stopping")
            })?;
            Ok::<_, io::Error>(TokioIo::new(client))
        }
    });
    endpoint().connect_with_connector_lazy(connector)
}

fn endpoint() -> Endpoint {
    // The connectors above know where to connect to; HTTP/2 needs a name anyway.
    Endpoint::from_static("http://peer.uc")
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .initial_connection_window_size(CONNECTION_WINDOW)
}
