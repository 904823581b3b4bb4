//! What a command's failure looks like to a person: wording, hints and exit code, all decided here.
//!
//! Commands return [`CliError`]; every conversion from another module's error is in this file, so
//! that one place knows how a failure is worded and which exit code it gets.

use std::error::Error;
use std::fmt::Write as _;
use std::io;

use anstyle::{AnsiColor, Style};
use tonic::Status;
use uc_api::version::{SERVER_VERSION_KEY, VERSION};
use uc_api::{Code, Failure};

use crate::config::ConfigError;
use crate::connection::ConnectionError;

/// Decides the exit code; `docs/cli.md` lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It did not work and nothing more special is known.
    Failed,
    /// What was typed, or a compose or config file, makes no sense.
    Usage,
    /// A deployment failed and the previous revision serves again.
    RolledBack,
    /// A deployment failed and was left where it was, as its file asks for.
    Paused,
    /// Partly applied, or a machine could not be reached.
    Partial,
    /// It took longer than it may.
    TimedOut,
    /// Ctrl-C.
    Interrupted,
    /// The reader of our output went away: no error.
    BrokenPipe,
    /// The plan is no longer the one that was agreed to. Handled by the deployment commands; fails
    /// anywhere else.
    PlanChanged,
    /// A command could not be run in a container at all (125, as with Docker).
    Engine,
}

impl Kind {
    /// The exit code of the contract.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::BrokenPipe => 0,
            Self::Failed | Self::PlanChanged => 1,
            Self::Usage => 2,
            Self::RolledBack | Self::Paused => 3,
            Self::Partial => 4,
            Self::TimedOut => 5,
            Self::Engine => 125,
            Self::Interrupted => 130,
        }
    }
}

/// A command's failure.
#[derive(Debug)]
pub(crate) struct CliError {
    pub(crate) kind: Kind,
    /// Lower case, no full stop: what failed, where, why. Empty: everything was said already.
    pub(crate) message: String,
    /// What it came from, printed below the message.
    pub(crate) source: Option<Box<dyn Error + Send + Sync>>,
    /// What to do about it.
    pub(crate) hints: Vec<String>,
    /// A container's last lines, oldest first.
    pub(crate) log_tail: Vec<String>,
}

/// What every command returns.
pub(crate) type CliResult<T = ()> = Result<T, CliError>;

impl CliError {
    /// A failure of a kind, with its message.
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
            hints: Vec::new(),
            log_tail: Vec::new(),
        }
    }

    /// [`Kind::Failed`].
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }

    /// [`Kind::Usage`].
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// Ctrl-C, or a question answered with no.
    pub(crate) fn interrupted() -> Self {
        Self::new(Kind::Interrupted, "")
    }

    /// With what it came from.
    pub(crate) fn source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// With one more thing to do about it. An empty text is left out.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        let hint = hint.into();
        if !hint.is_empty() {
            self.hints.push(hint);
        }
        self
    }

    /// With what was being done, put before the message.
    pub(crate) fn context(mut self, doing: impl AsRef<str>) -> Self {
        if !self.message.is_empty() {
            self.message = format!("{}: {}", doing.as_ref(), self.message);
        }
        self
    }

    /// With another exit code.
    pub(crate) fn kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// The text for stderr, with colours (the stream takes them out where they are not wanted).
    /// Empty if there is nothing to say.
    pub(crate) fn render(&self) -> String {
        let mut text = String::new();
        if self.message.is_empty() {
            return text;
        }
        let red = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
        let cyan = Style::new().bold().fg_color(Some(AnsiColor::Cyan.into()));
        let dim = Style::new().dimmed();
        _ = writeln!(text, "{red}error{red:#}: {}", self.message);
        let mut cause: Option<&dyn Error> =
            self.source.as_ref().map(|error| &**error as &dyn Error);
        while let Some(error) = cause {
            let line = error.to_string();
            if !self.message.contains(&line) {
                _ = writeln!(
                    text,
                    "  {dim}caused by{dim:#}: {}",
                    line.replace('\n', "\n    ")
                );
            }
            cause = error.source();
        }
        for line in &self.log_tail {
            _ = writeln!(text, "    {dim}|{dim:#} {line}");
        }
        for hint in &self.hints {
            _ = writeln!(
                text,
                "{cyan}hint{cyan:#}: {}",
                hint.replace('\n', "\n      ")
            );
        }
        text
    }
}

impl From<io::Error> for CliError {
    /// For writes to stdout and stderr; other I/O says which file it was about by
    /// [`CliError::source`].
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::new(Kind::BrokenPipe, "");
        }
        Self::failed("the output could not be written").source(error)
    }
}

impl From<Failure> for CliError {
    fn from(failure: Failure) -> Self {
        let kind = match failure.code {
            Code::Invalid => Kind::Usage,
            Code::Unreachable | Code::WrongCluster => Kind::Partial,
            Code::TimedOut => Kind::TimedOut,
            Code::PlanChanged => Kind::PlanChanged,
            Code::NotFound
            | Code::Exists
            | Code::Refused
            | Code::Exhausted
            | Code::Version
            | Code::Internal => Kind::Failed,
        };
        let mut error = Self::new(kind, failure.to_string()).hint(failure.hint.unwrap_or_default());
        error.log_tail = failure.log_tail;
        error
    }
}

