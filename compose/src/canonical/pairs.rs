//! `environment`, `labels`, `args` and their like: mappings that may also be lists of `NAME=value`.

use super::{Context, invalid, whole, wrong};
use crate::diagnostic::Rule;
use crate::node::{Entry, Map, Node, Span, Value};
use crate::report::Place;
use crate::scalar;
use crate::schema::{Shape, Unset};

/// A scalar as the text that Docker Compose makes of it.
pub(super) fn text_of(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Float(value) => scalar::go_float(*value),
        Value::Broken | Value::Null | Value::List(_) | Value::Map(_) => String::new(),
    }
}

pub(super) fn pairs(value: Value, unset: Unset, span: Span, cx: &mut Context<'_>) -> Value {
    let nothing = || match unset {
        Unset::FromEnvironment | Unset::FromProcess => Value::Null,
        Unset::Empty => Value::Text(String::new()),
    };
    let mut out = Map::new();
    match value {
        Value::Map(map) => {
            for (name, Entry { key, node }) in map {
                let cx = &mut cx.at(&name);
                let value = match node.value {
                    Value::Broken => Value::Broken,
                    Value::Null => nothing(),
                    value @ (Value::List(_) | Value::Map(_)) => {
                        let kind = Node::new(value, key).kind();
                        let message = format!("the value of `{name}` must be a string, not {kind}");
                        invalid(message, "put the value in quotes", node.span, cx)
                    }
                    value => Value::Text(text_of(&value)),
                };
                out.insert(
                    name,
                    Entry {
                        key,
                        node: Node::new(value, node.span),
                    },
                );
            }
        }
        Value::List(items) => {
            for (index, item) in items.into_iter().enumerate() {
                let cx = &mut cx.at_item(index);
                let span = item.span;
                if let Value::Text(text) = &item.value {
                    let (name, value) = match text.split_once('=') {
                        Some((name, value)) => (name, Value::Text(value.to_owned())),
                        // At once, because an included file has variables of its own.
                        None if unset == Unset::FromEnvironment && cx.interpolated => {
                            let value = (cx.lookup)(text);
                            (text.as_str(), value.map_or(Value::Null, Value::Text))
                        }
                        None => (text.as_str(), nothing()),
                    };
                    if text.is_empty() {
                        // As `${EXTRA}` is where nothing is extra; Compose reads it, too.
                        cx.report.warning(
                            Rule::Value,
                            span,
                            "empty entry is ignored",
                            "remove it, or set the variable in it",
                        );
                    } else if name.is_empty() {
                        cx.report.refuse(
                            span,
                            "a name is missing before `=`",
                            "write `NAME=value`, or remove the item",
                        );
                    }
                    out.insert(name.to_owned(), Entry::new(value, span));
                } else if item.value != Value::Broken {
                    let hint = match item.value {
                        Value::Map(_) => "write `NAME=value` with `=`, or leave out the `- `",
                        _ => "write `NAME=value`, in quotes if it has special characters",
                    };
                    cx.report.invalid(
                        span,
                        format!("each item must be a string, not {}", item.kind()),
                        hint,
                    );
                }
            }
        }
        other => return wrong(&other, Shape::Pairs(unset), span, cx),
    }
    Value::Map(out)
}

pub(super) fn options(value: Value, span: Span, cx: &mut Context<'_>) -> Value {
    match value {
        Value::Map(mut map) => {
            for (name, entry) in &mut map {
                if let Value::Bool(flag) = entry.node.value {
                    let message = format!(
                        "the value of `{name}` must be a string or a number, not a boolean"
                    );
                    let hint = format!("put it in quotes: \"{flag}\"");
                    entry.node.value = invalid(message, hint, entry.node.span, cx);
                }
            }
            pairs(Value::Map(map), Unset::Empty, span, cx)
        }
        other => wrong(&other, Shape::Options, span, cx),
    }
}

/// SSH keys by name; `default` is the agent, others need a path.
pub(super) fn keys(value: Value, span: Span, cx: &mut Context<'_>) -> Value {
    let mut value = pairs(value, Unset::Empty, span, cx);
    if let Value::Map(map) = &mut value {
        for (name, entry) in map {
            match &mut entry.node.value {
                Value::Text(text) if text.is_empty() && name != "default" => {
                    let hint = "write `name=/path/to/key`, or `default` for the agent";
                    entry.node.value = invalid(
                        format!("the key `{name}` has no path"),
                        hint,
                        entry.node.span,
                        cx,
                    );
                }
                Value::Text(text) if !text.is_empty() => *text = cx.absolute(text),
                _ => {}
            }
        }
    }
    value
}

/// Names and build contexts.
pub(super) fn contexts(value: Value, span: Span, cx: &mut Context<'_>) -> Value {
    let mut value = pairs(value, Unset::Empty, span, cx);
    if let Value::Map(map) = &mut value {
        for entry in map.values_mut() {
            if let Value::Text(text) = &mut entry.node.value {
                *text = cx.context(text);
            }
        }
    }
    value
}

/// `host=ip` each; brackets around IPv6 addresses go.
pub(super) fn hosts(value: Value, span: Span, cx: &mut Context<'_>) -> Value {
    let mut out: Vec<Node> = Vec::new();
    let mut add = |host: &str, ip: &str, span: Span| {
        let ip = ip
            .strip_prefix('[')
            .and_then(|ip| ip.strip_suffix(']'))
            .unwrap_or(ip);
        let text = format!("{host}={ip}");
        if !out.iter().any(|node| node.as_text() == Some(&text)) {
            out.push(Node::text(text, span));
        }
    };
    match value {
        Value::Map(map) => {
            for (host, Entry { node, .. }) in &map {
                match &node.value {
                    Value::Text(ip) => add(host, ip, node.span),
                    Value::List(items) if items.iter().all(|item| item.as_text().is_some()) => {
                        items
                            .iter()
                            .filter_map(|item| Some((item.as_text()?, item.span)))
                            .for_each(|(ip, span)| {
                                add(host, ip, span);
                            });
                    }
                    Value::Broken => {}
                    _ => {
                        cx.report.invalid(
                            node.span,
                            format!(
                                "the address of `{host}` must be a string, not {}",
                                node.kind()
                            ),
                            "write an IP address, or `host-gateway`",
                        );
                    }
                }
            }
        }
        Value::List(items) => {
            let mut seen = std::collections::HashSet::new();
            for item in items.into_iter().filter(|item| item.value != Value::Broken) {
                let text = item.as_text();
                if let Some(text) = text.filter(|text| !seen.insert((*text).to_owned())) {
                    whole::repeats(text, item.span, cx.report);
                }
                let separated =
                    text.and_then(|text| text.split_once('=').or_else(|| text.split_once(':')));
                match (separated, text) {
                    (Some((host, ip)), _) if !host.is_empty() && !ip.is_empty() => {
                        add(host, ip, item.span);
                    }
                    (_, Some(text)) if !cx.interpolated && text.contains('$') => {
                        add(text, "", item.span);
                    }
                    _ => {
                        cx.report.invalid(
                            item.span,
                            "invalid host entry: it must be `host=ip`",
                            "write a name, `=` and an address",
                        );
                    }
                }
            }
        }
        other => return wrong(&other, Shape::Hosts, span, cx),
    }
    Value::List(out)
}
