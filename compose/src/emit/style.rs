//! How a text is written in YAML so that every reader takes it for that text: plain, in double
//! quotes, or over several lines. Long lines are not broken.

use std::fmt::Write as _;

use serde_json::Value;

use crate::scalar;

/// Whether a text is written line by line, below a `|`.
pub(super) fn is_literal(text: &str) -> bool {
    // Spaces before a line break do not survive everywhere, nor does a break alone.
    text.contains('\n')
        && !text.contains(" \n")
        && !text.ends_with(' ')
        && !text.trim_matches('\n').is_empty()
        && !text.chars().any(is_special)
}

/// The text on one line.
pub(super) fn inline(text: &str) -> String {
    if is_plain(text) {
        return text.to_owned();
    }
    // The escapes of JSON are escapes of YAML, too.
    let json = Value::from(text).to_string();
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if is_special(c) {
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
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

/// What YAML does not print: control characters, line separators, the byte order mark, what is no
/// character. All of them have four hexadecimal digits at the most.
fn is_special(c: char) -> bool {
    match c {
        '\n' | '\t' => false,
        '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => true,
        c => c.is_control(),
    }
}

/// Whether nothing in the text means something to YAML, and it cannot be taken for a number or for
/// another value.
fn is_plain(text: &str) -> bool {
    let mut characters = text.chars();
    let (Some(first), second) = (characters.next(), characters.next()) else {
        return false;
    };
    let alone = second.is_none_or(char::is_whitespace);
    let starts = match first {
        '#' | ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%'
        | '@' | '`' | ' ' | '<' | '=' => false,
        '-' | '?' | ':' => !alone,
        _ => true,
    };
    starts
        && !text.starts_with("---")
        && !text.starts_with("...")
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !text.contains(" #")
        && !text.contains(['\n', '\t'])
        && !text.chars().any(is_special)
        && scalar::resolve(text).is_none()
        && !is_old_value(text)
}

/// Booleans, times and dates of YAML 1.1, which other readers still know.
fn is_old_value(text: &str) -> bool {
    let is_boolean = matches!(
        text.to_ascii_lowercase().as_str(),
        "y" | "n" | "yes" | "no" | "on" | "off"
    );
    let of_numbers = |c: char| c.is_ascii_digit() || "-+:._TtZz ".contains(c);
    is_boolean || text.contains(|c: char| c.is_ascii_digit()) && text.chars().all(of_numbers)
}
