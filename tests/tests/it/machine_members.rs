//! A cluster's machines come, are named, and go: by ssh from the laptop and with a token on the
//! machine itself.

use std::fs;

use anyhow::ensure;
use uc_testbed::{Output, wait_for};

use crate::machine_site::{SOON, Site, expect};

impl Site {
    fn join(&self, name: &str, token: &str) -> Output {
        self.machine(name)
            .and_then(|machine| machine.exec(&["uc", "machine", "join", token, "--name", name]))
            .expect("uc starts")
    }

    /// What the name server of a machine answers, of the addresses of machines.
    fn dig(&self, at: &str, machine: &str) -> String {
        let gateway = "$(ip -4 -o addr show uc0 | sed -n 's/.*inet \\([0-9.]*\\).*/\\1/p')";
        self.sh(
            at,
            &format!("dig +short +tries=1 +time=2 @{gateway} {machine}.machine.internal A"),
        )
    }
}

#[test]
fn cluster_grows_from_one_machine_and_shrinks_to_none() {
    let Some(site) = Site::take() else { return };
    site.bare(&["m1", "m2"]);
    let said = site
        .ok(&["machine", "init", "root@m1", "--name", "m1", "-y"])
        .stderr;
    assert!(said.contains("with machine m1 (10.210.0.0/24)"), "{said}");
    assert!(
        said.contains("saved as context `default` (now current)"),
        "{said}"
    );
    assert!(
        said.contains("hint: add machines with `uc machine add USER@HOST`"),
        "{said}"
    );
    let list = site.at("m1").machines().expect("listed");
    assert_eq!(list.len(), 1);
    for (key, value) in [("name", "m1"), ("state", "up"), ("subnet", "10.210.0.0/24")] {
        assert_eq!(list[0][key], value, "{list:?}");
    }
    assert_eq!(list[0]["connected"], true);
    assert_eq!(
        list[0]["endpoints"][0],
        format!("{}:51820", site.machines()[0].address)
    );
    assert_eq!(
        list[0]["facts"]["docker_version"]
            .as_str()
            .map(|version| &version[..6]),
        Some("20.10.")
    );

    let again = [
        "error: root@m1 already belongs to cluster ",
        "hint: remove it first, with a context of that cluster",
    ];
    expect(&site.run(&["machine", "init", "root@m1", "-y"]), 1, &again);
    expect(
        &site.run(&["machine", "add", "root@m1", "-n", "m4", "-y"]),
        1,
        &again,
    );
    let here = site
        .machine("m1")
        .and_then(|machine| machine.exec(&["uc", "machine", "init"]));
    expect(
        &here.expect("uc starts"),
        1,
        &["error: this machine already belongs to cluster "],
    );
    let taken = "error: another machine of the cluster is already named m1";
    expect(
        &site.run(&["machine", "add", "root@m2", "-n", "m1", "-y"]),
        1,
        &[taken, "hint: choose another"],
    );
    expect(
        &site.run(&["machine", "add", "root@m2", "-n", "M2", "-y"]),
        2,
        &["invalid machine name `M2`"],
    );
    assert_eq!(site.traces("m2"), "", "m2 was touched");
    assert_eq!(
        site.uc
            .json(&["ctx", "ls"])
            .expect("listed")
            .as_array()
            .map(Vec::len),
        Some(1)
    );

    let said = site
        .ok(&["machine", "add", "root@m2", "--name", "m2", "-y"])
        .stderr;
    assert!(
        said.contains("m2 is a member of the cluster (10.210.1.0/24)"),
        "{said}"
    );
    for name in ["m1", "m2"] {
        site.await_machines(name, &[("m1", "up"), ("m2", "up")]);
    }
    expect(
        &site.run(&["machine", "add", "root@m2", "-n", "m4", "-y"]),
        1,
        &["error: root@m2 already belongs to cluster "],
    );
    assert_eq!(
        fs::read_to_string(config(&site))
            .expect("a config")
            .matches("address = ")
            .count(),
        2
    );

    // One cannot saw off the branch one sits on.
    expect(
        &site.at("m1").run(&["machine", "rm", "m1", "-y"]),
        1,
        &[
            "error: uc is connected to m1 itself",
            "hint: connect to m2 instead: `uc --connect ssh://USER@HOST machine rm m1`",
        ],
    );
    expect(
        &site.at("m1").run(&["machine", "rm", "m1"]),
        1,
        &["uc is connected to m1 itself"],
    );
    expect(
        &site.run(&["machine", "rm", "m9", "-y"]),
        2,
        &["error: machine `m9` not found", "hint: did you mean"],
    );
    let unconfirmed = site.run(&["machine", "rm", "m2"]);
    assert_ne!(
        unconfirmed.code,
        Some(0),
        "removed without having been asked: {unconfirmed}"
    );
    site.await_machines("m1", &[("m1", "up"), ("m2", "up")]);

    // The context has another way in: whichever it takes first, m1 goes.
    let said = site.ok(&["machine", "rm", "m1", "-y"]).stderr;
    assert!(
        said.contains("removed m1") && !said.contains("not reset"),
        "{said}"
    );
    site.await_machines("m2", &[("m2", "up")]);
    await_no_membership(&site, "m1");
    expect(
        &site.at("m1").run(&["machine", "ls"]),
        1,
        &["error: machine ", " is not in a cluster", "hint: "],
    );
    assert_eq!(
        fs::read_to_string(config(&site))
            .expect("a config")
            .matches("address = ")
            .count(),
        1
    );

    // It can be a member again, of this cluster too; and the last one ends it.
    let said = site
        .ok(&["machine", "add", "root@m1", "--name", "m1", "-y"])
        .stderr;
    assert!(
        said.contains("m1 is a member of the cluster (10.210.0.0/24)"),
        "{said}"
    );
    site.ok(&["machine", "rm", "m1", "-y"]);
    await_no_membership(&site, "m1");
    let last = site.ok(&["machine", "rm", "m2", "-y"]).stderr;
    assert!(
        last.contains("m2 was reset. It was the last machine: the cluster no longer exists"),
        "{last}"
    );
    await_no_membership(&site, "m2");
    assert_eq!(
        site.uc.json(&["ctx", "ls"]).expect("listed"),
        serde_json::json!([])
    );
}

