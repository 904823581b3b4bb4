//! Exit codes: what each kind of failure is called, which code it has, and the table that the
//! documentation shows.

#[cfg(test)]
use std::fmt::Write as _;

/// A signal that asks the program to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// SIGHUP: the terminal was closed.
    HangUp,
    /// SIGINT: Ctrl-C.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

/// The kind of a failure. It decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The command failed, and no kind below says more.
    Failed,
    /// A question was answered with no. Nothing was changed.
    Cancelled,
    /// The arguments, or a compose or config file, are invalid, or a name does not exist.
    Usage,
    /// A deployment failed and the previous revision serves again.
    RolledBack,
    /// A deployment failed and was left as it was at that moment, as the compose file asks.
    Paused,
    /// Partly applied, or a machine could not be reached.
    Partial,
    /// A time limit ran out.
    TimedOut,
    /// Ctrl-C, SIGTERM or SIGHUP.
    Interrupted(Signal),
    /// The reader of stdout closed it. Not an error.
    BrokenPipe,
    /// The plan is no longer the one that was confirmed. The deployment commands plan again; every
    /// other command fails.
    PlanChanged,
    /// The engine could not run a command in a container (125, as with Docker).
    Engine,
}

impl Kind {
    #[cfg(test)]
    /// All kinds, in the order of their exit codes.
    const ALL: [Self; 13] = [
        Self::BrokenPipe,
        Self::Failed,
        Self::Cancelled,
        Self::PlanChanged,
        Self::Usage,
        Self::RolledBack,
        Self::Paused,
        Self::Partial,
        Self::TimedOut,
        Self::Engine,
        Self::Interrupted(Signal::HangUp),
        Self::Interrupted(Signal::Interrupt),
        Self::Interrupted(Signal::Terminate),
    ];

    /// The exit code of `uc`. `docs/errors-and-exit-codes.md` promises these.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::BrokenPipe => 0,
            Self::Failed | Self::Cancelled | Self::PlanChanged => 1,
            Self::Usage => 2,
            Self::RolledBack | Self::Paused => 3,
            Self::Partial => 4,
            Self::TimedOut => 5,
            Self::Engine => 125,
            // As for a process that the signal has ended: 128 and the signal's number.
            Self::Interrupted(Signal::HangUp) => 129,
            Self::Interrupted(Signal::Interrupt) => 130,
            Self::Interrupted(Signal::Terminate) => 143,
        }
    }

    /// The kind's name in JSON. Never changes.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::BrokenPipe => "broken-pipe",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::PlanChanged => "plan-changed",
            Self::Usage => "usage",
            Self::RolledBack => "rolled-back",
            Self::Paused => "paused",
            Self::Partial => "partial",
            Self::TimedOut => "timed-out",
            Self::Engine => "engine",
            Self::Interrupted(Signal::HangUp) => "hung-up",
            Self::Interrupted(Signal::Interrupt) => "interrupted",
            Self::Interrupted(Signal::Terminate) => "terminated",
        }
    }

    #[cfg(test)]
    /// What the documentation says about the kind.
    fn meaning(self) -> &'static str {
        match self {
            Self::BrokenPipe => "done, or nothing to do",
            Self::Failed => {
                "failed; `uc doctor`: found problems; `uc deployments cancel`: the deployment had \
                 ended"
            }
            Self::Cancelled => "a question was answered with no; nothing was changed",
            Self::PlanChanged => "the plan kept changing until `uc` gave up; nothing was changed",
            Self::Usage => {
                "invalid arguments, a name that does not exist, or an error in a compose or config file"
            }
            Self::RolledBack => {
                "the deployment failed or was cancelled, and was rolled back: the previous \
                 revision serves again; \
                 after a first deployment, nothing is left running"
            }
            Self::Paused => {
                "the deployment failed and was paused, as `failure_action: pause` asks: new and \
                 old replicas were left running"
            }
            Self::Partial => {
                "partly applied (also where `failure_action: continue` or `max_failure_ratio` \
                 tolerates a failure), or a machine could not be reached, or another deployment \
                 superseded this one"
            }
            Self::TimedOut => "timed out",
            Self::Engine => "`uc exec`: the engine could not run the command",
            Self::Interrupted(Signal::HangUp) => {
                "the terminal was closed (SIGHUP); a deployment that has started continues"
            }
            Self::Interrupted(Signal::Interrupt) => {
                "interrupted (Ctrl-C); a deployment that has started continues"
            }
            Self::Interrupted(Signal::Terminate) => {
                "terminated (SIGTERM); a deployment that has started continues"
            }
        }
    }
}

#[cfg(test)]
/// The table of exit codes in Markdown: one row for each kind, and the codes of `uc exec`.
pub(crate) fn exit_code_table() -> String {
    let mut table = String::from("| code | in JSON | meaning |\n|---|---|---|\n");
    for kind in Kind::ALL {
        if kind == Kind::Engine {
            table.push_str("| 10 | | `uc plan`: there are changes |\n");
        }
        let name = match kind {
            Kind::BrokenPipe => String::new(),
            _ => format!("`{}`", kind.name()),
        };
        _ = writeln!(
            table,
            "| {} | {name} | {} |",
            kind.exit_code(),
            kind.meaning()
        );
    }
    table.push_str(
        "| 126, 127 | | `uc exec`: the command is not executable, or was not found |\n\
         | other | | `uc exec`: the exit code of the command |\n",
    );
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_code_table_has_every_kind_once() {
        let mut names: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Kind::ALL.len());
        let codes = Kind::ALL.map(Kind::exit_code);
        assert!(codes.is_sorted(), "{codes:?}");
    }

    /// `UC_UPDATE_DOCS=1` writes the table into the page.
    #[test]
    fn exit_code_table_is_the_one_in_the_documentation() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../docs/errors-and-exit-codes.md"
        );
        let page = std::fs::read_to_string(path).unwrap();
        let (before, rest) = page.split_once("## Exit codes of `uc`\n\n").unwrap();
        let (_, after) = rest.split_once("\n\n").unwrap();
        let wanted = format!(
            "{before}## Exit codes of `uc`\n\n{}\n{after}",
            exit_code_table()
        );
        if std::env::var_os("UC_UPDATE_DOCS").is_some() {
            std::fs::write(path, &wanted).unwrap();
            return;
        }
        assert!(
            page == wanted,
            "the table of exit codes is out of date: run `UC_UPDATE_DOCS=1 cargo test -p uc-cmd`"
        );
    }
}
