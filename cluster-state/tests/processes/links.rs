//! The streams of a node. Of two nodes the one with the lower index calls, repeatedly and with
//! jittered back-off. Each stream carries one replication session. The stream of a cut link is
//! dropped, and refused until the link is healed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uc_cluster_state::{MAX_FRAME, Store};

use crate::protocol::{Address, Index, machine};

/// Time limit for connecting and for the caller's greeting. A stopped process accepts connections
/// but sends nothing.
const GREETING: Duration = Duration::from_secs(5);
/// First and longest pause between calls, before jitter.
const BACK_OFF: Duration = Duration::from_millis(100);
const MAX_BACK_OFF: Duration = Duration::from_secs(2);

/// The peers that a node knows, and the links that are cut.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    pub(crate) peers: BTreeMap<Index, Address>,
    pub(crate) cut: BTreeSet<Index>,
}

/// The open streams: for each peer, the number of the newest and how to end it.
type Live = BTreeMap<Index, (u64, CancellationToken)>;

#[derive(Clone)]
struct Shared {
    me: Index,
    store: Store,
    view: watch::Receiver<View>,
    live: watch::Sender<Live>,
}

/// All streams of a node.
pub(crate) struct Links {
    shared: Shared,
    seed: u64,
    called: BTreeSet<Index>,
}

impl Links {
    /// Accepts calls from now on.
    pub(crate) fn start(
        me: Index,
        listener: TcpListener,
        store: Store,
        view: watch::Receiver<View>,
        seed: u64,
    ) -> Self {
        let shared = Shared {
            me,
            store,
            view,
            live: watch::Sender::new(Live::new()),
        };
        tokio::spawn(accept(shared.clone(), listener));
        Self {
            shared,
            seed,
            called: BTreeSet::new(),
        }
    }

    /// Calls a peer from now on, if this node is the one that calls.
    pub(crate) fn call(&mut self, peer: Index) {
        if peer > self.shared.me && self.called.insert(peer) {
            let jitter = SmallRng::seed_from_u64(self.seed ^ u64::from(peer));
            tokio::spawn(keep_calling(self.shared.clone(), peer, jitter));
        }
    }

    /// Waits until no stream to any of these peers is open.
    pub(crate) async fn wait_for_none_of(&self, peers: &BTreeSet<Index>) {
        let mut live = self.shared.live.subscribe();
        let none = live.wait_for(|live| !peers.iter().any(|peer| live.contains_key(peer)));
        none.await.expect("we hold a sender");
    }
}

async fn accept(shared: Shared, listener: TcpListener) {
    loop {
        // An error is the caller's (it has hung up already) or a shortage. Both pass.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(BACK_OFF).await;
            continue;
        };
        let shared = shared.clone();
        tokio::spawn(async move {
            let mut stream = stream;
            if let Ok(Ok(peer)) = timeout(GREETING, stream.read_u16()).await {
                shared.exchange(peer, stream).await;
            }
        });
    }
}

async fn keep_calling(shared: Shared, peer: Index, mut jitter: SmallRng) {
    let mut view = shared.view.clone();
    let mut pause = BACK_OFF;
    loop {
        let address = {
            let known = |view: &View| view.peers.contains_key(&peer) && !view.cut.contains(&peer);
            let Ok(view) = view.wait_for(known).await else {
                return;
            };
            view.peers.get(&peer).map(|address| address.tcp)
        };
        let Some(address) = address else { continue };
        let stream = timeout(GREETING, async {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_u16(shared.me).await?;
            io::Result::Ok(stream)
        });
        if let Ok(Ok(stream)) = stream.await
            && shared.exchange(peer, stream).await
        {
            pause = BACK_OFF;
        }
        let millis = pause.as_millis() as u64;
        tokio::time::sleep(Duration::from_millis(
            jitter.random_range(millis / 2..=millis),
        ))
        .await;
        pause = (pause * 2).min(MAX_BACK_OFF);
    }
}

impl Shared {
    /// Runs a session over a stream until either ends, a newer stream takes its place, or the link
    /// is cut. Returns whether anything was received.
    async fn exchange(&self, peer: Index, stream: TcpStream) -> bool {
        let mut view = self.view.clone();
        if view.borrow().cut.contains(&peer) || stream.set_nodelay(true).is_err() {
            return false;
        }
        let place = Place::take(&self.live, peer);
        let session = self.store.session(machine(peer));
        let (read, write) = stream.into_split();
        let mut came = false;
        tokio::select! {
            _ = view.wait_for(|view| view.cut.contains(&peer)) => {}
            () = place.token.cancelled() => {}
            _ = receive(read, session.incoming, &mut came) => {}
            _ = send(write, session.outgoing) => {}
            end = session.end => {
                if let Err(error) = end {
                    eprintln!("session with node {peer}: {error}");
                }
            }
        }
        came
    }
}

/// A stream's entry among the open ones.
struct Place<'a> {
    live: &'a watch::Sender<Live>,
    peer: Index,
    number: u64,
    token: CancellationToken,
}

impl<'a> Place<'a> {
    /// Ends the older stream of the same peer.
    fn take(live: &'a watch::Sender<Live>, peer: Index) -> Self {
        let token = CancellationToken::new();
        let mut number = 0;
        live.send_modify(|live| {
            let old = live.remove(&peer);
            number = old.as_ref().map_or(0, |(number, _)| number + 1);
            live.insert(peer, (number, token.clone()));
            if let Some((_, old)) = old {
                old.cancel();
            }
        });
        Self {
            live,
            peer,
            number,
            token,
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.live.send_modify(|live| {
            if live
                .get(&self.peer)
                .is_some_and(|(number, _)| *number == self.number)
            {
                live.remove(&self.peer);
            }
        });
    }
}

/// Moves frames to the session. If the peer is silent, the session ends, and this function with it.
async fn receive(
    mut read: OwnedReadHalf,
    frames: mpsc::Sender<Bytes>,
    came: &mut bool,
) -> io::Result<()> {
    loop {
        let length = read.read_u32().await? as usize;
        if length > MAX_FRAME {
            eprintln!("invalid frame of {length} bytes");
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut frame = vec![0; length];
        read.read_exact(&mut frame).await?;
        *came = true;
        if frames.send(frame.into()).await.is_err() {
            // The session has ended and will report why.
            std::future::pending::<()>().await;
        }
    }
}

/// Moves frames to the peer, one at a time, so that nothing is queued here for a peer that does not
/// read.
async fn send(mut write: OwnedWriteHalf, mut frames: mpsc::Receiver<Bytes>) -> io::Result<()> {
    while let Some(frame) = frames.recv().await {
        let length = u32::try_from(frame.len()).expect("a frame within the limit");
        write
            .write_all(&[&length.to_be_bytes()[..], &frame].concat())
            .await?;
    }
    // The session has ended and will report why.
    std::future::pending().await
}
