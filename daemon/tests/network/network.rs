//! Containers that reach each other across machines, and everything that is created and removed for
//! that.

use uc_daemon::network::{NetworkError, ensure_docker_network, remove_docker_network};

use crate::engine::{IMAGE, Lan, Machine, Stop, eventually, run};

/// A web server whose page `cgi-bin/who` returns the client's address.
const WHO: &[&str] = &["busybox", "httpd", "-f", "-p", "0.0.0.0:80", "-h", "/"];

fn start(machine: &Machine, name: &str, arguments: &[&str], command: &[&str]) {
    let mut all = vec!["run", "-d", "--name", name, "--stop-timeout", "0"];
    all.extend_from_slice(arguments);
    all.push(IMAGE);
    all.extend_from_slice(command);
    machine.docker_cli(&all);
}

fn address(machine: &Machine, name: &str) -> String {
    machine.docker_cli(&[
        "inspect",
        "-f",
        "{{.NetworkSettings.Networks.uc.IPAddress}}",
        name,
    ])
}

/// Returns a shell command that queries the web server at `to`.
fn asking(to: &str) -> String {
    format!("busybox timeout 3 busybox wget -q -O - http://{to}/cgi-bin/who || true")
}

/// Returns the address that the web server at `to` sees for the container `from`. Returns `None`
/// without a connection.
fn ask(machine: &Machine, from: &str, to: &str) -> Option<String> {
    let command = asking(to);
    let answer = machine.docker_cli(&["exec", from, "sh", "-c", &command]);
    (!answer.is_empty()).then_some(answer)
}

async fn machine_with_containers(lan: &Lan, n: u8) -> Machine {
    let mut machine = lan.machine(n);
    machine.start_engine().await;
    ensure_docker_network(
        &machine.docker(),
        machine.subnet(),
        "c1",
        &machine.journal(),
    )
    .await
    .unwrap();
    start(&machine, "who", &["--network", "uc"], WHO);
    machine.firewall("ensure");
    machine
}

#[tokio::test]
async fn containers_on_two_machines_connect_with_their_own_addresses() {
    let Some(lan) = Lan::new("talk") else { return };
    let (mut a, mut b) = (
        machine_with_containers(&lan, 1).await,
        machine_with_containers(&lan, 2).await,
    );
    a.join(&[b.as_peer()]).await;
    b.join(&[a.as_peer()]).await;
    let (on_a, on_b) = (address(&a, "who"), address(&b, "who"));
    assert!(
        on_a.starts_with("10.210.1.") && on_b.starts_with("10.210.2."),
        "{on_a} {on_b}"
    );

    eventually("a container answers over the mesh", async || {
        ask(&a, "who", &on_b).is_some()
    })
    .await;
    assert_eq!(
        ask(&a, "who", &on_b).as_ref(),
        Some(&on_a),
        "the original address is seen"
    );
    assert_eq!(ask(&b, "who", &on_a).as_ref(), Some(&on_b));
    a.docker_cli(&[
        "exec", "who", "busybox", "ping", "-c", "2", "-W", "2", &on_b,
    ]);

    // The host itself connects with the machine's address.
    let output = a
        .command("sh")
        .args(["-c", &asking(&on_b)])
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap().trim(),
        "10.210.1.1"
    );

    // The rest of the world sees the machine's address, never a container's.
    let _world = lan
        .command(WHO[0])
        .args(&WHO[1..6])
        .arg(lan.root.path())
        .spawn()
        .map(Stop)
        .unwrap();
    eventually("the rest of the world answers", async || {
        ask(&a, "who", "192.168.78.254").is_some()
    })
    .await;
    assert_eq!(
        ask(&a, "who", "192.168.78.254").as_deref(),
        Some("192.168.78.1")
    );

    // A container of another Docker network also gets through, with the machine's address.
    start(&a, "other", &[], &["busybox", "sleep", "1000"]);
    assert_eq!(ask(&a, "other", &on_b).as_deref(), Some("10.210.1.1"));

    // A published port is reachable from outside, and through the mesh at the other machine's
    // address.
    start(&a, "open", &["--network", "uc", "-p", "8080:80"], WHO);
    eventually("a published port answers", async || {
        ask(&b, "who", "10.210.1.1:8080").is_some()
    })
    .await;
    assert_eq!(ask(&b, "who", "10.210.1.1:8080").as_ref(), Some(&on_b));
    let output = lan
        .command("sh")
        .args(["-c", &asking("192.168.78.1:8080")])
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap().trim(),
        "192.168.78.254"
    );

    // Docker restarts. The rules are ensured again, each of them once, and everything continues.
    b.stop_engine();
    b.start_engine().await;
    b.docker_cli(&["start", "who"]);
    let on_b = address(&b, "who");
    for _ in 0..2 {
        b.firewall("ensure");
        ensure_docker_network(&b.docker(), b.subnet(), "c1", &b.journal())
            .await
            .unwrap();
    }
    let rules = b.rules("iptables");
    for jump in [
        "-A INPUT -j UC-INPUT",
        "-A DOCKER-USER -j UC-FORWARD",
        "-A POSTROUTING -j UC-POSTROUTING",
    ] {
        assert_eq!(
            rules.iter().filter(|rule| *rule == jump).count(),
            1,
            "{jump} in {rules:#?}"
        );
    }
    eventually("it continues", async || {
        ask(&a, "who", &on_b).as_ref() == Some(&on_a)
    })
    .await;
}

