//! Resolved projects as YAML text, in the order of Docker Compose. Block style; texts are quoted
//! where reading them back would give something else.
//!
//! Not saphyr's emitter: it loses spaces and line breaks at the ends of literal texts, does not
//! escape all characters that YAML forbids, and leaves texts plain that Docker Compose's reader
//! takes for numbers.

mod order;
mod style;

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// `value` as a YAML document that reads back as the same value; keys in the order given.
pub fn to_yaml(value: &Value) -> String {
    let mut writer = Writer {
        out: String::new(),
        path: Vec::new(),
        composed: false,
    };
    writer.document(value);
    writer.out
}

/// A project's document: keys in Docker Compose's order, and without what its YAML form leaves out.
pub(crate) fn document(value: &Value) -> String {
    let mut writer = Writer {
        out: String::new(),
        path: Vec::new(),
        composed: true,
    };
    writer.document(value);
    writer.out
}

struct Writer<'v> {
    out: String,
    /// Keys down to the mapping that is written; items of lists add nothing.
    path: Vec<&'v str>,
    /// It is a compose file.
    composed: bool,
}

impl<'v> Writer<'v> {
    fn document(&mut self, value: &'v Value) {
        if is_block(value) {
            self.block(value, 0);
        } else {
            self.after(value, 0);
        }
    }

    /// A non-empty map or list at this indentation, the cursor being at the start of a line.
    fn block(&mut self, value: &'v Value, indent: usize) {
        match value {
            Value::Object(map) => {
                for (key, value) in self.ordered(map) {
                    self.pad(indent);
                    self.out.push_str(&style::inline(key));
                    self.out.push(':');
                    self.path.push(key);
                    self.after(value, indent);
                    self.path.pop();
                }
            }
            Value::Array(list) => {
                for value in list {
                    self.pad(indent);
                    self.out.push('-');
                    if is_block(value) {
                        // A map or list in a list begins on the same line.
                        let start = self.out.len();
                        self.block(value, indent + 2);
                        self.out.replace_range(start..=start + indent, "");
                    } else {
                        self.after(value, indent);
                    }
                }
            }
            _ => {}
        }
    }

    /// The entries of the map at the current path, without those that are left out.
    fn ordered(&self, map: &'v Map<String, Value>) -> Vec<(&'v String, &'v Value)> {
        let mut entries: Vec<_> = map.iter().collect();
        if self.composed {
            entries
                .retain(|(key, value)| !(order::is_silent(&self.path, key) && says_nothing(value)));
            let known = order::of(&self.path);
            let rank = |key: &str| {
                known
                    .iter()
                    .position(|known| *known == key)
                    .unwrap_or(known.len())
            };
            // Stable: the rest keeps its order.
            entries.sort_by_key(|(key, _)| rank(key));
        }
        entries
    }

    /// What follows `key:` or `-`.
    fn after(&mut self, value: &'v Value, indent: usize) {
        match value {
            value if is_block(value) => {
                self.out.push('\n');
                self.block(value, indent + 2);
                return;
            }
            Value::String(text) if style::is_literal(text) => {
                self.literal(text, indent + 2);
                return;
            }
            _ => {}
        }
        self.out.push(' ');
        // Writing into a string does not fail.
        _ = match value {
            Value::Null => self.out.write_str("null"),
            Value::Bool(value) => write!(self.out, "{value}"),
            Value::Number(number) => write!(self.out, "{number}"),
            Value::String(text) => self.out.write_str(&style::inline(text)),
            Value::Array(_) => self.out.write_str("[]"),
            Value::Object(_) => self.out.write_str("{}"),
        };
        self.out.push('\n');
    }

    fn literal(&mut self, text: &str, indent: usize) {
        self.out.push(' ');
        self.out.push_str(&style::literal_header(text));
        self.out.push('\n');
        for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
            if !line.is_empty() {
                self.pad(indent);
                self.out.push_str(line);
            }
            self.out.push('\n');
        }
    }

    fn pad(&mut self, indent: usize) {
        self.out.extend(std::iter::repeat_n(' ', indent));
    }
}

fn is_block(value: &Value) -> bool {
    match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => false,
    }
}

fn says_nothing(value: &Value) -> bool {
    value.is_null() || value.as_object().is_some_and(Map::is_empty)
}

#[cfg(test)]
mod tests;
