//! What a failure looks like to the user: wording, hints and exit code, all decided here.
//!
//! Commands return [`CliError`]. Every conversion from another module's error is in this file, so
//! one place decides how a failure is worded and which exit code it has. With `-o json`, a failure
//! is also a JSON document on stdout: [`CliError::to_json`].

mod kind;

use std::error::Error;
use std::fmt::Write as _;
use std::io;

use anstyle::{AnsiColor, Style};
#[cfg(test)]
pub(crate) use kind::exit_code_table;
pub(crate) use kind::{Kind, Signal};
use serde::Serialize;
use serde_json::{Map, Value, json};
use tonic::Status;
use uc_api::version::{SERVER_VERSION_KEY, VERSION};
use uc_api::{Code, Failure};

use crate::config::ConfigError;
use crate::connection::ConnectionError;
use crate::text;

/// A command's failure.
#[derive(Debug)]
pub(crate) struct CliError {
    pub(crate) kind: Kind,
    /// What failed, where and why, in lower case and without a full stop. Empty: nothing is
    /// printed, because the user has seen everything already.
    pub(crate) message: String,
    /// The cause, printed below the message.
    pub(crate) source: Option<Box<dyn Error + Send + Sync>>,
    /// What the user can do.
    pub(crate) hints: Vec<String>,
    /// A container's last lines, oldest first.
    pub(crate) log_tail: Vec<String>,
    /// For `-o json`: what the command knows besides the error, by key.
    document: Box<Map<String, Value>>,
}

/// The result of every command.
pub(crate) type CliResult<T = ()> = Result<T, CliError>;

impl CliError {
    /// A failure of this kind.
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
            hints: Vec::new(),
            log_tail: Vec::new(),
            document: Box::default(),
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

    /// [`Kind::Interrupted`]: Ctrl-C, SIGTERM or SIGHUP. The sender knows, so nothing is printed.
    pub(crate) fn interrupted(signal: Signal) -> Self {
        Self::new(Kind::Interrupted(signal), "")
    }

    /// [`Kind::Cancelled`]: a question was answered with no.
    pub(crate) fn cancelled() -> Self {
        Self::new(Kind::Cancelled, "cancelled; nothing was changed")
    }

    /// Adds the cause.
    pub(crate) fn source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Adds a hint, unless it is empty.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        let hint = hint.into();
        if !hint.is_empty() {
            self.hints.push(hint);
        }
        self
    }

    /// Adds several hints, or none.
    pub(crate) fn hints(mut self, hints: impl IntoIterator<Item = String>) -> Self {
        self.hints.extend(hints);
        self
    }

    /// Puts what was being done before the message.
    pub(crate) fn context(mut self, doing: impl AsRef<str>) -> Self {
        if !self.message.is_empty() {
            self.message = format!("{}: {}", doing.as_ref(), self.message);
        }
        self
    }

    /// Changes the kind, and with it the exit code.
    pub(crate) fn kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// Adds a key to the document that `-o json` prints.
    pub(crate) fn with_json(mut self, key: &str, value: &impl Serialize) -> Self {
        let value = serde_json::to_value(value).expect("our own types are valid JSON");
        self.document.insert(key.to_owned(), value);
        self
    }

    /// Adds all keys of an object to the document that `-o json` prints.
    pub(crate) fn with_json_of(mut self, object: &impl Serialize) -> Self {
        if let Ok(Value::Object(keys)) = serde_json::to_value(object) {
            self.document.extend(keys);
        }
        self
    }

    /// The failure as `-o json` prints it on stdout: what the command added with
    /// [`Self::with_json`], and the error itself.
    pub(crate) fn to_json(&self) -> Value {
        let message = if self.message.is_empty() {
            self.kind.name()
        } else {
            &self.message
        };
        let mut document = self.document.clone();
        let error = json!({
            "kind": self.kind.name(),
            "exit_code": self.kind.exit_code(),
            "message": message,
            "causes": self.causes(),
            "log": self.log_tail,
            "hints": self.hints,
        });
        document.insert("error".to_owned(), error);
        Value::Object(*document)
    }

    /// The chain of causes, outermost first, without those that the message already has.
    fn causes(&self) -> Vec<String> {
        let mut causes = Vec::new();
        let mut cause: Option<&dyn Error> =
            self.source.as_ref().map(|error| &**error as &dyn Error);
        while let Some(error) = cause {
            let line = error.to_string();
            if !self.message.contains(&line) {
                causes.push(line);
            }
            cause = error.source();
        }
        causes
    }

    /// The message and its causes as one text, for a warning.
    pub(crate) fn with_causes(&self) -> String {
        let mut parts = vec![self.message.clone()];
        parts.extend(self.causes());
        parts.join(": ")
    }

    /// The text for stderr, with colours, which the stream removes where they are not wanted. Empty
    /// if there is nothing to print.
    pub(crate) fn render(&self) -> String {
        let mut text = String::new();
        if self.message.is_empty() {
            return text;
        }
        if self.kind == Kind::Cancelled {
            _ = writeln!(text, "{}", self.message);
            return text;
        }
        let red = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
        let cyan = Style::new().bold().fg_color(Some(AnsiColor::Cyan.into()));
        let dim = Style::new().dimmed();
        _ = writeln!(
            text,
            "{red}error{red:#}: {}",
            text::lines(&self.message, "")
        );
        for cause in self.causes() {
            _ = writeln!(
                text,
                "  {dim}caused by{dim:#}: {}",
                text::lines(&cause, "    ")
            );
        }
        for line in &self.log_tail {
            _ = writeln!(text, "    {dim}|{dim:#} {}", text::of_container(line));
        }
        for hint in &self.hints {
            _ = writeln!(text, "{cyan}hint{cyan:#}: {}", text::lines(hint, "      "));
        }
        text
    }
}

