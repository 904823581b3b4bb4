//! Text of others on our terminal. What a container printed, a record holds or a daemon reported
//! must not move the cursor, clear the screen or set the terminal's title.

use std::iter::Peekable;
use std::str::Chars;

/// One line without any control character or escape sequence. A line break or tab becomes a space.
pub(crate) fn one_line(text: &str) -> String {
    clean(text, Keep::Nothing)
}

/// A line that a container or another program printed: [`one_line`], but its colours are kept and
/// end with the line.
pub(crate) fn of_container(line: &str) -> String {
    let mut text = clean(line, Keep::Colours);
    if text.contains(ESCAPE) {
        text.push_str("\u{1b}[0m");
    }
    text
}

/// [`one_line`] for each line, all but the first with this indentation.
pub(crate) fn lines(text: &str, indentation: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(one_line).collect();
    lines.join(&format!("\n{indentation}"))
}

/// Our own marks and arrows in ASCII, for terminals whose character set has no others.
pub(crate) fn ascii(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '✔' => out.push_str("ok"),
            '✘' => out.push_str("FAILED"),
            '↩' => out.push_str("undone"),
            '→' => out.push_str("->"),
            '…' => out.push_str("..."),
            c => out.push(c),
        }
    }
    out
}

const ESCAPE: char = '\u{1b}';

#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    Nothing,
    Colours,
}

/// Removes escape sequences as ECMA-48 defines them (section 5.4 and 5.6), in their 7-bit and 8-bit
/// forms.
fn clean(text: &str, keep: Keep) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            ESCAPE => match rest.next() {
                Some('[') => control_sequence(&mut rest, keep, &mut out),
                Some(']' | 'P' | 'X' | '^' | '_') => control_string(&mut rest),
                // An escape of more than two characters: intermediates, then a final one.
                Some(' '..='/') => {
                    while rest.next_if(|c| matches!(c, ' '..='/')).is_some() {}
                    rest.next();
                }
                Some(_) | None => {}
            },
            '\u{9b}' => control_sequence(&mut rest, keep, &mut out),
            '\u{90}' | '\u{98}' | '\u{9d}'..='\u{9f}' => control_string(&mut rest),
            '\n' | '\r' | '\t' => out.push(' '),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

/// Parameters, intermediates and a final character. Only colours (SGR) can be kept.
fn control_sequence(rest: &mut Peekable<Chars<'_>>, keep: Keep, out: &mut String) {
    let mut parameters = String::new();
    while let Some(c) = rest.next_if(|c| matches!(c, ' '..='?')) {
        parameters.push(c);
    }
    let end = rest.next_if(|c| matches!(c, '@'..='~'));
    let colours = parameters
        .chars()
        .all(|c| c.is_ascii_digit() || c == ';' || c == ':');
    if keep == Keep::Colours && end == Some('m') && colours {
        out.push_str("\u{1b}[");
        out.push_str(&parameters);
        out.push('m');
    }
}

/// Everything up to the string terminator: a title, a clipboard, a link.
fn control_string(rest: &mut Peekable<Chars<'_>>) {
    while let Some(c) = rest.next() {
        match c {
            '\u{7}' | '\u{9c}' => return,
            ESCAPE if rest.next_if_eq(&'\\').is_some() => return,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_removes_controls_and_whole_sequences() {
        for (text, clean) in [
            ("plain ü 数", "plain ü 数"),
            ("a\nb\tc\rd", "a b c d"),
            ("a\u{1b}[31mred\u{1b}[0mb", "aredb"),
            ("\u{1b}[2J\u{1b}[1;1Hx", "x"),
            ("\u{9b}2Jx", "x"),
            ("\u{1b}]0;title\u{7}x", "x"),
            ("\u{1b}]8;;http://a\u{1b}\\x", "x"),
            ("\u{1b}P1;2q\u{9c}x", "x"),
            ("\u{1b}(Bx", "x"),
            ("\u{1b}cx", "x"),
            ("\u{8}\u{7}\u{7f}\u{85}x", "x"),
            ("x\u{1b}", "x"),
            ("x\u{1b}[", "x"),
            ("x\u{1b}]0;never ends", "x"),
        ] {
            assert_eq!(one_line(text), clean, "{text:?}");
        }
    }

    #[test]
    fn container_line_keeps_colours_and_ends_them() {
        assert_eq!(of_container("plain"), "plain");
        assert_eq!(
            of_container("\u{1b}[1;31mred\u{1b}[2K"),
            "\u{1b}[1;31mred\u{1b}[0m"
        );
        // Not colours, although they end with `m`.
        assert_eq!(of_container("\u{1b}[>4;2mx\u{1b}[?5mx"), "xx");
    }

    #[test]
    fn ascii_replaces_our_marks_and_nothing_else() {
        assert_eq!(
            ascii("✔ web → m1  … é"),
            "ok web -> m1  ... é",
            "names of others are not ours to change"
        );
    }

    #[test]
    fn lines_are_indented_but_the_first() {
        assert_eq!(lines("a\nb\u{1b}[2J\nc", "  "), "a\n  b\n  c");
    }
}
