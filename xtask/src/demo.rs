//! `cargo xtask demo`: what uc is for, told in a few minutes on real machines with real input. Each
//! step shows its commands and how long it took; the first thing that is not as it should be ends
//! the demo with an error.

mod cluster;
mod story;
mod traffic;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use cluster::{Replica, machines, replicas};
use story::Story;
use uc_testbed::{Binaries, Engine, Testbed, TestbedName, Uc, UpOptions, http, wait_for};

use crate::example;
use crate::guard::Guard;
use crate::printer::{data, note};

const PROJECT: &str = "guestbook";
const WEB_PORT: u16 = 8080;

/// A killed machine is noticed in eight seconds; the rest is a slow box.
const NOTICED: Duration = Duration::from_mins(1);

/// Facts of one machine are known on the others in milliseconds.
const SEEN: Duration = Duration::from_secs(5);

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Leave the machines up, and say how to go on
    #[arg(long)]
    keep: bool,
    /// The testbed
    #[arg(long, default_value = "demo")]
    name: TestbedName,
    /// The machines' Docker engine
    #[arg(long, default_value = "20.10")]
    engine: Engine,
}

/// Runs the demo; takes the machines down afterwards, also after a failure, unless they are to be
/// kept.
pub(crate) fn run(root: &Path, arguments: &Arguments) -> anyhow::Result<()> {
    let mut story = Story::new();
    let binaries = story.step("Build uc and ucd", |story| {
        story.say("cargo build --package uc-cmd --package uc-daemon");
        Binaries::build(root)
    })?;
    let guestbook = story.step(
        "Prepare the guestbook: its program, and Redis from Debian packages",
        |story| {
            story.say("examples/guestbook/build.sh");
            example::prepare(root, PROJECT)
        },
    )?;
    Testbed::down(&arguments.name)?;
    let guard = if arguments.keep {
        None
    } else {
        Some(Guard::over(&arguments.name)?)
    };
    let options = UpOptions {
        name: arguments.name.clone(),
        machines: 3,
        engine: arguments.engine,
    };
    let mut testbed = story.step(
        "Three machines, each with systemd, sshd and a Docker engine",
        |story| {
            story.say(&format!(
                "cargo xtask testbed up --machines 3 --name {}",
                arguments.name
            ));
            let testbed = Testbed::up(&options)?;
            for machine in testbed.machines() {
                story.say(&format!("{} is {}", machine.name, machine.address));
            }
            Ok(testbed)
        },
    )?;
    let uc = Uc::on(&testbed, &binaries)?;
    let told = tell(&mut story, &testbed, &uc, &guestbook);
    if told.is_err() {
        show_logs(&testbed);
    }
    if arguments.keep {
        testbed.keep();
        go_on(&testbed, &uc, &binaries, &guestbook);
    }
    told?;
    if !arguments.keep {
        story.step("Take everything down", |_| {
            testbed.keep();
            Testbed::down(&arguments.name)
        })?;
    }
    drop(guard);
    data(&format!("\nAll of it worked, in {:.0} s.", story.seconds()));
    Ok(())
}

