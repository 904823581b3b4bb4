//! A connection to a daemon, with the versions sent along on every call.

use std::sync::Arc;
use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};
use uc_api::v1::cluster_client::ClusterClient;
use uc_api::v1::conflicts_client::ConflictsClient;
use uc_api::v1::deploy_client::DeployClient;
use uc_api::v1::machine_client::MachineClient;
use uc_api::v1::services_client::ServicesClient;
use uc_api::version::{CLIENT_VERSION_KEY, PROTOCOL, PROTOCOL_KEY, VERSION};

use super::dial::Keep;

/// Largest answer that is read: a listing of tens of thousands of containers.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

type Stack = InterceptedService<Channel, Versions>;

/// An open connection.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    channel: Stack,
    /// Which connection it is, as text.
    pub(crate) label: String,
    _keep: Arc<Keep>,
}

/// Says on each call who we are, so that the daemon can refuse what it does not understand.
#[derive(Debug, Clone)]
pub(crate) struct Versions;

impl Interceptor for Versions {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        metadata.insert(
            CLIENT_VERSION_KEY,
            MetadataValue::<Ascii>::from_static(VERSION),
        );
        metadata.insert(PROTOCOL_KEY, MetadataValue::from(PROTOCOL));
        Ok(request)
    }
}

impl Client {
    /// Over a channel; `keep` lives as long.
    pub(crate) fn new(channel: Channel, label: String, keep: Keep) -> Self {
        Self {
            channel: InterceptedService::new(channel, Versions),
            label,
            _keep: Arc::new(keep),
        }
    }

    /// The machine at the other end.
    pub(crate) fn machine(&self) -> MachineClient<Stack> {
        MachineClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    /// The members.
    pub(crate) fn cluster(&self) -> ClusterClient<Stack> {
        ClusterClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    /// What was changed on two sides of a partition.
    pub(crate) fn conflicts(&self) -> ConflictsClient<Stack> {
        ConflictsClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    /// Services as they are.
    pub(crate) fn services(&self) -> ServicesClient<Stack> {
        ServicesClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    /// Changes of services.
    pub(crate) fn deploy(&self) -> DeployClient<Stack> {
        DeployClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }
}

/// A call that must be answered within so many seconds. Streams have no such limit: keep-alive ends
/// them when the other side is gone.
pub(crate) fn within<T>(seconds: u64, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(Duration::from_secs(seconds));
    request
}
