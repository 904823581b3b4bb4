//! Versions of the engine's API, which tell what a machine's engine supports.

use std::fmt;

/// A version of the engine's API, for example 1.47.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ApiVersion {
    major: u32,
    minor: u32,
}

impl ApiVersion {
    /// Makes the version `major.minor`.
    pub(crate) const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    /// Parses the engine's text. An invalid part counts as 0, so that an engine with an unreadable
    /// version is assumed to support nothing.
    pub(crate) fn parse(text: &str) -> Self {
        let mut numbers = text.split('.').map(|part| part.parse().unwrap_or(0));
        let mut next = || numbers.next().unwrap_or(0);
        Self::new(next(), next())
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn api_versions_are_ordered_by_number() {
        let parse = ApiVersion::parse;
        assert!(parse("1.9") < parse("1.41") && parse("1.51") < parse("2.0"));
        assert_eq!(parse(""), ApiVersion::new(0, 0));
        assert_eq!(parse("1.47").to_string(), "1.47");
    }
}
