//! The host side of the cluster network: the Docker network of the machine's containers, and the
//! firewall rules it needs.
//!
//! The Docker network `uc` is a plain bridge with the machine's /24. Docker's masquerading is off
//! for it, so that containers keep their own addresses on the way to other machines; a rule of ours
//! masquerades only what leaves for the rest of the world.
//!
//! The rules are made with iptables, not with a table of our own in nftables: what must be let in
//! has to be let in inside Docker's own `FORWARD` chain (a drop there is final, whatever other
//! tables say), Docker itself needs iptables (20.10 to 28), and one tool for all is one tool to
//! look at. They live in chains named `UC-…`, which are replaced atomically, so
//! [`Firewall::ensure`] can be called at any time. What other tools drop in chains of their own
//! (firewalld, hand-written nftables) is not opened by these rules.

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
    /// A firewall that does nothing yet.
    pub fn new(spec: FirewallSpec) -> Self {
        Self { spec }
    }

    /// Brings everything in place: IP forwarding, our chains, the jumps to them. Whatever is right
    /// already is left alone.
    ///
    /// To be called at start, whenever Docker came back (it may have put its own rules before ours,
    /// or made the chain they belong into), and now and then (others flush firewalls).
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

    /// Takes all our rules away. IP forwarding stays on: Docker needs it too.
    pub async fn remove(&self) -> Result<(), NetworkError> {
        for family in Family::ALL {
            for jump in rules::all_jumps(family) {
                // One pass takes one copy; others may have copied rules (iptables-save and -restore
                // do).
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

    /// Whether the programs it needs are there.
    pub async fn check_programs() -> Result<(), NetworkError> {
        for family in Family::ALL {
            run(&Command::version(family)).await?.success()?;
        }
        Ok(())
    }
}
