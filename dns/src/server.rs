//! The sockets: UDP and TCP on each address. Answers from the zone immediately and forwards
//! everything else.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::DnsError;
use crate::forward::{Forwarder, Transport};
use crate::message::{Code, MAX_MESSAGE, Parsed, Query, parse};
use crate::zone::Zone;

/// Bytes of a query. No legitimate query is longer; over TCP a longer one ends the connection.
const MAX_QUERY: usize = 4_096;
/// How long the server waits for its tasks at the end before it drops them.
const FAREWELL: Duration = Duration::from_secs(1);
/// First wait after a socket error. It doubles up to [`MAX_BACKOFF`].
const BACKOFF: Duration = Duration::from_millis(10);
/// Longest wait after a socket error.
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// The server's limits, and what happens at each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Queries forwarded at the same time. One more gets SERVFAIL.
    pub forwarded: usize,
    /// Concurrent TCP connections. One more waits in the system's queue until a connection ends.
    pub connections: usize,
    /// How long one resolver is waited for before the next is asked. Clients wait 5 s, which is
    /// enough for two.
    pub upstream_patience: Duration,
    /// How long a TCP connection can be silent before it is closed.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            forwarded: 1_024,
            connections: 256,
            upstream_patience: Duration::from_secs(2),
            idle: Duration::from_secs(10),
        }
    }
}

/// The server's configuration.
#[derive(Debug, Clone, Default)]
pub struct ServerConfig {
    /// Addresses to listen on, each with UDP and TCP. They must be addresses of the machine: an
    /// answer from 0.0.0.0 could leave from another address than the one that received the query.
    /// Port 0 means any free port, for tests.
    pub listen: Vec<SocketAddr>,
    /// The machine's resolvers, asked in this order ([`crate::resolv_conf::upstreams`] reads
    /// them). Our own addresses are removed. If none is left, names outside the zone get
    /// SERVFAIL.
    pub upstreams: Vec<SocketAddr>,
    pub limits: Limits,
}

/// A server that has its sockets but does not answer yet.
#[derive(Debug)]
pub struct Server {
    sockets: Vec<(UdpSocket, TcpListener)>,
    addresses: Vec<SocketAddr>,
    config: ServerConfig,
}

impl Server {
    /// Binds all sockets, or fails with the reason and binds none.
    pub async fn bind(config: ServerConfig) -> Result<Self, DnsError> {
        if config.listen.is_empty() {
            return Err(DnsError::NoAddress);
        }
        let mut sockets = Vec::new();
        let mut addresses = Vec::new();
        for wanted in &config.listen {
            let udp = UdpSocket::bind(wanted)
                .await
                .map_err(|error| DnsError::bind(*wanted, "udp", error))?;
            // With port 0, the TCP socket takes the port that UDP got.
            let address = udp
                .local_addr()
                .map_err(|error| DnsError::bind(*wanted, "udp", error))?;
            let tcp = TcpListener::bind(address)
                .await
                .map_err(|error| DnsError::bind(address, "tcp", error))?;
            sockets.push((udp, tcp));
            addresses.push(address);
        }
        Ok(Self {
            sockets,
            addresses,
            config,
        })
    }

    /// Returns the bound addresses, in the order of the configuration.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Answers until cancelled. Each query is answered from the newest zone.
    pub async fn run(self, zone: watch::Receiver<Arc<Zone>>, cancel: CancellationToken) {
        let upstreams: Vec<SocketAddr> = self
            .config
            .upstreams
            .iter()
            .copied()
            .filter(|upstream| !is_us(*upstream, &self.addresses))
            .collect();
        if upstreams.is_empty() {
            tracing::warn!("no resolver to forward to: only the cluster's names will resolve");
        }
        let limits = self.config.limits;
        let shared = Arc::new(Shared {
            forwarder: Forwarder::new(upstreams, limits.upstream_patience, limits.forwarded),
            zone,
            idle: limits.idle,
            connections: Arc::new(Semaphore::new(limits.connections)),
            tasks: TaskTracker::new(),
            cancel,
        });
        for (udp, tcp) in self.sockets {
            shared
                .tasks
                .spawn(serve_udp(Arc::new(udp), Arc::clone(&shared)));
            shared.tasks.spawn(serve_tcp(tcp, Arc::clone(&shared)));
        }
        shared.cancel.cancelled().await;
        shared.tasks.close();
        // Queries in progress can wait for a resolver for longer than the server's end should take.
        let _ = timeout(FAREWELL, shared.tasks.wait()).await;
    }
}

/// Reports whether a resolver is this server. Forwarding to itself would loop until every slot is
/// taken.
fn is_us(upstream: SocketAddr, listen: &[SocketAddr]) -> bool {
    listen.iter().any(|own| {
        *own == upstream
            || (own.port() == upstream.port()
                && own.ip().is_unspecified()
                && upstream.ip().is_loopback())
    })
}

