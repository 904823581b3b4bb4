//! Machines that cannot be set up: uc reports the reason and a hint, and changes nothing on them.

use std::{fs, thread};

use anyhow::ensure;
use uc_testbed::{Output, Uc, command, wait_for};

use crate::machine_site::{SOON, Site, expect};

fn init(uc: &Uc, target: &str) -> Output {
    uc.run(&["machine", "init", target, "--name", "m1", "-y"])
        .expect("uc starts")
}

/// No context was made.
fn expect_no_context(site: &Site) {
    assert_eq!(
        site.uc.json(&["ctx", "ls"]).expect("contexts are listed"),
        serde_json::json!([])
    );
}

#[test]
fn init_reports_why_ssh_fails() {
    let Some(site) = Site::take() else { return };
    site.bare(&["m1"]);
    let (address, config) = (
        &site.machines()[0].address,
        fs::read_to_string(site.ssh_config()).expect("ssh's configuration"),
    );

    let nobody = format!(
        "root@{}.250",
        address.rsplit_once('.').expect("an address").0
    );
    let output = init(&site.uc, &nobody);
    expect(
        &output,
        4,
        &[
            &format!("error: cannot reach {nobody}: no"),
            "hint: check that the address",
        ],
    );

    let stranger = site.uc.home().join("stranger");
    if !stranger.exists() {
        let made = command(&["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(&stranger)
            .status();
        assert!(made.expect("ssh-keygen runs").success());
    }
    // ssh offers the keys of its configuration too: this one names only the stranger's.
    let with_config = |name: &str, text: &str| {
        let file = site.uc.home().join(name);
        fs::write(&file, text).expect("written");
        site.uc
            .clone()
            .with("UC_SSH_CONFIG", &file.to_string_lossy())
    };
    let wrong_key = config.replace(
        &*site.ssh_key().to_string_lossy(),
        &stranger.to_string_lossy(),
    );
    assert_ne!(wrong_key, config);
    expect(
        &init(&with_config("wrong-key", &wrong_key), "root@m1"),
        1,
        &[
            "error: root@m1 refused the login: it accepted none of your keys",
            "hint: choose a key with `-i KEYFILE`",
        ],
    );
    let uc = with_config("wrong-key", &wrong_key);
    let output = uc
        .run(&["machine", "init", "root@m1", "-i", "/nonexistent/key", "-y"])
        .expect("uc starts");
    expect(
        &output,
        1,
        &[
            "refused the login",
            "Identity file /nonexistent/key not accessible",
        ],
    );

    let public = fs::read_to_string(stranger.with_extension("pub")).expect("a public key");
    let known_hosts = site.uc.home().join("changed-hosts");
    let key: Vec<&str> = public.split(' ').take(2).collect();
    fs::write(&known_hosts, format!("{address},m1 {}\n", key.join(" "))).expect("written");
    let changed = config.replace(
        &*site.known_hosts().to_string_lossy(),
        &known_hosts.to_string_lossy(),
    );
    assert_ne!(changed, config);
    expect(
        &init(&with_config("changed-host", &changed), "root@m1"),
        1,
        &[
            "error: the host key of root@m1 has changed since it was accepted",
            &format!("{}:1", known_hosts.display()),
            "the new key is SHA256:",
            "hint: this is expected if the machine was reinstalled",
            "remove the old key and try again: `ssh-keygen -f",
        ],
    );
    expect(&init(&site.uc, "m1:no-port"), 2, &["error: "]);
    expect(
        &site.run(&["machine", "init", "root@m1", "--name", "Not A Name", "-y"]),
        2,
        &["error: invalid machine name `Not A Name`"],
    );

    expect(
        &site.run(&[
            "machine",
            "init",
            "root@m1",
            "--network",
            "10.9.0.0/24",
            "-y",
        ]),
        2,
        &[
            "error: invalid value '10.9.0.0/24'",
            "each machine gets a /24 of it, so use a /16",
        ],
    );

    assert_eq!(site.traces("m1"), "", "something was left on m1");
    expect_no_context(&site);
}

#[test]
fn init_passes_on_refusals_of_install_sh() {
    let Some(site) = Site::take() else { return };
    site.bare(&["m1", "m2", "m3"]);
    // No Docker, and no mirror to get it from: refused without waiting, since nothing in the
    // testbed can be waited for.
    let hidden = "for name in /usr/bin/docker /usr/sbin/dockerd";
    let proxy = "/etc/apt/apt.conf.d/99-uc-test";
    site.sh(
        "m1",
        &format!(
            "{hidden}; do mv $name $name.away; done; \
             echo 'Acquire::http::Proxy \"http://127.0.0.1:9/\"; Acquire::Retries 0;' > {proxy}"
        ),
    );
    // Docker of 2019.
    site.machine("m2")
        .and_then(|machine| {
            let old =
                "#!/bin/sh\ncase $1 in --version) echo Docker version 19.03.15;; *) echo 19.03.15;; esac\n";
            machine.write_file("/usr/local/bin/docker", old.as_bytes(), 0o755)
        })
        .expect("written");
    // A resolver answers DNS on all addresses.
    let listen = "use IO::Socket::INET; my $s = IO::Socket::INET->new(LocalAddr => \"0.0.0.0\", LocalPort => 53, \
                  Proto => \"udp\") or die $!; sleep 600";
    site.sh(
        "m3",
        &format!("systemd-run --quiet --unit uc-test-resolver perl -e '{listen}'"),
    );
    wait_for("the resolver", SOON, || {
        ensure!(
            site.sh("m3", "ss -Hulpn 'sport = 53'").contains("perl"),
            "it does not listen"
        );
        Ok(())
    })
    .expect("it listens");

    let said: Vec<Output> = thread::scope(|scope| {
        let uc = &site.uc;
        let each: Vec<_> = ["root@m1", "root@m2", "root@m3"]
            .map(|target| scope.spawn(move || init(uc, target)))
            .into();
        each.into_iter()
            .map(|one| one.join().expect("no panic"))
            .collect()
    });
    site.sh(
        "m1",
        &format!("{hidden}; do mv $name.away $name; done; rm {proxy}"),
    );
    site.sh("m2", "rm /usr/local/bin/docker");
    site.sh("m3", "systemctl stop uc-test-resolver");

    expect(
        &said[0],
        1,
        &[
            "error: cannot install uc on root@m1: ",
            "installing Docker from the packages of this distribution (debian)",
            "hint: ",
        ],
    );
    assert!(
        said[0].stderr.contains("install Docker 20.10 or newer"),
        "{}",
        said[0]
    );
    expect(
        &said[1],
        1,
        &[
            "error: cannot install uc on root@m2: ",
            "19.03.15",
            "20.10",
            "hint: ",
        ],
    );
    expect(
        &said[2],
        1,
        &[
            "error: cannot install uc on root@m3: port 53 (udp) is in use by perl (pid ",
            "hint: restrict its listen addresses",
        ],
    );
    for name in ["m1", "m2", "m3"] {
        assert_eq!(site.traces(name), "", "something was left on {name}");
    }
    expect_no_context(&site);
}

#[test]
fn init_refuses_incomplete_uploads() {
    let Some(site) = Site::take() else { return };
    site.bare(&["m1"]);
    // `cat > FILE` on the machine writes something else than was sent.
    site.machine("m1")
        .and_then(|machine| {
            machine.write_file(
                "/usr/local/bin/cat",
                b"#!/bin/sh\n/bin/cat \"$@\" | tr u v\n",
                0o755,
            )
        })
        .expect("written");
    let output = init(&site.uc, "root@m1");
    site.sh("m1", "rm /usr/local/bin/cat");
    expect(
        &output,
        1,
        &[
            "error: the copy of uc on root@m1 is damaged: the checksums differ",
            "hint: try again",
        ],
    );

    // Damaged before it left, or never a program at all: said before anything is copied.
    let directory = site.uc.home().join("damaged");
    fs::create_dir_all(&directory).expect("made");
    let from = directory.to_string_lossy();
    let install = || site.run(&["machine", "init", "root@m1", "-y", "--install-from", &from]);
    let _ = fs::remove_file(directory.join("ucd"));
    for name in ["uc", "install.sh"] {
        fs::copy(site.binaries.directory().join(name), directory.join(name)).expect("copied");
    }
    expect(
        &install(),
        2,
        &[
            "/ucd not found: it is needed to set up a machine",
            "--install-from",
        ],
    );
    fs::write(directory.join("ucd"), "<html>404 Not Found</html>").expect("written");
    expect(&install(), 2, &["/ucd is not a Linux program"]);
    // The head of a program, cut off after that.
    let ucd = fs::read(site.binaries.ucd()).expect("readable");
    fs::write(directory.join("ucd"), &ucd[..100_000]).expect("written");
    expect(
        &install(),
        1,
        &[
            "error: cannot install uc on root@m1: ",
            "/ucd does not run on this machine",
        ],
    );

    assert_eq!(site.traces("m1"), "", "something was left on m1");
    expect_no_context(&site);
}
