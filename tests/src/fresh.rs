//! A fresh machine: a pristine Debian root directory with namespaces of its own, in which `./dev`
//! runs as on a newcomer's computer. What the README does not name is not installed there, so a
//! step that relies on a program of this host fails there.
//!
//! The network is user-space (slirp4netns): the machine reaches what the host reaches, and neither
//! sees the other's interfaces and filter rules. Only the Rust toolchain, cargo's registry and a
//! target directory are shared with the host, to save time.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use anyhow::{Context as _, ensure};

use crate::apt::{Need, install_missing, mirror};
use crate::debian::{SUITE, debootstrap, discard, pack, unpack};
use crate::layout::cache;
use crate::progress::report_fresh;
use crate::run::{capture, change, command, read};
use crate::state::{Lock, lock_named};
use crate::{cgroup, host};

/// What the script needs of this host beyond the essential packages.
const NEEDS: [Need; 2] = [
    Need {
        program: "git",
        package: "git",
    },
    Need {
        program: "slirp4netns",
        package: "slirp4netns",
    },
];

const SCRIPT: &str = include_str!("../scripts/fresh.sh");

/// Every process of the fresh machine is in this cgroup.
const CGROUP: &str = "uc-fresh";

/// The repository's clone in the fresh machine.
const CLONE: &str = "/root/uc";

/// Raised when the pristine root is made in another way.
const RECIPE: &str = "1";

/// Runs `./dev` with these words in a clone of the repository's HEAD on a fresh machine, which is
/// removed afterwards. What an earlier run left is removed first.
pub fn run(repository: &Path, words: &[String]) -> anyhow::Result<ExitStatus> {
    if let Some(reason) = host::unsupported() {
        anyhow::bail!("{reason}");
    }
    install_missing(&NEEDS)?;
    let places = Places::new();
    let lock = lock_named(".fresh")?;
    places.remove()?;
    let result = places
        .prepare(&lock, repository)
        .and_then(|()| places.enter(words));
    let removed = places.remove().context("cannot remove the fresh machine");
    match (result, removed) {
        (Ok(status), Ok(())) => Ok(status),
        (Err(error), Err(second)) => Err(error.context(format!("{second:#}"))),
        (Err(error), Ok(())) | (Ok(_), Err(error)) => Err(error),
    }
}

/// Removes what an interrupted run left: its processes first, then its files.
pub fn remove() -> anyhow::Result<()> {
    if let Some(reason) = host::unsupported() {
        anyhow::bail!("{reason}");
    }
    let _lock = lock_named(".fresh")?;
    Places::new().remove()
}

/// Where the fresh machine is on this host.
#[derive(Debug)]
struct Places {
    /// Its root directory, removed after each run.
    root: PathBuf,
    /// Cargo's target directory, kept for the next run.
    target: PathBuf,
    /// The pristine root as a tar file, kept.
    pristine: PathBuf,
}

impl Places {
    fn new() -> Self {
        let cache = cache();
        Self {
            root: cache.join("fresh-root"),
            target: cache.join("fresh-target"),
            pristine: cache.join(format!("pristine-{SUITE}-{RECIPE}.tar")),
        }
    }

    /// The order matters: a process that still runs could write again, and its mounts are dropped
    /// with it.
    fn remove(&self) -> anyhow::Result<()> {
        cgroup::remove(CGROUP)?;
        discard(&self.root)
    }

    fn prepare(&self, lock: &Lock, repository: &Path) -> anyhow::Result<()> {
        if !self.pristine.is_file() {
            report_fresh(&format!(
                "creating a pristine Debian {SUITE}, which takes a minute or two once: {}",
                self.pristine.display()
            ));
            self.make_pristine(lock)
                .context("cannot create a pristine Debian")?;
        }
        unpack(lock, &self.pristine, &self.root)?;
        write_settings(&self.root)?;
        clone(lock, repository, &self.root)?;
        fs::create_dir_all(&self.target)
            .with_context(|| format!("cannot create {}", self.target.display()))
    }

    fn make_pristine(&self, lock: &Lock) -> anyhow::Result<()> {
        let building = cache().join("building-pristine");
        discard(&building)?;
        debootstrap(lock, &building, &[])?;
        pack(lock, &building, &self.pristine)?;
        discard(&building)
    }

