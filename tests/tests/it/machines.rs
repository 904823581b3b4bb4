//! Machines of the testbed boot, lose power and are cut off like real machines.

use std::process::Stdio;

use uc_testbed::{Lease, Machine, MachineState};

use crate::possible;

/// Whether one of four echo requests is answered. The first may fall into the time in which the
/// kernel has given up a neighbour that was silent.
fn hears(from: &Machine, to: &Machine) -> bool {
    from.exec(&["ping", "-c", "4", "-i", "0.4", "-W", "1", &to.address])
        .expect("ping runs")
        .success()
}

#[test]
fn machine_has_its_own_name_systemd_ssh_and_engine() {
    if !possible() {
        return;
    }
    let testbed = Lease::take().expect("a testbed");
    let mut engines = Vec::new();
    for machine in testbed.machines() {
        let said = machine.ssh(&[
            "hostname; systemctl is-system-running; docker info --format '{{.ID}} {{.ServerVersion}}'",
        ]);
        let said = said
            .expect("ssh runs")
            .checked()
            .expect("ssh gets in")
            .stdout;
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines[..2], [machine.name.as_str(), "running"]);
        let (id, version) = lines[2].split_once(' ').expect("an id and a version");
        assert!(version.starts_with("20.10."), "engine {version}");
        engines.push(id.to_owned());
    }
    engines.sort();
    engines.dedup();
    assert_eq!(
        engines.len(),
        testbed.machines().len(),
        "machines share an engine: {engines:?}"
    );
}

#[test]
fn ssh_refuses_an_unknown_key() {
    if !possible() {
        return;
    }
    let testbed = Lease::take().expect("a testbed");
    let key = testbed.scratch().expect("a directory").join("stranger");
    let _ = std::fs::remove_file(&key);
    let made = uc_testbed::command(&["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&key)
        .status();
    assert!(made.expect("ssh-keygen runs").success());
    let config = testbed.ssh_config();
    let output = uc_testbed::command(&[
        "ssh",
        "-F",
        "/dev/null",
        "-o",
        "BatchMode=yes",
        "-o",
        "IdentitiesOnly=yes",
    ])
    .arg("-o")
    .arg(format!(
        "UserKnownHostsFile={}",
        testbed.known_hosts().display()
    ))
    .arg("-i")
    .arg(&key)
    .args([&format!("root@{}", testbed.machines()[0].address), "true"])
    .output()
    .expect("ssh runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && text.contains("Permission denied"),
        "{text} ({})",
        config.display()
    );
}

#[test]
fn image_built_on_the_laptop_runs_on_a_machine() {
    if !possible() {
        return;
    }
    let testbed = Lease::take().expect("a testbed");
    let images = testbed.images().expect("the test images");
    let machine = &testbed.machines()[1];
    let mut save = testbed
        .docker()
        .args(["save", &images.busybox])
        .stdout(Stdio::piped())
        .spawn()
        .expect("docker runs");
    let load = machine
        .interactive(&["docker", "load"], false)
        .stdin(save.stdout.take().expect("a pipe"))
        .output()
        .expect("docker runs");
    assert!(
        save.wait().expect("docker ends").success() && load.status.success(),
        "{load:?}"
    );
    let said = machine.sh(&format!(
        "docker run --rm --memory 64m {} echo it lives",
        images.busybox
    ));
    assert_eq!(said.expect("the container runs"), "it lives\n");
}

#[test]
fn cut_drops_all_frames_until_healed() {
    if !possible() {
        return;
    }
    let testbed = Lease::take().expect("a testbed");
    let [one, two, three] = testbed.machines() else {
        panic!("not three machines")
    };
    assert!(hears(one, two) && hears(two, one));
    testbed.cut("m2", "m1").expect("cut");
    assert!(!hears(one, two), "m1 reaches m2 across the cut");
    assert!(!hears(two, one), "m2 reaches m1 across the cut");
    // Neither by name resolution of the link layer, which is a broadcast.
    one.sh(&format!(
        "ip neigh flush dev eth0; ping -c 1 -W 1 {} || true",
        two.address
    ))
    .expect("runs");
    let neighbour = one
        .sh(&format!("ip neigh show {}", two.address))
        .expect("runs");
    assert!(
        !neighbour.contains("lladdr"),
        "m1 has heard of m2: {neighbour}"
    );
    assert!(
        hears(one, three) && hears(two, three),
        "the cut stops more than it should"
    );
    assert_eq!(
        testbed.report().expect("a report").cuts,
        [("m1".to_owned(), "m2".to_owned())]
    );
    testbed.heal().expect("healed");
    assert!(hears(one, two) && hears(two, one));
}

#[test]
fn killed_machine_keeps_disk_address_and_cuts() {
    if !possible() {
        return;
    }
    let testbed = Lease::take().expect("a testbed");
    let [one, two, three] = testbed.machines() else {
        panic!("not three machines")
    };
    three
        .write_file("/var/tmp/kept", b"on disk", 0o640)
        .expect("written");
    three
        .write_file("/run/lost", b"in memory", 0o600)
        .expect("written");
    let boot = |machine: &Machine| {
        machine
            .sh("cat /proc/1/stat | cut -d ' ' -f 22")
            .expect("runs")
    };
    let before = boot(three);
    testbed.kill("m3").expect("killed");
    assert_eq!(three.state().expect("a state"), MachineState::Off);
    assert!(!hears(one, three), "m3 answers without power");
    let refused = three
        .exec(&["true"])
        .expect_err("m3 runs commands without power")
        .to_string();
    assert!(refused.starts_with("machine m3 is off"), "{refused}");
    testbed.cut("m1", "m3").expect("cut");
    testbed.start("m3").expect("started");
    assert_ne!(before, boot(three), "m3 was never off");
    let found =
        three.sh("stat -c '%a %s' /var/tmp/kept; test ! -e /run/lost; docker info >/dev/null");
    assert_eq!(found.expect("all as expected"), "640 7\n");
    assert!(hears(two, three) && hears(three, two));
    assert!(
        !hears(one, three) && !hears(three, one),
        "the cut does not hold for a machine that booted"
    );
    testbed.heal().expect("healed");
    assert!(hears(one, three));
}

#[test]
fn unknown_machine_names_are_refused() {
    if !possible() {
        return;
    }
    let testbed = Lease::take().expect("a testbed");
    let error = testbed.kill("m9").expect_err("no such machine").to_string();
    assert_eq!(error, "machine 'm9' not found; available: m1, m2, m3");
    let error = testbed
        .cut("m1", "m1")
        .expect_err("one machine")
        .to_string();
    assert_eq!(error, "a machine cannot be cut from itself ('m1')");
}
