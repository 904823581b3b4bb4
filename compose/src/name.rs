//! The project's name.

use std::path::Path;

use uc_api::ProjectName;

use crate::node::{Node, Span};
use crate::report::Report;

/// Where a name may come from, by rank.
#[derive(Debug)]
pub(crate) struct Sources<'a> {
    /// `--project-name`
    pub(crate) option: Option<&'a str>,
    /// `COMPOSE_PROJECT_NAME`
    pub(crate) variable: Option<&'a str>,
    /// `name:`
    pub(crate) file: Option<&'a Node>,
    /// The last part of its path is made a name.
    pub(crate) directory: &'a Path,
}

/// The name of the highest rank. One that was given must be a name as it stands; a directory's is
/// made one. An invalid name is an error, and another name is returned.
pub(crate) fn choose(sources: &Sources<'_>, report: &mut Report) -> Option<ProjectName> {
    let from_file = sources
        .file
        .and_then(|node| Some((node.as_text()?, node.span)));
    let given = sources
        .option
        .map(|name| (name, Span::NOWHERE))
        .or_else(|| {
            sources
                .variable
                .filter(|name| !name.is_empty())
                .map(|name| (name, Span::NOWHERE))
        })
        .or_else(|| from_file.filter(|(name, _)| !name.is_empty()));
    let Some((name, span)) = given else {
        let path = sources.directory;
        // The root has no name; it is shown as it is.
        let directory = path
            .file_name()
            .unwrap_or(path.as_os_str())
            .to_string_lossy();
        return normalise(&directory).parse().ok().or_else(|| {
            report.invalid(
                Span::NOWHERE,
                format!("cannot make a project name from the directory `{directory}`"),
                "add `name:` at the top of the compose file, or use `--project-name`",
            );
            None
        });
    };
    match name.parse() {
        Ok(name) => Some(name),
        Err(error) => {
            let better = normalise(name);
            let hint = if better.parse::<ProjectName>().is_ok() {
                format!("for example `{better}`")
            } else {
                "choose another name".to_owned()
            };
            report.invalid(span, format!("{error}"), hint);
            None
        }
    }
}

/// As Compose makes a name of a directory: lower case, without what a name cannot have.
fn normalise(text: &str) -> String {
    let kept: String = text
        .to_lowercase()
        .chars()
        .filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_'))
        .collect();
    kept.trim_start_matches(['-', '_'])
        .chars()
        .take(uc_api::name::MAX_LABEL)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_directory(directory: &str) -> Option<String> {
        let sources = Sources {
            option: None,
            variable: None,
            file: None,
            directory: Path::new(directory),
        };
        choose(&sources, &mut Report::new(false)).map(|name| name.to_string())
    }

    #[test]
    fn directories_become_names() {
        for (directory, expected) in [
            ("/srv/My App.v2", Some("myappv2")),
            ("/srv/_-x_1", Some("x_1")),
            ("/srv/web", Some("web")),
            ("/", None),
            ("/ü", None),
        ] {
            assert_eq!(of_directory(directory).as_deref(), expected, "{directory}");
        }
    }

    #[test]
    fn rank_and_refusal() {
        let file = Node::text("from-file", Span::default());
        let mut sources = Sources {
            option: Some("option"),
            variable: Some("variable"),
            file: Some(&file),
            directory: Path::new("/dir"),
        };
        let mut report = Report::new(false);
        assert_eq!(choose(&sources, &mut report).unwrap().as_str(), "option");
        sources.option = None;
        assert_eq!(choose(&sources, &mut report).unwrap().as_str(), "variable");
        sources.variable = Some("");
        assert_eq!(choose(&sources, &mut report).unwrap().as_str(), "from-file");
        sources.file = None;
        assert_eq!(choose(&sources, &mut report).unwrap().as_str(), "dir");
        assert!(!report.has_errors());
        sources.option = Some("My Shop");
        assert_eq!(choose(&sources, &mut report), None);
        let diagnostics = report.finish();
        assert_eq!(diagnostics[0].hint.as_deref(), Some("for example `myshop`"));
    }
}
