//! A time limit for the arrival of a request. Until all of it has arrived, it occupies memory and a
//! stream, and the sender decides how long that is.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body::{Frame, SizeHint};
use tokio::time::{Sleep, sleep};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Bytes, http};

/// How long a registration may take to arrive. It has less than 16 KiB.
const LIMIT: Duration = Duration::from_secs(10);

/// Limits the time in which the request arrives.
pub(super) fn limit_arrival(request: http::Request<Body>) -> http::Request<Body> {
    request.map(|body| {
        Body::new(Arriving {
            body,
            over: Box::pin(sleep(LIMIT)),
        })
    })
}

/// The body of a request, which fails when the time is over.
struct Arriving {
    body: Body,
    over: Pin<Box<Sleep>>,
}

impl http_body::Body for Arriving {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(frame);
        }
        ready!(self.over.as_mut().poll(context));
        let reason = format!("the request did not arrive within {} s", LIMIT.as_secs());
        Poll::Ready(Some(Err(Status::deadline_exceeded(reason))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
