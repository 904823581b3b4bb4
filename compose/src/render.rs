//! Prints diagnostics as rustc does: message, place, the line of the file, label, hint.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use crate::diagnostic::{Diagnostic, Severity};
use crate::request::SourceFile;

/// Columns of the rendered text where no terminal has a width.
const WIDTH: usize = 120;

/// Fewer columns leave no room for a line of the file.
const NARROWEST: usize = 40;
/// More columns do not make a message clearer.
const WIDEST: usize = 200;

/// More warnings than this are shown in short form before a deployment.
const WARNINGS_IN_FULL: usize = 3;
/// Services that the short form names; the rest are counted.
const NAMED_SERVICES: usize = 4;

/// Bytes of a line that is shown. A longer line is minified text, which can have megabytes.
const LONGEST_SHOWN_LINE: usize = 4_000;

/// All diagnostics as text, each followed by an empty line. With `color`, the text has ANSI
/// escapes.
pub fn render(diagnostics: &[Diagnostic], sources: &[SourceFile], color: bool) -> String {
    render_within(diagnostics, sources, color, WIDTH)
}

/// [`render`] for a terminal of `width` columns. Of a longer line, the part around the place is
/// shown.
pub fn render_within(
    diagnostics: &[Diagnostic],
    sources: &[SourceFile],
    color: bool,
    width: usize,
) -> String {
    let renderer = renderer(color, width);
    let mut out = String::new();
    for diagnostic in diagnostics {
        out.push_str(&renderer.render(&[group(diagnostic, sources)]));
        out.push_str("\n\n");
    }
    out
}

/// Diagnostics for a command that does more than check the file: errors, or few warnings, as
/// [`render_within`] prints them. Of many warnings, those with the same text are printed once,
/// without the lines of the file, and a hint once for those that follow each other.
pub fn render_summary(
    diagnostics: &[Diagnostic],
    sources: &[SourceFile],
    color: bool,
    width: usize,
) -> String {
    let is_warning = |d: &&Diagnostic| d.severity == Severity::Warning;
    let warnings: Vec<&Diagnostic> = diagnostics.iter().filter(is_warning).collect();
    if warnings.len() < diagnostics.len() || warnings.len() <= WARNINGS_IN_FULL {
        return render_within(diagnostics, sources, color, width);
    }
    let mut groups: Vec<Vec<&Diagnostic>> = Vec::new();
    for warning in warnings {
        let same = |group: &&mut Vec<&Diagnostic>| {
            let first = group.first();
            first.is_some_and(|first| first.message == warning.message)
        };
        match groups.iter_mut().find(same) {
            Some(group) => group.push(warning),
            None => groups.push(vec![warning]),
        }
    }
    let renderer = renderer(color, width);
    let mut out = String::new();
    for (index, diagnostics) in groups.iter().enumerate() {
        let [first, others @ ..] = diagnostics.as_slice() else {
            continue;
        };
        let next = groups.get(index + 1).and_then(|next| next.first());
        let hint = first
            .hint
            .as_deref()
            .filter(|hint| next.and_then(|next| next.hint.as_deref()) != Some(*hint));
        out.push_str(&renderer.render(&[short_group(first, others, hint)]));
        out.push('\n');
    }
    out.push('\n');
    out
}

fn renderer(color: bool, width: usize) -> Renderer {
    let width = width.clamp(NARROWEST, WIDEST);
    let renderer = if color {
        Renderer::styled()
    } else {
        Renderer::plain()
    };
    renderer.term_width(width)
}

/// A warning with its place, and the services of the others with the same text.
fn short_group<'a>(
    first: &'a Diagnostic,
    others: &[&Diagnostic],
    hint: Option<&'a str>,
) -> Group<'a> {
    let mut origin = annotate_snippets::Origin::path(first.file.to_string_lossy());
    if first.line > 0 {
        origin = origin.line(first.line).char_column(first.column);
    }
    let mut group = Group::with_title(Level::WARNING.primary_title(single_line(&first.message)))
        .element(origin);
    if !others.is_empty() {
        group = group.element(Level::NOTE.message(also_in(first, others)));
    }
    if let Some(hint) = hint {
        group = group.element(Level::HELP.with_name("hint").message(single_line(hint)));
    }
    group
}

/// Where the same was found again: "also in the services `a`, `b` and 3 more".
fn also_in(first: &Diagnostic, others: &[&Diagnostic]) -> String {
    let mut services: Vec<&str> = Vec::new();
    for service in others.iter().filter_map(|other| other.service()) {
        if first.service() != Some(service) && !services.contains(&service) {
            services.push(service);
        }
    }
    let names: Vec<String> = services
        .iter()
        .take(NAMED_SERVICES)
        .map(|name| format!("`{}`", single_line(name)))
        .collect();
    let more = services.len().saturating_sub(NAMED_SERVICES);
    match (services.len(), more) {
        (0, _) if others.len() == 1 => "also in 1 more place".to_owned(),
        (0, _) => format!("also in {} more places", others.len()),
        (1, _) => format!("also in service {}", names.concat()),
        (_, 0) => format!("also in the services {}", names.join(", ")),
        _ => format!("also in the services {} and {more} more", names.join(", ")),
    }
}

