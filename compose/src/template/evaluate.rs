//! Evaluates templates.

use std::borrow::Cow;

use super::parse::{Command, Item, Operand, Pipeline};
use super::{TAG, Template, TemplateError, TemplateFacts, layout};

/// What a template is about.
pub(super) struct Scope<'a> {
    pub(super) project: &'a str,
    pub(super) service: &'a str,
    pub(super) facts: &'a TemplateFacts<'a>,
}

#[derive(Debug, Clone, PartialEq)]
enum Value<'a> {
    Text(Cow<'a, str>),
    Number(i64),
    Bool(bool),
    /// Seconds since 1970; `None` where there is no commit.
    Time(Option<i64>),
}

impl Value<'_> {
    /// As Go's `if` sees it.
    fn is_true(&self) -> bool {
        match self {
            Self::Text(text) => !text.is_empty(),
            Self::Number(number) => *number != 0,
            Self::Bool(value) => *value,
            // A struct is always true in Go.
            Self::Time(_) => true,
        }
    }
}

type Result<T> = std::result::Result<T, TemplateError>;

pub(super) fn render(items: &[Item], scope: &Scope<'_>) -> Result<String> {
    let mut out = String::new();
    for item in items {
        match item {
            Item::Text(text) => out.push_str(text),
            Item::Print(printed) => out.push_str(&text(pipeline(printed, scope)?)?),
            Item::If { condition, yes, no } => {
                let branch = if pipeline(condition, scope)?.is_true() {
                    yes
                } else {
                    no
                };
                out.push_str(&render(branch, scope)?);
            }
        }
    }
    Ok(out)
}

fn text(value: Value<'_>) -> Result<Cow<'_, str>> {
    match value {
        Value::Text(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string().into()),
        Value::Bool(value) => Ok(if value { "true" } else { "false" }.into()),
        Value::Time(_) => Err(TemplateError::new(
            "`.Git.Date` is a time, not text",
            r#"give it a format: `{{gitdate "2006-01-02"}}`"#,
        )),
    }
}

fn pipeline<'a>(pipeline: &Pipeline, scope: &Scope<'a>) -> Result<Value<'a>> {
    let mut last = None;
    for command in &pipeline.0 {
        last = Some(match command {
            Command::Value(value) => operand(value, scope)?,
            Command::Call {
                function,
                arguments,
            } => {
                let mut values = Vec::with_capacity(arguments.len() + 1);
                for argument in arguments {
                    values.push(operand(argument, scope)?);
                }
                values.extend(last);
                call(function, values, scope)?
            }
        });
    }
    Ok(last.unwrap_or(Value::Bool(false)))
}

fn operand<'a>(operand: &Operand, scope: &Scope<'a>) -> Result<Value<'a>> {
    let git = scope.facts.git;
    Ok(match operand {
        Operand::Text(text) => Value::Text(text.clone().into()),
        Operand::Number(number) => Value::Number(*number),
        Operand::Bool(value) => Value::Bool(*value),
        Operand::Nested(nested) => pipeline(nested, scope)?,
        Operand::Field(field) => match *field {
            ".Project" => Value::Text(scope.project.into()),
            ".Service" => Value::Text(scope.service.into()),
            ".Git.IsRepo" => Value::Bool(git.is_some()),
            ".Git.IsDirty" => Value::Bool(git.is_some_and(|git| git.dirty)),
            ".Git.SHA" => Value::Text(git.map_or("", |git| &git.sha).into()),
            ".Git.Date" => Value::Time(git.map(|git| git.committed_at)),
            // `.Tag`, the one that is left.
            _ => Value::Text(render(&Template::parse(TAG)?.0, scope)?.into()),
        },
    })
}

fn call<'a>(function: &str, arguments: Vec<Value<'a>>, scope: &Scope<'a>) -> Result<Value<'a>> {
    let facts = scope.facts;
    match function {
        "gitsha" => {
            let sha = facts.git.map_or("", |git| git.sha.as_str());
            let length = match arguments.first() {
                None => 0,
                Some(Value::Number(length)) => *length,
                Some(_) => {
                    return Err(TemplateError::new(
                        "`gitsha` takes a number",
                        "write `{{gitsha 7}}` for the first seven digits",
                    ));
                }
            };
            let short = usize::try_from(length)
                .ok()
                .filter(|length| *length > 0)
                .and_then(|length| sha.get(..length));
            Ok(Value::Text(short.unwrap_or(sha).into()))
        }
        "gitdate" => match facts.git {
            Some(git) => date(git.committed_at, function, &arguments, facts),
            // Without a repository the arguments are still checked.
            None => date(0, function, &arguments, facts).map(|_| Value::Text("".into())),
        },
        "date" => date(facts.now, function, &arguments, facts),
        "not" => Ok(Value::Bool(!arguments.first().is_some_and(Value::is_true))),
        "eq" | "ne" => {
            let mut arguments = arguments.into_iter();
            let first = arguments.next();
            let equal = arguments.any(|other| Some(other) == first);
            Ok(Value::Bool(equal == (function == "eq")))
        }
        _ => {
            // `and` gives the first false argument, `or` the first true one, both the last one
            // otherwise.
            let wanted = function == "or";
            let last = arguments.len().saturating_sub(1);
            let mut arguments = arguments.into_iter().enumerate();
            let found = arguments.find(|(at, value)| *at == last || value.is_true() == wanted);
            Ok(found.map_or(Value::Bool(false), |(_, value)| value))
        }
    }
}

fn date<'a>(
    at: i64,
    function: &str,
    arguments: &[Value<'_>],
    facts: &TemplateFacts<'_>,
) -> Result<Value<'a>> {
    let (form, zone) = match arguments {
        [Value::Text(form)] => (form, None),
        [Value::Text(form), Value::Text(zone)] => (form, Some(zone.as_ref())),
        _ => {
            return Err(TemplateError::new(
                format!(
                    "`{function}` takes a date format and an optional time zone, both in quotes"
                ),
                format!(r#"write `{{{{{function} "2006-01-02"}}}}`"#),
            ));
        }
    };
    let (offset, name) = match zone {
        None | Some("" | "UTC") => (0, "UTC".to_owned()),
        Some(zone) => (facts.zone)(zone, at).ok_or_else(|| {
            TemplateError::new(
                format!("unknown time zone `{zone}` on this computer"),
                "use a name such as `Europe/Oslo`; they come from the system's time zone files (package tzdata)",
            )
        })?,
    };
    Ok(Value::Text(
        layout::format(form, &layout::Moment::new(at, offset, name)).into(),
    ))
}