impl CliError {
    /// A failed write to stdout. A closed pipe ends a command quietly, as with `uc ps | head`.
    pub(crate) fn stdout(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::new(Kind::BrokenPipe, "");
        }
        Self::failed("cannot write to stdout").source(error)
    }
}

impl From<Failure> for CliError {
    fn from(failure: Failure) -> Self {
        let kind = match failure.code {
            // A name that does not exist is a usage error, whether uc or the daemon finds out.
            Code::Invalid | Code::NotFound => Kind::Usage,
            Code::Unreachable | Code::WrongCluster => Kind::Partial,
            Code::TimedOut => Kind::TimedOut,
            Code::PlanChanged => Kind::PlanChanged,
            Code::Exists | Code::Refused | Code::Exhausted | Code::Version | Code::Internal => {
                Kind::Failed
            }
        };
        let mut error = Self::new(kind, failure.to_string()).hints(failure.hint);
        error.log_tail = failure.log_tail;
        error
    }
}

impl From<Status> for CliError {
    /// A failed call. A status that the transport made up means that the connection was lost.
    fn from(status: Status) -> Self {
        let server = status
            .metadata()
            .get(SERVER_VERSION_KEY)
            .and_then(|value| value.to_str().ok());
        let server = server.map(ToOwned::to_owned);
        if let Some(source) = transport_cause(&status) {
            if source.contains("Timeout expired") {
                return Self::new(Kind::TimedOut, "the machine did not answer in time")
                    .hint("it may be overloaded or cut off from the others: see `uc machine ls`");
            }
            return Self::new(Kind::Partial, "lost the connection to the machine")
                .source(source)
                .hint("the machine may have restarted or become unreachable: try again, or run `uc machine ls` through another machine");
        }
        let unsupported = status.code() == tonic::Code::Unimplemented;
        let mut failure = Failure::from(status);
        if unsupported {
            let (ucd, upgrade) = match &server {
                Some(version) => (
                    format!("ucd {version} on the machine"),
                    format!("or use uc {version} here"),
                ),
                None => (
                    "ucd on the machine".to_owned(),
                    "or use the machine's version here".to_owned(),
                ),
            };
            failure.message = format!("{ucd} does not support this command (uc is {VERSION})");
            failure.hint = Some(format!(
                "run install.sh of version {VERSION} on the machine, {upgrade}"
            ));
        }
        if failure.message.is_empty() {
            failure.message = format!(
                "the machine returned an error without a message ({:?})",
                failure.code
            );
        }
        Self::from(failure)
    }
}