#[test]
fn machine_commands_work_for_a_user_with_sudo() {
    let Some(site) = Site::take() else { return };
    site.bare(&["m1"]);
    site.sh(
        "m1",
        "id admin >/dev/null 2>&1 || useradd -m -s /bin/sh admin; rm -f /etc/sudoers.d/admin; \
         install -d -o admin -m 700 /home/admin/.ssh; \
         install -o admin -m 600 /root/.ssh/authorized_keys /home/admin/.ssh/authorized_keys",
    );
    let init = || site.run(&["machine", "init", "admin@m1", "--name", "m1", "-y"]);
    expect(
        &init(),
        1,
        &[
            "error: admin@m1: admin is not root, and sudo asks for a password",
            "hint: log in as root: `root@m1`",
            "NOPASSWD",
        ],
    );
    assert_eq!(site.traces("m1"), "", "m1 was touched");
    site.sh(
        "m1",
        "echo 'admin ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/admin",
    );
    init().checked().expect("a cluster");
    site.sh("m1", "rm /etc/sudoers.d/admin");
    // By the group that install.sh put the user into, and no more than that.
    let list = site.uc.json(&["machine", "ls"]).expect("listed");
    assert_eq!(list[0]["name"], "m1");
    assert_eq!(site.sh("m1", "id -nG admin"), "admin uc\n");
    site.sh(
        "m1",
        "ls -d /tmp/uc-install.* 2>/dev/null && exit 1; gpasswd -q -d admin uc; true",
    );
}

#[test]
fn machine_rename_reaches_every_machine() {
    let Some(site) = Site::take() else { return };
    site.cluster(&["m1", "m2"]);
    let before = site.at("m1").machines().expect("listed");
    expect(
        &site.run(&["machine", "rename", "m1", "m2"]),
        1,
        &[
            "error: a machine named m2 is already in the cluster",
            "hint: choose another name",
        ],
    );
    expect(
        &site.run(&["machine", "rename", "m1", "M 2"]),
        2,
        &["error: invalid machine name `M 2`: use lower-case"],
    );
    expect(
        &site.run(&["machine", "rename", "mm1", "x"]),
        2,
        &["error: machine `mm1` not found", "hint: did you mean `m1`?"],
    );
    assert_eq!(
        site.at("m1").machines().expect("listed"),
        before,
        "a refused renaming changed something"
    );

    assert_eq!(site.dig("m2", "m1"), "10.210.0.1\n");
    let said = site.ok(&["machine", "rename", "m1", "web-1"]).stderr;
    assert!(said.contains("renamed m1 to web-1"), "{said}");
    for name in ["m1", "m2"] {
        site.await_machines(name, &[("m2", "up"), ("web-1", "up")]);
        wait_for("the name server to follow", SOON, || {
            let (new, old) = (site.dig(name, "web-1"), site.dig(name, "m1"));
            ensure!(
                new == "10.210.0.1\n" && old.is_empty(),
                "web-1 is '{new}', m1 is '{old}'"
            );
            Ok(())
        })
        .expect("it follows");
    }
    // By the beginning of its id, from the other side, and back.
    let id = before[0]["id"].as_str().expect("an id");
    site.at("m2").ok(&["machine", "rename", &id[..8], "m1"]);
    site.await_machines("m1", &[("m1", "up"), ("m2", "up")]);
}

