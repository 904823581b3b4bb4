//! Several files into one, by Compose's override rules, on trees that are in long form already.
//!
//! Mappings merge key by key; lists are added up, those with an identity (ports, mounts, …) or without repeats (`dns`, `cap_add`, …) by it;
//! commands and scalars are replaced. `!override` replaces whatever is below it, `!reset` removes it.

use crate::canonical;
use crate::node::{Entry, Map, Node, Tag, Value};
use crate::schema::{self, Key, Shape};

/// `later` on top of `earlier`.
pub(crate) fn merge(earlier: Node, later: Node, shape: Shape) -> Node {
    if later.tag == Tag::Override {
        return Node { tag: Tag::None, ..later };
    }
    let span = later.span;
    let value = match (shape, earlier.value, later.value) {
        (Shape::Object(keys) | Shape::OrObject(_, keys), Value::Map(a), Value::Map(b)) => {
            Value::Map(maps(a, b, |name| key_shape(keys, name)))
        }
        (Shape::Named(item), Value::Map(a), Value::Map(b)) => Value::Map(maps(a, b, |_| *item)),
        (Shape::Names(_, keys), Value::Map(a), Value::Map(b)) => {
            Value::Map(maps(a, b, |_| Shape::Object(keys)))
        }
        (Shape::Pairs(_) | Shape::Options, Value::Map(a), Value::Map(b)) => {
            Value::Map(maps(a, b, |_| Shape::Any))
        }
        (Shape::List(_), Value::List(a), Value::List(b)) => Value::List(join(a, b)),
        (Shape::Set(_) | Shape::TextOrList | Shape::Hosts, Value::List(a), Value::List(b)) => {
            Value::List(canonical::unique(join(a, b)))
        }
        (Shape::Items(short, _), Value::List(a), Value::List(b)) => {
            Value::List(canonical::without_repeats(join(a, b), short))
        }
        (_, _, later) => later,
    };
    Node { value, span, tag: Tag::None }
}

fn key_shape(keys: &'static [Key], name: &str) -> Shape {
    schema::find(keys, name).map_or(Shape::Any, |key| key.shape)
}

fn maps(mut earlier: Map, later: Map, shape_of: impl Fn(&str) -> Shape) -> Map {
    for (name, Entry { key, node }) in later {
        if node.tag == Tag::Reset {
            earlier.shift_remove(&name);
            continue;
        }
        let Some(known) = earlier.get_mut(&name) else {
            earlier.insert(name, Entry { key, node });
            continue;
        };
        // Options of one log driver mean nothing to another.
        let other_driver = name == "logging"
            && matches!((known.node.get_text("driver"), node.get_text("driver")), (Some(a), Some(b)) if a != b);
        let shape = if other_driver { Shape::Any } else { shape_of(&name) };
        let before = std::mem::replace(&mut known.node, Node::new(Value::Null, key));
        *known = Entry { key, node: merge(before, node, shape) };
    }
    earlier
}

fn join(mut earlier: Vec<Node>, later: Vec<Node>) -> Vec<Node> {
    earlier.extend(later);
    earlier
}

/// Removes what `!reset` marks, where there was nothing to remove it from, and forgets `!override`.
pub(crate) fn settle(node: &mut Node) {
    node.tag = Tag::None;
    match &mut node.value {
        Value::Map(map) => {
            map.retain(|_, entry| entry.node.tag != Tag::Reset);
            map.values_mut().for_each(|entry| settle(&mut entry.node));
        }
        Value::List(items) => {
            items.retain(|item| item.tag != Tag::Reset);
            items.iter_mut().for_each(settle);
        }
        _ => {}
    }
}
