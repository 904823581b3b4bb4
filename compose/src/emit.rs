//! Resolved projects as YAML text. Writing only: block style, keys as given, strings quoted where reading them back would give something
//! else.

use std::fmt::Write as _;

use serde_json::Value;

use crate::scalar;

/// `value` as a YAML document that reads back as the same value.
pub fn to_yaml(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => block(&mut out, value, 0),
        Value::Array(list) if !list.is_empty() => block(&mut out, value, 0),
        other => {
            inline(&mut out, other);
            out.push('\n');
        }
    }
    out
}

/// A non-empty map or list at this indentation, the cursor being at the start of a line.
fn block(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                pad(out, indent);
                out.push_str(&string(key));
                out.push(':');
                entry(out, value, indent);
            }
        }
        Value::Array(list) => {
            for value in list {
                pad(out, indent);
                out.push('-');
                item(out, value, indent);
            }
        }
        _ => {}
    }
}

/// What follows `key:`.
fn entry(out: &mut String, value: &Value, indent: usize) {
    if is_block(value) {
        out.push('\n');
        block(out, value, indent + 2);
    } else {
        out.push(' ');
        inline(out, value);
        out.push('\n');
    }
}

/// What follows `-`: a map begins on the same line.
fn item(out: &mut String, value: &Value, indent: usize) {
    if is_block(value) {
        let mut nested = String::new();
        block(&mut nested, value, indent + 2);
        out.push(' ');
        out.push_str(nested.trim_start_matches(' '));
    } else {
        out.push(' ');
        inline(out, value);
        out.push('\n');
    }
}

fn is_block(value: &Value) -> bool {
    match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => false,
    }
}

fn inline(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Number(number) => {
            let _ = write!(out, "{number}");
        }
        Value::String(text) => out.push_str(&string(text)),
        Value::Array(_) => out.push_str("[]"),
        Value::Object(_) => out.push_str("{}"),
    }
}

fn pad(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

/// Plain where that is safe, in double quotes otherwise (a JSON string is a YAML string).
fn string(text: &str) -> String {
    if is_plain(text) { text.to_owned() } else { Value::String(text.to_owned()).to_string() }
}

fn is_plain(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    let starts = first.is_ascii_alphanumeric() || matches!(first, b'/' | b'.' | b'_' | b'$' | b'+');
    let ends = !matches!(last, b' ' | b':');
    let inner = bytes.iter().all(|byte| {
        byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b' ' | b'/' | b'.' | b'_' | b'-' | b'+' | b'$' | b'@' | b':' | b'=' | b'(' | b')'
            )
    });
    // Other readers hold to YAML 1.1, where these are booleans and `1:30` is a number.
    let legacy = matches!(text.to_ascii_lowercase().as_str(), "y" | "n" | "yes" | "no" | "on" | "off");
    let numeric =
        bytes.iter().all(|byte| byte.is_ascii_digit() || matches!(byte, b':' | b'.' | b'_' | b'-' | b'+'));
    starts && ends && inner && !legacy && !numeric && !text.contains(": ") && scalar::is_string(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nesting_and_empties() {
        let value = json!({
            "a": {"b": [1, {"c": true, "d": [[], {}]}, [2, 3]], "e": null},
            "f": {}, "g": []
        });
        insta::assert_snapshot!(to_yaml(&value));
    }

    #[test]
    fn strings_that_look_like_something_else_are_quoted() {
        for text in [
            "",
            "true",
            "No",
            "1",
            "0x1f",
            "1.5",
            "~",
            "null",
            "a: b",
            "- a",
            "22:22",
            "# x",
            " a",
            "a ",
            "a\nb",
            "*a",
            "{",
            "é",
            "2001-01-01",
            "a:",
        ] {
            assert!(string(text).starts_with('"'), "{text} → {}", string(text));
        }
        for text in ["redis:7", "/var/lib/x", "sh -c", "CMD-SHELL", "a=b", "$$HOME", "1m30s"] {
            assert_eq!(string(text), text);
        }
    }
}
