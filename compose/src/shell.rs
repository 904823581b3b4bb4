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

/// `None`: a quote or parenthesis is not closed.
pub(crate) fn split(text: &str) -> Option<Words> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut in_word = false;
    let mut cut_at = None;
    let (mut escaped, mut single, mut double, mut back, mut dollar) =
        (false, false, false, false, false);
    for c in text.chars() {
        if escaped {
            word.push(match c {
                't' => '\t',
                'n' => '\n',
                other => other,
            });
            escaped = false;
            in_word = true;
            continue;
        }
        let quoted = single || double || back || dollar;
        match c {
            '\\' if !single => {
                escaped = true;
                continue;
            }
            ' ' | '\t' | '\r' | '\n' if !quoted => {
                if in_word {
                    words.push(std::mem::take(&mut word));
                }
                in_word = false;
                continue;
            }
            '`' if !single && !double && !dollar => back = !back,
            ')' if !single && !double && !back => dollar = !dollar,
            '(' if !quoted => {
                if !word.ends_with('$') {
                    return None;
                }
                dollar = true;
            }
            '"' if !single && !dollar => {
                double = !double;
                in_word = true;
                continue;
            }
            '\'' if !double && !dollar => {
                single = !single;
                in_word = true;
                continue;
            }
            ';' | '&' | '|' | '<' | '>' if !quoted => {
                // `2>` is a redirection, its number no word.
                if c == '>' && word.starts_with(|c: char| c.is_ascii_digit()) {
                    in_word = false;
                }
                cut_at = Some(c);
                break;
            }
            _ => {}
        }
        in_word = true;
        word.push(c);
    }
    if escaped || single || double || back || dollar {
        return None;
    }
    if in_word {
        words.push(word);
    }
    Some(Words { words, cut_at })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_as_docker_compose_splits_them() {
        let table: [(&str, &[&str]); 12] = [
            ("", &[]),
            ("  a  b ", &["a", "b"]),
            ("sh -c \"a 'b' $X\"", &["sh", "-c", "a 'b' $X"]),
            ("a '' b\\ c", &["a", "", "b c"]),
            ("\\# \\n d\"q\"", &["#", "\n", "dq"]),
            ("'it'\\''s'", &["it's"]),
            ("echo $(a b) `c d`", &["echo", "$(a b)", "`c d`"]),
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
