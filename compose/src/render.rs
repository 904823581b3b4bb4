//! Diagnostics as rustc prints them: message, place, the lines, what was expected, the next step.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use crate::diagnostic::{Diagnostic, Severity};
use crate::request::SourceFile;

/// Width of the rendered text where it is not a person's terminal that decides.
const WIDTH: usize = 120;

/// In less nothing can be shown of a line.
const NARROWEST: usize = 40;
/// More makes nothing clearer, however wide the terminal is.
const WIDEST: usize = 200;

/// Lines longer than this are not shown: a minified line helps nobody and can be megabytes.
const LONGEST_SHOWN_LINE: usize = 4_000;

/// All diagnostics as text, one after another, each followed by an empty line. With `color`, ANSI
/// escapes are in it.
pub fn render(diagnostics: &[Diagnostic], sources: &[SourceFile], color: bool) -> String {
    render_within(diagnostics, sources, color, WIDTH)
}

/// [`render`] for a terminal of `width` columns: longer lines of the files are shown around what is
/// meant.
pub fn render_within(
    diagnostics: &[Diagnostic],
    sources: &[SourceFile],
    color: bool,
    width: usize,
) -> String {
    let width = width.clamp(NARROWEST, WIDEST);
    let renderer = if color {
        Renderer::styled()
    } else {
        Renderer::plain()
    }
    .term_width(width);
    let mut out = String::new();
    for diagnostic in diagnostics {
        out.push_str(&renderer.render(&[group(diagnostic, sources)]));
        out.push_str("\n\n");
    }
    out
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

/// Values from a file end up in messages: a line break there must not look like a diagnostic of its
/// own.
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
    fn the_line_is_shown_with_its_place_underlined() {
        let text = render(
            &[diagnostic(2, 5, 3)],
            &[source("services:\n  wéb: x\n")],
            false,
        );
        insta::assert_snapshot!(text);
    }

    #[test]
    fn what_has_no_line_still_has_its_file() {
        insta::assert_snapshot!(render(&[diagnostic(0, 0, 0)], &[], false));
        insta::assert_snapshot!(render(&[diagnostic(7, 3, 1)], &[source("one line")], false));
    }

    #[test]
    fn columns_past_the_end_and_endless_lines_do_no_harm() {
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
}
