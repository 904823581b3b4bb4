//! Splits a command string into words as Docker Compose does (its go-shellwords, which is nearly
//! but not quite a shell).

/// The words, and where the string was cut short.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Words {
    pub(crate) words: Vec<String>,
    /// The operator (`&`, `|`, `;`, `<`, `>`) at which the command ends; what follows it is lost,
    /// in Docker Compose too.
    pub(crate) cut_at: Option<char>,
}

/// What a character is inside of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inside {
    Nothing,
    Single,
    Double,
    Backticks,
    SingleInBackticks,
    DoubleInBackticks,
    /// `$(…)`
    Parentheses,
}

impl Inside {
    /// After a character that opens or closes something here.
    fn after(self, c: char) -> Option<Self> {
        Some(match (self, c) {
            (Self::Nothing, '\'') => Self::Single,
            (Self::Nothing, '"') => Self::Double,
            (Self::Nothing, '`') => Self::Backticks,
            (Self::Nothing, '(' | ')') => Self::Parentheses,
            (Self::Backticks, '\'') => Self::SingleInBackticks,
            (Self::Backticks, '"') => Self::DoubleInBackticks,
            (Self::SingleInBackticks, '\'') | (Self::DoubleInBackticks, '"') => Self::Backticks,
            (Self::Single, '\'')
            | (Self::Double, '"')
            | (Self::Backticks, '`')
            | (Self::Parentheses, ')') => Self::Nothing,
            _ => return None,
        })
    }
}

/// `None`: a quote or parenthesis is not closed.
pub(crate) fn split(text: &str) -> Option<Words> {
    let mut words = Vec::new();
    // `None`: between two words.
    let mut word: Option<String> = None;
    let mut cut_at = None;
    let mut inside = Inside::Nothing;
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        let word_so_far = word.as_deref().unwrap_or("");
        match (inside, c) {
            (Inside::Single | Inside::SingleInBackticks, '\\') => {}
            (_, '\\') => {
                let escaped = match characters.next()? {
                    't' => '\t',
                    'n' => '\n',
                    other => other,
                };
                word.get_or_insert_default().push(escaped);
                continue;
            }
            (Inside::Nothing, ' ' | '\t' | '\r' | '\n') => {
                words.extend(word.take());
                continue;
            }
            (Inside::Nothing, '(') if !word_so_far.ends_with('$') => return None,
            (Inside::Nothing, ';' | '&' | '|' | '<' | '>') => {
                // `2>` is a redirection, its number no word.
                if c == '>' && word_so_far.starts_with(|c: char| c.is_ascii_digit()) {
                    word = None;
                }
                cut_at = Some(c);
                break;
            }
            _ => {}
        }
        let word = word.get_or_insert_default();
        let next = inside.after(c);
        let is_quote = next.is_some() && matches!(c, '\'' | '"');
        if !is_quote {
            word.push(c);
        }
        inside = next.unwrap_or(inside);
    }
    words.extend(word);
    (inside == Inside::Nothing).then_some(Words { words, cut_at })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_as_docker_compose_splits_them() {
        let table: [(&str, &[&str]); 13] = [
            ("", &[]),
            ("  a  b ", &["a", "b"]),
            ("sh -c \"a 'b' $X\"", &["sh", "-c", "a 'b' $X"]),
            ("a '' b\\ c", &["a", "", "b c"]),
            ("\\# \\n d\"q\"", &["#", "\n", "dq"]),
            ("'it'\\''s'", &["it's"]),
            ("echo $(a b) `c d`", &["echo", "$(a b)", "`c d`"]),
            ("`a \"b `\" 'c`'` d", &["`a b ` c``", "d"]),
            ("a=\"x y\" --b", &["a=x y", "--b"]),
            ("'a\\b'", &["a\\b"]),
            ("[\"a\"]", &["[a]"]),
            ("a\nb", &["a", "b"]),
            ("ü \"é è\"", &["ü", "é è"]),
        ];
        for (text, expected) in table {
            let words = split(text).unwrap();
            assert_eq!(
                (words.words.as_slice(), words.cut_at),
                (
                    &expected.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>()[..],
                    None
                ),
                "{text}"
            );
        }
    }

    #[test]
    fn operators_cut_the_command_and_that_is_known() {
        for (text, expected, operator) in [
            ("a && b", "a", '&'),
            ("a|b", "a", '|'),
            ("a 2> b", "a", '>'),
            ("a; b", "a", ';'),
        ] {
            let words = split(text).unwrap();
            assert_eq!(
                (words.words.as_slice(), words.cut_at),
                (&[expected.to_owned()][..], Some(operator)),
                "{text}"
            );
        }
    }

    #[test]
    fn open_quotes_are_refused() {
        for text in ["a \"b", "'", "a\\", "`x", "(a)", "a)"] {
            assert_eq!(split(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn single_quoted_text_is_one_word(text in "[^']{0,30}") {
            let words = split(&format!("'{text}'")).unwrap();
            prop_assert_eq!(words.words, [text]);
        }
    }
}
