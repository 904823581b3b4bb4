//! A connection between two processes that prove to each other that they can read their machine's
//! WireGuard key, and that encrypts everything in between.
//!
//! WireGuard proves which machine sent a packet. Every process of a machine can send packets, and
//! only root can read the key. So each connection between daemons begins with a handshake of the
//! Noise Protocol Framework (revision 34, <https://noiseprotocol.org/noise.html>), pattern KK: both
//! sides know each other's static key beforehand.
//!
//! ```text
//! caller                                  listener
//!   "ucn1", e, es, ss            ------>            52 bytes
//!                                <------  e, ee, se 48 bytes
//!   an empty transport message   ------>            18 bytes
//! ```
//!
//! The first message alone proves nothing new, because anyone who recorded it can send it again.
//! Therefore the listener trusts the caller only after the third message, which needs the ephemeral
//! key of this handshake.
//!
//! A transport message on the wire is its length in two bytes, most significant first, and that
//! many bytes of ciphertext with its tag. A message that was changed, left out, repeated or
//! reordered fails to decrypt and ends the connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use snow::{Builder, HandshakeState, TransportState};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};

use crate::key::{PrivateKey, PublicKey};

const PATTERN: &str = "Noise_KK_25519_ChaChaPoly_BLAKE2s";
/// Bound into the handshake, so that no other use of the keys can be mistaken for this one.
const PROLOGUE: &[u8] = b"uc connection between daemons 1";
/// The first bytes of the caller. They tell this protocol from HTTP/2 and from later versions.
const MAGIC: &[u8; 4] = b"ucn1";
/// An ephemeral key and the tag of an empty payload.
const HANDSHAKE_MESSAGE: usize = 32 + TAG;
const TAG: usize = 16;
const LENGTH: usize = 2;
/// Most bytes of plaintext in one message. Noise allows 65,519; smaller messages need smaller
/// buffers, of which a daemon has some for each connection.
const MAX_PLAINTEXT: usize = 16 * 1024;
const MAX_CIPHERTEXT: usize = MAX_PLAINTEXT + TAG;

/// An encrypted connection over `S`, after a successful handshake.
#[derive(Debug)]
pub struct NoiseStream<S> {
    inner: S,
    transport: TransportState,
    /// Received bytes, at most one frame.
    received: Vec<u8>,
    /// Plaintext that did not fit into the reader's buffer, from `plaintext_read` on.
    plaintext: Vec<u8>,
    plaintext_read: usize,
    /// The frame that is being sent, from `sent` on.
    sending: Vec<u8>,
    sent: usize,
}

/// Calls: proves `own` to the listener, and that the listener has `peer`'s key.
pub async fn connect<S>(
    mut inner: S,
    own: &PrivateKey,
    peer: &PublicKey,
) -> io::Result<NoiseStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut handshake = begin(Side::Caller, own, peer)?;
    let mut first = [0; MAGIC.len() + HANDSHAKE_MESSAGE];
    let (magic, message) = first.split_at_mut(MAGIC.len());
    magic.copy_from_slice(MAGIC);
    write_handshake(&mut handshake, message)?;
    inner.write_all(&first).await?;
    inner.flush().await?;
    let mut second = [0; HANDSHAKE_MESSAGE];
    inner.read_exact(&mut second).await.map_err(|error| {
        match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe => refused(
                "the other machine closed the connection: it does not know this machine, or its ucd is stopping",
            ),
            _ => error,
        }
    })?;
    read_handshake(&mut handshake, &second)
        .map_err(|_| refused("the other machine does not have the key that its record names"))?;
    let mut stream = NoiseStream::new(inner, handshake)?;
    stream.encrypt(&[])?;
    stream.flush().await?;
    Ok(stream)
}

/// Listens: accepts the caller only if it proves `peer`'s key.
pub async fn accept<S>(
    mut inner: S,
    own: &PrivateKey,
    peer: &PublicKey,
) -> io::Result<NoiseStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut handshake = begin(Side::Listener, own, peer)?;
    let mut magic = [0; MAGIC.len()];
    inner.read_exact(&mut magic).await?;
    if magic != *MAGIC {
        return Err(refused(
            "the caller speaks another protocol; it may be an older ucd",
        ));
    }
    let mut first = [0; HANDSHAKE_MESSAGE];
    inner.read_exact(&mut first).await?;
    let no_key = |_| refused("the caller does not have the key of its address");
    read_handshake(&mut handshake, &first).map_err(no_key)?;
    let mut second = [0; HANDSHAKE_MESSAGE];
    write_handshake(&mut handshake, &mut second)?;
    inner.write_all(&second).await?;
    inner.flush().await?;
    let mut stream = NoiseStream::new(inner, handshake)?;
    let mut third = [0; LENGTH + TAG];
    stream.inner.read_exact(&mut third).await?;
    let (length, ciphertext) = third.split_at(LENGTH);
    if length != (TAG as u16).to_be_bytes() {
        return Err(refused("the caller does not complete the handshake"));
    }
    stream
        .transport
        .read_message(ciphertext, &mut [])
        .map_err(no_key)?;
    Ok(stream)
}

#[derive(Debug, Clone, Copy)]
enum Side {
    Caller,
    Listener,
}

fn begin(side: Side, own: &PrivateKey, peer: &PublicKey) -> io::Result<HandshakeState> {
    // The framework leaves this check to its user: with a point of small order as the peer's key,
    // the shared secret would be known to everybody.
    let point = x25519_dalek::PublicKey::from(*peer.as_bytes());
    if !own.secret().diffie_hellman(&point).was_contributory() {
        return Err(refused("the other machine's key is not a usable key"));
    }
    let secret = own.secret().to_bytes();
    let pattern = PATTERN.parse().expect("the pattern's name is valid");
    Builder::new(pattern)
        .prologue(PROLOGUE)
        .and_then(|builder| builder.local_private_key(&secret))
        .and_then(|builder| builder.remote_public_key(peer.as_bytes()))
        .and_then(|builder| match side {
            Side::Caller => builder.build_initiator(),
            Side::Listener => builder.build_responder(),
        })
        .map_err(|error| io::Error::other(format!("cannot begin the handshake: {error}")))
}

