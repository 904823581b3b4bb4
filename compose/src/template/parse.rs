//! Templates as trees: texts, pipelines and conditions.

use uc_api::nearest::did_you_mean;

use super::{MAX_DEPTH, TemplateError};

/// Fields below the dot.
pub(super) const FIELDS: [&str; 7] = [
    ".Project",
    ".Service",
    ".Tag",
    ".Git.IsRepo",
    ".Git.IsDirty",
    ".Git.SHA",
    ".Git.Date",
];

/// Functions, with how many arguments they take at least and at most.
pub(super) const FUNCTIONS: [(&str, usize, usize); 8] = [
    ("gitsha", 0, 1),
    ("gitdate", 1, 2),
    ("date", 1, 2),
    ("and", 1, usize::MAX),
    ("or", 1, usize::MAX),
    ("not", 1, 1),
    ("eq", 2, usize::MAX),
    ("ne", 2, 2),
];

/// Go's actions that make no sense in the name of an image.
const OTHER_ACTIONS: [&str; 7] = [
    "range", "with", "define", "template", "block", "break", "continue",
];

/// A piece of a template.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Item {
    Text(String),
    Print(Pipeline),
    If {
        condition: Pipeline,
        yes: Vec<Item>,
        no: Vec<Item>,
    },
}

