//! Single values: words, booleans, numbers, durations, sizes, commands.

use uc_api::nearest;

use super::{Context, each, invalid, wrong};
use crate::diagnostic::Rule;
use crate::node::{Node, Span, Value};
use crate::schema::Shape;
use crate::{duration, scalar, shell};

pub(super) fn one_of(text: String, words: &[&str], span: Span, cx: &mut Context<'_>) -> Value {
    if words.contains(&text.as_str()) {
        return Value::Text(text);
    }
    let list: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
    let hint = nearest::did_you_mean(&text, words.iter().copied())
        .unwrap_or_else(|| format!("use {}", list.join(", ")));
    invalid(
        format!("`{}` cannot be `{text}`", cx.report.path()),
        hint,
        span,
        cx,
    )
}

/// Booleans, numbers, durations and sizes, which may also be spelled as strings.
pub(super) fn typed(value: Value, shape: Shape, span: Span, cx: &mut Context<'_>) -> Value {
    match (shape, value) {
        (Shape::Bool, value @ Value::Bool(_)) => value,
        (Shape::Bool, Value::Text(text)) => match scalar::cast_bool(&text) {
            Some((value, false)) => Value::Bool(value),
            Some((value, true)) => {
                let message = format!("`{text}` is an old spelling of `{value}`");
                cx.report
                    .warning(Rule::Value, span, message, format!("write `{value}`"));
                Value::Bool(value)
            }
            None => invalid(
                format!(
                    "`{}` must be `true` or `false`, not `{text}`",
                    cx.report.path()
                ),
                "write `true` or `false`",
                span,
                cx,
            ),
        },
        (Shape::Int | Shape::Number, value @ Value::Int(_))
        | (Shape::Number, value @ Value::Float(_)) => value,
        (Shape::Int, Value::Float(number)) if number.fract() == 0.0 && number.abs() < 1e15 => {
            Value::Int(number as i128)
        }
        (Shape::Int | Shape::Number, Value::Text(text)) => {
            let int = text
                .parse::<i64>()
                .ok()
                .map(|number| Value::Int(number.into()));
            let float = || {
                let number = text
                    .parse::<f64>()
                    .ok()
                    .filter(|number| number.is_finite())?;
                matches!(shape, Shape::Number).then_some(Value::Float(number))
            };
            int.or_else(float).unwrap_or_else(|| {
                let expected = shape.expected();
                invalid(
                    format!("`{}` must be {expected}, not `{text}`", cx.report.path()),
                    format!("write {expected}"),
                    span,
                    cx,
                )
            })
        }
        (Shape::Duration, Value::Text(text)) => match duration::parse_duration(&text) {
            Some(nanoseconds) => Value::Text(duration::format_duration(nanoseconds)),
            None => invalid(
                format!("`{text}` is not a duration"),
                "write numbers with units, as in `90s`, `1m30s` or `500ms`",
                span,
                cx,
            ),
        },
        (Shape::Size, Value::Int(bytes)) => Value::Text(bytes.to_string()),
        // What is less than a byte is lost, as in Docker Compose.
        (Shape::Size, Value::Float(bytes)) if bytes.abs() < 1e15 => {
            Value::Text((bytes as i64).to_string())
        }
        (Shape::Size, Value::Text(text)) => match duration::parse_size(&text) {
            Some(bytes) => Value::Text(bytes.to_string()),
            None => invalid(
                format!("`{text}` is not a size"),
                "write a number with a unit, as in `64m` or `1.5g`",
                span,
                cx,
            ),
        },
        (shape, value) => wrong(&value, shape, span, cx),
    }
}

pub(super) fn command(value: Value, span: Span, cx: &mut Context<'_>) -> Value {
    match value {
        Value::Null => Value::Null,
        Value::List(items) => Value::List(each(items, Shape::Text, cx)),
        Value::Text(text) => {
            let Some(split) = shell::split(&text) else {
                return invalid(
                    format!(
                        "`{}` has a quote or parenthesis that is not closed",
                        cx.report.path()
                    ),
                    "close it, or write the command as a list of words",
                    span,
                    cx,
                );
            };
            if let Some(operator) = split.cut_at {
                let message = format!(
                    "the command ends at `{operator}`: it is not run by a shell, so the rest is ignored"
                );
                cx.report.warning(
                    Rule::Value,
                    span,
                    message,
                    "for a shell, write `[\"sh\", \"-c\", \"…\"]`; otherwise quote the character",
                );
            }
            Value::List(
                split
                    .words
                    .into_iter()
                    .map(|word| Node::text(word, span))
                    .collect(),
            )
        }
        other => wrong(&other, Shape::Command, span, cx),
    }
}

pub(super) fn test(value: Value, span: Span, cx: &mut Context<'_>) -> Value {
    match value {
        Value::Text(text) => {
            Value::List(vec![Node::text("CMD-SHELL", span), Node::text(text, span)])
        }
        Value::List(items) => {
            let items = each(items, Shape::Text, cx);
            if let Some(first) = items.first()
                && !matches!(first.as_text(), None | Some("CMD" | "CMD-SHELL" | "NONE"))
            {
                cx.report.invalid(
                    first.span,
                    "a health check in list form must begin with `CMD`, `CMD-SHELL` or `NONE`",
                    "put `CMD` first, or write one string for the shell",
                );
            }
            Value::List(items)
        }
        other => wrong(&other, Shape::Test, span, cx),
    }
}
