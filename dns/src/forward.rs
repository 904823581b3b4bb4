//! Forwards names outside the zone to the machine's resolvers, one after another. A query is sent
//! unchanged except for its id, which protects against forged answers.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::cache::Cache;
use crate::message::{Code, HEADER, MAX_MESSAGE, Query};

/// Transport of a query, which is also used to forward it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// Forwards queries to the machine's resolvers.
#[derive(Debug)]
pub(crate) struct Forwarder {
    upstreams: Vec<SocketAddr>,
    patience: Duration,
    slots: Semaphore,
    cache: Mutex<Cache>,
}

impl Forwarder {
    pub(crate) fn new(
        upstreams: Vec<SocketAddr>,
        patience: Duration,
        max_forwarded: usize,
    ) -> Self {
        Self {
            upstreams,
            patience,
            slots: Semaphore::new(max_forwarded),
            cache: Mutex::default(),
        }
    }

    /// Returns a cached answer.
    pub(crate) fn cached(&self, query: &Query<'_>) -> Option<Vec<u8>> {
        let key = query.cache_key()?;
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let mut response = cache.get(&key, Instant::now().into_std())?;
        restore_id(&mut response, query.id);
        Some(response)
    }

    /// Returns the answer of the first resolver that gives one. Returns SERVFAIL if no resolver
    /// answers in time, or if too many queries are being forwarded.
    pub(crate) async fn ask(
        &self,
        query: &Query<'_>,
        bytes: &[u8],
        transport: Transport,
    ) -> Vec<u8> {
        let Ok(_slot) = self.slots.try_acquire() else {
            return query.respond(Code::ServFail);
        };
        let mut last = None;
        for upstream in &self.upstreams {
            let asked = timeout(self.patience, ask_one(*upstream, query, bytes, transport)).await;
            let mut response = match asked {
                Ok(Ok(response)) => response,
                Ok(Err(error)) => {
                    tracing::debug!(%upstream, %error, "cannot query the resolver");
                    continue;
                }
                Err(_) => {
                    tracing::debug!(%upstream, patience = ?self.patience, "the resolver did not answer in time");
                    continue;
                }
            };
            restore_id(&mut response, query.id);
            let code = response.get(3).map_or(0, |flags| flags & 0x0f);
            // SERVFAIL, NOTIMP or REFUSED: try the next resolver.
            if matches!(code, 2 | 4 | 5) {
                last = Some(response);
                continue;
            }
            let truncated = response.get(2).is_some_and(|flags| flags & 0x02 != 0);
            if let Some(key) = query.cache_key().filter(|_| !truncated) {
                let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
                cache.put(key, &response, Instant::now().into_std());
            }
            return response;
        }
        last.unwrap_or_else(|| query.respond(Code::ServFail))
    }
}

fn restore_id(response: &mut [u8], id: u16) {
    if let Some(bytes) = response.get_mut(..2) {
        bytes.copy_from_slice(&id.to_be_bytes());
    }
}

async fn ask_one(
    upstream: SocketAddr,
    query: &Query<'_>,
    bytes: &[u8],
    transport: Transport,
) -> io::Result<Vec<u8>> {
    let id: [u8; 2] = rand::random();
    let mut request = bytes.to_vec();
    restore_id(&mut request, u16::from_be_bytes(id));
    match transport {
        Transport::Udp => ask_udp(upstream, query, &request, id).await,
        Transport::Tcp => ask_tcp(upstream, query, &request, id).await,
    }
}

/// Each query uses its own socket, because the random port protects against forged answers as the
/// id does.
async fn ask_udp(
    upstream: SocketAddr,
    query: &Query<'_>,
    request: &[u8],
    id: [u8; 2],
) -> io::Result<Vec<u8>> {
    let any = if upstream.is_ipv4() {
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))
    } else {
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(upstream).await?;
    socket.send(request).await?;
    let mut buffer = vec![0; MAX_MESSAGE];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let response = &buffer[..length];
        // Ignore a packet that does not match: it is late or forged, and the real answer can still
        // arrive.
        if length >= HEADER && response.starts_with(&id) && query.is_answered_by(response) {
            return Ok(response.to_vec());
        }
    }
}

async fn ask_tcp(
    upstream: SocketAddr,
    query: &Query<'_>,
    request: &[u8],
    id: [u8; 2],
) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(upstream).await?;
    let length = u16::try_from(request.len()).map_err(io::Error::other)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend(request);
    stream.write_all(&framed).await?;
    let length = stream.read_u16().await?;
    let mut response = vec![0; usize::from(length)];
    stream.read_exact(&mut response).await?;
    if response.len() >= HEADER && response.starts_with(&id) && query.is_answered_by(&response) {
        Ok(response)
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the answer belongs to another question",
        ))
    }
}