#[tokio::test]
async fn containers_without_rules_cannot_connect() {
    let Some(lan) = Lan::new("closed") else {
        return;
    };
    let (mut a, mut b) = (
        machine_with_containers(&lan, 1).await,
        machine_with_containers(&lan, 2).await,
    );
    a.join(&[b.as_peer()]).await;
    b.join(&[a.as_peer()]).await;
    let on_b = address(&b, "who");
    eventually("a container answers over the mesh", async || {
        ask(&a, "who", &on_b).is_some()
    })
    .await;
    b.firewall("remove");
    assert_eq!(
        ask(&a, "who", &on_b),
        None,
        "or the test above proves nothing"
    );
}

#[tokio::test]
async fn management_address_accepts_mesh_and_refuses_neighbours() {
    let Some(lan) = Lan::new("management") else {
        return;
    };
    let (mut a, mut b) = (lan.machine(1), lan.machine(2));
    a.join(&[b.as_peer()]).await;
    b.join(&[a.as_peer()]).await;
    let _api = a
        .command("busybox")
        .args(["httpd", "-f", "-p", "[::]:51000", "-h"])
        .arg(lan.root.path())
        .spawn()
        .map(Stop);
    let management = a.management();
    let hears = |mut command: std::process::Command| {
        let command = command.args(["-c", &asking(&format!("[{management}]:51000"))]);
        String::from_utf8(command.output().unwrap().stdout)
            .unwrap()
            .trim()
            .to_owned()
    };
    let by_mesh = async || !hears(b.command("sh")).is_empty();
    eventually("the other machine is let in although INPUT drops", by_mesh).await;
    assert!(
        !hears(a.command("sh")).is_empty(),
        "so is the machine itself"
    );

    // A neighbour who uses the address and sends the packet to the machine's network card.
    let link = run("ip", &format!("-n {} -o link show eth0", a.namespace));
    let card = link
        .split_whitespace()
        .skip_while(|word| *word != "link/ether")
        .nth(1)
        .unwrap();
    run(
        "ip",
        &format!("-n {} addr add fd78::254/64 dev br0 nodad", lan.name),
    );
    run(
        "ip",
        &format!("-n {} addr add fd78::1/64 dev eth0 nodad", a.namespace),
    );
    run(
        "ip",
        &format!("-n {} -6 route add {management}/128 dev br0", lan.name),
    );
    run(
        "ip",
        &format!(
            "-n {} -6 neigh add {management} lladdr {card} dev br0",
            lan.name
        ),
    );
    assert!(
        a.command("ip6tables")
            .args(["-P", "INPUT", "ACCEPT"])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(hears(lan.command("sh")), "");
    a.firewall("remove-guard");
    let by_neighbour = async || !hears(lan.command("sh")).is_empty();
    eventually(
        "without our rules the neighbour gets in, or this proves nothing",
        by_neighbour,
    )
    .await;
}

#[tokio::test]
async fn firewall_adds_rules_once_and_removes_all() {
    let Some(lan) = Lan::new("rules") else { return };
    let a = lan.machine(1);
    let before = (a.rules("iptables"), a.rules("ip6tables"));
    a.firewall("remove");
    a.firewall("ensure");
    let made = (a.rules("iptables"), a.rules("ip6tables"));
    assert!(
        made.0.contains(&"-A FORWARD -j UC-FORWARD".to_owned()),
        "{:#?}",
        made.0
    );
    a.firewall("ensure");
    assert_eq!((a.rules("iptables"), a.rules("ip6tables")), made);
    // Another program deletes a rule, flushes a chain, or copies a rule.
    assert!(
        a.command("iptables")
            .args(["-D", "INPUT", "-j", "UC-INPUT"])
            .status()
            .unwrap()
            .success()
    );
    assert!(
        a.command("iptables")
            .args(["-F", "UC-FORWARD"])
            .status()
            .unwrap()
            .success()
    );
    a.firewall("ensure");
    assert_eq!((a.rules("iptables"), a.rules("ip6tables")), made);
    assert!(
        a.command("iptables")
            .args(["-A", "INPUT", "-j", "UC-INPUT"])
            .status()
            .unwrap()
            .success()
    );
    for _ in 0..2 {
        a.firewall("remove");
        let ours = |rules: Vec<String>| {
            rules
                .into_iter()
                .filter(|rule| rule.contains("UC-"))
                .collect::<Vec<_>>()
        };
        assert_eq!(ours(a.rules("iptables")), [] as [&str; 0]);
        assert_eq!(ours(a.rules("ip6tables")), [] as [&str; 0]);
    }
    let input = |rules: &[String]| {
        rules
            .iter()
            .filter(|rule| rule.contains(" INPUT"))
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(input(&a.rules("iptables")).len(), input(&before.0).len());
}

#[tokio::test]
async fn docker_network_is_recreated_only_when_empty() {
    let Some(lan) = Lan::new("empty") else { return };
    let mut a = lan.machine(1);
    a.start_engine().await;
    let docker = a.docker();
    let id = || a.docker_cli(&["network", "inspect", "-f", "{{.Id}}", "uc"]);
    let other = "10.210.9.0/24".parse().unwrap();
    remove_docker_network(&docker).await.unwrap();
    ensure_docker_network(&docker, a.subnet(), "c1", &a.journal())
        .await
        .unwrap();
    let first = id();
    ensure_docker_network(&docker, a.subnet(), "c1", &a.journal())
        .await
        .unwrap();
    assert_eq!(id(), first, "the same again changes nothing");
    ensure_docker_network(&docker, other, "c1", &a.journal())
        .await
        .unwrap();
    assert_ne!(id(), first);
    let bridge = a
        .command("ip")
        .args(["addr", "show", "br-uc"])
        .output()
        .unwrap()
        .stdout;
    let bridge = String::from_utf8(bridge).unwrap();
    assert!(bridge.contains("10.210.9.1/24"), "{bridge}");

    // A container that was not even started holds it.
    a.docker_cli(&[
        "create",
        "--name",
        "holder",
        "--network",
        "uc",
        IMAGE,
        "busybox",
        "true",
    ]);
    let error = ensure_docker_network(&docker, a.subnet(), "c2", &a.journal())
        .await
        .unwrap_err();
    assert!(
        matches!(&error, NetworkError::InUse { containers, .. } if containers == &["holder"]),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains("its subnet is 10.210.9.0/24, should be 10.210.1.0/24"),
        "{error}"
    );
    assert!(matches!(
        remove_docker_network(&docker).await,
        Err(NetworkError::InUse { .. })
    ));
    ensure_docker_network(&docker, other, "c2", &a.journal())
        .await
        .expect("another label can wait");
    a.docker_cli(&["rm", "holder"]);
    remove_docker_network(&docker).await.unwrap();

    a.docker_cli(&["network", "create", "uc"]);
    let error = ensure_docker_network(&docker, a.subnet(), "c1", &a.journal())
        .await
        .unwrap_err();
    assert!(matches!(error, NetworkError::Foreign { .. }), "{error}");
    assert!(matches!(
        remove_docker_network(&docker).await,
        Err(NetworkError::Foreign { .. })
    ));
}
