//! `cargo xtask demo`: what uc does, shown in a few minutes on real machines with real input. Each
//! step prints its commands and its duration. The first unexpected result ends the demo with an
//! error.

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

/// A killed machine is detected within eight seconds; the rest is for slow computers.
const NOTICED: Duration = Duration::from_mins(1);

/// Observations reach the other machines within milliseconds; the rest is for slow computers.
const SEEN: Duration = Duration::from_secs(5);

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Keep the machines up, and print how to use them
    #[arg(long)]
    keep: bool,
    /// Name of the testbed
    #[arg(long, default_value = "demo")]
    name: TestbedName,
    /// Version of the machines' Docker engine
    #[arg(long, default_value = "20.10")]
    engine: Engine,
}

/// Runs the demo. Takes the machines down afterwards, also after a failure, unless `--keep` is set.
pub(crate) fn run(root: &Path, arguments: &Arguments) -> anyhow::Result<()> {
    let mut story = Story::new();
    let binaries = story.step("Build uc and ucd", |story| {
        story.say("cargo build --package uc-cmd --package uc-daemon");
        Binaries::build(root)
    })?;
    let guestbook = story.step(
        "Prepare the guestbook: build its program, and collect Redis from Debian packages",
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
        "Start three machines, each with systemd, sshd and a Docker engine",
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
    let outcome = run_story(&mut story, &testbed, &uc, &guestbook);
    if outcome.is_err() {
        show_logs(&testbed);
    }
    if arguments.keep {
        testbed.keep();
        print_how_to_continue(&testbed, &uc, &binaries, &guestbook);
    }
    outcome?;
    if !arguments.keep {
        story.step("Take everything down", |_| {
            testbed.keep();
            Testbed::down(&arguments.name)
        })?;
    }
    drop(guard);
    data(&format!(
        "\nThe demo completed in {:.0} s.",
        story.seconds()
    ));
    Ok(())
}

fn run_story(
    story: &mut Story,
    testbed: &Testbed,
    uc: &Uc,
    guestbook: &Path,
) -> anyhow::Result<()> {
    let key = testbed.ssh_key().to_string_lossy().into_owned();
    let compose = guestbook
        .join("compose.yaml")
        .to_string_lossy()
        .into_owned();
    story.step(
        "Create a cluster of one machine, installed over ssh",
        |story| {
            story.show(&mut uc.command(&[
                "machine", "init", "root@m1", "--name", "m1", "-i", &key, "-y",
            ]))
        },
    )?;
    story.step("Add two more machines", |story| {
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
    story.step("Show what runs where", |story| {
        // Observations of the other machines arrive here within milliseconds, not immediately.
        wait_for("every replica to be reported as healthy", SEEN, || {
            check_spread(uc)
        })?;
        story.show(&mut uc.command(&["ps"]))
    })?;
    story.step("Deploy it again: nothing changes", |story| {
        let before = replicas(uc)?;
        story.show(&mut uc.command(&["deploy", "-f", &compose, "-y"]))?;
        let same = Replica::ids(&before) == Replica::ids(&replicas(uc)?);
        ensure!(same, "deploying an unchanged file replaced containers");
        Ok(())
    })?;
    story.step(
        "Open the page on each machine: all show the same guestbook",
        |story| sign(story, testbed),
    )?;
    story.step(
        "Resolve service names on each machine: they return all replicas",
        |story| names(story, testbed, uc),
    )?;
    story.step(
        "Kill the daemons with -9 during traffic: no packet is lost",
        |story| traffic::survives_the_daemon(story, testbed, uc),
    )?;
    story.step(
        "Cut a machine's power: the others still deploy and answer",
        |story| power_loss(story, testbed, uc, &compose),
    )
}

/// Checks that every service is healthy and that each machine has a web replica.
fn check_spread(uc: &Uc) -> anyhow::Result<()> {
    let all = replicas(uc)?;
    for (service, wanted) in [("web", 3), ("redis", 1), ("worker", 1)] {
        let fine = all
            .iter()
            .filter(|one| one.service == service && one.serves())
            .count();
        ensure!(
            fine == wanted,
            "{fine} of {wanted} replicas of {service} are running and healthy"
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

/// Writes an entry through each machine and reads it through all of them.
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

/// Queries the name server of a container on each machine for every service.
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
                    "{name} resolves to {found:?} on {}, expected {expected:?}",
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
    // The guestbook's data is on one machine's disk. Every other machine can fail, the first
    // machine of the cluster preferred.
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
        &format!("{} to be reported as down", victim.name),
        NOTICED,
        || {
            let seen = machines(uc)?
                .into_iter()
                .find(|one| one.name == victim.name)
                .context("it is not listed")?;
            ensure!(seen.state == "down", "it is reported as '{}'", seen.state);
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
            "web on {} is still the old container",
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

/// Prints containers and logs of each machine after a failure.
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

fn print_how_to_continue(testbed: &Testbed, uc: &Uc, binaries: &Binaries, guestbook: &Path) {
    data("\nThe machines are still up. To use them in this shell:\n");
    data(&format!(
        "  export PATH={}:$PATH",
        binaries.directory().display()
    ));
    for (name, value) in uc.variables() {
        if matches!(*name, "UC_CONFIG" | "UC_SSH_CONFIG" | "DOCKER_HOST") {
            data(&format!("  export {name}={value}"));
        }
    }
    let address = &testbed.machines()[0].address;
    data(&format!(
        "\n  uc ps\n  uc logs -f web\n  uc scale web 2\n  curl http://{address}:{WEB_PORT}/"
    ));
    data(&format!(
        "  uc deploy -f {}",
        guestbook.join("compose.yaml").display()
    ));
    data(&format!("  ssh -F {} m1", testbed.ssh_config().display()));
    data(&format!(
        "\nTo remove them: ./dev testbed down --name {}",
        testbed.name()
    ));
}