fn tell(story: &mut Story, testbed: &Testbed, uc: &Uc, guestbook: &Path) -> anyhow::Result<()> {
    let key = testbed.ssh_key().to_string_lossy().into_owned();
    let compose = guestbook
        .join("compose.yaml")
        .to_string_lossy()
        .into_owned();
    story.step("A cluster of one machine, installed over ssh", |story| {
        story.show(&mut uc.command(&[
            "machine", "init", "root@m1", "--name", "m1", "-i", &key, "-y",
        ]))
    })?;
    story.step("Two more machines", |story| {
        for machine in ["m2", "m3"] {
            let target = format!("root@{machine}");
            story.show(&mut uc.command(&[
                "machine", "add", &target, "--name", machine, "-i", &key, "-y",
            ]))?;
        }
        wait_for("all machines to be up", NOTICED, || {
            let up = machines(uc)?
                .into_iter()
                .filter(|machine| machine.state == "up")
                .count();
            ensure!(up == 3, "{up} of 3 are up");
            Ok(())
        })?;
        story.show(&mut uc.command(&["machine", "ls"]))
    })?;
    story.step("Deploy the guestbook", |story| {
        story.show(&mut uc.command(&["deploy", "-f", &compose, "-y"]))
    })?;
    story.step("What runs where", |story| {
        // What the other machines have seen arrives here within milliseconds, not at once.
        wait_for("every replica to be seen as healthy", SEEN, || {
            check_spread(uc)
        })?;
        story.show(&mut uc.command(&["ps"]))
    })?;
    story.step("Deploy it again: nothing is left to do", |story| {
        let before = replicas(uc)?;
        story.show(&mut uc.command(&["deploy", "-f", &compose, "-y"]))?;
        let same = Replica::ids(&before) == Replica::ids(&replicas(uc)?);
        ensure!(same, "deploying an unchanged file replaced containers");
        Ok(())
    })?;
    story.step(
        "The page answers on each machine, and all show the same guestbook",
        |story| sign(story, testbed),
    )?;
    story.step("Names lead to all replicas, from every machine", |story| {
        names(story, testbed, uc)
    })?;
    story.step(
        "Kill the daemons with -9 under traffic: no packet is lost",
        |story| traffic::survives_the_daemon(story, testbed, uc),
    )?;
    story.step(
        "Cut a machine's power: the others deploy and answer",
        |story| power_loss(story, testbed, uc, &compose),
    )
}

/// Every service healthy, a web replica on each machine.
fn check_spread(uc: &Uc) -> anyhow::Result<()> {
    let all = replicas(uc)?;
    for (service, wanted) in [("web", 3), ("redis", 1), ("worker", 1)] {
        let fine = all
            .iter()
            .filter(|one| one.service == service && one.serves())
            .count();
        ensure!(
            fine == wanted,
            "{fine} of {wanted} replicas of {service} run and are healthy"
        );
    }
    let mut places: Vec<_> = all
        .iter()
        .filter(|one| one.service == "web")
        .map(|one| one.machine.name.as_str())
        .collect();
    places.sort_unstable();
    ensure!(
        places == ["m1", "m2", "m3"],
        "the replicas of web are on {}",
        places.join(", ")
    );
    Ok(())
}

/// An entry made through one machine is read through all of them.
fn sign(story: &Story, testbed: &Testbed) -> anyhow::Result<()> {
    for signer in testbed.machines() {
        let text = format!("hello from {}", signer.name);
        story.say(&format!(
            "$ curl -d 'name=demo&text={text}' http://{}:{WEB_PORT}/",
            signer.address
        ));
        http::post(
            &signer.address,
            WEB_PORT,
            &format!("name=demo&text={}", text.replace(' ', "+")),
        )?;
        for reader in testbed.machines() {
            let page = http::get(&reader.address, WEB_PORT, "/")?;
            ensure!(
                page.contains(&text),
                "the page of {} does not show '{text}':\n{page}",
                reader.name
            );
        }
    }
    for machine in testbed.machines() {
        story.say(&format!(
            "$ curl http://{}:{WEB_PORT}/replica",
            machine.address
        ));
        story.say(http::get(&machine.address, WEB_PORT, "/replica")?.trim());
    }
    Ok(())
}

/// A container on each machine asks its own name server for every service.
fn names(story: &Story, testbed: &Testbed, uc: &Uc) -> anyhow::Result<()> {
    let all = replicas(uc)?;
    for machine in testbed.machines() {
        let inside = cluster::container_on(&all, "web", &machine.name)?;
        let server = inside.name_server(machine)?;
        for service in ["web", "redis"] {
            let mut expected: Vec<&str> = all
                .iter()
                .filter(|one| one.service == service)
                .filter_map(|one| one.ip.as_deref())
                .collect();
            expected.sort_unstable();
            for name in [
                format!("{service}.internal"),
                format!("{service}.{PROJECT}.internal"),
            ] {
                let dig = format!("dig +short +tries=2 @{server} {name} A");
                let said = inside.in_its_network(machine, &dig)?;
                let mut found: Vec<&str> = said.lines().collect();
                found.sort_unstable();
                story.say(&format!(
                    "{} $ {dig}\n    {}",
                    machine.name,
                    found.join(" ")
                ));
                ensure!(
                    found == expected,
                    "{name} is {found:?} on {}, and should be {expected:?}",
                    machine.name
                );
            }
        }
    }
    Ok(())
}

