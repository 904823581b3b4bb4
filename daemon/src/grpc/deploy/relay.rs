//! One archive of an image, from the client to several machines.
//!
//! A machine takes a stream that ends for a whole archive. So the stream to a machine ends only
//! where the client ended its own. Where the client's breaks, or the client goes away, the call to
//! the machine is dropped: that resets the stream, and the machine's load fails.

use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use uc_api::v1::PushImageRequest;
use uc_api::v1::node_client::NodeClient;
use uc_api::{Code, Failure};

use crate::peers::PeerChannel;

/// Messages on their way to one machine; a slow machine holds up the client, not this daemon's
/// memory.
const QUEUE: usize = 8;

/// What a machine gets.
#[derive(Debug)]
pub(super) enum Relayed {
    Message(PushImageRequest),
    /// The archive is whole. A channel that closes without it is a torn archive.
    End,
}

/// The two ends of the way to one machine.
pub(super) fn channel() -> (mpsc::Sender<Relayed>, mpsc::Receiver<Relayed>) {
    mpsc::channel(QUEUE)
}

/// Passes the client's messages on, each when all machines have taken the one before. Ends early
/// where no machine takes any more.
pub(super) async fn relay<S>(
    first: PushImageRequest,
    mut incoming: S,
    mut machines: Vec<mpsc::Sender<Relayed>>,
) -> Result<(), Failure>
where
    S: Stream<Item = Result<PushImageRequest, Status>> + Unpin,
{
    let mut message = Some(first);
    while let Some(next) = message {
        let sends = machines
            .iter()
            .map(|machine| machine.send(Relayed::Message(next.clone())));
        join_all(sends).await;
        // A machine whose load failed has dropped its receiver; the others continue.
        machines.retain(|machine| !machine.is_closed());
        if machines.is_empty() {
            return Ok(());
        }
        message = incoming.next().await.transpose()?;
    }
    join_all(machines.iter().map(|machine| machine.send(Relayed::End))).await;
    Ok(())
}

/// Loads what the channel brings on one machine.
pub(super) async fn load(
    mut node: NodeClient<PeerChannel>,
    messages: mpsc::Receiver<Relayed>,
) -> Result<(), Failure> {
    let torn = CancellationToken::new();
    let state = (messages, torn.clone());
    let archive = futures_util::stream::unfold(state, |(mut messages, torn)| async move {
        match messages.recv().await {
            Some(Relayed::Message(message)) => Some((message, (messages, torn))),
            Some(Relayed::End) => None,
            None => {
                torn.cancel();
                std::future::pending().await
            }
        }
    });
    tokio::select! {
        answer = node.load_image(archive) => Ok(answer.map(|_| ())?),
        () = torn.cancelled() => Err(Failure::new(
            Code::Unreachable,
            "the image was not sent to its end",
        )),
    }
}

#[cfg(test)]
mod tests;
