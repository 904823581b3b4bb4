//! Go's date formats, which show how Mon Jan 2 15:04:05 MST 2006 would look, as those of
//! `strftime`.

use super::{TemplateError, error};

/// Elements of a format, longer ones before those they begin with.
const ELEMENTS: [(&str, &str); 24] = [
    ("January", "%B"),
    ("Jan", "%b"),
    ("Monday", "%A"),
    ("Mon", "%a"),
    ("MST", "%Z"),
    ("2006", "%Y"),
    ("__2", "%_j"),
    ("_2", "%e"),
    ("002", "%j"),
    ("01", "%m"),
    ("02", "%d"),
    ("03", "%I"),
    ("04", "%M"),
    ("05", "%S"),
    ("06", "%y"),
    ("15", "%H"),
    ("PM", "%p"),
    ("pm", "%P"),
    ("1", "%-m"),
    ("2", "%-d"),
    ("3", "%-I"),
    ("4", "%-M"),
    ("5", "%-S"),
    ("%", "%%"),
];

/// Beginnings of Go's elements for offsets from UTC, whose `+` and `:` no image name can have, and
/// for fractions of a second.
const REFUSED: [&str; 4] = ["-07", "Z07", ".9", ",9"];

/// The format in the syntax of `strftime`.
pub(super) fn strftime(form: &str) -> Result<String, TemplateError> {
    let mut out = String::new();
    let mut rest = form;
    while let Some(first) = rest.chars().next() {
        if let Some(refused) = REFUSED.iter().find(|refused| rest.starts_with(**refused)) {
            return Err(error(
                format!("`{refused}` cannot be used in a date format"),
                "use `MST` for the name of the time zone; leave out fractions of a second",
            ));
        }
        let length = match element(rest) {
            Some((element, directive)) => {
                out.push_str(directive);
                element.len()
            }
            None => {
                out.push(first);
                first.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    Ok(out)
}

/// The element that a text begins with.
fn element(text: &str) -> Option<(&'static str, &'static str)> {
    let (element, directive) = ELEMENTS
        .into_iter()
        .find(|(element, _)| text.starts_with(element))?;
    let is_element = match element {
        // "Janitor" is not a month.
        "Jan" | "Mon" => !text[element.len()..].starts_with(char::is_lowercase),
        // "_2006" is an underscore and a year.
        "_2" => !text[1..].starts_with("2006"),
        _ => true,
    };
    is_element.then_some((element, directive))
}