fn power_loss(story: &Story, testbed: &Testbed, uc: &Uc, compose: &str) -> anyhow::Result<()> {
    let before = replicas(uc)?;
    let redis = before
        .iter()
        .find(|one| one.service == "redis")
        .context("no replica of redis")?;
    // The guestbook's data is on one machine's disk; any other may go, the one that made the
    // cluster first.
    let victim = testbed
        .machines()
        .iter()
        .find(|one| one.name != redis.machine.name)
        .context("no other machine")?;
    let rest: Vec<_> = testbed
        .machines()
        .iter()
        .filter(|one| one.name != victim.name)
        .collect();
    story.say(&format!(
        "$ cargo xtask testbed kill {} --name {}",
        victim.name,
        testbed.name()
    ));
    testbed.kill(&victim.name)?;
    wait_for(
        &format!("{} to be seen as down", victim.name),
        NOTICED,
        || {
            let seen = machines(uc)?
                .into_iter()
                .find(|one| one.name == victim.name)
                .context("it is not listed")?;
            ensure!(seen.state == "down", "it is seen as '{}'", seen.state);
            Ok(())
        },
    )?;
    story.show(&mut uc.command(&["machine", "ls"]))?;
    for machine in &rest {
        http::get(&machine.address, WEB_PORT, "/")
            .with_context(|| format!("the page of {} does not answer", machine.name))?;
    }
    let change = testbed.scratch()?.join("two-machines.yaml");
    std::fs::write(
        &change,
        "services:\n  web:\n    environment:\n      MACHINES: two\n    deploy:\n      replicas: 2\n",
    )?;
    story.show(&mut uc.command(&[
        "deploy",
        "-f",
        compose,
        "-f",
        &change.to_string_lossy(),
        "-y",
    ]))?;
    story.show(&mut uc.command(&["ps"]))?;
    let after = replicas(uc)?;
    for machine in &rest {
        let new = after.iter().find(|one| {
            one.service == "web" && one.machine.name == machine.name && one.current && one.serves()
        });
        let new = new.with_context(|| {
            format!("the new revision of web does not serve on {}", machine.name)
        })?;
        ensure!(
            !Replica::ids(&before).contains(&new.container_id),
            "web on {} is the old one",
            machine.name
        );
        story.say(&format!("$ curl http://{}:{WEB_PORT}/", machine.address));
        let page = http::get(&machine.address, WEB_PORT, "/")?;
        ensure!(
            page.contains("hello from m1"),
            "the page of {} has lost an entry:\n{page}",
            machine.name
        );
    }
    Ok(())
}

/// What each machine has to say about a failure.
fn show_logs(testbed: &Testbed) {
    for machine in testbed.machines() {
        let script =
            "docker ps --all; journalctl --no-pager --boot --lines 40 --unit ucd --unit uc-mesh";
        match machine.exec(&["sh", "-c", script]) {
            Ok(output) => note(&format!(
                "\n--- {}\n{}{}",
                machine.name, output.stdout, output.stderr
            )),
            Err(error) => note(&format!("\n--- {}\n{error:#}", machine.name)),
        }
    }
}

fn go_on(testbed: &Testbed, uc: &Uc, binaries: &Binaries, guestbook: &Path) {
    data("\nThe machines stay up. To go on in this shell:\n");
    data(&format!(
        "  export PATH={}:$PATH",
        binaries.directory().display()
    ));
    for (name, value) in uc.variables() {
        if matches!(*name, "UC_CONFIG" | "UC_SSH_CONFIG" | "DOCKER_HOST") {
            data(&format!("  export {name}={value}"));
        }
    }
    let address = testbed
        .machines()
        .first()
        .map(|machine| machine.address.clone())
        .unwrap_or_default();
    data(&format!(
        "\n  uc ps\n  uc logs -f web\n  uc scale web 2\n  curl http://{address}:{WEB_PORT}/"
    ));
    data(&format!(
        "  uc deploy -f {}",
        guestbook.join("compose.yaml").display()
    ));
    data(&format!("  ssh -F {} m1", testbed.ssh_config().display()));
    data(&format!(
        "\nWhen you are done: ./dev testbed down --name {}",
        testbed.name()
    ));
}
