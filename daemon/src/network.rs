//! The host side of the cluster network: the Docker network of the machine's containers, and the
//! firewall rules it needs.
//!
//! The Docker network `uc` is a plain bridge with the machine's /24. Docker's masquerading is off
//! for it, so that containers keep their own addresses on the way to other machines. Our own rule
//! masquerades only the traffic that leaves the cluster.
//!
//! The rules are made with iptables, not with a separate nftables table, for three reasons. Traffic
//! has to be accepted in Docker's own `FORWARD` chain, because a drop there is final whatever other
//! tables do. Docker itself needs iptables (20.10 to 28). And all rules can be seen with one tool.
//! Our chains are named `UC-…` and are replaced atomically, so [`Firewall::ensure`] can be called
//! at any time. Traffic that other tools drop in their own chains (firewalld, custom nftables)
//! stays dropped.

mod docker_network;
mod error;
mod exec;
mod rules;

pub use self::docker_network::{
    BRIDGE, DockerVersion, ensure_docker_network, remove_docker_network,
};
pub use self::error::NetworkError;
use self::exec::run;
pub use self::rules::{Command, Family, FirewallSpec};

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
        exec::enable_forwarding().await?;
        for family in Family::ALL {
            run(&rules::chains(&self.spec, family)).await?.success()?;
            let docker_user = run(&rules::has_docker_user(family)).await?.is_success();
            for jump in rules::jumps(&self.spec, family, docker_user) {
                if !run(&jump.check()).await?.is_success() {
                    tracing::info!(jump = %jump.insert(), "firewall rule added");
                    run(&jump.insert()).await?.success()?;
                }
            }
        }
        Ok(())
    }

    /// Removes all our rules. IP forwarding stays enabled, since Docker needs it too.
    pub async fn remove(&self) -> Result<(), NetworkError> {
        for family in Family::ALL {
            for jump in rules::all_jumps(family) {
                // One pass removes one copy. iptables-save and iptables-restore can leave several.
                for _ in 0..rules::MAX_COPIES {
                    if !run(&jump.delete()).await?.is_success() {
                        break;
                    }
                }
            }
            for command in rules::chain_removal(family) {
                let output = run(&command).await?;
                if !output.is_success() && run(&command.listing()).await?.is_success() {
                    output.success()?;
                }
            }
        }
        Ok(())
    }

    /// Checks that the programs that the firewall needs are installed.
    pub async fn check_programs() -> Result<(), NetworkError> {
        for family in Family::ALL {
            run(&Command::version(family)).await?.success()?;
        }
        Ok(())
    }
}