impl From<Status> for CliError {
    /// A call's failure. Statuses that the transport made up itself say that the connection broke.
    fn from(status: Status) -> Self {
        let server = status
            .metadata()
            .get(SERVER_VERSION_KEY)
            .and_then(|value| value.to_str().ok());
        let server = server.map(ToOwned::to_owned);
        if let Some(source) = transport_cause(&status) {
            if source.contains("Timeout expired") {
                return Self::new(Kind::TimedOut, "the machine did not answer in time")
                    .hint("it may be overloaded or cut off from the others; see `uc machine ls`");
            }
            return Self::new(Kind::Partial, "the connection to the machine broke")
                .source(source)
                .hint("the machine may have restarted or become unreachable; try again, or see `uc machine ls` through another machine");
        }
        let unknown_call = status.code() == tonic::Code::Unimplemented;
        let mut failure = Failure::from(status);
        if unknown_call {
            let theirs = server.as_deref().unwrap_or("of another version");
            failure.message =
                format!("the machine's ucd {theirs} does not know this call of uc {VERSION}");
            failure.hint = Some(format!(
                "bring both to one version: run install.sh of {VERSION} on the machine, or of ucd's version here"
            ));
        }
        if failure.message.is_empty() {
            failure.message = format!(
                "the machine answered with an error ({:?}) and no message",
                failure.code
            );
        }
        Self::from(failure)
    }
}

/// The text of what broke, if the status did not come from the daemon.
fn transport_cause(status: &Status) -> Option<String> {
    let source = status.source()?;
    let mut innermost: &dyn Error = source;
    while let Some(deeper) = innermost.source() {
        innermost = deeper;
    }
    Some(innermost.to_string())
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        let kind = match &error {
            ConfigError::Syntax { .. } | ConfigError::Connection { .. } => Kind::Usage,
            ConfigError::NoHome | ConfigError::Read { .. } | ConfigError::Write { .. } => {
                Kind::Failed
            }
        };
        let hint = match &error {
            ConfigError::NoHome => {
                "name one with `--config FILE`, or a machine with `--connect`".to_owned()
            }
            ConfigError::Syntax { path, .. } | ConfigError::Connection { path, .. } => format!(
                "correct it by hand, or move it away: `mv {0} {0}.broken`; `--connect` works without it",
                path.display()
            ),
            ConfigError::Read { .. } | ConfigError::Write { .. } => String::new(),
        };
        let mut wrapped = Self::new(kind, error.to_string()).hint(hint);
        wrapped.source = match error {
            ConfigError::Syntax { source, .. } => {
                Some(source.to_string().trim_end().to_owned().into())
            }
            ConfigError::Read { source, .. } | ConfigError::Write { source, .. } => {
                Some(source.into())
            }
            ConfigError::NoHome | ConfigError::Connection { .. } => None,
        };
        wrapped
    }
}

impl From<ConnectionError> for CliError {
    fn from(error: ConnectionError) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<uc_api::name::NameError> for CliError {
    fn from(error: uc_api::name::NameError) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<uc_api::endpoint::EndpointError> for CliError {
    fn from(error: uc_api::endpoint::EndpointError) -> Self {
        Self::usage(error.to_string()).hint(error.hint())
    }
}

impl From<uc_api::token::TokenError> for CliError {
    fn from(error: uc_api::token::TokenError) -> Self {
        Self::usage(error.to_string()).hint("`uc machine token` on a member prints a new one")
    }
}

impl From<serde_json::Error> for CliError {
    fn from(error: serde_json::Error) -> Self {
        Self::failed("the answer could not be written as JSON").source(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(error: &CliError) -> String {
        anstream::adapter::strip_str(&error.render()).to_string()
    }

    #[test]
    fn an_error_has_message_cause_log_and_hint_in_this_order() {
        let mut error = CliError::failed("web on m1 exited with code 1")
            .source(io::Error::other("disk full"))
            .hint("uc logs web")
            .hint("");
        error.log_tail = vec!["panic: no".into()];
        insta::assert_snapshot!(plain(&error), @r"
        error: web on m1 exited with code 1
          caused by: disk full
            | panic: no
        hint: uc logs web
        ");
    }

    #[test]
    fn a_failure_keeps_machine_hint_and_log() {
        let failure = Failure::new(Code::Refused, "port 80 is taken")
            .on("m2")
            .hint("free it");
        let error = CliError::from(Status::from(failure));
        assert_eq!(error.kind, Kind::Failed);
        insta::assert_snapshot!(plain(&error), @r"
        error: m2: port 80 is taken
        hint: free it
        ");
    }

    #[test]
    fn each_failure_has_its_exit_code() {
        let code = |code| CliError::from(Failure::new(code, "x")).kind.exit_code();
        assert_eq!(code(Code::Invalid), 2);
        assert_eq!(code(Code::Unreachable), 4);
        assert_eq!(code(Code::TimedOut), 5);
        assert_eq!(code(Code::Internal), 1);
        assert_eq!(CliError::interrupted().kind.exit_code(), 130);
    }

    #[test]
    fn a_broken_pipe_is_no_error() {
        let error = CliError::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((error.kind.exit_code(), error.render()), (0, String::new()));
    }

    #[test]
    fn an_unknown_call_says_what_to_upgrade() {
        let mut status = Status::unimplemented("");
        status
            .metadata_mut()
            .insert(SERVER_VERSION_KEY, "0.0.9".parse().unwrap());
        let text = plain(&CliError::from(status));
        assert!(
            text.contains("ucd 0.0.9") && text.contains("hint: bring both to one version"),
            "{text}"
        );
    }
}
