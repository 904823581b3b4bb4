//! What the operating system says about this machine.

use std::path::Path;

use uc_api::v1;
use uc_api::version::VERSION;

/// Facts of this machine; the engine's version is not yet among them. What the system does not say
/// stays empty: facts are for people.
pub(crate) fn host() -> v1::MachineFacts {
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
        cpus: cpus(&read("proc/stat")),
        memory: memory(&read("proc/meminfo")),
        engine_away_since_ms: 0,
    }
}

/// Those that are switched on; the first line of proc(5)'s `stat` is their sum.
fn cpus(stat: &str) -> u32 {
    let is_cpu = |line: &&str| {
        line.strip_prefix("cpu")
            .is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
    };
    u32::try_from(stat.lines().filter(is_cpu).count()).unwrap_or(u32::MAX)
}

/// Bytes; the kernel counts in KiB and calls them kB.
fn memory(meminfo: &str) -> u64 {
    let total = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or_default().saturating_mul(1024)
}

/// `PRETTY_NAME` of os-release(5), which is shell syntax; its quotes and escapes are those of the
/// values in the wild.
fn pretty_name(os_release: &str) -> String {
    let value = |key: &str| {
        let raw = os_release
            .lines()
            .find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='))?;
        let quoted = |quote| {
            raw.strip_prefix(quote)
                .and_then(|rest| rest.strip_suffix(quote))
        };
        let text = quoted('"').or_else(|| quoted('\'')).unwrap_or(raw);
        Some(text.replace('\\', "")).filter(|text| !text.is_empty())
    };
    value("PRETTY_NAME")
        .or_else(|| value("NAME"))
        .unwrap_or_else(|| "Linux".to_owned())
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
        assert_eq!(
            name("PRETTY_NAME='Alpine Linux v3.20'"),
            "Alpine Linux v3.20"
        );
        assert_eq!(name("NAME=Void\n"), "Void");
        assert_eq!(name("PRETTY_NAME=\"\"\n"), "Linux");
        assert_eq!(name(""), "Linux");
    }

    #[test]
    fn facts_come_from_the_system_and_may_be_missing() {
        let root = tempfile::tempdir().unwrap();
        let facts = from_root(root.path());
        assert_eq!((facts.hostname.as_str(), facts.os.as_str()), ("", "Linux"));
        assert_eq!((facts.cpus, facts.memory), (0, 0));
        std::fs::create_dir_all(root.path().join("proc/sys/kernel")).unwrap();
        std::fs::create_dir_all(root.path().join("usr/lib")).unwrap();
        std::fs::write(root.path().join("proc/sys/kernel/hostname"), "pi\n").unwrap();
        std::fs::write(root.path().join("proc/sys/kernel/osrelease"), "6.1.0\n").unwrap();
        std::fs::write(
            root.path().join("usr/lib/os-release"),
            "PRETTY_NAME=Small\n",
        )
        .unwrap();
        let facts = from_root(root.path());
        assert_eq!(
            (facts.hostname, facts.kernel, facts.os),
            ("pi".into(), "6.1.0".into(), "Small".into())
        );
        assert_eq!(facts.uc_version, VERSION);
    }

    #[test]
    fn cpus_and_memory() {
        let stat = "cpu  1 2 3\ncpu0 1 1 1\ncpu2 0 1 2\nintr 5\ncpufreq 1\n";
        assert_eq!(cpus(stat), 2, "the second is switched off");
        assert_eq!(
            memory("MemTotal:        8051772 kB\nMemFree:  1 kB\n"),
            8_051_772 * 1024
        );
        assert_eq!((cpus(""), memory("MemTotal: many kB\n")), (0, 0));
    }

    #[test]
    fn this_machine_has_a_name_and_resources() {
        let facts = host();
        assert!(
            !facts.hostname.is_empty() && facts.cpus > 0 && facts.memory > 1 << 20,
            "{facts:?}"
        );
    }
}
