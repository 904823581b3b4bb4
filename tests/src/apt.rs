//! Debian packages: the archive that the host's apt uses, and installing missing packages.

use std::fs;
use std::path::Path;

use crate::progress::say;
use crate::run::{capture, command, read};

/// The first archive in apt's sources that contains `suite`. `None` means that debootstrap uses its
/// default, which is Debian's own archive.
pub(crate) fn mirror(suite: &str) -> Option<String> {
    mirror_in(Path::new("/etc/apt"), suite)
}

fn mirror_in(apt: &Path, suite: &str) -> Option<String> {
    let mut files = vec![apt.join("sources.list")];
    let mut listed: Vec<_> = fs::read_dir(apt.join("sources.list.d"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path())
        .collect();
    listed.sort();
    files.extend(listed);
    files.iter().find_map(|file| {
        let text = fs::read_to_string(file).ok()?;
        match file.extension()?.to_str()? {
            "list" => mirror_in_list(&text, suite),
            "sources" => mirror_in_stanzas(&text, suite),
            _ => None,
        }
    })
}

/// The one-line format: `deb [options] URI suite component…`, see sources.list(5).
fn mirror_in_list(text: &str, suite: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let line = line.trim().strip_prefix("deb ")?.trim_start();
        let line = if line.starts_with('[') {
            line.split_once(']')?.1
        } else {
            line
        };
        let mut words = line.split_whitespace();
        let uri = words.next()?;
        (words.next()? == suite && words.any(|component| component == "main") && is_web(uri))
            .then(|| uri.to_owned())
    })
}

/// The deb822 format: stanzas of `Key: value` lines, see sources.list(5).
fn mirror_in_stanzas(text: &str, suite: &str) -> Option<String> {
    text.split("\n\n").find_map(|stanza| {
        let field = |name: &str| {
            stanza.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name)
                    .then(|| value.trim().to_owned())
            })
        };
        let names = |field: Option<String>, word: &str| {
            field.is_some_and(|value| value.split_whitespace().any(|one| one == word))
        };
        if !names(field("Types"), "deb")
            || !names(field("Suites"), suite)
            || !names(field("Components"), "main")
            || field("Enabled").is_some_and(|value| value == "no")
        {
            return None;
        }
        field("URIs")?
            .split_whitespace()
            .find(|uri| is_web(uri))
            .map(str::to_owned)
    })
}

/// Whether debootstrap can read it. It cannot read `cdrom:` or `mirror+file:`.
fn is_web(uri: &str) -> bool {
    uri.starts_with("http://") || uri.starts_with("https://")
}

/// A program and the package that contains it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Need {
    pub(crate) program: &'static str,
    pub(crate) package: &'static str,
}

/// Installs the packages of those programs that the host lacks, and reports them.
pub(crate) fn install_missing(needs: &[Need]) -> anyhow::Result<()> {
    let mut missing: Vec<&str> = needs
        .iter()
        .filter(|need| which(need.program).is_none())
        .map(|need| need.package)
        .collect();
    missing.sort_unstable();
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    anyhow::ensure!(
        which("apt-get").is_some(),
        "cannot install {}: apt-get not found",
        missing.join(", ")
    );
    say(&format!("installing {} with apt-get", missing.join(", ")));
    read(&["apt-get", "update", "-q"])?;
    let mut install = command(&["apt-get"]);
    install
        .args(["install", "-q", "-y", "--no-install-recommends"])
        .args(&missing)
        .env("DEBIAN_FRONTEND", "noninteractive")
        // The programs are wanted, not the services that start with some of the packages.
        .env("RUNLEVEL", "1");
    capture(&mut install)?.checked()?;
    Ok(())
}

/// The path of a program, looked up in [`search_path`].
pub(crate) fn which(program: &str) -> Option<String> {
    search_path()
        .split(':')
        .map(|directory| Path::new(directory).join(program))
        .find(|path| path.is_file())
        .map(|path| path.to_string_lossy().into_owned())
}

/// `PATH`, followed by the system's own directories where it lacks them: after `su`, root keeps the
/// `PATH` of a plain user, in which there is neither `nft` nor what `dpkg` runs.
pub(crate) fn search_path() -> String {
    extended(&std::env::var("PATH").unwrap_or_default())
}

fn extended(path: &str) -> String {
    let mut directories: Vec<&str> = path.split(':').filter(|one| !one.is_empty()).collect();
    for directory in ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"] {
        if !directories.contains(&directory) {
            directories.push(directory);
        }
    }
    directories.join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirror_is_found_in_one_line_sources() {
        let text = "# deb http://old.example/debian bookworm main\n\
                    deb cdrom:[Debian]/ bookworm main\n\
                    deb-src http://source.example/debian bookworm main\n\
                    deb http://other.example/debian trixie main\n\
                    deb [arch=amd64 signed-by=/k.gpg] https://mirror.example/debian bookworm main contrib\n";
        assert_eq!(
            mirror_in_list(text, "bookworm").as_deref(),
            Some("https://mirror.example/debian")
        );
        assert_eq!(
            mirror_in_list(text, "trixie").as_deref(),
            Some("http://other.example/debian")
        );
        assert_eq!(mirror_in_list(text, "sid"), None);
    }

    #[test]
    fn stanzas() {
        let text = "Types: deb\n# a comment\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\n\
                    Components: main\n\n\
                    Types: deb\nURIs: http://mirror.example/security\nSuites: bookworm-security\nComponents: main\n\n\
                    Types: deb\nURIs: http://off.example/debian\nSuites: sid\nComponents: main\nEnabled: no\n";
        assert_eq!(
            mirror_in_stanzas(text, "bookworm").as_deref(),
            Some("http://mirror.example/debian")
        );
        assert_eq!(
            mirror_in_stanzas(text, "bookworm-security").as_deref(),
            Some("http://mirror.example/security")
        );
        assert_eq!(mirror_in_stanzas(text, "sid"), None);
    }

    #[test]
    fn mirror_comes_from_the_first_file_that_names_the_suite() {
        let apt = tempfile::tempdir().expect("a directory");
        assert_eq!(mirror_in(apt.path(), "bookworm"), None);
        let parts = apt.path().join("sources.list.d");
        fs::create_dir(&parts).expect("created");
        fs::write(
            parts.join("b.sources"),
            "Types: deb\nURIs: http://b.example\nSuites: bookworm\nComponents: main\n",
        )
        .expect("written");
        fs::write(
            parts.join("a.list"),
            "deb http://a.example bookworm contrib\n",
        )
        .expect("written");
        assert_eq!(
            mirror_in(apt.path(), "bookworm").as_deref(),
            Some("http://b.example")
        );
        fs::write(
            apt.path().join("sources.list"),
            "deb http://c.example bookworm main\n",
        )
        .expect("written");
        assert_eq!(
            mirror_in(apt.path(), "bookworm").as_deref(),
            Some("http://c.example")
        );
    }

    #[test]
    fn which_finds_installed_programs_only() {
        assert!(which("sh").is_some());
        assert_eq!(which("no-such-program-anywhere"), None);
    }

    #[test]
    fn search_path_adds_the_system_directories_that_are_missing() {
        assert_eq!(
            extended("/home/ann/bin:/usr/bin:/bin"),
            "/home/ann/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
        );
        assert_eq!(
            extended(""),
            "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"
        );
    }
}
