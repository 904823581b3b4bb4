//! Moves a session's frames over TCP: the dialler says its number, then frames go both ways, each
//! after its length.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader, BufWriter};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use uc_cluster_state::{MAX_FRAME, MachineId, Store};

use crate::figure::note;

/// Between two tries to connect.
const REDIAL: Duration = Duration::from_millis(50);
const TIMEOUT: Duration = Duration::from_secs(5);

/// The id of machine number `n`.
pub(crate) fn machine(n: u8) -> MachineId {
    MachineId([n; 16])
}

/// Answers those who dial.
pub(crate) async fn accept(store: Store, listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let store = store.clone();
        tokio::spawn(async move {
            let Ok(Ok(peer)) = tokio::time::timeout(TIMEOUT, stream.read_u8()).await else {
                return;
            };
            exchange(&store, peer, stream).await;
        });
    }
}

/// Keeps a link to `peer` up.
pub(crate) async fn dial(store: Store, me: u8, peer: u8, address: SocketAddr) {
    loop {
        if let Ok(Ok(mut stream)) = tokio::time::timeout(TIMEOUT, TcpStream::connect(address)).await
            && stream.write_u8(me).await.is_ok()
        {
            exchange(&store, peer, stream).await;
        }
        tokio::time::sleep(REDIAL).await;
    }
}

async fn exchange(store: &Store, peer: u8, stream: TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        return note(&format!("link to machine {peer}: {error}"));
    }
    let (read, write) = stream.into_split();
    let session = store.session(machine(peer));
    let outcome = tokio::select! {
        outcome = receive(read, session.incoming) => outcome,
        outcome = send(write, session.outgoing) => outcome,
        outcome = session.end => outcome.map_err(anyhow::Error::from),
    };
    if let Err(error) = outcome {
        note(&format!("link to machine {peer}: {error:#}"));
    }
}

async fn receive(read: OwnedReadHalf, incoming: mpsc::Sender<Bytes>) -> anyhow::Result<()> {
    let mut read = BufReader::new(read);
    loop {
        let size = read.read_u32().await.context("the peer has gone")? as usize;
        ensure!(size <= MAX_FRAME, "a frame of {size} bytes");
        let mut frame = vec![0; size];
        read.read_exact(&mut frame).await?;
        if incoming.send(Bytes::from(frame)).await.is_err() {
            return Ok(());
        }
    }
}

async fn send(write: OwnedWriteHalf, mut outgoing: mpsc::Receiver<Bytes>) -> anyhow::Result<()> {
    let mut write = BufWriter::new(write);
    while let Some(frame) = outgoing.recv().await {
        let mut next = Some(frame);
        while let Some(frame) = next {
            write.write_u32(frame.len() as u32).await?;
            write.write_all(&frame).await?;
            next = outgoing.try_recv().ok();
        }
        write.flush().await?;
    }
    Ok(())
}
