//! Several files into one, by Compose's override rules, on trees that are in long form already.
//!
//! Mappings merge key by key; lists are added up, those with an identity (ports, mounts, …) or
//! without repeats (`dns`, `cap_add`, …) by it; commands and scalars are replaced, but not by
//! nothing. `!override` and `!reset` have done their work before: see `reset`.

use std::collections::HashSet;

use crate::canonical;
use crate::node::{Entry, Map, Node, Value};
use crate::schema::{self, Key, Shape, Short};

/// `later` on top of `earlier`.
pub(crate) fn merge(earlier: Node, later: Node, shape: Shape) -> Node {
    let span = later.span;
    let value = match (shape, earlier.value, later.value) {
        (Shape::Command | Shape::Test, _, later) => later,
        // A name without value in `environment` is a value: that of where `uc` runs.
        (
            Shape::Pairs(_) | Shape::Options | Shape::Contexts | Shape::Keys,
            Value::Map(mut a),
            Value::Map(b),
        ) => {
            a.extend(b);
            Value::Map(a)
        }
        (_, value, Value::Null) => return Node::new(value, earlier.span),
        (Shape::Object(keys) | Shape::OrObject(_, keys), Value::Map(a), Value::Map(b)) => {
            Value::Map(maps(a, b, |name| key_shape(keys, name)))
        }
        (Shape::Named(item), Value::Map(a), Value::Map(b)) => Value::Map(maps(a, b, |_| *item)),
        (Shape::Names(_, keys), Value::Map(a), Value::Map(b)) => {
            Value::Map(maps(a, b, |_| Shape::Object(keys)))
        }
        (Shape::Any, Value::Map(a), Value::Map(b)) => Value::Map(maps(a, b, |_| Shape::Any)),
        (
            Shape::List(_) | Shape::Distinct(_) | Shape::Files | Shape::Hosts | Shape::Any,
            Value::List(a),
            Value::List(b),
        ) => Value::List(with_new(a, b)),
        (Shape::Set(_) | Shape::TextOrList, Value::List(a), Value::List(b)) => {
            Value::List(canonical::unique(join(a, b)))
        }
        (Shape::Items(Short::Subnet, keys), Value::List(a), Value::List(b)) => {
            Value::List(subnets(a, b, keys))
        }
        (Shape::OrObject(_, _), Value::List(a), Value::List(b)) => Value::List(join(a, b)),
        (Shape::Items(short, _), Value::List(a), Value::List(b)) => {
            Value::List(canonical::without_repeats(join(a, b), short))
        }
        (_, _, later) => later,
    };
    Node::new(value, span)
}

fn key_shape(keys: &'static [Key], name: &str) -> Shape {
    schema::find(keys, name).map_or(Shape::Any, |key| key.shape)
}

fn maps(mut earlier: Map, later: Map, shape_of: impl Fn(&str) -> Shape) -> Map {
    for (name, Entry { key, node }) in later {
        let Some(known) = earlier.get_mut(&name) else {
            earlier.insert(name, Entry { key, node });
            continue;
        };
        // Options of one log driver mean nothing to another.
        let other_driver = name == "logging"
            && matches!((known.node.get_text("driver"), node.get_text("driver")), (Some(a), Some(b)) if a != b);
        if other_driver {
            *known = Entry { key, node };
            continue;
        }
        let shape = shape_of(&name);
        let before = std::mem::replace(&mut known.node, Node::new(Value::Null, key));
        *known = Entry {
            key,
            node: merge(before, node, shape),
        };
    }
    earlier
}

/// Merges the entries of each subnet.
fn subnets(mut earlier: Vec<Node>, later: Vec<Node>, keys: &'static [Key]) -> Vec<Node> {
    for node in later {
        let same = earlier
            .iter_mut()
            .find(|known| known.get_text("subnet") == node.get_text("subnet"));
        match same {
            Some(known) => *known = merge(known.clone(), node, Shape::Object(keys)),
            None => earlier.push(node),
        }
    }
    earlier
}

/// Adds the later items that the earlier list does not have.
fn with_new(mut earlier: Vec<Node>, later: Vec<Node>) -> Vec<Node> {
    let known: HashSet<String> = earlier
        .iter()
        .filter_map(Node::as_text)
        .map(str::to_owned)
        .collect();
    earlier.extend(
        later
            .into_iter()
            .filter(|item| item.as_text().is_none_or(|text| !known.contains(text))),
    );
    earlier
}

fn join(mut earlier: Vec<Node>, later: Vec<Node>) -> Vec<Node> {
    earlier.extend(later);
    earlier
}
