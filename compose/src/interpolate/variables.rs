//! Which variables a file uses, for people who have to set them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{closing_brace, name_at_start};
use crate::node::{Node, Value};

/// Defaults inside defaults are looked at no deeper than this.
const MAX_NESTING: usize = 20;

/// A variable that a compose file uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// `${NAME:?…}` or `${NAME?…}`: without it the file is an error.
    pub required: bool,
    /// What `${NAME:-…}` or `${NAME-…}` puts in its place, as written; empty: nothing.
    pub default_value: String,
    /// What `${NAME:+…}` or `${NAME+…}` puts in its place when it is set, as written; empty:
    /// nothing.
    pub alternate_value: String,
}

/// The variables of a tree's strings, in order of their names. Of several uses of one the last
/// counts.
pub(crate) fn variables(tree: &Node) -> Vec<Variable> {
    let mut found = BTreeMap::new();
    walk(tree, &mut found);
    found.into_values().collect()
}

fn walk(node: &Node, found: &mut BTreeMap<String, Variable>) {
    match &node.value {
        Value::Text(text) => in_text(text, found, 0),
        Value::List(items) => items.iter().for_each(|item| walk(item, found)),
        Value::Map(map) => map.values().for_each(|entry| walk(&entry.node, found)),
        _ => {}
    }
}

fn in_text(text: &str, found: &mut BTreeMap<String, Variable>, depth: usize) {
    let mut rest = text;
    while let Some(at) = rest.find('$').filter(|_| depth <= MAX_NESTING) {
        let after = &rest[at + 1..];
        let (body, next) = if let Some(tail) = after.strip_prefix('$') {
            ("", tail)
        } else if let Some(body) = after.strip_prefix('{') {
            match closing_brace(body) {
                Some(end) => (&body[..end], &body[end + 1..]),
                None => ("", body),
            }
        } else {
            let name = name_at_start(after);
            (name, &after[name.len()..])
        };
        rest = next;
        let name = name_at_start(body);
        if name.is_empty() {
            continue;
        }
        let operator = body[name.len()..].trim_start_matches(':');
        let argument = |operators: &[char]| {
            operator
                .strip_prefix(operators)
                .unwrap_or_default()
                .to_owned()
        };
        let variable = Variable {
            name: name.to_owned(),
            required: operator.starts_with('?'),
            default_value: argument(&['-']),
            alternate_value: argument(&['+']),
        };
        in_text(&variable.default_value, found, depth + 1);
        in_text(&variable.alternate_value, found, depth + 1);
        found.insert(name.to_owned(), variable);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::Span;

    fn of(text: &str) -> Vec<String> {
        let shown = |v: Variable| {
            format!(
                "{} {} [{}] [{}]",
                v.name, v.required, v.default_value, v.alternate_value
            )
        };
        variables(&Node::text(text, Span::default()))
            .into_iter()
            .map(shown)
            .collect()
    }

    #[test]
    fn every_form() {
        for (text, expected) in [
            ("$A-${B}", &["A false [] []", "B false [] []"][..]),
            ("${A:-x}", &["A false [x] []"]),
            ("${A-x}", &["A false [x] []"]),
            ("${A:?x}", &["A true [] []"]),
            ("${A?}", &["A true [] []"]),
            ("${A:+x}", &["A false [] [x]"]),
            ("${A+x}", &["A false [] [x]"]),
            ("${A:-${B:-c}}", &["A false [${B:-c}] []", "B false [c] []"]),
            ("${A:+${B?}}", &["A false [] [${B?}]", "B true [] []"]),
            ("$$A $${B} $1 ${} ${", &[]),
        ] {
            assert_eq!(of(text), expected, "{text}");
        }
    }
}
