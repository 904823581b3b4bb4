//! A connection to a daemon.

use std::fmt;
use std::sync::Arc;

use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use uc_api::ClusterId;
use uc_api::v1::cluster_client::ClusterClient;
use uc_api::v1::conflicts_client::ConflictsClient;
use uc_api::v1::deploy_client::DeployClient;
use uc_api::v1::machine_client::MachineClient;
use uc_api::v1::services_client::ServicesClient;

use super::call::CallMetadata;
use super::dial::Keep;
use super::identity::Identity;
use super::{Globals, Route};
use crate::error::CliResult;

/// Largest answer that is read: a listing of tens of thousands of containers.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

type Stack = InterceptedService<Channel, CallMetadata>;

/// An open connection.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    channel: Stack,
    /// The connection as text, for example `ssh://root@10.0.0.1`.
    pub(crate) label: String,
    /// Id of the machine that answers. `None` if the machine is not in a cluster.
    pub(crate) machine_id: Option<String>,
    destination: Arc<Destination>,
    /// How the connection was made; `None` for one to a machine that is in no cluster yet.
    origin: Option<Arc<(Route, Globals)>>,
    _keep: Arc<Keep>,
}

/// Which cluster a client talks to, and through which machine. `Display` completes "Deploy to …".
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Destination {
    /// Name of the context. `None` with `--connect`, and on a machine's own socket.
    pub(crate) context: Option<String>,
    /// The cluster of the machine that answers. `None` if the machine is not in a cluster.
    pub(crate) cluster: Option<ClusterId>,
    /// Name of the machine that answers. `None` as long as it has none.
    pub(crate) machine: Option<String>,
    /// The connection as text.
    pub(crate) connection: String,
}

impl Destination {
    /// The machine's name, or the connection where it has none.
    pub(crate) fn through(&self) -> &str {
        self.machine.as_deref().unwrap_or(&self.connection)
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.context, &self.machine) {
            (Some(context), _) => write!(f, "`{context}` (through {})", self.through()),
            (None, Some(machine)) => {
                write!(f, "the cluster of {machine} ({})", self.connection)
            }
            (None, None) => write!(f, "the cluster at {}", self.connection),
        }
    }
}

impl Client {
    /// Remembers how the connection was made, for [`reconnect`](Self::reconnect).
    pub(super) fn with_origin(self, route: &Route, globals: &Globals) -> Self {
        Self {
            origin: Some(Arc::new((route.clone(), globals.clone()))),
            ..self
        }
    }

    /// A new connection to the same cluster, maybe through another machine. A connection that broke
    /// does not come back by itself.
    pub(crate) async fn reconnect(&self) -> CliResult<Self> {
        match &self.origin {
            Some(origin) => Box::pin(super::connect(&origin.0, &origin.1)).await,
            None => Ok(self.clone()),
        }
    }

    /// A client over an open channel to the machine that `identity` describes. `keep` is what must
    /// live as long as the channel. Should the machine enter another cluster while the client
    /// lives, its daemon refuses all further calls.
    pub(super) fn new(
        channel: Channel,
        keep: Keep,
        label: String,
        identity: Identity,
        context: Option<String>,
    ) -> Self {
        let metadata = CallMetadata::new(identity.cluster);
        let destination = Destination {
            context,
            cluster: identity.cluster,
            machine: identity.machine_name,
            connection: label.clone(),
        };
        Self {
            origin: None,
            channel: InterceptedService::new(channel, metadata),
            label,
            machine_id: identity.machine,
            destination: Arc::new(destination),
            _keep: Arc::new(keep),
        }
    }

    /// Which cluster this client talks to, and through which machine.
    pub(crate) fn destination(&self) -> &Destination {
        &self.destination
    }

    /// Calls about the machine at the other end.
    pub(crate) fn machine(&self) -> MachineClient<Stack> {
        MachineClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    /// Calls about the cluster's machines.
    pub(crate) fn cluster(&self) -> ClusterClient<Stack> {
        ClusterClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    /// Calls about records that were changed on both sides of a partition.
    pub(crate) fn conflicts(&self) -> ConflictsClient<Stack> {
        ConflictsClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    /// Calls about services and their replicas.
    pub(crate) fn services(&self) -> ServicesClient<Stack> {
        ServicesClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    /// Calls that plan and execute deployments.
    pub(crate) fn deploy(&self) -> DeployClient<Stack> {
        DeployClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destination_names_context_and_machine() {
        let text = |context: Option<&str>, machine: Option<&str>| {
            let destination = Destination {
                context: context.map(Into::into),
                cluster: None,
                machine: machine.map(Into::into),
                connection: "ssh://root@h".into(),
            };
            destination.to_string()
        };
        assert_eq!(text(Some("prod"), Some("m1")), "`prod` (through m1)");
        assert_eq!(text(Some("prod"), None), "`prod` (through ssh://root@h)");
        assert_eq!(text(None, Some("m1")), "the cluster of m1 (ssh://root@h)");
        assert_eq!(text(None, None), "the cluster at ssh://root@h");
    }
}
