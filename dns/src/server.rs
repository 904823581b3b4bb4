//! The sockets: UDP and TCP on each address, answers from the zone at once, everything else by way
//! of the forwarder.

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

/// A query longer than this is nobody's honest question; over TCP it ends the connection.
const MAX_QUERY: usize = 4_096;
/// How long the server waits for tasks at its end before it drops them.
const FAREWELL: Duration = Duration::from_secs(1);
/// The first wait after a socket failed; doubled up to [`MAX_BACKOFF`].
const BACKOFF: Duration = Duration::from_millis(10);
/// The longest wait after a socket failed.
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// Bounds of the server, with what happens at each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Questions being forwarded at once; one more gets SERVFAIL.
    pub forwarded: usize,
    /// TCP connections at once; one more waits in the system's queue until one ends.
    pub connections: usize,
    /// How long one resolver is waited for before the next is asked. A client waits 5 s, so two
    /// get their turn.
    pub upstream_patience: Duration,
    /// How long a TCP connection may be silent.
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

/// What the server needs to know before it starts.
#[derive(Debug, Clone, Default)]
pub struct ServerConfig {
    /// Addresses to listen on, UDP and TCP each. Name the machine's addresses one by one: an
    /// answer from 0.0.0.0 may leave by another address than the question came to. Port 0:
    /// any, for tests.
    pub listen: Vec<SocketAddr>,
    /// The machine's resolvers, asked in this order ([`crate::resolv_conf::upstreams`] reads
    /// them). Our own addresses among them are left out. Empty: every name that is not ours
    /// gets SERVFAIL.
    pub upstreams: Vec<SocketAddr>,
    /// Bounds.
    pub limits: Limits,
}

/// Listens and answers until cancelled: [`Server::bind`] and [`Server::run`] in one.
pub async fn serve(
    config: ServerConfig,
    zone: watch::Receiver<Arc<Zone>>,
    cancel: CancellationToken,
) -> Result<(), DnsError> {
    Server::bind(config).await?.run(zone, cancel).await;
    Ok(())
}

/// A server that has its sockets and does not answer yet.
#[derive(Debug)]
pub struct Server {
    sockets: Vec<(UdpSocket, TcpListener)>,
    addresses: Vec<SocketAddr>,
    config: ServerConfig,
}

impl Server {
    /// Takes the sockets: all of them, or none and the reason.
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
            // With port 0 the TCP socket takes the port that UDP got.
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

    /// Where it listens, in the order of the configuration.
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
            tracing::warn!("no resolver to forward to: only names of the cluster will be found");
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
        // Questions under way may wait for a resolver for longer than anybody waits for us to end.
        let _ = timeout(FAREWELL, shared.tasks.wait()).await;
    }
}

/// Forwarding to ourselves would go round until every slot is taken.
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

/// What can be said at once.
enum Quick<'a> {
    Nothing,
    Answer(Vec<u8>),
    Forward(Query<'a>),
}

impl Shared {
    fn quick<'a>(
        &self,
        bytes: &'a [u8],
        client: IpAddr,
        transport: Transport,
        rng: &mut StdRng,
    ) -> Quick<'a> {
        let query = match parse(bytes) {
            Parsed::Ignore => return Quick::Nothing,
            Parsed::Decline(response) => return Quick::Answer(response),
            Parsed::Query(query) => query,
        };
        let zone = Arc::clone(&self.zone.borrow());
        let limit = limit(&query, transport);
        let lookup = zone.lookup(&query.name, query.kind, rng);
        match query.answer(&lookup, limit) {
            Some(_) if !query.is_internet() => Quick::Answer(query.respond(Code::Refused)),
            Some(response) => Quick::Answer(response),
            None if zone.asks_elsewhere(client) => Quick::Answer(query.respond(Code::Refused)),
            None => match self.forwarder.cached(&query) {
                Some(response) if response.len() <= limit => Quick::Answer(response),
                _ => Quick::Forward(query),
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
                // On Linux an earlier answer that could not be delivered shows up here, too.
                tracing::debug!(%error, "cannot receive");
                pause(&mut backoff, &shared.cancel).await;
                continue;
            }
        };
        backoff = BACKOFF;
        match shared.quick(&buffer[..length], client.ip(), Transport::Udp, &mut rng) {
            Quick::Nothing => {}
            Quick::Answer(response) => send(&socket, &response, client).await,
            Quick::Forward(_) => {
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
                        _ = converse(stream, client.ip(), &shared) => {}
                    }
                });
            }
            Err(error) => {
                tracing::debug!(%error, "cannot accept");
                pause(&mut backoff, &shared.cancel).await;
            }
        }
    }
}

/// One connection: a question, an answer, and so on. Ends by error, by silence, or when the client
/// ends it.
async fn converse(mut stream: TcpStream, client: IpAddr, shared: &Shared) -> std::io::Result<()> {
    let mut rng = StdRng::from_os_rng();
    loop {
        let mut bytes = timeout(shared.idle, read_query(&mut stream)).await??;
        let response = match shared.quick(&bytes, client, Transport::Tcp, &mut rng) {
            Quick::Nothing => return Ok(()),
            Quick::Answer(response) => response,
            Quick::Forward(query) => shared.forward(&query, &bytes, Transport::Tcp).await,
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

async fn pause(backoff: &mut Duration, cancel: &CancellationToken) {
    tokio::select! {
        () = cancel.cancelled() => {}
        () = sleep(*backoff) => {}
    }
    *backoff = (*backoff * 2).min(MAX_BACKOFF);
}
