//! The gRPC server of a machine: `Put` into its store, answered when the record is on the local
//! disk, on a Unix socket. As in the daemon it is tonic's, without a router: there is one service.

use std::convert::Infallible;

use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::codegen::{BoxFuture, Service};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use uc_cluster_state::{Store, Write};

use crate::figure::note;
use crate::put::{Header, PUT, PutRequest, PutResponse};
use crate::record::RECORD;

/// Answers those who connect.
pub(crate) async fn serve(store: Store, listener: UnixListener) {
    let incoming = UnixListenerStream::new(listener);
    if let Err(error) = tonic::transport::Server::builder()
        .serve_with_incoming(Server(store), incoming)
        .await
    {
        note(&format!("the gRPC server: {error}"));
    }
}

#[derive(Debug, Clone)]
struct Server(Store);

impl tonic::server::UnaryService<PutRequest> for Server {
    type Response = PutResponse;
    type Future = BoxFuture<Response<PutResponse>, Status>;

    fn call(&mut self, request: Request<PutRequest>) -> Self::Future {
        let store = self.0.clone();
        Box::pin(async move {
            let PutRequest { key, value } = request.into_inner();
            let key = String::from_utf8(key)
                .map_err(|error| Status::invalid_argument(error.to_string()))?;
            let write = Write::Put {
                kind: RECORD,
                key,
                value,
            };
            let commit = store
                .write(vec![write])
                .await
                .map_err(|error| Status::unavailable(error.to_string()))?;
            let header = Header {
                member: 0,
                revision: commit.version as i64,
            };
            Ok(Response::new(PutResponse {
                header: Some(header),
            }))
        })
    }
}

impl Service<http::Request<tonic::body::Body>> for Server {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let server = self.clone();
        Box::pin(async move {
            if request.uri().path() != PUT {
                return Ok(Status::unimplemented("only Put").into_http());
            }
            let mut grpc = tonic::server::Grpc::new(ProstCodec::default());
            Ok(grpc.unary(server, request).await)
        })
    }
}
