//! Lists whose items have a short form: ports, mounts, devices, grants, environment files.

use super::{Context, object, port, volume, wrong};
use crate::node::{Map, Node, Span, Value, insert_default, map};
use crate::report::Place;
use crate::schema::{Key, Shape, Short};

pub(super) fn items(
    value: Value,
    short: Short,
    keys: &'static [Key],
    span: Span,
    cx: &mut Context<'_>,
) -> Value {
    let list = match value {
        Value::List(list) => list,
        value @ Value::Text(_) if short == Short::EnvFile => {
            vec![Node::new(value, span)]
        }
        other => return wrong(&other, Shape::Items(short, keys), span, cx),
    };
    let mut out = Vec::with_capacity(list.len());
    for (index, item) in list.into_iter().enumerate() {
        one(item, short, keys, &mut cx.at_item(index), &mut out);
    }
    Value::List(without_repeats(out, short))
}

/// One item, which may stand for several (a range of ports).
fn one(item: Node, short: Short, keys: &'static [Key], cx: &mut Context<'_>, out: &mut Vec<Node>) {
    let Node { value, span, .. } = item;
    if value == Value::Broken {
        return;
    }
    let mut add = |node: Node| out.push(node);
    // A variable may bring colons of its own.
    if let Value::Text(text) = &value
        && !cx.interpolated
        && (short == Short::Port && text.contains('$') || text.contains("${") && text.contains(':'))
    {
        add(Node::new(value, span));
        return;
    }
    match (short, value) {
        (_, Value::Map(entries)) => {
            let mut entries = object(entries, keys, cx);
            match short {
                Short::Port => port::complete(&mut entries, span, cx),
                Short::Volume => volume::complete(&mut entries, span, cx),
                Short::Request => all_devices(&mut entries, span),
                _ => {}
            }
            add(Node::new(Value::Map(entries), span));
        }
        (Short::Port, Value::Int(number)) => {
            port::short(&number.to_string(), span, cx)
                .into_iter()
                .for_each(add);
        }
        (Short::Port, Value::Text(text)) => port::short(&text, span, cx).into_iter().for_each(add),
        (Short::Volume, Value::Text(text)) => {
            volume::short(&text, span, cx).into_iter().for_each(add);
        }
        (Short::Device, Value::Text(text)) if text.matches(':').count() > 2 => {
            let message = format!("`{text}` is not a device: too many colons");
            cx.report.invalid(
                span,
                message,
                "write `/dev/x`, `/dev/x:/dev/y` or `/dev/x:/dev/y:rwm`",
            );
        }
        (Short::Device, Value::Text(text)) => add(device(&text, span)),
        (Short::Secret | Short::Config, Value::Text(name)) => {
            add(map(span, [("source", Value::Text(name))]));
        }
        (Short::EnvFile, Value::Text(path)) => {
            add(map(
                span,
                [
                    ("path", Value::Text(cx.absolute(&path))),
                    ("required", Value::Bool(true)),
                ],
            ));
        }
        (Short::Include, Value::Text(path)) => {
            add(map(
                span,
                [("path", Value::List(vec![Node::text(path, span)]))],
            ));
        }
        (Short::Port, other) => {
            let kind = Node::new(other, span).kind();
            cx.report.invalid(
                span,
                format!("a port must be a number, a string or a mapping, not {kind}"),
                "write `\"8080:80\"`",
            );
        }
        (_, other) => {
            let kind = Node::new(other, span).kind();
            let message = format!(
                "an item of `{}` must be a string or a mapping, not {kind}",
                cx.report.path()
            );
            cx.report.invalid(span, message, "put it in quotes");
        }
    }
}

/// `host[:container[:permissions]]`, or a CDI name.
fn device(text: &str, span: Span) -> Node {
    let mut parts = text.split(':');
    let source = parts.next().expect("a text has a first part");
    let target = parts.next().unwrap_or(source);
    let permissions = parts.next().unwrap_or("rwm");
    let entry = |text: &str| Value::Text(text.to_owned());
    map(
        span,
        [
            ("source", entry(source)),
            ("target", entry(target)),
            ("permissions", entry(permissions)),
        ],
    )
}

/// A request without a number is one for all there are.
pub(super) fn all_devices(entries: &mut Map, span: Span) {
    if !entries.contains_key("device_ids") {
        insert_default(entries, "count", Value::Int(-1), span);
    }
}

/// What makes two items the same one: of these the later counts. `None`: nothing does.
fn identity(short: Short, item: &Node) -> Option<String> {
    let text = |key: &str| match &item.get(key)?.value {
        Value::Text(text) => Some(text.clone()),
        Value::Int(number) => Some(number.to_string()),
        _ => None,
    };
    let part = |key: &str| text(key).unwrap_or_default();
    match short {
        Short::Port => Some(format!(
            "{}:{}:{}/{}",
            text("host_ip").unwrap_or_else(|| "0.0.0.0".into()),
            part("published"),
            part("target"),
            part("protocol")
        )),
        Short::Volume | Short::Device => text("target"),
        Short::Secret => {
            text("target").or_else(|| Some(format!("/run/secrets/{}", part("source"))))
        }
        Short::Config => text("target").or_else(|| Some(format!("/{}", part("source")))),
        Short::EnvFile => text("path"),
        Short::Include | Short::Request => None,
        Short::Subnet => text("subnet"),
    }
}

/// Later items take the place of earlier ones that are the same.
pub(crate) fn without_repeats(items: Vec<Node>, short: Short) -> Vec<Node> {
    let mut places: std::collections::HashMap<String, usize> = std::collections::HashMap::new();
    let mut out: Vec<Node> = Vec::with_capacity(items.len());
    for item in items {
        match identity(short, &item) {
            Some(name) => match places.get(&name) {
                Some(place) => out[*place] = item,
                None => {
                    places.insert(name, out.len());
                    out.push(item);
                }
            },
            None => out.push(item),
        }
    }
    out
}
