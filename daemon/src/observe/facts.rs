//! What the operating system says about this machine.

use std::path::Path;

use uc_api::v1;
use uc_api::version::VERSION;

/// Facts of this machine; the engine's version is not yet among them. What the system does not say stays empty: facts are for people.
pub fn host() -> v1::MachineFacts {
    from_root(Path::new("/"))
}

fn from_root(root: &Path) -> v1::MachineFacts {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_default();
    let line = |path: &str| read(path).trim().to_owned();
    let os_release = Some(read("etc/os-release")).filter(|text| !text.is_empty());
    v1::MachineFacts {
        hostname: line("proc/sys/kernel/hostname"),
        os: pretty_name(&os_release.unwrap_or_else(|| read("usr/lib/os-release"))),
        kernel: line("proc/sys/kernel/osrelease"),
        arch: std::env::consts::ARCH.to_owned(),
        docker_version: String::new(),
        uc_version: VERSION.to_owned(),
        ..v1::MachineFacts::default()
    }
}

/// `PRETTY_NAME` of os-release(5), which is shell syntax; its quotes and escapes are those of the values in the wild.
fn pretty_name(os_release: &str) -> String {
    let value = |key: &str| {
        let raw = os_release.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='))?;
        let quoted = |quote| raw.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
        let text = quoted('"').or_else(|| quoted('\'')).unwrap_or(raw);
        Some(text.replace('\\', "")).filter(|text| !text.is_empty())
    };
    value("PRETTY_NAME").or_else(|| value("NAME")).unwrap_or_else(|| "Linux".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_distributions() {
        let name = |text: &str| pretty_name(text);
        assert_eq!(
            name("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n"),
            "Debian GNU/Linux 12 (bookworm)"
        );
        assert_eq!(name("PRETTY_NAME='Alpine Linux v3.20'"), "Alpine Linux v3.20");
        assert_eq!(name("NAME=Void\n"), "Void");
        assert_eq!(name("PRETTY_NAME=\"\"\n"), "Linux");
        assert_eq!(name(""), "Linux");
    }

    #[test]
    fn facts_come_from_the_system_and_may_be_missing() {
        let root = tempfile::tempdir().unwrap();
        let facts = from_root(root.path());
        assert_eq!((facts.hostname.as_str(), facts.os.as_str()), ("", "Linux"));
        std::fs::create_dir_all(root.path().join("proc/sys/kernel")).unwrap();
        std::fs::create_dir_all(root.path().join("usr/lib")).unwrap();
        std::fs::write(root.path().join("proc/sys/kernel/hostname"), "pi\n").unwrap();
        std::fs::write(root.path().join("proc/sys/kernel/osrelease"), "6.1.0\n").unwrap();
        std::fs::write(root.path().join("usr/lib/os-release"), "PRETTY_NAME=Small\n").unwrap();
        let facts = from_root(root.path());
        assert_eq!((facts.hostname, facts.kernel, facts.os), ("pi".into(), "6.1.0".into(), "Small".into()));
        assert_eq!(facts.uc_version, VERSION);
    }

    #[test]
    fn this_machine_has_a_name() {
        assert!(!host().hostname.is_empty());
    }
}