#[derive(Debug)]
struct Shared {
    forwarder: Forwarder,
    zone: watch::Receiver<Arc<Zone>>,
    idle: Duration,
    connections: Arc<Semaphore>,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

/// What can be decided about a query without waiting.
enum Decision<'a> {
    Ignore,
    Answer(Vec<u8>),
    Forward(Query<'a>),
}

impl Shared {
    fn decide<'a>(
        &self,
        bytes: &'a [u8],
        client: IpAddr,
        transport: Transport,
        rng: &mut StdRng,
    ) -> Decision<'a> {
        let query = match parse(bytes) {
            Parsed::Ignore => return Decision::Ignore,
            Parsed::Decline(response) => return Decision::Answer(response),
            Parsed::Query(query) => query,
        };
        let zone = Arc::clone(&self.zone.borrow());
        let limit = limit(&query, transport);
        let lookup = zone.lookup(&query.name, query.kind, rng);
        match query.answer(&lookup, limit) {
            Some(_) if !query.is_internet() => Decision::Answer(query.respond(Code::Refused)),
            Some(response) => Decision::Answer(response),
            None if zone.asks_elsewhere(client) => Decision::Answer(query.respond(Code::Refused)),
            None => match self.forwarder.cached(&query) {
                Some(response) if response.len() <= limit => Decision::Answer(response),
                _ => Decision::Forward(query),
            },
        }
    }

    async fn forward(&self, query: &Query<'_>, bytes: &[u8], transport: Transport) -> Vec<u8> {
        let response = self.forwarder.ask(query, bytes, transport).await;
        if response.len() > limit(query, transport) {
            query.truncated()
        } else {
            response
        }
    }
}

fn limit(query: &Query<'_>, transport: Transport) -> usize {
    match transport {
        Transport::Udp => query.udp_limit(),
        Transport::Tcp => MAX_MESSAGE,
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, shared: Arc<Shared>) {
    let mut buffer = vec![0; MAX_QUERY];
    let mut rng = StdRng::from_os_rng();
    let mut backoff = BACKOFF;
    loop {
        let received = tokio::select! {
            () = shared.cancel.cancelled() => return,
            received = socket.recv_from(&mut buffer) => received,
        };
        let (length, client) = match received {
            Ok(received) => received,
            Err(error) => {
                // On Linux, an earlier answer that could not be delivered also appears as an error
                // here.
                tracing::debug!(%error, "cannot receive");
                back_off(&mut backoff, &shared.cancel).await;
                continue;
            }
        };
        backoff = BACKOFF;
        match shared.decide(&buffer[..length], client.ip(), Transport::Udp, &mut rng) {
            Decision::Ignore => {}
            Decision::Answer(response) => send(&socket, &response, client).await,
            Decision::Forward(_) => {
                let (bytes, socket, shared) = (
                    buffer[..length].to_vec(),
                    Arc::clone(&socket),
                    Arc::clone(&shared),
                );
                let tracker = shared.tasks.clone();
                tracker.spawn(async move {
                    let Parsed::Query(query) = parse(&bytes) else {
                        return;
                    };
                    tokio::select! {
                        () = shared.cancel.cancelled() => {}
                        response = shared.forward(&query, &bytes, Transport::Udp) => {
                            send(&socket, &response, client).await;
                        }
                    }
                });
            }
        }
    }
}

async fn send(socket: &UdpSocket, response: &[u8], client: SocketAddr) {
    if let Err(error) = socket.send_to(response, client).await {
        tracing::debug!(%client, %error, "cannot answer");
    }
}

async fn serve_tcp(listener: TcpListener, shared: Arc<Shared>) {
    let mut backoff = BACKOFF;
    loop {
        let Ok(slot) = Arc::clone(&shared.connections).acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            () = shared.cancel.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, client)) => {
                backoff = BACKOFF;
                let shared = Arc::clone(&shared);
                let tracker = shared.tasks.clone();
                tracker.spawn(async move {
                    let _slot = slot;
                    tokio::select! {
                        () = shared.cancel.cancelled() => {}
                        _ = serve_connection(stream, client.ip(), &shared) => {}
                    }
                });
            }
            Err(error) => {
                tracing::debug!(%error, "cannot accept");
                back_off(&mut backoff, &shared.cancel).await;
            }
        }
    }
}

/// Serves one connection: alternately a query and an answer. Ends on an error, on silence, or when
/// the client closes it.
async fn serve_connection(
    mut stream: TcpStream,
    client: IpAddr,
    shared: &Shared,
) -> std::io::Result<()> {
    let mut rng = StdRng::from_os_rng();
    loop {
        let mut bytes = timeout(shared.idle, read_query(&mut stream)).await??;
        let response = match shared.decide(&bytes, client, Transport::Tcp, &mut rng) {
            Decision::Ignore => return Ok(()),
            Decision::Answer(response) => response,
            Decision::Forward(query) => shared.forward(&query, &bytes, Transport::Tcp).await,
        };
        bytes.clear();
        bytes.extend((response.len() as u16).to_be_bytes());
        bytes.extend(response);
        timeout(shared.idle, stream.write_all(&bytes)).await??;
    }
}

async fn read_query(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let length = usize::from(stream.read_u16().await?);
    if length > MAX_QUERY {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

async fn back_off(backoff: &mut Duration, cancel: &CancellationToken) {
    tokio::select! {
        () = cancel.cancelled() => {}
        () = sleep(*backoff) => {}
    }
    *backoff = (*backoff * 2).min(MAX_BACKOFF);
}
