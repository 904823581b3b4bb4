//! Templates as pieces: texts, fields and functions, each with the condition that it depends on.

use uc_api::nearest::did_you_mean;

use super::{Condition, DateOf, Piece, Print, TemplateError, date, error};

/// Fields below the dot.
const FIELDS: [(&str, Print); 6] = [
    (".Project", Print::Project),
    (".Service", Print::Service),
    (".Tag", Print::Tag),
    (".Git.SHA", Print::Sha(None)),
    (".Git.IsRepo", Print::Condition(Condition::IsRepository)),
    (".Git.IsDirty", Print::Condition(Condition::IsDirty)),
];

/// Functions, with how to call them.
const FUNCTIONS: [(&str, &str); 3] = [
    (
        "gitsha",
        "write `{{gitsha}}`, or `{{gitsha 7}}` for its first seven digits",
    ),
    (
        "gitdate",
        r#"write `{{gitdate "2006-01-02"}}`, or with a time zone `{{gitdate "2006-01-02" "Europe/Oslo"}}`"#,
    ),
    (
        "date",
        r#"write `{{date "2006-01-02"}}`, or with a time zone `{{date "2006-01-02" "Europe/Oslo"}}`"#,
    ),
];

const CONDITIONS: &str = "write `{{if .Git.IsRepo}}…{{else}}…{{end}}` or `{{if .Git.IsDirty}}…{{end}}`, one after the other";

enum Word<'t> {
    Bare(&'t str),
    /// Without its quotes.
    Quoted(&'t str),
}

use Word::{Bare, Quoted};

/// The pieces of a whole template.
pub(super) fn pieces(text: &str) -> Result<Vec<Piece>, TemplateError> {
    let mut pieces = Vec::new();
    let mut only_if = None;
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        pieces.push(Piece {
            only_if,
            print: Print::Text(before.to_owned()),
        });
        let (action, after) = after
            .split_once("}}")
            .ok_or_else(|| error("`{{` in a template is not closed", "close it with `}}`"))?;
        rest = after;
        let words = words(action)?;
        match (words.as_slice(), only_if) {
            ([Bare("if"), Bare(name)], None) => only_if = Some((condition(name)?, true)),
            ([Bare("else")], Some((condition, true))) => only_if = Some((condition, false)),
            ([Bare("end")], Some(_)) => only_if = None,
            ([Bare("if" | "else" | "end"), ..], _) => {
                return Err(error(
                    format!("`{{{{{action}}}}}` cannot be used here"),
                    CONDITIONS,
                ));
            }
            (words, _) => pieces.push(Piece {
                only_if,
                print: print(action, words)?,
            }),
        }
    }
    if only_if.is_some() {
        return Err(error("`{{if …}}` has no `{{end}}`", "add `{{end}}`"));
    }
    pieces.push(Piece {
        only_if,
        print: Print::Text(rest.to_owned()),
    });
    Ok(pieces)
}

fn words(action: &str) -> Result<Vec<Word<'_>>, TemplateError> {
    let mut words = Vec::new();
    let mut rest = action.trim_start();
    while let Some(first) = rest.chars().next() {
        let (word, after) = if matches!(first, '"' | '`') {
            let (text, after) = rest[1..].split_once(first).ok_or_else(|| {
                error(
                    "a quote in a template is not closed",
                    "close it before `}}`",
                )
            })?;
            (Quoted(text), after)
        } else {
            let (text, after) = rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len()));
            (Bare(text), after)
        };
        words.push(word);
        rest = after.trim_start();
    }
    Ok(words)
}

fn condition(name: &str) -> Result<Condition, TemplateError> {
    match field(name)? {
        Print::Condition(condition) => Ok(condition),
        _ => Err(error(format!("`{name}` is not a condition"), CONDITIONS)),
    }
}

fn print(action: &str, words: &[Word<'_>]) -> Result<Print, TemplateError> {
    let (name, arguments) = match words {
        [Bare(name), arguments @ ..] => (*name, arguments),
        _ => {
            return Err(error(
                format!("`{{{{{action}}}}}` has no field or function"),
                "write a field or a function, as in `{{gitsha 7}}`",
            ));
        }
    };
    let print = match (name, arguments) {
        (name, []) if name.starts_with('.') => Some(field(name)?),
        ("gitsha", []) => Some(Print::Sha(None)),
        // 0 and less: all digits.
        ("gitsha", [Bare(length)]) => length
            .parse::<i64>()
            .ok()
            .map(|length| Print::Sha(usize::try_from(length).ok().filter(|length| *length > 0))),
        ("gitdate", arguments) => date_of(DateOf::Commit, arguments)?,
        ("date", arguments) => date_of(DateOf::Now, arguments)?,
        _ => None,
    };
    print.ok_or_else(|| {
        let function = FUNCTIONS.iter().find(|(known, _)| *known == name);
        match function {
            Some((_, usage)) => error(
                format!("`{{{{{action}}}}}` is not a call of `{name}`"),
                *usage,
            ),
            None if name.starts_with('.') => error(
                format!("the field `{name}` takes no arguments"),
                "remove them",
            ),
            None => unknown_function(name),
        }
    })
}

/// `None` means that the arguments are wrong.
fn date_of(of: DateOf, arguments: &[Word<'_>]) -> Result<Option<Print>, TemplateError> {
    let (form, zone) = match arguments {
        [Quoted(form)] => (form, None),
        [Quoted(form), Quoted(zone)] => (form, Some((*zone).to_owned())),
        _ => return Ok(None),
    };
    let form = date::strftime(form)?;
    Ok(Some(Print::Date { of, form, zone }))
}

fn field(name: &str) -> Result<Print, TemplateError> {
    let known = FIELDS.into_iter().find(|(known, _)| *known == name);
    known.map(|(_, print)| print).ok_or_else(|| {
        let names = FIELDS.map(|(name, _)| name);
        let hint = did_you_mean(name, names)
            .unwrap_or_else(|| format!("use one of `{}`", names.join("`, `")));
        error(format!("templates have no field `{name}`"), hint)
    })
}

fn unknown_function(name: &str) -> TemplateError {
    let hint = did_you_mean(name, FUNCTIONS.map(|(name, _)| name))
        .or_else(|| did_you_mean(&format!(".{name}"), FIELDS.map(|(name, _)| name)))
        .unwrap_or_else(|| {
            "use `gitsha`, `gitdate`, `date`, `if`, or a field such as `.Service`".to_owned()
        });
    error(format!("templates have no function `{name}`"), hint)
}
