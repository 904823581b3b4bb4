//! The firewall rules of the mesh process, in the kernel. No Docker and no daemon runs here.

use std::net::Ipv6Addr;
use std::process::Command;
use std::time::Duration;

use uc_mesh::PeerConfig;

use crate::machine::{Lan, Machine};

const SOON: Duration = Duration::from_secs(12);

/// Tries to connect, or to send a datagram, with a shell's own means. Returns the error.
fn send(mut command: Command, protocol: &str, to: Ipv6Addr, port: u16) -> Result<(), String> {
    let script = format!("exec 3<>/dev/{protocol}/{to}/{port} && echo x >&3");
    let output = command.args(["3", "bash", "-c", &script]).output().unwrap();
    if output.status.success() {
        Ok(())
    } else if output.status.code() == Some(124) {
        Err("no answer".to_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

fn as_root(machine: &Machine) -> Command {
    machine.command("timeout")
}

fn as_nobody(machine: &Machine) -> Command {
    let mut command = machine.command("--setuid=65534");
    command.args(["--setgid=65534", "timeout"]);
    command
}

async fn must_connect(machine: &Machine, to: Ipv6Addr, port: u16) {
    let deadline = std::time::Instant::now() + SOON;
    while let Err(error) = send(as_root(machine), "tcp", to, port) {
        assert!(std::time::Instant::now() < deadline, "{to} {port}: {error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn rules(machine: &Machine) -> Vec<String> {
    let mut rules = Vec::new();
    for program in ["iptables-save", "ip6tables-save"] {
        let output = machine.command(program).output().unwrap().stdout;
        let text = String::from_utf8(output).unwrap();
        rules.extend(text.lines().map(str::to_owned));
    }
    rules.retain(|rule| rule.contains("UC-"));
    rules
}

fn ip6tables(machine: &Machine, arguments: &str) {
    let status = machine
        .command("ip6tables")
        .args(arguments.split(' '))
        .status();
    assert!(status.unwrap().success(), "ip6tables {arguments}");
}

#[tokio::test]
async fn only_root_connects_to_the_peer_ports() {
    let Some(lan) = Lan::new() else { return };
    let (a, b) = (lan.machine(1).await, lan.machine(2).await);
    a.apply(&[b.as_peer()]).await;
    b.apply(&[a.as_peer()]).await;
    let _listening = (a.listen(), b.listen());
    for to in [a.management(), b.management()] {
        must_connect(&a, to, 51000).await;
        must_connect(&a, to, 2222).await;
        let refused = send(as_nobody(&a), "tcp", to, 51000).unwrap_err();
        assert!(refused.contains("Connection refused"), "{refused}");
        assert_eq!(send(as_nobody(&a), "tcp", to, 2222), Ok(()));
        assert_eq!(send(as_root(&a), "udp", to, 51001), Ok(()));
        let refused = send(as_nobody(&a), "udp", to, 51001).unwrap_err();
        assert!(refused.contains("not permitted"), "{refused}");
    }
    // Without the rule, this user can connect, or the test proves nothing.
    ip6tables(&a, "-F UC-MESH-OUTPUT");
    assert_eq!(send(as_nobody(&a), "tcp", b.management(), 51000), Ok(()));
}

#[tokio::test]
async fn nothing_is_forwarded_into_the_mesh() {
    let Some(lan) = Lan::new() else { return };
    let (a, b) = (lan.machine(1).await, lan.machine(2).await);
    a.apply(&[b.as_peer()]).await;
    b.apply(&[a.as_peer()]).await;
    let _listening = b.listen();
    must_connect(&a, b.management(), 51000).await;
    // The machine is a router, and what it forwards into the mesh gets its address.
    a.ip("addr add fd77::1/64 dev eth0 nodad");
    let forwarding = "echo 1 >/proc/sys/net/ipv6/conf/all/forwarding";
    let status = a.command("sh").args(["-c", forwarding]).status();
    assert!(status.unwrap().success());
    ip6tables(&a, "-t nat -A POSTROUTING -o uc0 -j MASQUERADE");
    for arguments in [
        "addr add fd77::254/64 dev br0 nodad",
        "-6 route add fdcc::/16 via fd77::1",
    ] {
        let status = lan.command("ip").args(arguments.split(' ')).status();
        assert!(status.unwrap().success(), "{arguments}");
    }
    let connect = || send(lan.command("timeout"), "tcp", b.management(), 51000);
    let refused = connect().unwrap_err();
    assert!(refused.contains("Permission denied"), "{refused}");
    ip6tables(&a, "-F UC-MESH-FORWARD");
    assert_eq!(connect(), Ok(()), "or the test proves nothing");
}

#[tokio::test]
async fn guest_reaches_only_the_api() {
    let Some(lan) = Lan::new() else { return };
    let (a, b) = (lan.machine(1).await, lan.machine(2).await);
    let guest = PeerConfig {
        guest: true,
        allowed_ips: vec![format!("{}/128", b.management()).parse().unwrap()],
        ..b.as_peer()
    };
    a.apply(&[guest]).await;
    b.apply(&[a.as_peer()]).await;
    let _listening = a.listen();
    must_connect(&b, a.management(), 51000).await;
    assert_eq!(
        send(as_root(&b), "tcp", a.management(), 2222),
        Err("no answer".to_owned())
    );
    assert!(!b.reaches(a.management()));
    // As a member it reaches everything.
    a.apply(&[b.as_peer()]).await;
    must_connect(&b, a.management(), 2222).await;
    assert!(b.reaches(a.management()));
}

#[tokio::test]
async fn rules_are_first_again_after_other_programs_and_down_removes_them() {
    let Some(lan) = Lan::new() else { return };
    let (a, b) = (lan.machine(1).await, lan.machine(2).await);
    assert_eq!(rules(&a), [] as [&str; 0]);
    a.apply(&[b.as_peer()]).await;
    let made = rules(&a);
    assert!(made.len() > 10, "{made:#?}");
    ip6tables(&a, "-I FORWARD 1 -j ACCEPT");
    ip6tables(&a, "-F UC-MESH-FORWARD");
    ip6tables(&a, "-D OUTPUT -j UC-MESH-OUTPUT");
    let guest = PeerConfig {
        guest: true,
        ..b.as_peer()
    };
    a.apply(&[guest]).await;
    a.apply(&[b.as_peer()]).await;
    assert_eq!(rules(&a), made);
    let output = a.command("ip6tables").args(["-S", "FORWARD"]).output();
    let forward = String::from_utf8(output.unwrap().stdout).unwrap();
    assert_eq!(
        forward.lines().skip(1).collect::<Vec<_>>(),
        ["-A FORWARD -j UC-MESH-FORWARD", "-A FORWARD -j ACCEPT"]
    );
    a.client().down().await.unwrap();
    assert_eq!(rules(&a), [] as [&str; 0]);
    a.client().down().await.unwrap();
}