    fn enter(&self, words: &[String]) -> anyhow::Result<ExitStatus> {
        report_fresh(&format!(
            "running ./dev {} on a fresh machine",
            words.join(" ")
        ));
        let joined = cgroup::create_to_join(CGROUP)?;
        // The shell joins the cgroups before the namespaces are made: the cgroup namespace shows
        // the place of the process that makes it as the root.
        let mut enter = command(&[
            "sh",
            "-c",
            "while [ \"$1\" != -- ]; do echo $$ >\"$1/cgroup.procs\" || exit; shift; done; shift; exec \"$@\"",
            "sh",
        ]);
        enter.args(&joined).arg("--");
        enter.args([
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "--pid",
            "--fork",
            "--kill-child",
            "--net",
            "--uts",
            "--ipc",
            "--cgroup",
            "sh",
            "-c",
            SCRIPT,
            "fresh.sh",
        ]);
        enter
            .arg(&self.root)
            .args([&std::process::id().to_string(), CGROUP]);
        for share in shares(&CargoHome::of_this_host(), &self.target) {
            enter
                .arg(if share.writable { "rw" } else { "ro" })
                .args([&share.source, &share.target]);
        }
        enter.arg("--").args(environment(std::env::vars()));
        // Not the last command of the shell, which would then be replaced by it: the first process
        // has to wait for every process that lost its parent.
        enter.args(["/bin/sh", "-c", "cd \"$0\" && ./dev \"$@\"; exit $?", CLONE]);
        enter.args(words).stdin(Stdio::null());
        enter.status().context("cannot run unshare")
    }
}

/// A directory of the host that the fresh machine sees as well.
#[derive(Debug, PartialEq, Eq)]
struct Share {
    source: PathBuf,
    target: PathBuf,
    writable: bool,
}

/// Where this host has Rust.
#[derive(Debug)]
struct CargoHome {
    cargo: PathBuf,
    rustup: PathBuf,
}

impl CargoHome {
    fn of_this_host() -> Self {
        let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into()));
        let place = |variable: &str, default: &str| {
            std::env::var_os(variable)
                .filter(|value| !value.is_empty())
                .map_or_else(|| home.join(default), PathBuf::from)
        };
        Self {
            cargo: place("CARGO_HOME", ".cargo"),
            rustup: place("RUSTUP_HOME", ".rustup"),
        }
    }
}

/// What saves time and is not what a missing install step is about. The toolchain cannot be written
/// to: a run must not change the host's.
fn shares(home: &CargoHome, target: &Path) -> Vec<Share> {
    let mut shares = Vec::new();
    if home.cargo.join("bin/cargo").exists() && home.rustup.is_dir() {
        for (source, target) in [
            (home.cargo.join("bin"), "/root/.cargo/bin"),
            (home.rustup.clone(), "/root/.rustup"),
        ] {
            shares.push(Share {
                source,
                target: target.into(),
                writable: false,
            });
        }
    }
    for (source, target) in [
        (home.cargo.join("registry"), "/root/.cargo/registry".into()),
        (target.to_owned(), format!("{CLONE}/target")),
    ] {
        if source.is_dir() {
            shares.push(Share {
                source,
                target: target.into(),
                writable: true,
            });
        }
    }
    shares
}

/// The environment of a login, and of this host's what says how to reach the network and the
/// registries, and how cargo should print and compile.
fn environment(host: impl Iterator<Item = (String, String)>) -> Vec<String> {
    let mut variables = vec![
        "HOME=/root".to_owned(),
        "USER=root".to_owned(),
        "LANG=C.UTF-8".to_owned(),
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
    ];
    let mut passed: Vec<String> = host
        .filter(|(name, _)| is_passed(name))
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    passed.sort();
    variables.extend(passed);
    variables
}

