//! What the testbed needs of the machine it runs on.

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

/// Why no testbed can run here (not Linux, not root), or `None` when it can.
pub fn unsupported() -> Option<String> {
    if !cfg!(target_os = "linux") {
        return Some("the testbed runs on Linux only".to_owned());
    }
    if !is_root() {
        return Some("the testbed needs root (it makes network namespaces and cgroups)".to_owned());
    }
    None
}

/// Set and not empty: end-to-end tests pass by without doing anything.
pub const SKIP: &str = "UC_TESTBED_SKIP";

/// Why end-to-end tests are to be skipped, or `None` when they are to run.
pub fn skipped() -> Option<String> {
    if std::env::var_os(SKIP).is_some_and(|value| !value.is_empty()) {
        return Some(format!("{SKIP} is set"));
    }
    unsupported()
}

/// Installs those programs that remove a testbed's network.
pub(crate) fn install_network_tools() -> anyhow::Result<()> {
    install_missing(&NETWORK_TOOLS)
}

/// Installs the Debian package of a program where it is missing, and says so. Without root, the
/// error says what to install.
pub fn ensure_program(program: &'static str, package: &'static str) -> anyhow::Result<()> {
    if which(program).is_none() && !is_root() {
        anyhow::bail!("{program} is not installed\nhint: sudo apt-get install {package}");
    }
    install_missing(&[Need { program, package }])
}

/// Installs the Debian packages that are missing, and says which.
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