#[test]
fn token_admits_one_machine() {
    let Some(site) = Site::take() else { return };
    site.cluster(&["m1", "m2"]);
    site.prepare(&["m3"]);
    let members = || site.at("m1").list().expect("listed").len();
    let made = site.ok(&["machine", "token"]);
    let token = made.stdout.trim();
    assert!(made.stderr.contains("for one machine"), "{}", made.stderr);
    assert_eq!(
        made.stdout.lines().count(),
        1,
        "the token can be copied as one line"
    );

    let middle = token.len() / 2;
    let other = if token.as_bytes()[middle] == b'A' {
        "B"
    } else {
        "A"
    };
    let flipped = format!("{}{other}{}", &token[..middle], &token[middle + 1..]);
    for damaged in [&token[..token.len() - 2], &flipped, "uc1:", "nonsense"] {
        expect(
            &site.join("m3", damaged),
            2,
            &["join token", "hint: `uc machine token` on a member"],
        );
    }
    let short = site.ok(&["machine", "token", "--ttl", "1s"]).stdout;
    let expired = wait_for("the token to expire", SOON, || {
        let output = site.join("m2", short.trim());
        ensure!(output.stderr.contains("expired"), "{output}");
        Ok(output)
    });
    expect(
        &expired.expect("it does"),
        1,
        &[
            "error: the join token has expired",
            "hint: create a new one",
        ],
    );
    expect(
        &site.run(&["machine", "token", "--ttl", "31days"]),
        2,
        &["between 1 second and 30 days"],
    );
    assert_eq!(
        (members(), site.membership("m3").as_str()),
        (2, ""),
        "an invalid token changed something"
    );

    let same_name = site
        .machine("m3")
        .and_then(|machine| machine.exec(&["uc", "machine", "join", token, "--name", "m2"]));
    expect(
        &same_name.expect("uc starts"),
        1,
        &["a machine named m2 is already in the cluster", "hint: "],
    );
    assert_eq!((members(), site.membership("m3").as_str()), (2, ""));

    // As cloud-init has it: as root, without a home, the token from standard input.
    let script = format!(
        "echo {token} | env -i PATH=/usr/local/bin:/usr/bin:/bin uc machine join - --name m3 2>&1"
    );
    let said = site.sh("m3", &script);
    assert!(
        said.contains("joined cluster ") && said.contains(" as m3 (10.210.2.0/24)"),
        "{said}"
    );
    for name in ["m1", "m2", "m3"] {
        site.await_machines(name, &[("m1", "up"), ("m2", "up"), ("m3", "up")]);
    }
    expect(
        &site.join("m3", token),
        1,
        &["error: this machine already belongs to cluster "],
    );
    site.ok(&["machine", "rm", "m3", "-y"]);
    await_no_membership(&site, "m3");
    // It was used once, by a machine that is no longer a member.
    let again = site.join("m3", token);
    expect(
        &again,
        1,
        &[
            "error: the join token was already used",
            "hint: create a new one",
        ],
    );
    assert_eq!((members(), site.membership("m3").as_str()), (2, ""));
}

#[test]
fn removed_token_admits_no_machine() {
    let Some(site) = Site::take() else { return };
    site.cluster(&["m1", "m2"]);
    site.prepare(&["m3"]);
    let token = site.ok(&["machine", "token"]).stdout;
    let listed = site.uc.json(&["machine", "token", "ls"]).expect("listed");
    // The cluster can have been made with a token, which is listed as used.
    let mut unused = listed.as_array().expect("a list").iter();
    let unused = unused.find(|token| token["state"] == "unused");
    let unused = unused.unwrap_or_else(|| panic!("no unused token in {listed}"));
    assert_eq!(unused["created_by"]["name"], "m1", "{listed}");
    let id = unused["id"].as_str().expect("an id").to_owned();
    let said = site.ok(&["machine", "token", "rm", &id, "-y"]).stderr;
    assert!(said.contains(&format!("removed join token {id}")), "{said}");
    for name in ["m1", "m2"] {
        wait_for("the token to be removed everywhere", SOON, || {
            let said = site.at(name).ok(&["machine", "token", "ls", "-o", "json"]);
            ensure!(!said.stdout.contains(&id), "{said}");
            Ok(())
        })
        .expect("it is");
    }
    // The tunnel is silent for a key that it does not know, so the machine waits for half a minute
    // for each endpoint of a member, and at most for 90 s.
    let refused = site.join("m3", token.trim());
    expect(
        &refused,
        4,
        &[
            "error: no member of the cluster answered within ",
            "members do not answer a token that was removed: `uc machine token ls`",
        ],
    );
    assert_eq!(site.membership("m3"), "");
    expect(
        &site.run(&["machine", "token", "rm", &id, "-y"]),
        2,
        &["join token", "not found"],
    );
}

