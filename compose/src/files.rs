//! Which files a compose project consists of when none is named.

/// Base files in the order of preference, each with its override files.
const CANDIDATES: [&str; 4] = [
    "compose.yaml",
    "compose.yml",
    "docker-compose.yml",
    "docker-compose.yaml",
];
const OVERRIDES: [&str; 4] = [
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
];

/// The files to load, of a folder in which `is_there` says whether a name exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefaultFiles {
    /// The base file, then its override file if there is one.
    pub files: Vec<&'static str>,
    /// Further candidates that are there too and are not read: worth a warning.
    pub ignored: Vec<&'static str>,
}

/// Decides as Compose does: the first base file, and the first override file. `None`: the folder
/// has no compose file (look in its parent).
pub fn default_files(is_there: impl Fn(&str) -> bool) -> Option<DefaultFiles> {
    let mut bases = CANDIDATES.into_iter().filter(|name| is_there(name));
    let base = bases.next()?;
    let mut ignored: Vec<_> = bases.collect();
    let mut overrides = OVERRIDES.into_iter().filter(|name| is_there(name));
    let mut files = vec![base];
    files.extend(overrides.next());
    ignored.extend(overrides);
    Some(DefaultFiles { files, ignored })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(present: &[&str]) -> Option<DefaultFiles> {
        default_files(|name| present.contains(&name))
    }

    #[test]
    fn the_first_name_wins_and_the_rest_is_said() {
        let found = decide(&["docker-compose.yml", "compose.yaml"]).unwrap();
        assert_eq!(found.files, ["compose.yaml"]);
        assert_eq!(found.ignored, ["docker-compose.yml"]);
    }

    #[test]
    fn an_override_file_comes_second() {
        let found = decide(&["docker-compose.yaml", "docker-compose.override.yml"]).unwrap();
        assert_eq!(
            found.files,
            ["docker-compose.yaml", "docker-compose.override.yml"]
        );
        assert_eq!(found.ignored, [] as [&str; 0]);
    }

    #[test]
    fn an_override_alone_is_no_project() {
        assert_eq!(decide(&["compose.override.yaml"]), None);
        assert_eq!(decide(&[]), None);
    }
}
