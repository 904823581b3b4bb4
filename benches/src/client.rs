//! A gRPC client that costs little, because clients share the processors with what they measure:
//! unary calls, one at a time, over an HTTP/2 connection on a Unix socket. The connection moves
//! only while a call waits for it, in the caller's own task: no other task is woken for a call, and
//! a request's head and message leave in one write.
//!
//! There are no deadlines here: a timer for each call would show in the figures, so callers set one
//! around many.

use std::future::poll_fn;
use std::path::Path;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use anyhow::{Context as _, bail, ensure};
use bytes::{Bytes, BytesMut};
use h2::client::{Connection, ResponseFuture, SendRequest};
use http::header::{CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use prost::Message;
use tokio::net::UnixStream;

use crate::put::{
    PUT, PutRequest, PutResponse, STATUS, StatusRequest, StatusResponse, framed, message,
};

/// A socket has no name that a server could expect here.
const AUTHORITY: &str = "http://localhost";

/// A connection of its own to a server.
#[derive(Debug)]
pub(crate) struct Client {
    requests: SendRequest<Bytes>,
    connection: Connection<UnixStream>,
    headers: HeaderMap,
    put: Uri,
}

impl Client {
    /// Connects.
    pub(crate) async fn connect(server: &Path) -> anyhow::Result<Self> {
        let connecting = async {
            let stream = UnixStream::connect(server).await?;
            anyhow::Ok(h2::client::handshake(stream).await?)
        };
        let (requests, connection) = connecting
            .await
            .with_context(|| format!("cannot connect to {}", server.display()))?;
        let headers = HeaderMap::from_iter([
            (CONTENT_TYPE, HeaderValue::from_static("application/grpc")),
            (TE, HeaderValue::from_static("trailers")),
        ]);
        let put = format!("{AUTHORITY}{PUT}").parse()?;
        Ok(Self {
            requests,
            connection,
            headers,
            put,
        })
    }

    /// Writes a value.
    pub(crate) async fn put(
        &mut self,
        key: Vec<u8>,
        value: Vec<u8>,
    ) -> anyhow::Result<PutResponse> {
        self.call(self.put.clone(), &PutRequest { key, value })
            .await
    }

    /// Asks an etcd who it is and who leads.
    pub(crate) async fn status(&mut self) -> anyhow::Result<StatusResponse> {
        let uri = format!("{AUTHORITY}{STATUS}").parse()?;
        self.call(uri, &StatusRequest {}).await
    }

    async fn call<A: Message + Default>(
        &mut self,
        uri: Uri,
        question: &impl Message,
    ) -> anyhow::Result<A> {
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        request.headers_mut().clone_from(&self.headers);
        let Self {
            requests,
            connection,
            ..
        } = self;
        drive(connection, async {
            poll_fn(|context| requests.poll_ready(context)).await?;
            let (answer, mut stream) = requests.send_request(request, false)?;
            stream.send_data(framed(question)?, true)?;
            receive(answer).await
        })
        .await
    }
}

/// Moves the connection until the call has ended.
async fn drive<A>(
    connection: &mut Connection<UnixStream>,
    call: impl Future<Output = anyhow::Result<A>>,
) -> anyhow::Result<A> {
    let mut call = pin!(call);
    poll_fn(|context| {
        // Only the connection makes the call progress, and the call is polled after it. So the
        // call needs no waker.
        let mut nobody = Context::from_waker(Waker::noop());
        if let Poll::Ready(answer) = call.as_mut().poll(&mut nobody) {
            return Poll::Ready(answer);
        }
        let end = Pin::new(&mut *connection).poll(context);
        if let Poll::Ready(answer) = call.as_mut().poll(&mut nobody) {
            return Poll::Ready(answer);
        }
        end.map(|end| {
            end?;
            bail!("the server has closed the connection")
        })
    })
    .await
}

/// What a call is answered, or the error that the server names.
async fn receive<A: Message + Default>(answer: ResponseFuture) -> anyhow::Result<A> {
    let answer = answer.await?;
    ensure!(
        answer.status() == StatusCode::OK,
        "the server answered with HTTP status {}",
        answer.status()
    );
    let (head, mut body) = answer.into_parts();
    let mut received = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        received.extend_from_slice(&data);
    }
    // An answer without a message may have all in its head.
    let trailers = body.trailers().await?;
    status(trailers.as_ref().unwrap_or(&head.headers))?;
    message(received.freeze())
}

/// `grpc-status` and `grpc-message`, which end an answer.
fn status(headers: &HeaderMap) -> anyhow::Result<()> {
    let text = |name| {
        headers
            .get(name)
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
    };
    match text("grpc-status").as_deref() {
        Some("0") => Ok(()),
        Some(code) => match text("grpc-message") {
            Some(message) => bail!("gRPC status {code}: {message}"),
            None => bail!("gRPC status {code}"),
        },
        None => bail!("the answer has no gRPC status"),
    }
}
