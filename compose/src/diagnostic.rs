//! What is wrong or not honoured in a compose file, and where.
//!
//! Diagnostics are data: [`crate::render()`] prints them as rustc does, and they serialise for
//! machine-readable output. A load collects all of them instead of stopping at the first.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Whether the file can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It cannot: nothing is deployed.
    Error,
    /// It can, but something in it will not do what it says.
    Warning,
}

/// What kind of problem it is: stable names, for tools and tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// The text is not YAML, or not the YAML that a compose file is (duplicate keys, tabs, alias
    /// bombs).
    Syntax,
    /// A key that no compose file has.
    UnknownKey,
    /// A key of the specification that is read, but not acted on. An error with `strict`.
    NotHonoured,
    /// A key of the specification that would change what runs so much that ignoring it is no
    /// option.
    Refused,
    /// A value of the wrong type or outside what is allowed.
    Value,
    /// A variable: bad syntax, required but not set, not set at all.
    Variable,
    /// Something that is named but not declared, or declared in a circle.
    Reference,
    /// A file that is missing, unreadable or too large.
    File,
}

/// One problem, at one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// Kind of problem.
    pub rule: Rule,
    /// The file as it was named in the request.
    pub file: PathBuf,
    /// From 1. 0: the file as a whole, no line of it.
    pub line: usize,
    /// From 1, in characters. 0 when `line` is 0.
    pub column: usize,
    /// Characters that are underlined from `column` on, within the line; at least 1.
    pub length: usize,
    /// Where in the document, in dots: `services.web.ports[0]`. Empty: nowhere in particular.
    pub path: String,
    /// Lower case, no full stop: what is wrong and why.
    pub message: String,
    /// Short text under the snippet, such as what was expected.
    pub label: Option<String>,
    /// The next step.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// The service that it is about, from its path. `None` means that it is not about one service.
    pub fn service(&self) -> Option<&str> {
        let below = self.path.strip_prefix("services.")?;
        below.split(['.', '[']).next()
    }
}