#[test]
fn failed_join_with_a_token_can_be_repeated() {
    let Some(site) = Site::take() else { return };
    site.cluster(&["m1", "m2"]);
    site.prepare(&["m3"]);
    let token = site.ok(&["machine", "token"]).stdout;
    let docker = "docker.socket docker.service";
    // It is registered, and then cannot become ready.
    site.sh("m3", &format!("systemctl mask --now {docker} 2>&1"));
    let failed = site.join("m3", token.trim());
    assert!(!failed.success(), "{failed}");
    site.await_machines("m1", &[("m1", "up"), ("m2", "up"), ("m3", "down")]);
    site.sh(
        "m3",
        &format!("systemctl unmask {docker} 2>&1; systemctl start docker"),
    );
    site.join("m3", token.trim())
        .checked()
        .expect("the token works again");
    // Once: the registration of the first join is replaced.
    for name in ["m1", "m2", "m3"] {
        site.await_machines(name, &[("m1", "up"), ("m2", "up"), ("m3", "up")]);
    }
}

#[test]
fn token_works_while_its_creator_is_off() {
    let Some(site) = Site::take() else { return };
    site.cluster(&["m1", "m2"]);
    site.prepare(&["m3"]);
    let token = site.ok(&["machine", "token"]).stdout;
    // A machine that has the new name also has the token, which is older.
    site.ok(&["machine", "rename", "m2", "proof"]);
    site.await_machines("m2", &[("m1", "up"), ("proof", "up")]);
    site.kill("m1").expect("killed");
    site.join("m3", token.trim())
        .checked()
        .expect("the other lets it in");
    site.await_machines("m3", &[("m1", "down"), ("m3", "up"), ("proof", "up")]);
    site.start("m1").expect("started");
    site.await_machines("m1", &[("m1", "up"), ("m3", "up"), ("proof", "up")]);
}

#[test]
fn removed_dead_machine_does_not_rejoin() {
    let Some(site) = Site::take() else { return };
    site.cluster(&["m1", "m2", "m3"]);
    site.kill("m3").expect("killed");
    site.await_machines("m1", &[("m1", "up"), ("m2", "up"), ("m3", "down")]);
    let said = site.ok(&["machine", "rm", "m3", "-y"]).stderr;
    for part in [
        "warning: m3 was removed from the cluster, but did not confirm that it was reset: ",
        "hint: its containers may still run",
        "removed m3",
    ] {
        assert!(said.contains(part), "no '{part}' in: {said}");
    }
    for name in ["m1", "m2"] {
        site.await_machines(name, &[("m1", "up"), ("m2", "up")]);
    }
    site.start("m3").expect("started");
    wait_for("its daemon to be back", SOON, || {
        site.machine("m3")?.sh("systemctl is-active ucd uc-mesh")
    })
    .expect("it is");
    // It still believes to be a member; nobody else does, and nobody talks to it. What it says now
    // must not reach the others: it renames itself, and neither name turns up there.
    let renamed = site
        .at("m3")
        .run(&["machine", "rename", "m3", "back-again"]);
    site.ok(&["machine", "rename", "m2", "proof"]);
    site.await_machines("m1", &[("m1", "up"), ("proof", "up")]);
    site.await_machines("m2", &[("m1", "up"), ("proof", "up")]);
    let pings = site.sh(
        "m3",
        "ping -c 2 -i 0.3 -W 1 10.210.0.1 >/dev/null 2>&1 && echo through || echo nothing",
    );
    assert_eq!(pings, "nothing\n", "the mesh still knows it ({renamed})");
    // The way back that the hint shows.
    site.bare(&["m3"]);
    let token = site.ok(&["machine", "token"]).stdout;
    site.prepare(&["m3"]);
    site.join("m3", token.trim())
        .checked()
        .expect("it joins again");
    site.await_machines("m1", &[("m1", "up"), ("m3", "up"), ("proof", "up")]);
}

/// A removed machine forgets its cluster on its own time.
fn await_no_membership(site: &Site, name: &str) {
    wait_for("the machine to forget its cluster", SOON, || {
        let left = site.membership(name);
        ensure!(left.is_empty(), "still there: {left}");
        Ok(())
    })
    .expect("it forgets");
}

fn config(site: &Site) -> std::path::PathBuf {
    site.scratch().expect("a directory").join("machines.toml")
}
