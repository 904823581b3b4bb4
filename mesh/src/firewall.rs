//! The firewall: rules as text, and the programs that apply them.
//!
//! The rules are made with iptables, not with a separate nftables table, for three reasons. Traffic
//! has to be accepted in Docker's own `FORWARD` chain, because a drop there is final whatever other
//! tables do. Docker itself needs iptables (20.10 to 28). And all rules can be seen with one tool.
//! Our chains are named `UC-…` and are replaced atomically, so [`ensure`] can be called at any
//! time. Traffic that other tools drop in their own chains (firewalld, custom nftables) stays
//! dropped.

mod command;
mod error;
mod exec;

pub use self::command::{Command, Family, Jump};
pub use self::error::FirewallError;
pub use self::exec::{Ended, run};

/// Copies of one of our jumps that are looked for when they are removed.
const MAX_COPIES: usize = 16;

/// Creates or replaces the chains, and adds the jumps to them that are missing.
pub async fn ensure(chains: &Command, jumps: &[Jump]) -> Result<(), FirewallError> {
    run(chains).await?.success()?;
    for jump in jumps {
        if !run(&jump.check()).await?.is_success() {
            tracing::info!(jump = %jump.insert(), "firewall rule added");
            run(&jump.insert()).await?.success()?;
        }
    }
    Ok(())
}

/// Like [`ensure`], and each jump is the first rule of its chain. For rules that drop: a rule of
/// another program that accepts would bypass them if it were earlier.
pub async fn ensure_first(chains: &Command, jumps: &[Jump]) -> Result<(), FirewallError> {
    ensure(chains, jumps).await?;
    for jump in jumps {
        let first = run(&jump.first_rule()).await?;
        if first.stdout() != jump.rule() {
            tracing::info!(jump = %jump.insert(), "firewall rule moved to the first place");
            run(&jump.move_first()).await?.success()?;
        }
    }
    Ok(())
}

/// Removes the jumps and the chains to which they lead. What does not exist is skipped.
pub async fn remove(jumps: &[Jump]) -> Result<(), FirewallError> {
    for jump in jumps {
        // One pass removes one copy. iptables-save and iptables-restore can leave several.
        for _ in 0..MAX_COPIES {
            if !run(&jump.delete()).await?.is_success() {
                break;
            }
        }
    }
    for command in command::chain_removal(jumps) {
        let output = run(&command).await?;
        if !output.is_success() && run(&command.listing()).await?.is_success() {
            output.success()?;
        }
    }
    Ok(())
}
