//! A relay that delays everything for a fixed time in each direction, like a long-distance link. It
//! uses threads, because the timers of a runtime have a resolution of a millisecond.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::Context as _;

/// Pieces that are on their way.
const ON_THE_WAY: usize = 4_096;
const PIECE: usize = 64 * 1_024;

/// Starts a relay to `target` and returns where it listens. It ends with the process.
pub(crate) fn start(target: SocketAddr, delay: Duration) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen for the relay")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        while let Ok((near, _)) = listener.accept() {
            // The dialler's connection ends, and it dials again.
            let _ = TcpStream::connect(target).and_then(|far| join(&near, &far, delay));
        }
    });
    Ok(address)
}

fn join(near: &TcpStream, far: &TcpStream, delay: Duration) -> std::io::Result<()> {
    for (from, to) in [(near, far), (far, near)] {
        from.set_nodelay(true)?;
        let (sender, receiver) = sync_channel(ON_THE_WAY);
        let (from, to) = (from.try_clone()?, to.try_clone()?);
        std::thread::spawn(move || take(from, &sender, delay));
        std::thread::spawn(move || give(to, &receiver));
    }
    Ok(())
}

fn take(mut from: TcpStream, way: &SyncSender<(Instant, Vec<u8>)>, delay: Duration) {
    let mut buffer = vec![0; PIECE];
    while let Ok(size @ 1..) = from.read(&mut buffer) {
        if way
            .send((Instant::now() + delay, buffer[..size].to_vec()))
            .is_err()
        {
            return;
        }
    }
}

fn give(mut to: TcpStream, way: &Receiver<(Instant, Vec<u8>)>) {
    while let Ok((due, piece)) = way.recv() {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&piece).is_err() {
            break;
        }
    }
    // The other side may have gone first.
    let _ = to.shutdown(Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_arrives_in_order_and_not_before_its_time() {
        let target = TcpListener::bind("127.0.0.1:0").unwrap();
        let relay = start(target.local_addr().unwrap(), Duration::from_millis(20)).unwrap();
        let mut near = TcpStream::connect(relay).unwrap();
        let (mut far, _) = target.accept().unwrap();
        let started = Instant::now();
        near.write_all(b"there").unwrap();
        let mut there = [0; 5];
        far.read_exact(&mut there).unwrap();
        far.write_all(b"back").unwrap();
        let mut back = [0; 4];
        near.read_exact(&mut back).unwrap();
        assert_eq!((&there, &back), (b"there", b"back"));
        assert!(
            started.elapsed() >= Duration::from_millis(40),
            "twice the delay is a lower bound"
        );
    }
}