fn is_passed(name: &str) -> bool {
    const NAMES: [&str; 12] = [
        "CARGO_INCREMENTAL",
        "CI",
        "CURL_CA_BUNDLE",
        "GIT_SSL_CAINFO",
        "NO_COLOR",
        "RUSTUP_AUTO_INSTALL",
        "RUSTUP_DIST_SERVER",
        "RUSTUP_UPDATE_ROOT",
        "SSL_CERT_DIR",
        "SSL_CERT_FILE",
        "TERM",
        "TZ",
    ];
    const PREFIXES: [&str; 6] = [
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTRIES_",
        "CARGO_REGISTRY_",
        "CARGO_SOURCE_",
        "CARGO_TERM_",
    ];
    NAMES.contains(&name)
        || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || name.to_ascii_lowercase().ends_with("_proxy")
}

/// How this host reaches Debian's packages and the crates, and which certificates it trusts.
fn write_settings(root: &Path) -> anyhow::Result<()> {
    let write = |path: &str, text: &str| {
        let file = root.join(path);
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
    };
    if let Some(sources) = sources(mirror) {
        write("etc/apt/sources.list", &sources)?;
    }
    let settings = read(&["apt-config", "dump"]).unwrap_or_default();
    write("etc/apt/apt.conf.d/90host", &acquire_settings(&settings))?;
    // slirp4netns answers there, with what the host's own name server says.
    write("etc/resolv.conf", "nameserver 10.0.2.3\n")?;
    write("etc/hostname", "fresh\n")?;
    write("etc/hosts", "127.0.0.1 localhost fresh\n::1 localhost\n")?;
    let cargo = CargoHome::of_this_host().cargo.join("config.toml");
    for (source, target) in [
        (Path::new("/etc/apt/auth.conf"), "etc/apt"),
        (Path::new("/etc/apt/auth.conf.d"), "etc/apt"),
        (
            Path::new("/etc/ssl/certs/ca-certificates.crt"),
            "etc/ssl/certs",
        ),
        (
            Path::new("/usr/local/share/ca-certificates"),
            "usr/local/share",
        ),
        (&cargo, "root/.cargo"),
    ] {
        if source.exists() {
            fs::create_dir_all(root.join(target))?;
            capture(
                command(&["cp", "--recursive", "--dereference", "--preserve=mode"])
                    .arg(source)
                    .arg(root.join(target)),
            )?
            .checked()?;
        }
    }
    Ok(())
}

/// The suites of a fresh Debian, from where this host gets them; `None` where it gets none of them,
/// and debootstrap's own choice stays.
fn sources(mirror: impl Fn(&str) -> Option<String>) -> Option<String> {
    mirror(SUITE)?;
    let lines: Vec<String> = ["", "-updates", "-security"]
        .iter()
        .filter_map(|part| {
            let suite = format!("{SUITE}{part}");
            Some(format!("deb {} {suite} main\n", mirror(&suite)?))
        })
        .collect();
    Some(lines.concat())
}

/// Of apt's settings those about fetching, such as proxies. Others run programs of this host.
fn acquire_settings(dump: &str) -> String {
    dump.lines()
        .filter(|line| line.starts_with("Acquire::"))
        .fold(String::new(), |text, line| text + line + "\n")
}

/// Clones what is committed, from outside: a fresh machine has no git.
fn clone(lock: &Lock, repository: &Path, root: &Path) -> anyhow::Result<()> {
    let directory = root.join(CLONE.trim_start_matches('/'));
    // The repository's owner may be another user than root, to which git objects otherwise.
    let git = |words: &[&str]| {
        let mut git = command(&["git", "-c", "safe.directory=*"]);
        git.args(words);
        git
    };
    let head = capture(git(&["rev-parse", "HEAD"]).current_dir(repository))?.checked()?;
    let changes = capture(git(&["status", "--porcelain"]).current_dir(repository))?.checked()?;
    if !changes.stdout.is_empty() {
        report_fresh(
            "warning: ignoring uncommitted changes: the fresh machine gets a clone of HEAD",
        );
    }
    change(
        lock,
        git(&["clone", "--quiet", "--no-hardlinks", "--no-checkout"])
            .arg(repository)
            .arg(&directory),
    )?;
    change(
        lock,
        git(&["checkout", "--quiet", "--detach", head.stdout.trim()]).current_dir(&directory),
    )?;
    ensure!(
        directory.join("dev").is_file(),
        "the script `dev` not found in HEAD of {}",
        repository.display()
    );
    fs::set_permissions(root.join("root"), Permissions::from_mode(0o700))?;
    Ok(())
}

#[cfg(test)]
mod tests;
