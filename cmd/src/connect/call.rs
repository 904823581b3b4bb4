//! What each call carries: this program's version, the cluster it is meant for, and its time limit.

use std::future::Future;
use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Response, Status};
use uc_api::ClusterId;
use uc_api::version::{CLIENT_VERSION_KEY, CLUSTER_KEY, PROTOCOL, PROTOCOL_KEY, VERSION};

use crate::error::CliResult;

/// Adds the versions to each call, and the cluster it is meant for, so that the daemon can refuse
/// what it does not understand and what is not meant for it.
#[derive(Debug, Clone, Default)]
pub(crate) struct CallMetadata {
    cluster: Option<MetadataValue<Ascii>>,
}

impl CallMetadata {
    /// For calls that are meant for one cluster only; `None`: for whichever answers.
    pub(super) fn new(cluster: Option<ClusterId>) -> Self {
        let value = |id: ClusterId| {
            MetadataValue::try_from(id.to_string()).expect("hexadecimal digits are valid metadata")
        };
        Self {
            cluster: cluster.map(value),
        }
    }
}

impl Interceptor for CallMetadata {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        metadata.insert(
            CLIENT_VERSION_KEY,
            MetadataValue::<Ascii>::from_static(VERSION),
        );
        metadata.insert(PROTOCOL_KEY, MetadataValue::from(PROTOCOL));
        if let Some(cluster) = &self.cluster {
            metadata.insert(CLUSTER_KEY, cluster.clone());
        }
        Ok(request)
    }
}

/// A call that must be answered within so many seconds. Streams have no such limit: keep-alive ends
/// them when the other side is gone.
pub(crate) fn within<T>(seconds: u64, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(Duration::from_secs(seconds));
    request
}

/// The answer to a call.
pub(crate) async fn ask<T>(
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> CliResult<T> {
    Ok(call.await?.into_inner())
}
