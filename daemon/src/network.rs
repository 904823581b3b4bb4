//! The host side of the cluster network: the Docker network of the machine's containers, and the
//! firewall rules it needs.
//!
//! The Docker network `uc` is a plain bridge with the machine's /24. Docker's masquerading is off
//! for it, so that containers keep their own addresses on the way to other machines. Our own rule
//! masquerades only the traffic that leaves the cluster.
//!
//! How rules are made is described in [`uc_mesh::firewall`]. Only what containers need is made
//! here, because it depends on Docker. The mesh process makes the rules that protect the mesh
//! ([`uc_mesh::guard`]).

mod docker_network;
mod error;
mod forwarding;
mod rules;

use uc_mesh::firewall::{self, run};

pub(crate) use self::docker_network::gateway;
pub use self::docker_network::{
    BRIDGE, DockerVersion, ensure_docker_network, remove_docker_network,
};
pub use self::error::NetworkError;
pub use self::rules::FirewallSpec;

/// The firewall of this machine.
#[derive(Debug, Clone)]
pub struct Firewall {
    spec: FirewallSpec,
}

impl Firewall {
    /// A firewall whose rules are not in place yet.
    pub fn new(spec: FirewallSpec) -> Self {
        Self { spec }
    }

    /// Enables IP forwarding and creates our chains and the jumps to them. What is already right is
    /// left alone.
    ///
    /// To be called at the start, after a restart of Docker, and periodically. Docker may have put
    /// its own rules before ours, or created the chain that ours belong into, and other
    /// programs flush firewalls.
    pub async fn ensure(&self) -> Result<(), NetworkError> {
        forwarding::enable().await?;
        let docker_user = run(&rules::has_docker_user()).await?.is_success();
        let jumps = rules::jumps(&self.spec, docker_user);
        firewall::ensure(&rules::chains(&self.spec), &jumps).await?;
        Ok(())
    }

    /// Removes all our rules. IP forwarding stays enabled, since Docker needs it too.
    pub async fn remove(&self) -> Result<(), NetworkError> {
        firewall::remove(&rules::all_jumps()).await?;
        Ok(())
    }
}
