//! The datagrams of a node, so that links can be cut. Membership sends to one door for each peer,
//! which forwards to the peer's front unless the link is cut. The front forwards to membership what
//! arrives from a peer's front.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::watch;

use crate::links::View;
use crate::protocol::Index;

/// Larger than any of our datagrams.
const BUFFER: usize = 2_048;
/// Pause after a socket error, so that a broken socket does not keep the processor busy.
const PAUSE: Duration = Duration::from_millis(50);

/// The doors of a node.
pub(crate) struct Doors {
    front: Arc<UdpSocket>,
    view: watch::Receiver<View>,
    doors: BTreeMap<Index, SocketAddr>,
}

impl Doors {
    /// Starts to forward what arrives at the front, whose address the peers know, to membership's
    /// own socket.
    pub(crate) fn open(
        front: Arc<UdpSocket>,
        inner: SocketAddr,
        view: watch::Receiver<View>,
    ) -> Self {
        tokio::spawn(inwards(Arc::clone(&front), inner, view.clone()));
        Self {
            front,
            view,
            doors: BTreeMap::new(),
        }
    }

    /// Returns the address that membership uses for a peer.
    pub(crate) async fn door(&mut self, peer: Index) -> SocketAddr {
        if let Some(address) = self.doors.get(&peer) {
            return *address;
        }
        let door = UdpSocket::bind("127.0.0.1:0").await.expect("a UDP port");
        let address = door.local_addr().expect("our address");
        self.doors.insert(peer, address);
        tokio::spawn(outwards(
            door,
            peer,
            Arc::clone(&self.front),
            self.view.clone(),
        ));
        address
    }
}

async fn inwards(front: Arc<UdpSocket>, inner: SocketAddr, view: watch::Receiver<View>) {
    let mut buffer = [0; BUFFER];
    loop {
        let Ok((length, from)) = front.recv_from(&mut buffer).await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let known = {
            let view = view.borrow();
            view.peers
                .iter()
                .any(|(peer, address)| address.udp == from && !view.cut.contains(peer))
        };
        if known {
            // A datagram may be lost.
            let _ = front.send_to(&buffer[..length], inner).await;
        }
    }
}

async fn outwards(
    door: UdpSocket,
    peer: Index,
    front: Arc<UdpSocket>,
    view: watch::Receiver<View>,
) {
    let mut buffer = [0; BUFFER];
    loop {
        let Ok(length) = door.recv(&mut buffer).await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let address = {
            let view = view.borrow();
            if view.cut.contains(&peer) {
                None
            } else {
                view.peers.get(&peer).map(|address| address.udp)
            }
        };
        if let Some(address) = address {
            // A datagram may be lost.
            let _ = front.send_to(&buffer[..length], address).await;
        }
    }
}
