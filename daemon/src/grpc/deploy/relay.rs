//! One archive of an image, from the client to several machines.
//!
//! A stream can end because its sender gave up, so an archive is complete only with its end
//! message. A machine that gets no end message fails the load.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use uc_api::v1::PushImageRequest;
use uc_api::v1::push_image_request::Message;
use uc_api::{Code, Failure};

use crate::cluster::peers::Remote;

/// Messages on their way to one machine. A slow machine holds up the client, not this daemon's
/// memory.
const QUEUE: usize = 8;
/// A machine that accepts no message for this long gets no more. The others wait in the meantime,
/// so this is shorter than a machine waits for a message.
const STALL_LIMIT: Duration = Duration::from_mins(2);
/// Time for a machine to finish loading once it has the whole archive.
const LOAD_LIMIT: Duration = Duration::from_mins(10);

/// The sending end of the way to one machine.
#[derive(Debug)]
pub(super) struct Sender {
    messages: mpsc::Sender<PushImageRequest>,
    stalled: CancellationToken,
}

/// The receiving end of the way to one machine.
#[derive(Debug)]
pub(super) struct Receiver {
    messages: mpsc::Receiver<PushImageRequest>,
    stalled: CancellationToken,
}

pub(super) fn channel() -> (Sender, Receiver) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let stalled = CancellationToken::new();
    let sender = Sender {
        messages: sender,
        stalled: stalled.clone(),
    };
    let receiver = Receiver {
        messages: receiver,
        stalled,
    };
    (sender, receiver)
}

/// Passes the client's messages on, each when all machines have accepted the one before. Ends early
/// if no machine accepts any more.
pub(super) async fn relay<S>(
    first: PushImageRequest,
    mut incoming: S,
    mut machines: Vec<Sender>,
) -> Result<(), Failure>
where
    S: Stream<Item = Result<PushImageRequest, Status>> + Unpin,
{
    let mut message = first;
    loop {
        let sends = machines
            .iter()
            .map(|machine| timeout(STALL_LIMIT, machine.messages.send(message.clone())));
        let mut accepted = join_all(sends).await.into_iter();
        // A machine whose load failed has dropped its receiver; the others continue.
        machines.retain(|machine| match accepted.next() {
            Some(Ok(sent)) => sent.is_ok(),
            _ => {
                machine.stalled.cancel();
                false
            }
        });
        if machines.is_empty() || matches!(message.message, Some(Message::End(_))) {
            return Ok(());
        }
        message = incoming.next().await.transpose()?.ok_or_else(torn)?;
    }
}

/// The failure of an archive that has no end.
fn torn() -> Failure {
    Failure::new(Code::Unreachable, "the image was not sent to its end")
}

/// Loads what the channel brings on one machine.
pub(super) async fn load(machine: Remote, incoming: Receiver) -> Result<(), Failure> {
    let Receiver { messages, stalled } = incoming;
    let sent = CancellationToken::new();
    let state = (messages, sent.clone());
    let archive = futures_util::stream::unfold(state, |(mut messages, sent)| async move {
        let message = messages.recv().await;
        if message.is_none() {
            sent.cancel();
        }
        message.map(|message| (message, (messages, sent)))
    });
    let late = |what: &str, limit: Duration| {
        let message = format!("the machine {what} within {} s", limit.as_secs());
        Err(Failure::new(Code::TimedOut, message))
    };
    tokio::select! {
        loaded = machine.load_image(archive) => loaded,
        () = stalled.cancelled() => late("accepted no part of the image", STALL_LIMIT),
        () = async { sent.cancelled().await; sleep(LOAD_LIMIT).await } =>
            late("did not load the image", LOAD_LIMIT),
    }
}

#[cfg(test)]
mod tests;
