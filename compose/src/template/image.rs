//! A service's image whose name is a template.

use super::{Template, TemplateFacts};
use crate::diagnostic::{Diagnostic, Severity};

/// A template, and its place in the file.
#[derive(Debug, Clone)]
pub(crate) struct ImageTemplate {
    pub(crate) template: Template,
    /// A diagnostic of this place without a message.
    pub(crate) place: Diagnostic,
}
impl ImageTemplate {
    /// The name, or what is wrong with it.
    pub(crate) fn render(
        &self,
        project: &str,
        service: &str,
        facts: &TemplateFacts<'_>,
    ) -> Result<String, Box<Diagnostic>> {
        let wrong = |message: String, hint: String| {
            Box::new(Diagnostic {
                severity: Severity::Error,
                message,
                hint: Some(hint),
                ..self.place.clone()
            })
        };
        let name = self
            .template
            .render(project, service, facts)
            .map_err(|error| wrong(error.to_string(), error.hint))?;
        match problem(&name) {
            Some(problem) => Err(wrong(
                format!("the template gives `{name}`, which is not a valid image name: {problem}"),
                "without a Git repository, `gitsha` and `gitdate` are empty; test for one with `{{if .Git.IsRepo}}`"
                    .to_owned(),
            )),
            None => Ok(name),
        }
    }
}

/// What no image's name can have.
fn problem(name: &str) -> Option<&'static str> {
    let tail = name.rsplit_once('/').map_or(name, |(_, tail)| tail);
    let tag = tail
        .split_once('@')
        .map_or(tail, |(name, _)| name)
        .split_once(':')
        .map(|(_, tag)| tag);
    let possible = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    match tag {
        Some("") => Some("its tag is empty"),
        Some(tag) if tag.len() > 128 => Some("its tag is longer than 128 characters"),
        Some(tag) if tag.starts_with(['.', '-']) || !tag.chars().all(possible) => Some(
            "a tag can have letters, digits, `_`, `.` and `-`, and cannot begin with `.` or `-`",
        ),
        _ if tail.is_empty() || name.contains(char::is_whitespace) => {
            Some("it is empty or has a space")
        }
        _ => None,
    }
}
