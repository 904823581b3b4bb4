//! Finds what is left of a testbed on the host, by its name and its subnet, since other testbeds
//! and the host itself can change at the same time.

use std::fs;
use std::path::{Path, PathBuf};

use uc_testbed::{Layout, Report, TestbedName, command};

/// Everything of a testbed that exists on the host now, one entry per line.
pub(crate) fn of(name: &str, subnet: &str) -> Vec<String> {
    let layout = Layout::new(name.parse::<TestbedName>().expect("a valid name"));
    let mut found = Vec::new();
    for directory in [layout.state_dir(), layout.run_dir()] {
        if directory.exists() {
            found.push(format!("directory {}", directory.display()));
        }
    }
    let (state_dir, run_dir) = (
        layout.state_dir().display().to_string(),
        layout.run_dir().display().to_string(),
    );
    let cgroup = format!("uc-testbed-{name}");
    for line in read("/proc/self/mountinfo").lines() {
        if line.contains(&state_dir) || line.contains(&run_dir) {
            found.push(format!("mount {line}"));
        }
    }
    for process in processes() {
        // A zombie only waits for its parent.
        if read(process.join("status")).contains("\nState:\tZ") {
            continue;
        }
        let line = read(process.join("cmdline")).replace('\0', " ");
        let group = read(process.join("cgroup"));
        if line.contains(&format!("{state_dir}/")) || group.contains(&format!("/{cgroup}/")) {
            found.push(format!("process {} {line}", process.display()));
        }
    }
    for hierarchy in children("/sys/fs/cgroup")
        .into_iter()
        .chain([PathBuf::from("/sys/fs/cgroup")])
    {
        if hierarchy.join(&cgroup).exists() {
            found.push(format!("cgroup {}", hierarchy.join(&cgroup).display()));
        }
    }
    let table = format!("uc_testbed_{}", name.replace('-', "_"));
    for (what, words) in [
        ("filter", &["nft", "list", "tables"][..]),
        ("address", &["ip", "-oneline", "address"]),
        ("route", &["ip", "route", "show", "table", "all"]),
        ("rule", &["iptables-save"]),
    ] {
        let output = command(words).output().expect("the program runs");
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            if line.split(' ').any(|word| word == table)
                || line.contains(&format!("10.213.{subnet}."))
            {
                found.push(format!("{what} {line}"));
            }
        }
    }
    for interface in [format!("uctb{subnet}"), format!("uctl{subnet}")] {
        if Path::new("/sys/class/net").join(&interface).exists() {
            found.push(format!("interface {interface}"));
        }
    }
    found
}

/// The third byte of a testbed's addresses.
pub(crate) fn subnet(report: &Report) -> String {
    let gateway = report.gateway.as_deref().expect("a testbed has a subnet");
    gateway.split('.').nth(2).expect("four bytes").to_owned()
}

fn processes() -> Vec<PathBuf> {
    let numbered = |path: &PathBuf| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().chars().all(|c| c.is_ascii_digit()))
    };
    children("/proc").into_iter().filter(numbered).collect()
}

fn children(directory: &str) -> Vec<PathBuf> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect()
}

/// Empty if the file no longer exists.
fn read(path: impl AsRef<Path>) -> String {
    fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}
