//! `.env` files, with the grammar of Docker Compose.
//!
//! `NAME=value` or `NAME: value`, optionally after `export`; `NAME` alone takes its value from the
//! environment. Unquoted values end at ` #` and know variables; `'…'` is literal; `"…"` knows
//! variables and `\n`-like escapes; both kinds of quotes may span lines.

use std::collections::{BTreeMap, BTreeSet};

use crate::diagnostic::Rule;
use crate::interpolate;
use crate::node::{Span, count};
use crate::report::Report;

/// Variables by name, `None` where the file names one that is set nowhere.
pub(crate) type Variables = BTreeMap<String, Option<String>>;

/// Reads a `.env` text. `environment` is asked first for variables in values, then the lines above,
/// then `earlier` files.
pub(crate) fn parse(
    text: &str,
    file: u32,
    environment: &dyn Fn(&str) -> Option<String>,
    earlier: &dyn Fn(&str) -> Option<String>,
    report: &mut Report,
) -> Variables {
    let mut reader = Reader {
        rest: text.strip_prefix('\u{feff}').unwrap_or(text),
        line: 1,
        file,
    };
    let mut variables = Variables::new();
    let mut warned = BTreeSet::new();
    while let Some(statement) = reader.statement(report) {
        let value = match statement.value {
            Raw::Inherited => environment(&statement.name).or_else(|| earlier(&statement.name)),
            Raw::Literal(text) => Some(text),
            Raw::Template(text) => {
                let lookup = |name: &str| {
                    environment(name)
                        .or_else(|| variables.get(name).cloned().flatten())
                        .or_else(|| earlier(name))
                };
                let mut unset = BTreeSet::new();
                match interpolate::substitute(&text, &lookup, &mut unset) {
                    Ok(value) => {
                        for name in unset.into_iter().filter(|name| warned.insert(name.clone())) {
                            let message = format!("variable `{name}` is not set, so it is empty");
                            report.warning(
                                Rule::Variable,
                                statement.span,
                                message,
                                "set it in a line above, or put the value in single quotes",
                            );
                        }
                        Some(value)
                    }
                    Err(error) => {
                        report.error(
                            Rule::Variable,
                            statement.span,
                            error.to_string(),
                            "put the value in single quotes if `$` belongs to it",
                        );
                        None
                    }
                }
            }
        };
        variables.insert(statement.name, value);
    }
    variables
}

/// `NAME=value` lines, taken as they are: no quotes, no variables. `NAME` alone takes its value
/// from the environment.
pub(crate) fn raw(
    text: &str,
    file: u32,
    environment: &dyn Fn(&str) -> Option<String>,
    report: &mut Report,
) -> Variables {
    let mut variables = Variables::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (line, environment(line)),
        };
        if name.is_empty() || name.contains(char::is_whitespace) {
            let length = count(line.chars().count());
            report.error(
                Rule::Syntax,
                Span {
                    file,
                    line: count(index + 1),
                    column: 1,
                    length,
                },
                "invalid line: it must be `NAME=value`",
                "write `NAME=value`; a line that begins with `#` is a comment",
            );
            continue;
        }
        variables.insert(name.to_owned(), value);
    }
    variables
}

/// The value as it stands, before variables are put in.
enum Raw {
    Inherited,
    Literal(String),
    Template(String),
}

struct Statement {
    name: String,
    value: Raw,
    span: Span,
}

struct Reader<'t> {
    rest: &'t str,
    line: u32,
    file: u32,
}

