//! `Replication`: accepts the stream of another member.

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use uc_api::v1::ReplicationFrame;
use uc_api::v1::replication_server::Replication;
use uc_api::{Code, Failure};

use super::access;
use crate::member::Member;
use crate::peers::address_of;
use crate::replicate;

const QUEUE: usize = 16;

#[derive(Debug)]
pub(super) struct ReplicationApi {
    member: Arc<Member>,
}

impl ReplicationApi {
    pub(super) fn new(member: Arc<Member>) -> Self {
        Self { member }
    }
}

#[tonic::async_trait]
impl Replication for ReplicationApi {
    type ExchangeStream = Pin<Box<dyn Stream<Item = Result<ReplicationFrame, Status>> + Send>>;

    async fn exchange(
        &self,
        request: Request<Streaming<ReplicationFrame>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let address = access::caller(&request);
        let machine = self
            .member
            .machines()
            .into_iter()
            .find(|m| address_of(m).ok() == address);
        let machine =
            machine.ok_or_else(|| Failure::new(Code::Refused, "the caller is not a member"))?;
        let session = replicate::open_session(&self.member, &machine)?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        let cancel = self.member.cancel.clone();
        self.member.tasks.spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = replicate::pump(session, request.into_inner(), sender, Ok) => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}
