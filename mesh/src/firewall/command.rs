//! Command lines of iptables: pure functions to text.

use std::fmt;

/// Seconds to wait for iptables' lock, which Docker holds for moments at a time.
const LOCK_WAIT: &str = "5";

/// IPv4 or IPv6: each has its own programs and chains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// `iptables`.
    V4,
    /// `ip6tables`.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The program for single rules.
    fn program(self) -> &'static str {
        match self {
            Self::V4 => "iptables",
            Self::V6 => "ip6tables",
        }
    }

    fn restore_program(self) -> &'static str {
        match self {
            Self::V4 => "iptables-restore",
            Self::V6 => "ip6tables-restore",
        }
    }
}

/// A program to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Its name, looked up in `PATH`.
    pub program: &'static str,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its standard input.
    pub input: String,
}

impl Command {
    /// A single action.
    pub fn iptables(family: Family, arguments: &str) -> Self {
        let arguments = ["-w", LOCK_WAIT]
            .into_iter()
            .chain(arguments.split(' '))
            .map(str::to_owned);
        Self {
            program: family.program(),
            arguments: arguments.collect(),
            input: String::new(),
        }
    }

    /// Creates chains, or replaces what is in them, each table in one step. `input` is in the
    /// format of iptables-save.
    pub fn restore(family: Family, input: String) -> Self {
        let arguments = ["--noflush", "-w", LOCK_WAIT].map(str::to_owned).to_vec();
        Self {
            program: family.restore_program(),
            arguments,
            input,
        }
    }

    /// For a command about one chain: lists that chain, which works if and only if it exists.
    pub(super) fn listing(&self) -> Self {
        let mut listing = self.clone();
        for argument in &mut listing.arguments {
            if argument == "-F" || argument == "-X" {
                "-S".clone_into(argument);
            }
        }
        listing
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.program, self.arguments.join(" "))
    }
}

/// A rule that jumps from a chain of another program into ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Jump {
    pub family: Family,
    pub table: &'static str,
    /// The chain of the other program.
    pub parent: &'static str,
    /// Our chain.
    pub chain: &'static str,
}

impl Jump {
    /// Succeeds if the rule exists.
    pub fn check(&self) -> Command {
        self.command("-C", "")
    }

    /// Inserts the rule as the first: after a rule that drops, it would never be reached.
    pub fn insert(&self) -> Command {
        self.command("-I", " 1")
    }

    /// The rule as iptables prints it.
    pub fn rule(&self) -> String {
        format!("-A {} -j {}", self.parent, self.chain)
    }

    /// Prints the first rule of the parent chain.
    pub fn first_rule(&self) -> Command {
        let Self { table, parent, .. } = self;
        Command::iptables(self.family, &format!("-t {table} -S {parent} 1"))
    }

    /// Moves the rule, which exists, to the first place. It is never missing in between.
    pub fn move_first(&self) -> Command {
        let Self {
            table,
            parent,
            chain,
            ..
        } = self;
        let input = format!("*{table}\n-D {parent} -j {chain}\n-I {parent} 1 -j {chain}\nCOMMIT\n");
        Command::restore(self.family, input)
    }

    /// Removes one copy of the rule; fails if there is none.
    pub fn delete(&self) -> Command {
        self.command("-D", "")
    }

    fn command(&self, action: &str, position: &str) -> Command {
        let Self {
            family,
            table,
            parent,
            chain,
        } = self;
        Command::iptables(
            *family,
            &format!("-t {table} {action} {parent}{position} -j {chain}"),
        )
    }
}

/// Empties and removes the chains of the jumps, after the jumps were removed. Fails for chains that
/// do not exist.
pub(super) fn chain_removal(jumps: &[Jump]) -> Vec<Command> {
    let mut chains: Vec<_> = jumps
        .iter()
        .map(|jump| (jump.family, jump.table, jump.chain))
        .collect();
    chains.dedup();
    let actions = chains.into_iter().flat_map(|(family, table, chain)| {
        ["-F", "-X"]
            .map(|action| Command::iptables(family, &format!("-t {table} {action} {chain}")))
    });
    actions.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jump(parent: &'static str, chain: &'static str) -> Jump {
        Jump {
            family: Family::V6,
            table: "filter",
            parent,
            chain,
        }
    }

    #[test]
    fn jump_is_checked_inserted_first_and_deleted() {
        let jump = jump("INPUT", "UC-INPUT");
        assert_eq!(
            jump.check().to_string(),
            "ip6tables -w 5 -t filter -C INPUT -j UC-INPUT"
        );
        assert_eq!(
            jump.insert().to_string(),
            "ip6tables -w 5 -t filter -I INPUT 1 -j UC-INPUT"
        );
        assert_eq!(
            jump.delete().to_string(),
            "ip6tables -w 5 -t filter -D INPUT -j UC-INPUT"
        );
        assert_eq!(
            jump.first_rule().to_string(),
            "ip6tables -w 5 -t filter -S INPUT 1"
        );
        assert_eq!(jump.rule(), "-A INPUT -j UC-INPUT");
        assert_eq!(
            jump.move_first().input,
            "*filter\n-D INPUT -j UC-INPUT\n-I INPUT 1 -j UC-INPUT\nCOMMIT\n"
        );
    }

    #[test]
    fn chain_with_two_jumps_is_removed_once() {
        let jumps = [
            jump("DOCKER-USER", "UC-FORWARD"),
            jump("FORWARD", "UC-FORWARD"),
        ];
        let removal = chain_removal(&jumps);
        let lines: Vec<_> = removal.iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "ip6tables -w 5 -t filter -F UC-FORWARD",
                "ip6tables -w 5 -t filter -X UC-FORWARD",
            ]
        );
        assert_eq!(
            removal[1].listing().to_string(),
            "ip6tables -w 5 -t filter -S UC-FORWARD"
        );
    }
}