impl<'t> Reader<'t> {
    /// The rest of the line at the cursor.
    fn line_here(&self) -> &'t str {
        self.rest
            .split_once('\n')
            .map_or(self.rest, |(line, _)| line)
    }

    /// The next statement. Invalid lines are reported and skipped.
    fn statement(&mut self, report: &mut Report) -> Option<Statement> {
        loop {
            if self.rest.is_empty() {
                return None;
            }
            let line = self.line_here();
            let trimmed = line.trim();
            if trimmed.is_empty() || trimmed.starts_with('#') {
                self.advance(line.len() + 1);
                continue;
            }
            let span = self.span(line);
            match split_name(trimmed) {
                Ok((name, None)) => {
                    self.advance(line.len() + 1);
                    return Some(Statement {
                        name: name.to_owned(),
                        value: Raw::Inherited,
                        span,
                    });
                }
                Ok((name, Some(value))) => {
                    let at = value.as_ptr() as usize - self.rest.as_ptr() as usize;
                    let name = name.to_owned();
                    self.rest = &self.rest[at..];
                    if let Some(value) = self.value(span, report) {
                        return Some(Statement { name, value, span });
                    }
                }
                Err(problem) => {
                    report.error(
                        Rule::Syntax,
                        span,
                        problem,
                        "write `NAME=value`; a line that begins with `#` is a comment",
                    );
                    self.advance(line.len() + 1);
                }
            }
        }
    }

    /// The value at the cursor, through the end of its line.
    fn value(&mut self, span: Span, report: &mut Report) -> Option<Raw> {
        let quote = self.rest.chars().next().filter(|c| matches!(c, '"' | '\''));
        let Some(quote) = quote else {
            let line = self.line_here();
            self.advance(line.len() + 1);
            let value = line.split_once(" #").map_or(line, |(value, _)| value);
            return Some(Raw::Template(value.trim_end().to_owned()));
        };
        let body = &self.rest[1..];
        let mut escaped = false;
        let end = body.find(|c: char| {
            let closes = c == quote && !escaped;
            escaped = c == '\\' && !escaped;
            closes
        });
        let Some(end) = end else {
            report.error(
                Rule::Syntax,
                span,
                "a quote is not closed",
                format!("add the closing {quote}"),
            );
            self.rest = "";
            return None;
        };
        let inner = &body[..end];
        self.advance(end + 2);
        let tail = self.line_here();
        if !tail.trim().is_empty() && !tail.trim_start().starts_with('#') {
            report.warning(
                Rule::Syntax,
                span,
                format!("`{}` after the closing quote is ignored", tail.trim()),
                "put the whole value in quotes",
            );
        }
        self.advance(tail.len() + 1);
        Some(if quote == '\'' {
            Raw::Literal(inner.replace("\\'", "'"))
        } else {
            Raw::Template(unescape(inner))
        })
    }

    fn advance(&mut self, bytes: usize) {
        let (passed, rest) = self.rest.split_at_checked(bytes).unwrap_or((self.rest, ""));
        self.line += count(passed.matches('\n').count());
        self.rest = rest;
    }

    fn span(&self, line: &str) -> Span {
        let indent = line.chars().take_while(|c| c.is_whitespace()).count();
        Span {
            file: self.file,
            line: self.line,
            column: count(indent + 1),
            length: count(line.trim().chars().count()),
        }
    }
}

/// Name and the text after its separator, if there is one.
fn split_name(line: &str) -> Result<(&str, Option<&str>), String> {
    let line = match line.strip_prefix("export") {
        Some(rest) if rest.starts_with([' ', '\t']) => rest.trim_start(),
        _ => line,
    };
    let (name, value) = match line.find(['=', ':']) {
        Some(at) => (&line[..at], Some(line[at + 1..].trim_start())),
        None => (line, None),
    };
    let name = name.trim_end();
    if name.is_empty() {
        return Err("a name is missing before `=`".to_owned());
    }
    if name.contains(char::is_whitespace) {
        return Err(format!(
            "invalid variable name `{name}`: it contains a space"
        ));
    }
    let strange = name
        .chars()
        .find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '[' | ']')));
    match strange {
        Some(c) => Err(format!("invalid variable name `{name}`: it contains `{c}`")),
        None => Ok((name, value)),
    }
}

/// Escapes of a double-quoted value: those of C that Compose knows, `\$`, and octal `\0123`. Others
/// stay as they are.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let octal: String = after
            .chars()
            .skip(1)
            .take(3)
            .take_while(char::is_ascii_digit)
            .collect();
        let (replacement, used) = match after.chars().next() {
            Some('n') => ("\n".to_owned(), 1),
            Some('r') => ("\r".to_owned(), 1),
            Some('t') => ("\t".to_owned(), 1),
            Some('a') => ("\u{7}".to_owned(), 1),
            Some('b') => ("\u{8}".to_owned(), 1),
            Some('f') => ("\u{c}".to_owned(), 1),
            Some('v') => ("\u{b}".to_owned(), 1),
            Some('"') => ("\"".to_owned(), 1),
            Some('\\') => ("\\".to_owned(), 1),
            // Doubled: variables are put in afterwards.
            Some('$') => ("$$".to_owned(), 1),
            Some('0') if octal.len() == 3 => match u8::from_str_radix(&octal, 8) {
                Ok(byte) => (char::from(byte).to_string(), 4),
                Err(_) => ("\\".to_owned(), 0),
            },
            _ => ("\\".to_owned(), 0),
        };
        out.push_str(&replacement);
        rest = &after[used..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests;
