//! SPDX licence expressions, as far as Cargo manifests use them: AND, OR, WITH, parentheses, and
//! the old `A/B` for `A OR B`. See the SPDX specification, annex D.

/// Whether the licences of `allowed` are enough to fulfil `expression`; an error where it is none.
pub(super) fn allows(expression: &str, allowed: &[String]) -> Result<bool, String> {
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser {
        words: &words,
        allowed,
    };
    let result = parser.any()?;
    match parser.words.first() {
        None => Ok(result),
        Some(word) => Err(format!(
            "'{word}' is not expected in the licence expression '{expression}'"
        )),
    }
}

struct Parser<'a> {
    words: &'a [&'a str],
    allowed: &'a [String],
}

impl Parser<'_> {
    fn any(&mut self) -> Result<bool, String> {
        let mut result = self.all()?;
        while self.accept("OR") {
            result |= self.all()?;
        }
        Ok(result)
    }

    fn all(&mut self) -> Result<bool, String> {
        let mut result = self.one()?;
        while self.accept("AND") {
            result &= self.one()?;
        }
        Ok(result)
    }

    fn one(&mut self) -> Result<bool, String> {
        if self.accept("(") {
            let result = self.any()?;
            return if self.accept(")") {
                Ok(result)
            } else {
                Err("a parenthesis is not closed".to_owned())
            };
        }
        let mut licence = match self.next() {
            Some(word) if !matches!(word, "AND" | "OR" | "WITH" | ")") => word.to_owned(),
            other => {
                return Err(format!(
                    "a licence is expected, not '{}'",
                    other.unwrap_or("the end")
                ));
            }
        };
        if self.accept("WITH") {
            let exception = self.next().ok_or("an exception is expected, not the end")?;
            licence = format!("{licence} WITH {exception}");
        }
        Ok(self.allowed.contains(&licence))
    }

    fn accept(&mut self, word: &str) -> bool {
        let found = self.words.first() == Some(&word);
        if found {
            self.words = &self.words[1..];
        }
        found
    }

    fn next(&mut self) -> Option<&str> {
        let (first, rest) = self.words.split_first()?;
        self.words = rest;
        Some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(expression: &str) -> Result<bool, String> {
        let allowed = [
            "MIT",
            "Apache-2.0",
            "BSD-3-Clause",
            "Apache-2.0 WITH LLVM-exception",
        ]
        .map(str::to_owned);
        allows(expression, &allowed)
    }

    #[test]
    fn one_of_several_is_enough_and_all_of_several_are_needed() {
        for (expression, expected) in [
            ("MIT", true),
            ("GPL-3.0", false),
            ("GPL-3.0 OR MIT", true),
            ("GPL-3.0/MIT", true),
            ("Apache-2.0 / MIT", true),
            ("GPL-3.0 AND MIT", false),
            ("MIT AND BSD-3-Clause", true),
            // AND binds closer than OR.
            ("MIT OR GPL-3.0 AND BSD-3-Clause", true),
            ("(MIT OR GPL-3.0) AND BSD-3-Clause", true),
            ("(MIT OR Apache-2.0) AND Unicode-3.0", false),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("GPL-3.0 WITH LLVM-exception", false),
            ("GPL-3.0 WITH Classpath-exception-2.0 OR MIT", true),
        ] {
            assert_eq!(verdict(expression), Ok(expected), "{expression}");
        }
    }

    #[test]
    fn what_is_no_expression_is_an_error() {
        for expression in [
            "",
            "MIT OR",
            "AND MIT",
            "(MIT",
            "MIT)",
            "MIT Apache-2.0",
            "()",
        ] {
            assert!(
                verdict(expression).is_err(),
                "{expression:?}: {:?}",
                verdict(expression)
            );
        }
    }
}
