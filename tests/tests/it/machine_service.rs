//! uc as a service of a machine: what install.sh puts there, who may use it, and what outlives the
//! daemon, a reboot and uc itself.

use std::fs;
use std::path::Path;

use anyhow::ensure;
use uc_testbed::wait_for;

use crate::machine_site::{SOON, Site, expect};

const PROJECT: &str = "outlives";

/// A container on each machine that answers with its machine's name, and a volume.
const COMPOSE: &str = "
services:
  page:
    build: {context: ., dockerfile_inline: \"FROM uc-test/busybox:1\"}
    stop_signal: SIGKILL
    command: [sh, -c, 'hostname > /data/index.html; exec httpd -f -p 80 -h /data']
    volumes: [data:/data]
    deploy: {mode: global}
volumes:
  data: {}
";

impl Site {
    fn deploy(&self) {
        self.images().expect("the test images");
        let file = self.uc.home().join(PROJECT).join("compose.yaml");
        fs::create_dir_all(file.parent().expect("a directory")).expect("made");
        fs::write(&file, format!("name: {PROJECT}\n{COMPOSE}")).expect("written");
        self.ok(&["deploy", "-y", "-f", &file.to_string_lossy()]);
    }

    /// Id and start of the containers of uc on a machine.
    fn containers(&self, name: &str) -> String {
        let each = "docker ps -q --no-trunc --filter label=uc.project | sort";
        self.sh(
            name,
            &format!(
                "for id in $({each}); do docker inspect -f '{{{{.Id}}}} {{{{.State.StartedAt}}}}' $id; done"
            ),
        )
    }

    /// The page's address in the container network, as its own machine's Docker has it.
    fn address(&self, name: &str) -> String {
        let inspect =
            "docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}'";
        self.sh(
            name,
            &format!("{inspect} $(docker ps -q --filter label=uc.project)"),
        )
        .trim()
        .to_owned()
    }

    /// From one machine to a container on another, through the mesh.
    fn expect_page(&self, from: &str, address: &str) {
        wait_for(
            &format!("the page at {address} to answer {from}"),
            SOON,
            || {
                self.machine(from)?
                    .sh(&format!("curl -sf -m 2 http://{address}/"))
            },
        )
        .expect("it answers");
    }

    fn pid(&self, name: &str, unit: &str) -> String {
        self.sh(name, &format!("systemctl show -P MainPID {unit}"))
            .trim()
            .to_owned()
    }
}

#[test]
fn install_then_uninstall_leaves_nothing() {
    let Some(site) = Site::take() else { return };
    site.bare(&["m1"]);
    site.sh(
        "m1",
        "id insider >/dev/null 2>&1 || { useradd -m insider; useradd -m outsider; }; mkdir -p /var/tmp/uc",
    );
    let machine = site.machine("m1").expect("a machine");
    for name in ["uc", "ucd", "install.sh"] {
        let content = fs::read(site.binaries.directory().join(name)).expect("readable");
        machine
            .write_file(&format!("/var/tmp/uc/{name}"), &content, 0o755)
            .expect("written");
    }
    // With no host: this machine, which has no uc yet.
    expect(
        &machine
            .exec(&["su", "outsider", "-c", "/var/tmp/uc/uc machine init -y"])
            .expect("runs"),
        1,
        &[
            "error: cannot install uc here: install.sh must run as root",
            "hint: run it with sudo",
        ],
    );
    assert_eq!(site.traces("m1"), "");
    let init = machine.exec(&[
        "env",
        "HOME=/root",
        "/var/tmp/uc/uc",
        "machine",
        "init",
        "--name",
        "m1",
        "-y",
    ]);
    let said = init.expect("runs").checked().expect("a cluster").stderr;
    assert!(
        said.contains("installed /usr/local/bin/ucd")
            && said.contains("with machine m1 (10.210.0.0/24)"),
        "{said}"
    );

    let wanted = "/run/uc 750 root:uc\n/run/uc/mesh.sock 600 root:uc\n/run/uc/uc.sock 660 root:uc\n\
                  /usr/local/bin/uc 755 root:root\n/usr/local/bin/ucd 755 root:root\n\
                  /usr/local/lib/uc/install.sh 755 root:root\n/var/lib/uc 700 root:root\n\
                  /etc/systemd/system/ucd.service 644 root:root\n/etc/systemd/system/uc-mesh.service 644 root:root\n";
    let paths: Vec<&str> = wanted
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert_eq!(
        site.sh("m1", &format!("stat -c '%n %a %U:%G' {}", paths.join(" "))),
        wanted
    );
    // The directory is closed to others, and what holds a private key has no mode that relies on
    // it.
    assert_eq!(
        site.sh(
            "m1",
            "find /var/lib/uc -name '*.json' ! -perm 600; ls /var/lib/uc/machine.json"
        ),
        "/var/lib/uc/machine.json\n"
    );
    assert_eq!(
        site.sh(
            "m1",
            "systemctl is-active ucd uc-mesh; systemctl is-enabled ucd uc-mesh"
        ),
        "active\nactive\nenabled\nenabled\n"
    );

    // Members of the group need no sudo. Other users get an error with the reason.
    site.sh("m1", "usermod -aG uc insider");
    let as_user = |user: &str| {
        machine
            .exec(&["su", "-", user, "-c", "uc machine ls"])
            .expect("runs")
    };
    assert!(
        as_user("insider")
            .checked()
            .expect("allowed")
            .stdout
            .contains("m1")
    );
    expect(
        &as_user("outsider"),
        4,
        &[
            "error: permission denied on /run/uc/uc.sock",
            "hint: add the user to the group uc",
        ],
    );

    // A second time: nothing changes, nothing restarts.
    let state = || {
        let files = paths.join(" ");
        site.sh(
            "m1",
            &format!("stat -c '%n %i %Y' {files} | grep -v '/var/lib/uc '; getent group uc"),
        ) + &site.pid("m1", "ucd")
            + &site.pid("m1", "uc-mesh")
    };
    let before = state();
    let said = site.sh("m1", "sh /var/tmp/uc/install.sh 2>&1");
    assert_eq!((said.as_str(), state()), ("uc is installed\n", before));

    site.sh(
        "m1",
        "docker volume create kept-by-hand; docker volume create --label uc.cluster=x kept-of-uc",
    );
    let said = site.sh(
        "m1",
        "sh /usr/local/lib/uc/install.sh --uninstall --yes 2>&1",
    );
    assert!(
        said.ends_with("uninstalled uc; kept Docker, its images and named volumes\n"),
        "{said}"
    );
    assert!(!said.contains("warning"), "{said}");
    assert_eq!(site.traces("m1"), "");
    assert_eq!(
        site.sh("m1", "docker volume ls -q; systemctl is-active docker"),
        "kept-by-hand\nkept-of-uc\nactive\n"
    );
    let again = site.sh("m1", "sh /var/tmp/uc/install.sh --uninstall --yes 2>&1");
    assert_eq!(again, "nothing of uc was found on this machine\n");
    site.sh(
        "m1",
        "docker volume rm kept-by-hand kept-of-uc; rm -r /var/tmp/uc /root/.config/uc",
    );
}

#[test]
fn containers_and_mesh_survive_the_daemon_and_a_reboot() {
    let Some(site) = Site::take() else { return };
    site.cluster(&["m1", "m2"]);
    site.deploy();
    let (page1, page2) = (site.address("m1"), site.address("m2"));
    site.expect_page("m1", &page2);
    site.expect_page("m2", &page1);
    let (containers, mesh) = (site.containers("m1"), site.pid("m1", "uc-mesh"));
    assert!(!containers.is_empty());

    // Killed: systemd starts another.
    let killed = site.pid("m1", "ucd");
    site.sh("m1", &format!("kill -9 {killed}"));
    site.expect_page("m2", &page1);
    wait_for("another daemon", SOON, || {
        let pid = site.pid("m1", "ucd");
        ensure!(pid != killed && pid != "0", "none yet");
        site.at("m1").machines()
    })
    .expect("it answers");
    // Stopped: stays stopped, says so, and containers and mesh do not notice.
    site.sh("m1", "systemctl stop ucd");
    let stopped = [
        "the daemon is not running",
        "hint: start it with `systemctl start ucd`",
    ];
    let local = site
        .machine("m1")
        .and_then(|machine| machine.exec(&["uc", "machine", "ls"]))
        .expect("runs");
    expect(&local, 4, &stopped);
    expect(
        &site.at("m1").run(&["machine", "ls"]),
        4,
        &[&[("error: root@m1: ")][..], &stopped].concat(),
    );
    site.await_machines("m2", &[("m1", "down"), ("m2", "up")]);
    site.expect_page("m2", &page1);
    site.expect_page("m1", &page2);
    assert_eq!(
        (site.containers("m1"), site.pid("m1", "uc-mesh")),
        (containers, mesh)
    );
    site.sh("m1", "systemctl start ucd");
    site.await_machines("m2", &[("m1", "up"), ("m2", "up")]);

    // No power, and back: the machine finds its cluster, its containers and the mesh by itself.
    let subnet = site.at("m2").machines().expect("listed")[0]["subnet"].clone();
    site.kill("m1").expect("killed");
    site.await_machines("m2", &[("m1", "down"), ("m2", "up")]);
    site.start("m1").expect("started");
    for name in ["m1", "m2"] {
        site.await_machines(name, &[("m1", "up"), ("m2", "up")]);
    }
    wait_for("the container to be back", SOON, || {
        let address = site
            .machine("m1")?
            .sh("docker ps -q --filter label=uc.project")?;
        ensure!(!address.is_empty(), "it does not run");
        Ok(())
    })
    .expect("it is");
    assert_eq!(
        site.at("m2").machines().expect("listed")[0]["subnet"],
        subnet
    );
    site.expect_page("m2", &site.address("m1"));
    site.expect_page("m1", &page2);
    let replicas = || -> anyhow::Result<usize> {
        let all = site.uc.json(&["ps", "-p", PROJECT])?;
        let running = all
            .as_array()
            .into_iter()
            .flatten()
            .filter(|one| one["state"] == "running");
        Ok(running.count())
    };
    wait_for("both replicas to be seen", SOON, || {
        let running = replicas()?;
        ensure!(running == 2, "{running} run");
        Ok(())
    })
    .expect("they are");

    // Taken out of the cluster, a machine loses its containers and keeps its volumes.
    let said = site.at("m2").ok(&["machine", "rm", "m1", "-y"]).stderr;
    assert!(
        said.contains("outlives/page") && said.contains("is removed"),
        "{said}"
    );
    wait_for("the machine to forget its cluster", SOON, || {
        let left = site.membership("m1");
        ensure!(left.is_empty(), "still there: {left}");
        Ok(())
    })
    .expect("it forgets");
    assert!(site.sh("m1", "docker volume ls -q").contains("data"));
    for name in ["m1", "m2"] {
        site.sh(
            name,
            "docker ps -aq | xargs -r docker rm -f; docker volume ls -q | xargs -r docker volume rm",
        );
    }
}

/// Not with a `uc` of another version, of which there is none yet, but with its call.
#[test]
fn uc_with_another_protocol_is_refused() {
    let Some(site) = Site::take() else { return };
    site.prepare(&["m1"]);
    let call = |protocol: &str| {
        let header = if protocol.is_empty() {
            String::new()
        } else {
            format!("-H 'uc-protocol: {protocol}'")
        };
        let curl = "printf '\\0\\0\\0\\0\\0' | curl -s -m 5 -D - -o /dev/null --http2-prior-knowledge \
                    --unix-socket /run/uc/uc.sock -H 'content-type: application/grpc' -H 'te: trailers' --data-binary @-";
        site.sh(
            "m1",
            &format!("{curl} {header} http://uc/uc.v1.Machine/Info; true"),
        )
    };
    let now = uc_api::version::PROTOCOL;
    let right = call(&now.to_string());
    assert!(
        right.starts_with("HTTP/2 200") && !right.contains("grpc-message"),
        "{right}"
    );
    for (other, word) in [
        ((now + 1).to_string(), "newer"),
        ((now - 1).to_string(), "older"),
        (String::new(), "which%20protocol"),
    ] {
        let said = call(&other);
        assert!(
            said.contains("grpc-message: ") && said.contains(word),
            "{other}: {said}"
        );
    }
}

/// `uc` with nothing at all around it.
#[test]
fn uc_without_a_context_says_how_to_get_one() {
    let Some(site) = Site::take() else { return };
    if Path::new("/run/uc").exists() {
        return;
    }
    expect(
        &site.run(&["machine", "ls"]),
        2,
        &[
            "error: no cluster to connect to",
            "hint: make a cluster with `uc machine init USER@HOST`",
        ],
    );
    site.bare(&["m1"]);
    expect(
        &site.at("m1").run(&["machine", "ls"]),
        1,
        &[
            "error: `uc` is not installed on root@m1",
            "hint: install it with `uc machine add root@m1`",
        ],
    );
}