fn group<'a>(diagnostic: &'a Diagnostic, sources: &'a [SourceFile]) -> Group<'a> {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = level.primary_title(single_line(&diagnostic.message));
    let source = sources.iter().find(|source| source.path == diagnostic.file);
    let line = source.and_then(|source| nth_line(&source.text, diagnostic.line));
    let path = diagnostic.file.to_string_lossy();
    let mut group = match line {
        Some(text) if text.len() <= LONGEST_SHOWN_LINE => {
            let start = byte_of_column(text, diagnostic.column.saturating_sub(1));
            let end = byte_of_column(
                text,
                diagnostic.column.saturating_sub(1) + diagnostic.length.max(1),
            )
            .max(start);
            let mut annotation = AnnotationKind::Primary.span(start..end);
            if let Some(label) = &diagnostic.label {
                annotation = annotation.label(single_line(label));
            }
            Group::with_title(title).element(
                Snippet::source(text)
                    .line_start(diagnostic.line)
                    .path(path)
                    .annotation(annotation),
            )
        }
        _ if diagnostic.line > 0 => Group::with_title(title).element(
            annotate_snippets::Origin::path(path)
                .line(diagnostic.line)
                .char_column(diagnostic.column),
        ),
        _ if !path.is_empty() => {
            Group::with_title(title).element(annotate_snippets::Origin::path(path))
        }
        _ => Group::with_title(title),
    };
    if let Some(hint) = &diagnostic.hint {
        group = group.element(Level::HELP.with_name("hint").message(single_line(hint)));
    }
    group
}

/// Messages contain values of the file: a line break in one must not start what looks like another
/// diagnostic.
fn single_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

fn nth_line(text: &str, line: usize) -> Option<&str> {
    let text = text.split('\n').nth(line.checked_sub(1)?)?;
    Some(text.strip_suffix('\r').unwrap_or(text))
}

fn byte_of_column(line: &str, column: usize) -> usize {
    line.char_indices()
        .nth(column)
        .map_or(line.len(), |(byte, _)| byte)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::diagnostic::Rule;

    fn diagnostic(line: usize, column: usize, length: usize) -> Diagnostic {
        Diagnostic {
            severity: Severity::Error,
            rule: Rule::Value,
            file: PathBuf::from("compose.yaml"),
            line,
            column,
            length,
            path: "services.web".into(),
            message: "wrong\nthing".into(),
            label: Some("here".into()),
            hint: Some("do that".into()),
        }
    }

    fn source(text: &str) -> SourceFile {
        SourceFile {
            path: PathBuf::from("compose.yaml"),
            text: text.into(),
        }
    }

    #[test]
    fn render_underlines_the_place() {
        let text = render(
            &[diagnostic(2, 5, 3)],
            &[source("services:\n  wéb: x\n")],
            false,
        );
        insta::assert_snapshot!(text);
    }

    #[test]
    fn render_without_line_shows_the_file() {
        insta::assert_snapshot!(render(&[diagnostic(0, 0, 0)], &[], false));
        insta::assert_snapshot!(render(&[diagnostic(7, 3, 1)], &[source("one line")], false));
    }

    #[test]
    fn render_survives_wrong_columns_and_long_lines() {
        for (line, column, length) in [(1, 99, 5), (1, 1, 999), (2, 1, 1), (3, 1, 1)] {
            assert!(
                render(
                    &[diagnostic(line, column, length)],
                    &[source("a: b\n")],
                    true
                )
                .contains("wrong thing")
            );
        }
        let long = render(
            &[diagnostic(1, 1, 1)],
            &[source(&"x".repeat(100_000))],
            false,
        );
        assert!(long.len() < 1_000, "{}", long.len());
    }

    fn warning(service: &str, message: &str, hint: &str) -> Diagnostic {
        Diagnostic {
            severity: Severity::Warning,
            path: format!("services.{service}.key"),
            message: message.into(),
            hint: Some(hint.into()),
            ..diagnostic(2, 5, 3)
        }
    }

    #[test]
    fn summary_groups_many_warnings_by_their_text() {
        let mut found: Vec<_> = ["a", "b", "c", "d", "e", "f", "g"]
            .iter()
            .map(|service| warning(service, "`x` is ignored: because", "remove it"))
            .collect();
        found.push(warning("a", "`y` is ignored: because", "remove it"));
        found.push(warning("a", "`z` is ignored: because", "use `w`"));
        found.push(warning("a", "`z` is ignored: because", "use `w`"));
        let text = render_summary(&found, &[source("services:\n  wéb: x\n")], false, 100);
        insta::assert_snapshot!(text);
    }

    #[test]
    fn summary_shows_few_warnings_and_all_errors_in_full() {
        let sources = [source("services:\n  wéb: x\n")];
        let mut found = vec![warning("a", "m", "h"); 3];
        let full = |found: &[Diagnostic]| render_within(found, &sources, false, 100);
        assert_eq!(render_summary(&found, &sources, false, 100), full(&found));
        found.extend([warning("a", "m", "h"), diagnostic(2, 5, 3)]);
        assert_eq!(render_summary(&found, &sources, false, 100), full(&found));
    }
}
