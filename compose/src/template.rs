//! Image tag templates: `{{.Project}}/{{.Service}}:{{gitsha 7}}` and the like, as Uncloud has them.
//!
//! The part of Go's `text/template` that image names need: fields, the functions below, pipelines,
//! `if`/`else`/`end`, comments and trim marks. Pure: what git says and what time it is come in as
//! [`TemplateFacts`]. Loops, variables and definitions are refused by name.

mod evaluate;
mod image;
mod layout;
mod parse;

pub(crate) use image::ImageTemplate;
use parse::Item;
use thiserror::Error;

/// Deepest nesting of a template (bounds recursion).
const MAX_DEPTH: usize = 32;

/// Uncloud's default tag, which `.Tag` stands for.
const TAG: &str = r#"{{if .Git.IsRepo}}{{gitdate "2006-01-02-150405"}}.{{gitsha 7}}{{if .Git.IsDirty}}.dirty{{end}}{{else}}{{date "2006-01-02-150405"}}{{end}}"#;

/// What is wrong with a template.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub(crate) struct TemplateError {
    /// Lower case, no full stop.
    message: String,
    /// The next step.
    pub(crate) hint: String,
}

impl TemplateError {
    fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: hint.into(),
        }
    }
}

/// Offset from UTC in seconds, and its abbreviation, of a zone at a time in seconds since 1970;
/// `None`: no such zone is known.
pub type Zones = dyn Fn(&str, i64) -> Option<(i32, String)>;

/// The facts that a template can use.
#[derive(Clone, Copy)]
pub struct TemplateFacts<'a> {
    /// The repository that the project's directory is in, if it is in one that has a commit.
    pub git: Option<&'a GitFacts>,
    /// Seconds since 1970.
    pub now: i64,
    /// Time zones by IANA name, and `Local`.
    pub zone: &'a Zones,
}

impl std::fmt::Debug for TemplateFacts<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TemplateFacts")
            .field("git", &self.git)
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
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
pub(crate) struct Template(Vec<Item>);

/// Whether a text contains a template.
pub(crate) fn is_template(text: &str) -> bool {
    text.contains("{{")
}

impl Template {
    /// Reads a template; whatever does not depend on git or the time is checked here.
    pub(crate) fn parse(text: &str) -> Result<Self, TemplateError> {
        parse::items(text).map(Self)
    }

    /// The text of the template with these facts.
    pub(crate) fn render(
        &self,
        project: &str,
        service: &str,
        facts: &TemplateFacts<'_>,
    ) -> Result<String, TemplateError> {
        evaluate::render(
            &self.0,
            &evaluate::Scope {
                project,
                service,
                facts,
            },
        )
    }
}

#[cfg(test)]
mod tests;
