//! Lines that YAML 1.2 wants to be indented more than people do, and tabs after a colon.
//!
//! Every line of a `[…]`, `{…}` or quoted text that spans lines is to be indented more than what it
//! belongs to; people write the closing bracket below the key all the same, and Compose's YAML
//! library does not mind. The parser does, so such a line is indented for it and the text is read
//! again. Nothing of what the file means changes: at the beginning of such lines spaces have no
//! meaning.

use std::borrow::Cow;
use std::collections::BTreeSet;

use saphyr_parser::ScanError;

/// Spaces put before a line of a flow collection that is indented less than YAML 1.2 asks for. More
/// than any nesting has.
pub(super) const PADDING: usize = 256;

/// The text with these lines (from 1) indented, and with spaces for tabs after colons in the
/// others.
pub(super) fn indent<'t>(
    text: &'t str,
    padded: &BTreeSet<usize>,
    spaced: &BTreeSet<usize>,
) -> Cow<'t, str> {
    if padded.is_empty() && spaced.is_empty() {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + padded.len() * PADDING);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        if padded.contains(&(index + 1)) {
            out.extend(std::iter::repeat_n(' ', PADDING));
        }
        if spaced.contains(&(index + 1)) {
            out.push_str(&line.replace(":\t", ": "));
        } else {
            out.push_str(line);
        }
    }
    Cow::Owned(out)
}

/// The line (from 1) in which the parser minds a tab between a key and its value. Compose's library
/// does not.
pub(super) fn tab_after_colon(error: &ScanError, lines: &[&str]) -> Option<usize> {
    let line = error.marker().line();
    let text = lines.get(line.checked_sub(1)?)?;
    (error
        .info()
        .contains("must be followed by a valid YAML whitespace")
        && text.contains(":\t"))
    .then_some(line)
}

/// The line (from 1) whose indentation is all that the parser minds.
pub(super) fn too_little_indented(
    error: &ScanError,
    lines: &[&str],
    padded: &BTreeSet<usize>,
) -> Option<usize> {
    let line = error.marker().line();
    let is_new = |line: &usize| !padded.contains(line);
    match error.info() {
        "invalid indentation" | "invalid indentation in flow construct" => {
            Some(line).filter(is_new)
        }
        // The mark is where the quoted text begins; the line is the first one below that is
        // indented less.
        "invalid indentation in quoted scalar" => {
            let column = error.marker().col();
            let indentation = |line: &str| line.len() - line.trim_start().len();
            let below = lines.iter().enumerate().skip(line);
            below
                .map(|(index, line)| (index + 1, line))
                .filter(|(number, line)| !line.trim().is_empty() && is_new(number))
                .find(|(_, line)| indentation(line) <= column)
                .map(|(number, _)| number)
        }
        _ => None,
    }
}
