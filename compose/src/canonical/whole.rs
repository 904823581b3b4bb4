//! What can only be said of all files together: values that are missing (a key with nothing after
//! it says nothing, so an earlier file's value stays), and items that repeat.

use std::collections::HashSet;

use super::wrong_type;
use crate::node::{Node, Span, Value};
use crate::report::{Place, Report};
use crate::schema::{self, Shape};

/// Whether nothing is as good as a value.
pub(super) fn may_be(shape: Shape) -> bool {
    matches!(shape, Shape::Any | Shape::Command)
}

/// Says which values of the whole project are missing or repeat.
pub(crate) fn whole(node: &mut Node, shape: Shape, report: &mut Report) {
    let object = |keys: &'static [schema::Key]| {
        move |name: &str| schema::find(keys, name).map_or(Shape::Any, |key| key.shape)
    };
    match (shape, &mut node.value) {
        (Shape::Object(keys) | Shape::OrObject(_, keys), Value::Map(map)) => {
            let shape_of = object(keys);
            for (name, entry) in map {
                one(&mut entry.node, shape_of(name), &mut report.at(name));
            }
        }
        (Shape::Named(item), Value::Map(map)) => {
            for (name, entry) in map {
                one(&mut entry.node, *item, &mut report.at(name));
            }
        }
        (Shape::Names(_, keys), Value::Map(map)) => {
            for (name, entry) in map {
                whole(&mut entry.node, Shape::Object(keys), &mut report.at(name));
            }
        }
        (Shape::Items(_, keys) | Shape::OrObject(_, keys), Value::List(items)) => {
            for (index, item) in items.iter_mut().enumerate() {
                whole(item, Shape::Object(keys), &mut report.at_item(index));
            }
        }
        (Shape::List(item) | Shape::Set(item), Value::List(items)) => {
            for (index, node) in items.iter_mut().enumerate() {
                whole(node, *item, &mut report.at_item(index));
            }
        }
        (Shape::Distinct(_), Value::List(items)) => {
            let mut seen = HashSet::new();
            for item in items.iter() {
                if let Some(text) = item.as_text().filter(|text| !seen.insert(*text)) {
                    repeats(text, item.span, report);
                }
            }
        }
        _ => {}
    }
}

/// Reports a repeated item.
pub(super) fn repeats(text: &str, span: Span, report: &mut Report) {
    report.invalid(
        span,
        format!("`{text}` is repeated in `{}`", report.path()),
        "remove one of them",
    );
}

fn one(node: &mut Node, shape: Shape, report: &mut Report) {
    if node.value == Value::Null && !may_be(shape) {
        node.value = wrong_type(&Value::Null, shape, node.span, report);
    }
    whole(node, shape, report);
}
