//! Variables in strings: `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME-default}`,
//! `${NAME:?error}`, `${NAME?error}`, `${NAME:+other}`, `${NAME+other}`, nested, and `$$` for a
//! dollar sign.
//!
//! A `$` that is followed by neither a name, `{` nor `$` stands for itself, as in Docker Compose.

mod variables;

use std::collections::BTreeSet;

pub use variables::Variable;
pub(crate) use variables::variables;

use crate::diagnostic::Rule;
use crate::node::{Node, Span, Value};
use crate::report::{Place, Report};

/// Nested defaults deeper than this are refused: bounds recursion.
const MAX_NESTING: usize = 50;

/// Longest result of one string: variables are short, and a file may repeat a long one very often.
const MAX_RESULT: usize = 1024 * 1024;

/// Why a string cannot be interpolated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TemplateError {
    /// A `${` that is not closed, holds no name or an operator that does not exist.
    #[error("`{0}` is not a variable")]
    Syntax(String),
    /// `?` and not set.
    #[error("variable `{name}` is required and {what}{colon}{message}", colon = if message.is_empty() { "" } else { ": " })]
    Required {
        /// The variable.
        name: String,
        /// "not set" or "empty".
        what: &'static str,
        /// The author's message.
        message: String,
    },
    /// Beyond [`MAX_NESTING`] or [`MAX_RESULT`].
    #[error("the value is too large when its variables are replaced")]
    TooLarge,
}

/// Replaces the variables in `text`. Names that are not set and have no default are added to
/// `unset`.
pub(crate) fn substitute(
    text: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
    unset: &mut BTreeSet<String>,
) -> Result<String, TemplateError> {
    nested(text, lookup, unset, 0)
}

fn nested(
    text: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
    unset: &mut BTreeSet<String>,
    depth: usize,
) -> Result<String, TemplateError> {
    if depth > MAX_NESTING {
        return Err(TemplateError::TooLarge);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some(body) = after.strip_prefix('{') {
            let end =
                closing_brace(body).ok_or_else(|| TemplateError::Syntax(shorten(&rest[at..])))?;
            let whole = &rest[at..=(at + 2 + end)];
            out.push_str(&braced(&body[..end], whole, lookup, unset, depth)?);
            rest = &body[end + 1..];
        } else {
            let name = name_at_start(after);
            if name.is_empty() {
                out.push('$');
            } else {
                out.push_str(&value_or_empty(name, lookup, unset));
            }
            rest = &after[name.len()..];
        }
        if out.len() > MAX_RESULT {
            return Err(TemplateError::TooLarge);
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// The value of `${…}`.
fn braced(
    body: &str,
    whole: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
    unset: &mut BTreeSet<String>,
    depth: usize,
) -> Result<String, TemplateError> {
    let wrong = || TemplateError::Syntax(shorten(whole));
    let name = name_at_start(body);
    let operator = &body[name.len()..];
    if name.is_empty() {
        return Err(wrong());
    }
    if operator.is_empty() {
        return Ok(value_or_empty(name, lookup, unset));
    }
    let (empty_counts_as_unset, operator) = match operator.strip_prefix(':') {
        Some(rest) => (true, rest),
        None => (false, operator),
    };
    let value = lookup(name);
    let what = if value.is_some() { "empty" } else { "not set" };
    let value = value.filter(|value| !(empty_counts_as_unset && value.is_empty()));
    let mut argument = operator.chars();
    match (argument.next(), value) {
        (Some('-' | '?'), Some(value)) => Ok(value),
        (Some('-'), None) | (Some('+'), Some(_)) => {
            nested(argument.as_str(), lookup, unset, depth + 1)
        }
        (Some('+'), None) => Ok(String::new()),
        (Some('?'), None) => Err(TemplateError::Required {
            name: name.to_owned(),
            what,
            message: nested(argument.as_str(), lookup, unset, depth + 1)?,
        }),
        _ => Err(wrong()),
    }
}

fn value_or_empty(
    name: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
    unset: &mut BTreeSet<String>,
) -> String {
    lookup(name).unwrap_or_else(|| {
        unset.insert(name.to_owned());
        String::new()
    })
}

/// `[_a-zA-Z][_a-zA-Z0-9]*`
fn name_at_start(text: &str) -> &str {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return "";
    }
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .unwrap_or(text.len());
    &text[..end]
}

/// The brace that closes the one before `body`. Braces inside count, so that `${X:-{"a":1}}` works;
/// where they do not add up, the last one closes. `\}` closes nothing, and what is on another line
/// does not either.
fn closing_brace(body: &str) -> Option<usize> {
    let body = body.split_once('\n').map_or(body, |(line, _)| line);
    let mut open = 1;
    let mut escaped = false;
    for (at, c) in body.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '{' => open += 1,
            '}' => {
                open -= 1;
                if open == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    body.rfind('}')
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Interpolates every string of a tree; problems go to `report`. Each unset variable is warned
/// about once.
pub(crate) fn tree(
    node: &mut Node,
    lookup: &dyn Fn(&str) -> Option<String>,
    warned: &mut BTreeSet<String>,
    report: &mut Report,
) {
    let span = node.span;
    match &mut node.value {
        Value::Text(text) if text.contains('$') => {
            let mut unset = BTreeSet::new();
            match substitute(text, lookup, &mut unset) {
                Ok(done) => *text = done,
                Err(error) => {
                    say(&error, span, report);
                    node.value = Value::Broken;
                }
            }
            for name in unset {
                if warned.insert(name.clone()) {
                    report.warning(
                        Rule::Variable,
                        span,
                        format!("variable `{name}` is not set, so it is empty"),
                        format!("set it in the environment or in `.env`, or write `${{{name}:-}}`"),
                    );
                }
            }
        }
        Value::List(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                let report = &mut report.at_item(index);
                tree(item, lookup, warned, report);
            }
        }
        Value::Map(map) => {
            for (key, entry) in map {
                let report = &mut report.at(key);
                tree(&mut entry.node, lookup, warned, report);
            }
        }
        _ => {}
    }
}

fn say(error: &TemplateError, span: Span, report: &mut Report) {
    let hint = match error {
        TemplateError::Syntax(_) => {
            "write `${NAME}`, `${NAME:-default}`, `${NAME:?message}` or `${NAME:+other}`; `$$` is a dollar sign"
                .to_owned()
        }
        TemplateError::Required { name, .. } => format!("set it: `export {name}=…`, or a line `{name}=…` in `.env`"),
        TemplateError::TooLarge => "use a simpler default".to_owned(),
    };
    report.error(Rule::Variable, span, error.to_string(), hint);
}

#[cfg(test)]
mod tests;
