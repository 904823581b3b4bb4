//! Images that the client sends.

mod built;
mod resolve;
pub(super) mod sweep;

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use tonic::Status;
use uc_api::v1::push_image_request::Message;
use uc_api::{Code, Failure, v1};

use super::NodeService;

/// Time limit for each message. A sender that is silent for this long is given up, and its archive
/// is discarded. Longer than a sender waits for another machine that accepts nothing.
const CHUNK_LIMIT: Duration = Duration::from_mins(5);

impl NodeService {
    /// Loads an image. The first message names it; the others carry its archive. The sender is
    /// never read faster than the engine accepts the archive.
    pub(crate) async fn load_image_from<S>(&self, mut incoming: S) -> Result<(), Failure>
    where
        S: futures_util::Stream<Item = Result<v1::PushImageRequest, Status>>
            + Send
            + Unpin
            + 'static,
    {
        let first = incoming.next().await.transpose().map_err(Failure::from)?;
        let Some(Message::Start(start)) = first.and_then(|request| request.message) else {
            return Err(Failure::new(
                Code::Invalid,
                "the first message of an image must be a start",
            ));
        };
        // If the sender fails, the engine reports only a broken connection. This keeps the real
        // cause.
        let senders_fault: Arc<OnceLock<Failure>> = Arc::default();
        let noted = senders_fault.clone();
        let archive = futures_util::stream::unfold(Some((incoming, noted)), |state| async move {
            let (mut incoming, noted) = state?;
            let fault = match tokio::time::timeout(CHUNK_LIMIT, incoming.next()).await {
                // A call that its caller gave up ends its stream as well.
                Ok(None) => Failure::new(Code::Unreachable, "it was not sent to its end"),
                Ok(Some(Ok(request))) => match request.message {
                    Some(Message::Chunk(chunk)) => {
                        return Some((Ok(Bytes::from(chunk)), Some((incoming, noted))));
                    }
                    Some(Message::End(_)) => return None,
                    _ => Failure::new(Code::Invalid, "unexpected second start in an image"),
                },
                Ok(Some(Err(status))) => Failure::from(status),
                Err(_) => Failure::new(
                    Code::TimedOut,
                    format!("the sender sent nothing for {} s", CHUNK_LIMIT.as_secs()),
                ),
            };
            let broken = io::Error::other(fault.message.clone());
            let _the_first = noted.set(fault);
            Some((Err(broken), None))
        });
        let image = start.image;
        self.expect_image(&image).await;
        let loaded = self.engine.load(archive.boxed()).await;
        loaded.map_err(|error| {
            let failure = senders_fault
                .get()
                .cloned()
                .unwrap_or_else(|| Failure::from(error));
            let message = format!("cannot load image `{image}`: {}", failure.message);
            Failure { message, ..failure }
        })?;
        if self.engine.image(&image).await?.is_none() {
            return Err(Failure::new(
                Code::Invalid,
                format!("the archive was loaded, but it does not contain `{image}`"),
            ));
        }
        self.note_received_image(&image).await;
        Ok(())
    }
}