/// Commands, each given the one before it as its last argument.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pipeline(pub(super) Vec<Command>);

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Command {
    Value(Operand),
    Call {
        function: &'static str,
        arguments: Vec<Operand>,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Operand {
    Text(String),
    Number(i64),
    Bool(bool),
    /// One of [`FIELDS`].
    Field(&'static str),
    Nested(Pipeline),
}

/// A text cut at its braces.
enum Token {
    Text(String),
    Action(String),
}

#[derive(Debug, Clone, PartialEq)]
enum Word {
    Text(String),
    Number(i64),
    /// A name or a field.
    Name(String),
    Pipe,
    Open,
    Close,
}

/// Where a list of items ends.
#[derive(PartialEq)]
enum Stop {
    /// With the template itself.
    Text,
    /// At an `{{end}}`.
    End,
    /// With the condition of an `else if`.
    Else(Option<String>),
}

/// The tree of a whole template.
pub(super) fn items(text: &str) -> Result<Vec<Item>, TemplateError> {
    let mut tokens = tokens(text)?.into_iter();
    let (items, end) = list(&mut tokens, 0)?;
    match end {
        Stop::Text => Ok(items),
        Stop::End => Err(error(
            "`{{end}}` without `{{if …}}`",
            "remove it, or put `{{if …}}` before it",
        )),
        Stop::Else(_) => Err(error(
            "`{{else}}` without `{{if …}}`",
            "remove it, or put `{{if …}}` before it",
        )),
    }
}

fn error(message: impl Into<String>, hint: impl Into<String>) -> TemplateError {
    TemplateError::new(message, hint)
}

fn tokens(text: &str) -> Result<Vec<Token>, TemplateError> {
    let mut tokens = Vec::new();
    let mut rest = text;
    let mut trim_next = false;
    while !rest.is_empty() {
        let at = rest.find("{{");
        let mut before = &rest[..at.unwrap_or(rest.len())];
        if std::mem::take(&mut trim_next) {
            before = before.trim_start();
        }
        let Some(at) = at else {
            tokens.push(Token::Text(before.to_owned()));
            break;
        };
        let mut body = &rest[at + 2..];
        if body.starts_with('-') && body[1..].starts_with(char::is_whitespace) {
            before = before.trim_end();
            body = &body[1..];
        }
        tokens.push(Token::Text(before.to_owned()));
        let Some(end) = closing(body) else {
            return Err(error(
                "`{{` in a template is not closed",
                "close it with `}}`",
            ));
        };
        let mut action = body[..end].trim();
        rest = &body[end + 2..];
        if let Some(cut) = action
            .strip_suffix('-')
            .filter(|cut| cut.ends_with(char::is_whitespace))
        {
            action = cut.trim_end();
            trim_next = true;
        }
        if !action.starts_with("/*") {
            tokens.push(Token::Action(action.to_owned()));
        }
    }
    Ok(tokens)
}

/// Where `}}` stands outside of quotes.
fn closing(body: &str) -> Option<usize> {
    if body.trim_start().starts_with("/*") {
        let end = body.find("*/")?;
        return Some(end + body[end..].find("}}")?);
    }
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in body.char_indices() {
        match (quote, c) {
            (Some(_), _) if escaped => escaped = false,
            (Some('"'), '\\') => escaped = true,
            (Some(open), _) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '`') => quote = Some(c),
            (None, '}') if body[at..].starts_with("}}") => return Some(at),
            (None, _) => {}
        }
    }
    None
}

fn list(
    tokens: &mut std::vec::IntoIter<Token>,
    depth: usize,
) -> Result<(Vec<Item>, Stop), TemplateError> {
    if depth > MAX_DEPTH {
        return Err(error(
            "the template is nested too deeply",
            "use fewer levels",
        ));
    }
    let mut items = Vec::new();
    while let Some(token) = tokens.next() {
        let action = match token {
            Token::Text(text) => {
                items.push(Item::Text(text));
                continue;
            }
            Token::Action(action) => action,
        };
        let (word, rest) = action
            .split_once(char::is_whitespace)
            .unwrap_or((&action, ""));
        match word {
            "end" if rest.is_empty() => return Ok((items, Stop::End)),
            "else" => {
                let rest = rest.trim();
                if rest.is_empty() {
                    return Ok((items, Stop::Else(None)));
                }
                return match rest
                    .strip_prefix("if")
                    .filter(|rest| rest.starts_with(char::is_whitespace))
                {
                    Some(condition) => Ok((items, Stop::Else(Some(condition.to_owned())))),
                    None => Err(error(
                        format!("`{{{{{action}}}}}` is not an action"),
                        "write `{{else}}` or `{{else if …}}`",
                    )),
                };
            }
            "if" => items.push(condition(rest, tokens, depth)?),
            other if OTHER_ACTIONS.contains(&other) => {
                return Err(error(
                    format!("`{other}` cannot be used in an image name"),
                    "use fields such as `.Service`, functions such as `gitsha`, and `if`",
                ));
            }
            _ => items.push(Item::Print(pipeline_of(&action)?)),
        }
    }
    Ok((items, Stop::Text))
}

fn condition(
    text: &str,
    tokens: &mut std::vec::IntoIter<Token>,
    depth: usize,
) -> Result<Item, TemplateError> {
    let condition = pipeline_of(text)?;
    let open = || error("`{{if …}}` has no `{{end}}`", "add `{{end}}`");
    let (yes, end) = list(tokens, depth + 1)?;
    let no = match end {
        Stop::Text => return Err(open()),
        Stop::End => Vec::new(),
        // It shares the `end` of the `if` before it.
        Stop::Else(Some(next)) => vec![self::condition(&next, tokens, depth + 1)?],
        Stop::Else(None) => match list(tokens, depth + 1)? {
            (no, Stop::End) => no,
            (_, Stop::Text) => return Err(open()),
            (_, Stop::Else(_)) => {
                return Err(error(
                    "an `{{if …}}` has two `{{else}}`",
                    "remove one of them",
                ));
            }
        },
    };
    Ok(Item::If { condition, yes, no })
}

fn pipeline_of(text: &str) -> Result<Pipeline, TemplateError> {
    let words = words(text)?;
    let mut at = 0;
    let pipeline = pipeline(&words, &mut at, 0)?;
    if at < words.len() {
        return Err(error(
            format!("one closing parenthesis too many in `{{{{{text}}}}}`"),
            "remove it",
        ));
    }
    Ok(pipeline)
}

fn pipeline(words: &[Word], at: &mut usize, depth: usize) -> Result<Pipeline, TemplateError> {
    if depth > MAX_DEPTH {
        return Err(error(
            "the template is nested too deeply",
            "use fewer levels",
        ));
    }
    let mut commands = Vec::new();
    loop {
        commands.push(command(words, at, !commands.is_empty(), depth)?);
        if words.get(*at) != Some(&Word::Pipe) {
            return Ok(Pipeline(commands));
        }
        *at += 1;
    }
}

/// `piped`: it is given the result of the command before it.
fn command(
    words: &[Word],
    at: &mut usize,
    piped: bool,
    depth: usize,
) -> Result<Command, TemplateError> {
    let Some(first) = words
        .get(*at)
        .filter(|word| !matches!(word, Word::Pipe | Word::Close))
    else {
        return Err(error(
            "empty `{{ }}` in a template",
            "write a field or a function, as in `{{gitsha 7}}`",
        ));
    };
    if let Word::Name(name) = first
        && !name.starts_with('.')
        && !matches!(name.as_str(), "true" | "false")
    {
        let (function, least, most) = function(name)?;
        *at += 1;
        let arguments = operands(words, at, depth)?;
        let count = arguments.len() + usize::from(piped);
        if count < least || count > most {
            return Err(error(
                format!("`{function}` does not take {count} arguments"),
                usage(function),
            ));
        }
        return Ok(Command::Call {
            function,
            arguments,
        });
    }
    let mut operands = operands(words, at, depth)?;
    match (operands.len(), operands.pop()) {
        (1, Some(value)) if !piped => Ok(Command::Value(value)),
        _ => Err(error(
            "a value that is not a function cannot have arguments",
            "put the function's name first, as in `gitdate \"20060102\"`",
        )),
    }
}

fn function(name: &str) -> Result<(&'static str, usize, usize), TemplateError> {
    if name.starts_with('$') {
        return Err(error(
            "variables cannot be used in an image name",
            "use fields, as in `{{.Service}}`",
        ));
    }
    FUNCTIONS
        .into_iter()
        .find(|(known, ..)| *known == name)
        .ok_or_else(|| {
            let field = format!(".{name}");
            let hint = did_you_mean(name, FUNCTIONS.iter().map(|(name, ..)| *name))
                .or_else(|| did_you_mean(&field, FIELDS))
                .unwrap_or_else(|| {
                    "use `gitsha`, `gitdate`, `date`, or a field such as `.Service`".to_owned()
                });
            error(format!("templates have no function `{name}`"), hint)
        })
}

fn usage(function: &str) -> &'static str {
    match function {
        "gitsha" => "write `{{gitsha}}`, or `{{gitsha 7}}` for its first seven digits",
        "gitdate" => {
            r#"write `{{gitdate "2006-01-02"}}`, or with a time zone `{{gitdate "2006-01-02" "Europe/Oslo"}}`"#
        }
        "date" => {
            r#"write `{{date "2006-01-02"}}`, or with a time zone `{{date "2006-01-02" "Europe/Oslo"}}`"#
        }
        _ => "see the documentation of Go's text/template",
    }
}

fn operands(words: &[Word], at: &mut usize, depth: usize) -> Result<Vec<Operand>, TemplateError> {
    let mut operands = Vec::new();
    while let Some(word) = words.get(*at) {
        let operand = match word {
            Word::Pipe | Word::Close => break,
            Word::Text(text) => Operand::Text(text.clone()),
            Word::Number(number) => Operand::Number(*number),
            Word::Open => {
                *at += 1;
                let nested = pipeline(words, at, depth + 1)?;
                if words.get(*at) != Some(&Word::Close) {
                    return Err(error("a parenthesis is not closed", "close it with `)`"));
                }
                Operand::Nested(nested)
            }
            Word::Name(name) => match name.as_str() {
                "true" => Operand::Bool(true),
                "false" => Operand::Bool(false),
                name if name.starts_with('.') => Operand::Field(field(name)?),
                name => {
                    let (function, least, _) = function(name)?;
                    if least > 0 {
                        return Err(error(
                            format!("`{function}` needs arguments"),
                            "put the function and its arguments in parentheses",
                        ));
                    }
                    Operand::Nested(Pipeline(vec![Command::Call {
                        function,
                        arguments: Vec::new(),
                    }]))
                }
            },
        };
        operands.push(operand);
        *at += 1;
    }
    Ok(operands)
}

fn field(name: &str) -> Result<&'static str, TemplateError> {
    FIELDS
        .into_iter()
        .find(|known| *known == name)
        .ok_or_else(|| {
            let hint = did_you_mean(name, FIELDS).unwrap_or_else(|| {
                format!(
                    "use one of {}",
                    FIELDS.map(|field| format!("`{field}`")).join(", ")
                )
            });
            error(format!("templates have no field `{name}`"), hint)
        })
}

