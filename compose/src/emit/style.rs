//! How a text is written in YAML so that every reader takes it for that text: plain, quoted, or
//! over several lines. As Docker Compose does it, but for long lines, which are not broken.

use std::fmt::Write as _;

use crate::scalar;

/// The ways to write a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    /// In single quotes.
    Single,
    /// In double quotes, with escapes.
    Double,
    /// Line by line, below a `|`.
    Literal,
}

/// The way for this text. A key cannot be [`Style::Literal`].
pub(super) fn of(text: &str, is_key: bool) -> Style {
    if text.is_empty() || text.chars().any(is_special) {
        return Style::Double;
    }
    if text.contains('\n') {
        // Spaces before a line break do not survive everywhere, nor does a break alone.
        let safe = !is_key
            && !text.contains(" \n")
            && !text.ends_with(' ')
            && !text.trim_matches('\n').is_empty();
        return if safe { Style::Literal } else { Style::Double };
    }
    if text.contains('\t') || (text != "<<" && !scalar::is_string(text)) || is_timestamp(text) {
        return Style::Double;
    }
    if may_be_plain(text) && text != "<<" && !is_old_boolean(text) && !is_base_60(text) {
        Style::Plain
    } else {
        Style::Single
    }
}

/// The text on one line.
pub(super) fn inline(text: &str, is_key: bool) -> String {
    match of(text, is_key) {
        Style::Plain => text.to_owned(),
        Style::Single => format!("'{}'", text.replace('\'', "''")),
        Style::Double | Style::Literal => escaped(text),
    }
}

/// What stands after the `|` of a literal text.
pub(super) fn literal_header(text: &str) -> String {
    let indentation = if text.starts_with([' ', '\n']) {
        "2"
    } else {
        ""
    };
    let chomp = match (text.ends_with('\n'), text.ends_with("\n\n")) {
        (false, _) => "-",
        (true, true) => "+",
        (true, false) => "",
    };
    format!("|{indentation}{chomp}")
}

fn escaped(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        // Writing into a string does not fail.
        _ = match c {
            '"' => out.write_str("\\\""),
            '\\' => out.write_str("\\\\"),
            '\n' => out.write_str("\\n"),
            '\r' => out.write_str("\\r"),
            '\t' => out.write_str("\\t"),
            c if is_special(c) => match u32::from(c) {
                code @ 0..=0xff => write!(out, "\\x{code:02x}"),
                code @ 0x100..=0xffff => write!(out, "\\u{code:04x}"),
                code => write!(out, "\\U{code:08x}"),
            },
            c => out.write_char(c),
        };
    }
    out.push('"');
    out
}

/// What YAML does not print: control characters, line separators, the byte order mark, what is no
/// character.
fn is_special(c: char) -> bool {
    match c {
        '\n' | '\t' => false,
        '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => true,
        c => c.is_control(),
    }
}

/// Whether nothing in the text means something to YAML.
fn may_be_plain(text: &str) -> bool {
    let mut characters = text.chars();
    let (Some(first), second) = (characters.next(), characters.next()) else {
        return false;
    };
    let alone = second.is_none_or(char::is_whitespace);
    let starts = match first {
        '#' | ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%'
        | '@' | '`' | ' ' => false,
        '-' | '?' | ':' => !alone,
        _ => true,
    };
    let document = text.starts_with("---") || text.starts_with("...");
    starts
        && !document
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !text.contains(" #")
}

/// Booleans of YAML 1.1, which other readers still know.
fn is_old_boolean(text: &str) -> bool {
    matches!(
        text.to_ascii_lowercase().as_str(),
        "y" | "n" | "yes" | "no" | "on" | "off"
    )
}

/// `1:30` and `1:30:20.5`, numbers of YAML 1.1: `[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?`
fn is_base_60(text: &str) -> bool {
    let body = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (body, fraction) = body.split_once('.').unwrap_or((body, ""));
    let digits = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'_')
    };
    let sixty = |part: &str| part.len() < 3 && part.parse::<u8>().is_ok_and(|part| part < 60);
    let mut parts = body.split(':');
    let first = parts.next().unwrap_or_default();
    let rest: Vec<&str> = parts.collect();
    first.starts_with(|c: char| c.is_ascii_digit())
        && digits(first)
        && digits(fraction)
        && !rest.is_empty()
        && rest.into_iter().all(sixty)
}

/// `2001-01-01` and what may follow.
fn is_timestamp(text: &str) -> bool {
    let year = text
        .get(..4)
        .is_some_and(|year| year.bytes().all(|byte| byte.is_ascii_digit()));
    let rest = text.get(4..).unwrap_or_default();
    year && rest.starts_with('-')
        && rest.chars().all(|c| {
            c.is_ascii_digit() || matches!(c, '-' | '+' | ':' | '.' | 'T' | 't' | 'Z' | 'z' | ' ')
        })
}
