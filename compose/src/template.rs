//! Image tag templates: `{{.Project}}/{{.Service}}:{{gitsha 7}}` and the like, as Uncloud has them.
//!
//! The part of Go's `text/template` that image names need: fields, three functions, and conditions
//! that are not nested. Everything else is refused. Pure: the state of git and the time are
//! parameters, [`TemplateFacts`].

mod date;
mod image;
mod parse;

pub(crate) use image::ImageTemplate;
use jiff::fmt::strtime;
use jiff::{Timestamp, tz};
use thiserror::Error;

/// Uncloud's default tag, which `.Tag` stands for.
const TAG: &str = r#"{{if .Git.IsRepo}}{{gitdate "2006-01-02-150405"}}.{{gitsha 7}}{{else}}{{date "2006-01-02-150405"}}{{end}}{{if .Git.IsDirty}}.dirty{{end}}"#;

/// What is wrong with a template.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub(crate) struct TemplateError {
    /// Lower case, no full stop.
    message: String,
    /// The next step.
    pub(crate) hint: String,
}

fn error(message: impl Into<String>, hint: impl Into<String>) -> TemplateError {
    TemplateError {
        message: message.into(),
        hint: hint.into(),
    }
}

/// The facts that a template can use.
#[derive(Debug, Clone, Copy)]
pub struct TemplateFacts<'a> {
    /// The repository that the project's directory is in, if it is in one that has a commit.
    pub git: Option<&'a GitFacts>,
    /// Seconds since 1970.
    pub now: i64,
    /// A time zone by its IANA name, or `Local`; `None`: no such zone is known.
    pub zone: fn(&str) -> Option<tz::TimeZone>,
}

/// The state of a Git repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitFacts {
    /// The checked-out commit: 40 (or 64) hexadecimal digits.
    pub sha: String,
    /// When it was committed, in seconds since 1970.
    pub committed_at: i64,
    /// There are changes that are not committed, new files among them.
    pub dirty: bool,
}

/// A template that can be evaluated: its syntax, its fields and functions are known.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Template(Vec<Piece>);

/// A part of a template.
#[derive(Debug, Clone, PartialEq)]
struct Piece {
    /// The condition that it depends on, and whether that must be true.
    only_if: Option<(Condition, bool)>,
    print: Print,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Condition {
    IsRepository,
    IsDirty,
}

#[derive(Debug, Clone, PartialEq)]
enum Print {
    Text(String),
    Project,
    Service,
    Tag,
    Condition(Condition),
    /// The commit, or as many of its digits.
    Sha(Option<usize>),
    Date {
        of: DateOf,
        /// In the syntax of `strftime`.
        form: String,
        /// `None` means UTC.
        zone: Option<String>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum DateOf {
    Now,
    Commit,
}

/// Whether a text contains a template.
pub(crate) fn is_template(text: &str) -> bool {
    text.contains("{{")
}

impl Template {
    /// Reads a template; everything that does not depend on git or the time is checked here.
    pub(crate) fn parse(text: &str) -> Result<Self, TemplateError> {
        parse::pieces(text).map(Self)
    }

    /// The text of the template with these facts.
    pub(crate) fn render(
        &self,
        project: &str,
        service: &str,
        facts: &TemplateFacts<'_>,
    ) -> Result<String, TemplateError> {
        let git = facts.git;
        let mut out = String::new();
        for piece in &self.0 {
            if piece
                .only_if
                .is_some_and(|(condition, wanted)| facts.is(condition) != wanted)
            {
                continue;
            }
            match &piece.print {
                Print::Text(text) => out.push_str(text),
                Print::Project => out.push_str(project),
                Print::Service => out.push_str(service),
                Print::Tag => out.push_str(&Self::parse(TAG)?.render(project, service, facts)?),
                Print::Condition(condition) => out.push_str(&facts.is(*condition).to_string()),
                Print::Sha(length) => {
                    let sha = git.map_or("", |git| git.sha.as_str());
                    let short = length.and_then(|length| sha.get(..length));
                    out.push_str(short.unwrap_or(sha));
                }
                Print::Date { of, form, zone } => {
                    let at = match of {
                        DateOf::Now => Some(facts.now),
                        DateOf::Commit => git.map(|git| git.committed_at),
                    };
                    if let Some(at) = at {
                        out.push_str(&facts.date(at, form, zone.as_deref())?);
                    }
                }
            }
        }
        Ok(out)
    }
}

impl TemplateFacts<'_> {
    fn is(&self, condition: Condition) -> bool {
        match condition {
            Condition::IsRepository => self.git.is_some(),
            Condition::IsDirty => self.git.is_some_and(|git| git.dirty),
        }
    }

    fn date(&self, at: i64, form: &str, zone: Option<&str>) -> Result<String, TemplateError> {
        let zone = match zone {
            None | Some("" | "UTC") => tz::TimeZone::UTC,
            Some(zone) => (self.zone)(zone).ok_or_else(|| {
                error(
                    format!("unknown time zone `{zone}` on this computer"),
                    "use a name such as `Europe/Oslo`; they come from the system's time zone files (package tzdata)",
                )
            })?,
        };
        Timestamp::from_second(at)
            .and_then(|at| strtime::format(form, &at.to_zoned(zone)))
            .map_err(|problem| {
                error(
                    format!("cannot print the date: {problem}"),
                    "correct the clock of this computer, or the date of the commit",
                )
            })
    }
}

#[cfg(test)]
mod tests;