fn words(text: &str) -> Result<Vec<Word>, TemplateError> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (word, length) = match first {
            '|' => (Word::Pipe, 1),
            '(' => (Word::Open, 1),
            ')' => (Word::Close, 1),
            '"' => quoted(rest)?,
            '`' => {
                let end = rest[1..].find('`').ok_or_else(unclosed)?;
                (Word::Text(rest[1..=end].to_owned()), end + 2)
            }
            _ => {
                let end = rest
                    .find(|c: char| c.is_whitespace() || matches!(c, '|' | '(' | ')' | '"' | '`'))
                    .unwrap_or(rest.len());
                (bare(&rest[..end])?, end)
            }
        };
        words.push(word);
        rest = rest[length..].trim_start();
    }
    Ok(words)
}

fn unclosed() -> TemplateError {
    error(
        "a quote in a template is not closed",
        "close it before `}}`",
    )
}

fn quoted(text: &str) -> Result<(Word, usize), TemplateError> {
    let mut out = String::new();
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => {
                match c {
                    'n' => out.push('\n'),
                    't' => out.push('\t'),
                    '"' | '\\' => out.push(c),
                    other => {
                        return Err(error(
                            format!("unknown escape `\\{other}` in a template"),
                            "write `\\\\` for a backslash",
                        ));
                    }
                }
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return Ok((Word::Text(out), at + 1)),
            other => out.push(other),
        }
    }
    Err(unclosed())
}

/// A number, a field or a name.
fn bare(text: &str) -> Result<Word, TemplateError> {
    if text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+')) {
        return text.parse().map(Word::Number).map_err(|_| {
            error(
                format!("`{text}` is not a whole number"),
                "put text, such as a date format, in double quotes",
            )
        });
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
    if text.chars().all(plain) || text.starts_with('$') {
        return Ok(Word::Name(text.to_owned()));
    }
    Err(error(
        format!("unexpected `{text}` in a template"),
        "put text in double quotes",
    ))
}
