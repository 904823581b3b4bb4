//! The names of images, and those that are templates.

use std::collections::BTreeMap;

use crate::diagnostic::{Diagnostic, Rule, Severity};
use crate::node::Node;
use crate::report::{Place, Report};
use crate::template::{Template, TemplateFacts, is_template};

/// A service's image that says how its name is made.
#[derive(Debug, Clone)]
pub(crate) struct ImageTemplate {
    template: Template,
    /// Where it stands; what is wrong is written in when it is known.
    place: Diagnostic,
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

/// The templates among the images, by service.
pub(crate) fn templates(tree: &Node, report: &mut Report) -> BTreeMap<String, ImageTemplate> {
    let mut templates = BTreeMap::new();
    let report = &mut report.at("services");
    for (name, entry) in tree.get("services").into_iter().flat_map(Node::entries) {
        let Some(node) = entry.node.get("image") else {
            continue;
        };
        let Some(text) = node.as_text().filter(|text| is_template(text)) else {
            continue;
        };
        let report = &mut report.at(name);
        let report = &mut report.at("image");
        match Template::parse(text) {
            Ok(template) => {
                let place = report.blank(Rule::Refused, node.span);
                templates.insert(name.clone(), ImageTemplate { template, place });
            }
            Err(error) => report
                .error(Rule::Refused, node.span, error.to_string())
                .hint(error.hint),
        }
    }
    templates
}

/// What no image's name can have.
fn problem(name: &str) -> Option<&'static str> {
    let tail = name.rsplit('/').next().unwrap_or_default();
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