/// Writes a handshake message with an empty payload, which fills the buffer.
fn write_handshake(handshake: &mut HandshakeState, message: &mut [u8]) -> io::Result<()> {
    let written = handshake
        .write_message(&[], message)
        .map_err(io::Error::other)?;
    assert_eq!(written, HANDSHAKE_MESSAGE, "KK has messages of one size");
    Ok(())
}

fn read_handshake(handshake: &mut HandshakeState, message: &[u8]) -> Result<(), snow::Error> {
    handshake.read_message(message, &mut []).map(|_| ())
}

fn refused(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, reason)
}

fn damaged(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

impl<S> NoiseStream<S> {
    fn new(inner: S, handshake: HandshakeState) -> io::Result<Self> {
        let transport = handshake.into_transport_mode().map_err(io::Error::other)?;
        Ok(Self {
            inner,
            transport,
            received: Vec::new(),
            plaintext: Vec::new(),
            plaintext_read: 0,
            sending: Vec::new(),
            sent: 0,
        })
    }

    /// Makes the frame of some plaintext. The frame before it has been sent.
    fn encrypt(&mut self, plaintext: &[u8]) -> io::Result<()> {
        self.sending.resize(LENGTH + plaintext.len() + TAG, 0);
        self.sent = 0;
        let (length, ciphertext) = self.sending.split_at_mut(LENGTH);
        let written = self
            .transport
            .write_message(plaintext, ciphertext)
            .map_err(io::Error::other)?;
        let written = u16::try_from(written).expect("at most MAX_CIPHERTEXT");
        length.copy_from_slice(&written.to_be_bytes());
        Ok(())
    }

    /// Decrypts the frame in `received` into the reader's buffer, or as much as fits.
    fn decrypt(&mut self, buffer: &mut ReadBuf<'_>) -> io::Result<()> {
        let ciphertext = &self.received[LENGTH..];
        let length = ciphertext.len() - TAG;
        let wrong = |_| damaged("a message from the other machine cannot be decrypted");
        if buffer.remaining() >= length {
            let target = buffer.initialize_unfilled_to(length);
            self.transport
                .read_message(ciphertext, target)
                .map_err(wrong)?;
            buffer.advance(length);
        } else {
            self.plaintext.resize(length, 0);
            self.plaintext_read = 0;
            self.transport
                .read_message(ciphertext, &mut self.plaintext)
                .map_err(wrong)?;
            self.take_plaintext(buffer);
        }
        self.received.clear();
        Ok(())
    }

    fn take_plaintext(&mut self, buffer: &mut ReadBuf<'_>) {
        let left = &self.plaintext[self.plaintext_read..];
        let taken = left.len().min(buffer.remaining());
        buffer.put_slice(&left[..taken]);
        self.plaintext_read += taken;
        if self.plaintext_read == self.plaintext.len() {
            self.plaintext = Vec::new();
            self.plaintext_read = 0;
        }
    }

    /// The bytes that the frame in `received` will have. `None`: its length has not arrived.
    fn frame_length(&self) -> io::Result<Option<usize>> {
        let Some(length) = self.received.first_chunk::<LENGTH>() else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes(*length));
        if (TAG..=MAX_CIPHERTEXT).contains(&length) {
            Ok(Some(LENGTH + length))
        } else {
            Err(damaged(
                "a message from the other machine has a wrong length",
            ))
        }
    }
}

impl<S: AsyncRead + Unpin> NoiseStream<S> {
    /// Fills `received` up to `length`. False: the stream has ended.
    fn poll_fill(&mut self, context: &mut Context<'_>, length: usize) -> Poll<io::Result<bool>> {
        while self.received.len() < length {
            let have = self.received.len();
            self.received.resize(length, 0);
            let mut buffer = ReadBuf::new(&mut self.received[have..]);
            let polled = Pin::new(&mut self.inner).poll_read(context, &mut buffer);
            let got = buffer.filled().len();
            self.received.truncate(have + got);
            ready!(polled)?;
            if got == 0 {
                return Poll::Ready(Ok(false));
            }
        }
        Poll::Ready(Ok(true))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for NoiseStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            if !this.plaintext.is_empty() {
                this.take_plaintext(buffer);
                return Poll::Ready(Ok(()));
            }
            let wanted = this.frame_length()?.unwrap_or(LENGTH);
            if !ready!(this.poll_fill(context, wanted))? {
                return Poll::Ready(if this.received.is_empty() {
                    Ok(())
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                });
            }
            if wanted > LENGTH {
                let before = buffer.filled().len();
                this.decrypt(buffer)?;
                // An empty message is not the end of the stream.
                if buffer.filled().len() > before {
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> NoiseStream<S> {
    /// Sends what is left of the present frame.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.sending.len() {
            let left = &self.sending[self.sent..];
            let sent = ready!(Pin::new(&mut self.inner).poll_write(context, left))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += sent;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for NoiseStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_send(context))?;
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let taken = bytes.len().min(MAX_PLAINTEXT);
        this.encrypt(&bytes[..taken])?;
        // The bytes are taken now, whether or not the frame can be sent already. A flush or the
        // next write sends the rest.
        match this.poll_send(context) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(taken)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(context))?;
        Pin::new(&mut this.inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(context))?;
        Pin::new(&mut this.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;