/// Whether a call failed because the connection was lost, and not because the daemon refused it.
pub(crate) fn is_lost_connection(status: &Status) -> bool {
    transport_cause(status).is_some()
}

/// The innermost cause of a status that did not come from the daemon.
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
                "name a config file with `--config FILE`, or a machine with `--connect`".to_owned()
            }
            ConfigError::Syntax { path, .. } | ConfigError::Connection { path, .. } => format!(
                "correct the file, or move it away with `mv {0} {0}.broken`; `--connect` works without it",
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
        Self::failed("cannot write the answer as JSON").source(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(error: &CliError) -> String {
        anstream::adapter::strip_str(&error.render()).to_string()
    }

    #[test]
    fn error_text_has_message_cause_log_and_hint_in_this_order() {
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
    fn failure_of_the_daemon_keeps_machine_hint_and_log() {
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
    fn failure_codes_of_the_daemon_have_their_exit_codes() {
        let code = |code| CliError::from(Failure::new(code, "x")).kind.exit_code();
        assert_eq!(code(Code::Invalid), 2);
        assert_eq!(code(Code::NotFound), 2);
        assert_eq!(code(Code::Unreachable), 4);
        assert_eq!(code(Code::TimedOut), 5);
        assert_eq!(code(Code::Internal), 1);
        let ended_by = |signal| CliError::interrupted(signal).kind.exit_code();
        assert_eq!(ended_by(Signal::HangUp), 129);
        assert_eq!(ended_by(Signal::Interrupt), 130);
        assert_eq!(ended_by(Signal::Terminate), 143);
    }

    #[test]
    fn closed_stdout_is_not_an_error() {
        let error = CliError::stdout(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((error.kind.exit_code(), error.render()), (0, String::new()));
        let error = CliError::stdout(io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!(error.kind.exit_code(), 1);
    }

    #[test]
    fn unsupported_call_names_the_versions_and_what_to_install() {
        let mut status = Status::unimplemented("");
        status
            .metadata_mut()
            .insert(SERVER_VERSION_KEY, "0.0.9".parse().unwrap());
        let text = plain(&CliError::from(status));
        assert!(
            text.contains("ucd 0.0.9 on the machine does not support this command")
                && text.contains("or use uc 0.0.9 here"),
            "{text}"
        );
    }

    #[test]
    fn log_lines_of_a_container_cannot_control_the_terminal() {
        let mut error = CliError::failed("web\u{1b}[2J failed").hint("a\nb\u{7}");
        error.log_tail = vec![
            "\u{1b}[31mred\u{1b}[0m \u{1b}]0;title\u{7}\u{1b}[2J\u{1b}[1;1Hx\ry\tz".into(),
            "\u{9b}2Jc1".into(),
        ];
        let text = error.render();
        for line in text.lines() {
            let left = line.replace("\u{1b}[31m", "").replace("\u{1b}[0m", "");
            let ours = anstream::adapter::strip_str(&left).to_string();
            assert!(!ours.contains(|c: char| c.is_control()), "{line:?}");
            assert!(!line.contains("[2J") && !line.contains("title"), "{line:?}");
        }
        assert!(text.contains("\u{1b}[31mred"), "{text:?}");
    }

    #[test]
    fn error_as_json_has_the_keys_that_the_command_added() {
        let error = CliError::new(Kind::RolledBack, "web failed")
            .source(io::Error::other("disk full"))
            .hint("uc logs web")
            .with_json("plan", &["a"]);
        assert_eq!(
            error.to_json(),
            json!({
                "plan": ["a"],
                "error": {
                    "kind": "rolled-back",
                    "exit_code": 3,
                    "message": "web failed",
                    "causes": ["disk full"],
                    "log": [],
                    "hints": ["uc logs web"],
                },
            })
        );
        assert_eq!(
            CliError::interrupted(Signal::Interrupt).to_json()["error"]["message"],
            "interrupted"
        );
    }
}
