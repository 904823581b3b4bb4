//! The machine image, built once from Debian packages. The cache keeps it as a tar file whose name
//! contains a hash of its ingredients. `docker import` gives it to the machines.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::{fmt, io};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use crate::debian::{SUITE, debootstrap, discard, pack};
use crate::layout::cache;
use crate::newer;
use crate::progress::say;
use crate::state::{Lock, lock_named};

/// Packages of each machine. Tests use dig, nc and ping in addition to an ordinary server.
const PACKAGES: [&str; 14] = [
    "ca-certificates",
    "curl",
    "dbus",
    "dnsutils",
    "docker.io",
    "iproute2",
    "iptables",
    "iputils-ping",
    "netcat-openbsd",
    "nftables",
    "openssh-server",
    "procps",
    "sudo",
    "systemd-sysv",
];

/// Units that delay every boot and are useless on a machine that runs for minutes.
const MASKED: [&str; 7] = [
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@tty1.service",
];

/// Not in the image, which saves unpacking half a gigabyte at each `up`.
const REMOVED: [&str; 5] = [
    "var/cache/apt",
    "var/lib/apt/lists",
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
];

/// Scripts in `/usr/local/sbin` of the machines.
const SCRIPTS: [(&str, &str); 2] = [
    ("machine-init", include_str!("../scripts/machine-init.sh")),
    ("machine-ready", include_str!("../scripts/machine-ready.sh")),
];

/// Incremented when the steps below change but the lists above do not.
const RECIPE: &str = "1";

/// The Docker engine of the machines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Engine {
    /// 20.10.24, API 1.41: Debian 12's own, the oldest that is supported.
    #[default]
    #[serde(rename = "20.10")]
    V20_10,
    /// 26.1.5, API 1.45: Debian 13's.
    #[serde(rename = "26.1")]
    V26_1,
    /// 28.5.2, API 1.51: what Debian's next has; users have 27 to 29.
    #[serde(rename = "28.5")]
    V28_5,
}

impl Engine {
    /// All engines a machine can have, the oldest first.
    pub const ALL: [Self; 3] = [Self::V20_10, Self::V26_1, Self::V28_5];

    /// The first two parts of its version.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V20_10 => "20.10",
            Self::V26_1 => "26.1",
            Self::V28_5 => "28.5",
        }
    }

    /// The later Debian whose packages replace the machine's own engine.
    fn later_suite(self) -> Option<&'static str> {
        match self {
            Self::V20_10 => None,
            Self::V26_1 => Some("trixie"),
            Self::V28_5 => Some("sid"),
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for Engine {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match Self::ALL.into_iter().find(|engine| engine.as_str() == text) {
            Some(engine) => Ok(engine),
            None => {
                let known: Vec<_> = Self::ALL.iter().map(|engine| engine.as_str()).collect();
                bail!("unknown engine '{text}'; available: {}", known.join(", "))
            }
        }
    }
}

/// The tar file of the machine image, which is made if the cache has none. Concurrent callers wait.
pub(crate) fn machine_image(engine: Engine) -> anyhow::Result<PathBuf> {
    let cache = cache();
    fs::create_dir_all(&cache).with_context(|| format!("cannot create {}", cache.display()))?;
    let image = cache.join(format!("machine-{engine}-{}.tar", fingerprint(engine)));
    if image.is_file() {
        return Ok(image);
    }
    let lock = lock_named(".image")?;
    if !image.is_file() {
        say(&format!(
            "creating the machine image, which takes a minute or two once: {}",
            image.display()
        ));
        build(&lock, engine, &cache, &image).context("cannot create the machine image")?;
    }
    Ok(image)
}

/// A hash of everything that determines the image's content.
fn fingerprint(engine: Engine) -> String {
    let mut hasher = blake3::Hasher::new();
    let scripts = SCRIPTS.map(|(_, text)| text);
    for part in [
        &[RECIPE, SUITE, engine.as_str()][..],
        &PACKAGES,
        &MASKED,
        &REMOVED,
        &scripts,
    ] {
        for word in part {
            hasher.update(word.as_bytes());
            hasher.update(b"\n");
        }
        hasher.update(b"\n");
    }
    hasher.finalize().to_hex()[..12].to_owned()
}

fn build(lock: &Lock, engine: Engine, cache: &Path, image: &Path) -> anyhow::Result<()> {
    let root = cache.join("building");
    discard(&root)?;
    debootstrap(lock, &root, &PACKAGES)?;
    prune(&root)?;
    furnish(&root)?;
    if let Some(suite) = engine.later_suite() {
        let scratch = cache.join("building-engine");
        discard(&scratch)?;
        newer::unpack(lock, suite, engine.as_str(), &root, &scratch)
            .with_context(|| format!("cannot get the Docker engine {engine}"))?;
    }
    pack(lock, &root, image)?;
    discard(&root)
}

/// Removes what must differ between machines, and documentation.
fn prune(root: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(root.join("etc/ssh"))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("ssh_host_") {
            fs::remove_file(entry.path())?;
        }
    }
    fs::write(root.join("etc/machine-id"), "")?;
    for directory in REMOVED {
        match fs::remove_dir_all(root.join(directory)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {directory}"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Adds what a machine has beyond its packages.
fn furnish(root: &Path) -> anyhow::Result<()> {
    for unit in MASKED {
        let link = root.join("etc/systemd/system").join(unit);
        symlink("/dev/null", &link).with_context(|| format!("cannot mask {unit}"))?;
    }
    // Keeps the log of before a power loss.
    fs::create_dir_all(root.join("var/log/journal"))?;
    let ssh = root.join("root/.ssh");
    fs::create_dir_all(&ssh)?;
    fs::set_permissions(&ssh, Permissions::from_mode(0o700))?;
    for (name, text) in SCRIPTS {
        let file = root.join("usr/local/sbin").join(name);
        fs::write(&file, text)?;
        fs::set_permissions(&file, Permissions::from_mode(0o755))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engine_names_are_versions() {
        for engine in Engine::ALL {
            assert_eq!(engine.as_str().parse::<Engine>().expect("known"), engine);
        }
        let error = "1.0".parse::<Engine>().expect_err("unknown").to_string();
        assert_eq!(error, "unknown engine '1.0'; available: 20.10, 26.1, 28.5");
    }
}
