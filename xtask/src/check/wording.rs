//! Wording that CONTRIBUTING.md asks to avoid, in what a user reads: string literals, the help of
//! commands (doc comments of `cmd`), documents and scripts. It knows a few habits only; a clean
//! result does not mean good English.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};
use proc_macro2::{TokenStream, TokenTree};

use crate::process::read;

/// A phrase and what to write instead.
struct Rule {
    avoid: &'static str,
    write: &'static str,
}

const fn rule(avoid: &'static str, write: &'static str) -> Rule {
    Rule { avoid, write }
}

const RULES: &[Rule] = &[
    rule("is no", "is not a"),
    rule("are no", "are not"),
    rule("is none", "does not exist, or: is not a"),
    rule("are none", "do not exist, or: are not"),
    rule("anew", "again, or: from scratch"),
    rule("for ever", "forever"),
    rule("all the same", "anyway"),
    rule("meanwhile", "in the meantime"),
    rule(
        "whoever",
        "the one that acts: the peer, the caller, the writer",
    ),
    rule(
        "somebody",
        "the one that acts: another user, another command",
    ),
    rule("is told", "receives"),
    rule("are told", "receive"),
    rule("go on", "continue"),
    rule("goes on", "continues"),
    rule("went on", "continued"),
    rule("take back", "roll back, or: remove"),
    rule("takes back", "rolls back, or: removes"),
    rule("taken back", "rolled back, or: removed"),
    rule("taken away", "removed"),
    rule("shall", "must, or: will"),
    rule("not possible", "invalid, or: cannot"),
    rule("over there", "on the remote host"),
    rule("puts up with", "tolerates"),
];

/// `there is no token` and `is no longer` are ordinary English.
const FINE_BEFORE: &[&str] = &["there"];
const FINE_AFTER: &[&str] = &["longer", "more", "matter"];

/// Checks every file that git knows.
pub(super) fn check(root: &Path) -> anyhow::Result<()> {
    let listing = read(std::process::Command::new("git").arg("-C").arg(root).args([
        "ls-files",
        "*.rs",
        "*.md",
        "*.sh",
        "*.proto",
        "cmd/src/*.toml",
        "dev",
        ".ci",
    ]))?;
    let mut problems = Vec::new();
    for file in listing.lines().filter(|file| !is_exempt(file)) {
        // A file that was removed and is not committed yet is still listed.
        let Ok(text) = fs::read_to_string(root.join(file)) else {
            continue;
        };
        for (line, text) in texts(file, &text).with_context(|| format!("cannot read {file}"))? {
            for found in phrases(&text) {
                problems.push(format!(
                    "{file}:{line}: `{}`: write {}",
                    found.avoid, found.write
                ));
            }
        }
    }
    if !problems.is_empty() {
        bail!(
            "wording to avoid (docs/glossary.md):\n  {}",
            problems.join("\n  ")
        );
    }
    Ok(())
}

/// Generated code, and the places that name what to avoid.
fn is_exempt(file: &str) -> bool {
    file.contains("/generated/")
        || file == "docs/glossary.md"
        || file == "xtask/src/check/wording.rs"
}

/// What a user can come to read of this file, with line numbers.
fn texts(file: &str, text: &str) -> anyhow::Result<Vec<(usize, String)>> {
    if Path::new(file).extension().is_none_or(|end| end != "rs") {
        return Ok((1..).zip(text.lines().map(str::to_owned)).collect());
    }
    let tokens: TokenStream = text.parse().map_err(|error| anyhow::anyhow!("{error}"))?;
    let mut found = Vec::new();
    literals(tokens, file.starts_with("cmd/src/"), &mut found);
    Ok(found)
}

/// Collects string literals. Doc comments reach this as `#[doc = "…"]`; `with_docs` keeps them.
fn literals(tokens: TokenStream, with_docs: bool, found: &mut Vec<(usize, String)>) {
    let mut is_doc = false;
    for token in tokens {
        match token {
            TokenTree::Group(group) => literals(group.stream(), with_docs, found),
            TokenTree::Ident(word) if word == "doc" => is_doc = true,
            TokenTree::Punct(mark) if mark.as_char() == '=' => {}
            TokenTree::Literal(literal) => {
                let text = literal.to_string();
                if text.contains('"') && (with_docs || !is_doc) {
                    // A line that ends with a backslash continues on the next one.
                    let text = text.replace("\\\n", " ").replace("\\n", " ");
                    found.push((literal.span().start().line, text));
                }
                is_doc = false;
            }
            _ => is_doc = false,
        }
    }
}

/// The rules that this text breaks, once each.
fn phrases(text: &str) -> Vec<&'static Rule> {
    let words: Vec<String> = text.split_whitespace().map(str::to_lowercase).collect();
    RULES
        .iter()
        .filter(|rule| contains(&words, rule.avoid))
        .collect()
}

fn contains(words: &[String], phrase: &str) -> bool {
    let phrase: Vec<&str> = phrase.split(' ').collect();
    let bare = |word: &'_ String| word.trim_matches(|c: char| !c.is_alphanumeric()).to_owned();
    words.windows(phrase.len()).enumerate().any(|(at, window)| {
        let last = phrase.len() - 1;
        let matches = window
            .iter()
            .zip(&phrase)
            .enumerate()
            .all(|(index, (word, wanted))| {
                // Punctuation may stand around the phrase, not inside it.
                let word = if index == 0 {
                    word.trim_start_matches(|c: char| !c.is_alphanumeric())
                } else {
                    word
                };
                let word = if index == last {
                    word.trim_end_matches(|c: char| !c.is_alphanumeric())
                } else {
                    word
                };
                word == *wanted
            });
        let before = at.checked_sub(1).map(|at| bare(&words[at]));
        let after = words.get(at + phrase.len()).map(bare);
        let fine = |word: Option<String>, list: &[&str]| {
            word.is_some_and(|word| list.contains(&word.as_str()))
        };
        matches && !fine(before, FINE_BEFORE) && !fine(after, FINE_AFTER)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(file: &str, text: &str) -> Vec<(usize, &'static str)> {
        let texts = texts(file, text).unwrap();
        texts
            .iter()
            .flat_map(|(line, text)| phrases(text).into_iter().map(|rule| (*line, rule.avoid)))
            .collect()
    }

    #[test]
    fn string_literals_are_checked_and_comments_are_not() {
        let code =
            "// is no file\nfn f() {\n    g(\"`x` is no file\");\n    h(r#\"done anew\"#)\n}\n";
        assert_eq!(found("mesh/src/a.rs", code), [(3, "is no"), (4, "anew")]);
    }

    #[test]
    fn doc_comments_are_checked_where_they_are_help() {
        let code = "/// Makes it anew\nstruct A;\n";
        assert_eq!(found("cmd/src/commands/a.rs", code), [(1, "anew")]);
        assert_eq!(found("mesh/src/a.rs", code), []);
    }

    #[test]
    fn a_literal_over_several_lines_is_one_text() {
        let code = "const A: &str = \"it goes \\\n    on\";\n";
        assert_eq!(found("mesh/src/a.rs", code), [(1, "goes on")]);
    }

    #[test]
    fn ordinary_english_passes() {
        let text = "There is no file. It is no longer there, all the samephore; go. On we go.";
        assert_eq!(found("a.md", text), []);
    }

    #[test]
    fn punctuation_around_a_phrase_does_not_hide_it() {
        assert_eq!(found("a.md", "(It goes on, and on.)"), [(1, "goes on")]);
    }
}
