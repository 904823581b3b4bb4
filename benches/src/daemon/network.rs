//! The network of the measured cluster: a network namespace for each machine, joined by a router.
//! The run itself is in namespaces of its own (network, mounts, processes), so nothing of it shows
//! on the host, and all of it ends with the run.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::site;

/// Programs that a run needs, besides the measured one.
const PROGRAMS: [&str; 7] = [
    "unshare",
    "nsenter",
    "ip",
    "mount",
    "dockerd",
    "iptables",
    "ip6tables",
];

/// Fails if this machine cannot run the benchmark.
pub(super) fn check() -> anyhow::Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "the benchmark of the daemon needs root"
    );
    ensure!(
        Path::new("/dev/net/tun").exists(),
        "the benchmark of the daemon needs /dev/net/tun"
    );
    let path = std::env::var_os("PATH").context("no PATH")?;
    for program in PROGRAMS {
        let mut files = std::env::split_paths(&path).map(|directory| directory.join(program));
        ensure!(
            files.any(|file| file.is_file()),
            "{program} not found; hint: apt-get install docker.io iproute2 iptables util-linux"
        );
    }
    Ok(())
}

/// Runs a program in new namespaces, which end with it. If this process dies, the kernel ends all.
pub(super) fn apart(program: &Path) -> Command {
    let mut command = Command::new("unshare");
    command
        .args(["--net", "--mount", "--propagation", "private"])
        .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg("--")
        .arg(program)
        .kill_on_drop(true);
    command
}

/// Makes the machines' namespaces, and empty folders where the engine and `ucd` have fixed paths.
/// Must run in namespaces of its own.
pub(super) async fn furnish() -> anyhow::Result<()> {
    // The engine of Debian 12 writes a key into /etc/docker.
    std::fs::create_dir_all("/etc/docker")?;
    for folder in ["/run", "/etc/docker"] {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "mode=755", "tmpfs", folder]);
        succeed(mount, "").await?;
    }
    // The kernel has one table of neighbours for all namespaces, with room for 1,024. So each
    // machine has one neighbour, the router.
    let router = site::address(site::ROUTER);
    let mut script = format!(
        "link set lo up\n\
         link add lan type bridge\n\
         address add {router}/24 dev lan\n\
         link set lan up\n"
    );
    for machine in 1..=site::MEASURED {
        writeln!(
            script,
            "netns add m{machine}\n\
             link add v{machine} type veth peer name eth0 netns m{machine}\n\
             link set v{machine} master lan up"
        )?;
    }
    let mut ip = Command::new("ip");
    ip.args(["-batch", "-"]);
    succeed(ip, &script).await?;
    for (setting, value) in [
        ("ip_forward", "1"),
        ("conf/all/send_redirects", "0"),
        ("conf/lan/send_redirects", "0"),
    ] {
        std::fs::write(format!("/proc/sys/net/ipv4/{setting}"), value)?;
    }
    for machine in 1..=site::MEASURED {
        let script = format!(
            "link set lo up\n\
             address add {}/32 dev eth0\n\
             link set eth0 up\n\
             route add {router} dev eth0\n\
             route add default via {router}\n",
            site::address(machine)
        );
        let mut ip = Command::new("ip");
        ip.args(["-netns", &format!("m{machine}"), "-batch", "-"]);
        succeed(ip, &script).await?;
    }
    Ok(())
}

/// A program on a machine. It ends with its owner.
pub(super) fn on_machine(machine: u8, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net=/run/netns/m{machine}"))
        .arg("--")
        .arg(program)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Runs a command with this standard input to its end.
async fn succeed(mut command: Command, input: &str) -> anyhow::Result<()> {
    let program = command
        .as_std()
        .get_program()
        .to_string_lossy()
        .into_owned();
    let run = async {
        let mut child = command.stdin(Stdio::piped()).spawn()?;
        let mut stdin = child.stdin.take().context("no standard input")?;
        stdin.write_all(input.as_bytes()).await?;
        drop(stdin);
        anyhow::Ok(child.wait().await?)
    };
    let status = run.await.with_context(|| format!("cannot run {program}"))?;
    ensure!(status.success(), "{program} failed ({status})");
    Ok(())
}
