//! The one call that both sides of the comparison answer: `Put` of etcd's gRPC service `KV`, client and server, written
//! by hand because etcd's protocol files are not ours to carry; and `Status`, which tells etcd's leader.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use uc_cluster_state::{Store, Write};

use crate::machine::RECORD;

const TIMEOUT: Duration = Duration::from_secs(10);

/// `etcdserverpb.PutRequest`, as far as it is used.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) value: Vec<u8>,
}

/// `etcdserverpb.ResponseHeader`, as far as it is used.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Header {
    #[prost(uint64, tag = "2")]
    pub(crate) member: u64,
    #[prost(int64, tag = "3")]
    pub(crate) revision: i64,
}

/// `etcdserverpb.PutResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PutResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<Header>,
}

/// `etcdserverpb.StatusRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct StatusRequest {}

/// `etcdserverpb.StatusResponse`, as far as it is used.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<Header>,
    #[prost(string, tag = "2")]
    pub(crate) version: String,
    #[prost(uint64, tag = "4")]
    pub(crate) leader: u64,
}

/// A connection of its own to a server.
#[derive(Debug)]
pub(crate) struct Client(tonic::client::Grpc<Channel>);

impl Client {
    /// Connects.
    pub(crate) async fn connect(server: SocketAddr) -> anyhow::Result<Self> {
        let endpoint =
            Endpoint::from_shared(format!("http://{server}"))?.timeout(TIMEOUT).connect_timeout(TIMEOUT);
        let channel = endpoint.connect().await.with_context(|| format!("cannot connect to {server}"))?;
        Ok(Self(tonic::client::Grpc::new(channel)))
    }

    /// Writes a value.
    pub(crate) async fn put(&mut self, key: Vec<u8>, value: Vec<u8>) -> anyhow::Result<PutResponse> {
        let path = PathAndQuery::from_static("/etcdserverpb.KV/Put");
        self.0.ready().await?;
        let request = Request::new(PutRequest { key, value });
        let response: Response<PutResponse> = self.0.unary(request, path, ProstCodec::default()).await?;
        Ok(response.into_inner())
    }

    /// Asks an etcd who it is and who leads.
    pub(crate) async fn status(&mut self) -> anyhow::Result<StatusResponse> {
        let path = PathAndQuery::from_static("/etcdserverpb.Maintenance/Status");
        self.0.ready().await?;
        let request = Request::new(StatusRequest {});
        let response: Response<StatusResponse> = self.0.unary(request, path, ProstCodec::default()).await?;
        Ok(response.into_inner())
    }
}

/// Answers `Put` from a store, when the record is on the local disk.
#[derive(Debug, Clone)]
pub(crate) struct Server(pub(crate) Store);

impl tonic::server::NamedService for Server {
    const NAME: &'static str = "etcdserverpb.KV";
}

impl tonic::server::UnaryService<PutRequest> for Server {
    type Response = PutResponse;
    type Future = BoxFuture<Response<PutResponse>, Status>;

    fn call(&mut self, request: Request<PutRequest>) -> Self::Future {
        let store = self.0.clone();
        Box::pin(async move {
            let PutRequest { key, value } = request.into_inner();
            let key = String::from_utf8(key).map_err(|error| Status::invalid_argument(error.to_string()))?;
            let write = Write::Put { kind: RECORD, key, value };
            let commit =
                store.write(vec![write]).await.map_err(|error| Status::unavailable(error.to_string()))?;
            let header = Header { member: 0, revision: commit.version as i64 };
            Ok(Response::new(PutResponse { header: Some(header) }))
        })
    }
}

impl Service<http::Request<tonic::body::Body>> for Server {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let server = self.clone();
        Box::pin(async move {
            if request.uri().path() != "/etcdserverpb.KV/Put" {
                return Ok(Status::unimplemented("only Put").into_http());
            }
            let mut grpc = tonic::server::Grpc::new(ProstCodec::default());
            Ok(grpc.unary(server, request).await)
        })
    }
}
