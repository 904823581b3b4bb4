//! Requirements of the testbed on the host, and installing the programs that are missing.

use crate::apt::{Need, install_missing, which};

/// Also needed to take a testbed down.
const NETWORK_TOOLS: [Need; 4] = [
    Need {
        program: "ip",
        package: "iproute2",
    },
    Need {
        program: "nft",
        package: "nftables",
    },
    Need {
        program: "iptables",
        package: "iptables",
    },
    Need {
        program: "ssh",
        package: "openssh-client",
    },
];

const NEEDS: [Need; 4] = [
    Need {
        program: "dockerd",
        package: "docker.io",
    },
    Need {
        program: "containerd",
        package: "containerd",
    },
    Need {
        program: "ssh-keygen",
        package: "openssh-client",
    },
    Need {
        program: "unshare",
        package: "util-linux",
    },
];

/// Why no testbed can run here (not Linux, not root), or `None` if one can.
pub fn unsupported() -> Option<String> {
    if !cfg!(target_os = "linux") {
        return Some("the testbed runs on Linux only".to_owned());
    }
    if !is_root() {
        return Some(
            "the testbed needs root: it creates network namespaces and cgroups".to_owned(),
        );
    }
    None
}

/// If set and not empty, end-to-end tests pass without doing anything.
pub const SKIP: &str = "UC_TESTBED_SKIP";

/// Why end-to-end tests are skipped, or `None` if they run.
pub fn skipped() -> Option<String> {
    if std::env::var_os(SKIP).is_some_and(|value| !value.is_empty()) {
        return Some(format!("{SKIP} is set"));
    }
    unsupported()
}

/// Installs the programs that remove a testbed's network.
pub(crate) fn install_network_tools() -> anyhow::Result<()> {
    install_missing(&NETWORK_TOOLS)
}

/// Installs the Debian package of a program that is missing, and reports it. Without root, the
/// error names the package to install.
pub fn ensure_program(program: &'static str, package: &'static str) -> anyhow::Result<()> {
    if which(program).is_none() && !is_root() {
        anyhow::bail!("{program} is not installed\nhint: sudo apt-get install {package}");
    }
    install_missing(&[Need { program, package }])
}

/// Installs the Debian packages that are missing, and reports them.
pub(crate) fn prepare() -> anyhow::Result<()> {
    if let Some(reason) = unsupported() {
        anyhow::bail!("{reason}");
    }
    install_missing(&[&NEEDS[..], &NETWORK_TOOLS[..]].concat())
}

#[expect(unsafe_code, reason = "geteuid is not in the standard library")]
fn is_root() -> bool {
    // SAFETY: geteuid takes nothing, cannot fail and changes nothing.
    unsafe { libc::geteuid() == 0 }
}
