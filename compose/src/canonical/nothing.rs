//! Values that are missing: a key with nothing after it says nothing, so an earlier file's value stays. Where there is none, that is an error.

use super::wrong_type;
use crate::node::{Node, Value};
use crate::report::Report;
use crate::schema::{self, Shape};

/// Whether nothing is as good as a value.
pub(super) fn may_be(shape: Shape) -> bool {
    matches!(shape, Shape::Any | Shape::Command)
}

/// Says which values of the whole project are missing.
pub(crate) fn missing(node: &mut Node, shape: Shape, report: &mut Report) {
    let object = |keys: &'static [schema::Key]| {
        move |name: &str| schema::find(keys, name).map_or(Shape::Any, |key| key.shape)
    };
    match (shape, &mut node.value) {
        (Shape::Object(keys) | Shape::OrObject(_, keys), Value::Map(map)) => {
            let shape_of = object(keys);
            for (name, entry) in map {
                report.path_push(name);
                one(&mut entry.node, shape_of(name), report);
                report.path_pop();
            }
        }
        (Shape::Named(item), Value::Map(map)) => {
            for (name, entry) in map {
                report.path_push(name);
                one(&mut entry.node, *item, report);
                report.path_pop();
            }
        }
        (Shape::Names(_, keys), Value::Map(map)) => {
            for (name, entry) in map {
                report.path_push(name);
                missing(&mut entry.node, Shape::Object(keys), report);
                report.path_pop();
            }
        }
        (Shape::Items(_, keys) | Shape::OrObject(_, keys), Value::List(items)) => {
            for (index, item) in items.iter_mut().enumerate() {
                report.path_push_item(index);
                missing(item, Shape::Object(keys), report);
                report.path_pop();
            }
        }
        (Shape::List(item) | Shape::Set(item), Value::List(items)) => {
            for (index, node) in items.iter_mut().enumerate() {
                report.path_push_item(index);
                missing(node, *item, report);
                report.path_pop();
            }
        }
        _ => {}
    }
}

fn one(node: &mut Node, shape: Shape, report: &mut Report) {
    if node.value == Value::Null && !may_be(shape) {
        node.value = wrong_type(&Value::Null, shape, node.span, report);
    }
    missing(node, shape, report);
}
