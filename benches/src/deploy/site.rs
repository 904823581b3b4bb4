//! Three machines with the image on each, in a cluster of `uc`.

use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use uc_testbed::{Binaries, Machine, Testbed, TestbedName, Uc, UpOptions, wait_for};

use super::IMAGE;
use crate::figure::note;

/// For machines to see each other. Seconds are usual.
const PATIENCE: Duration = Duration::from_secs(60);

/// Removed when dropped.
#[derive(Debug)]
pub(super) struct Site {
    testbed: Testbed,
    pub(super) uc: Uc,
}

impl Site {
    /// Starts the machines, loads the image, and makes the cluster.
    pub(super) fn start(programs: &Binaries, name: &TestbedName) -> anyhow::Result<Self> {
        note("starting three machines");
        let testbed = Testbed::up(&UpOptions {
            name: name.clone(),
            machines: 3,
            ..UpOptions::default()
        })?;
        let uc = Uc::on(&testbed, programs)?;
        let site = Self { testbed, uc };
        site.load_image()?;
        site.make_cluster()?;
        Ok(site)
    }

    /// All three.
    pub(super) fn machines(&self) -> &[Machine] {
        self.testbed.machines()
    }

    /// The first one.
    pub(super) fn manager(&self) -> anyhow::Result<&Machine> {
        self.machines().first().context("no machines")
    }

    /// Runs a shell script on all machines at the same time, and returns what each printed.
    pub(super) fn everywhere(&self, script: &str) -> anyhow::Result<Vec<String>> {
        thread::scope(|scope| {
            let running: Vec<_> = self
                .machines()
                .iter()
                .map(|machine| scope.spawn(|| machine.sh(script)))
                .collect();
            let ended = running.into_iter().map(|one| match one.join() {
                Ok(printed) => printed,
                Err(_) => bail!("running a script on a machine panicked"),
            });
            ended.collect()
        })
    }

    fn load_image(&self) -> anyhow::Result<()> {
        let busybox = self.testbed.images()?.busybox;
        output(self.testbed.docker().args(["tag", &busybox, IMAGE]))?;
        let image = output(self.testbed.docker().args(["save", IMAGE]))?;
        for machine in self.machines() {
            machine.write_file("/root/image.tar", &image, 0o600)?;
        }
        self.everywhere("docker load --quiet --input /root/image.tar")?;
        Ok(())
    }

    fn make_cluster(&self) -> anyhow::Result<()> {
        let key = self.testbed.ssh_key().to_string_lossy().into_owned();
        for (number, machine) in self.machines().iter().enumerate() {
            let how = if number == 0 { "init" } else { "add" };
            let (name, target) = (machine.name.as_str(), machine.ssh_target());
            let words = ["machine", how, &target, "--name", name, "-i", &key, "-y"];
            self.uc.run(&words)?.checked()?;
        }
        wait_for("all machines to be up", PATIENCE, || {
            let members = self.uc.json(&["machine", "ls"])?;
            let members = members
                .as_array()
                .context("`uc machine ls` printed something other than an array")?;
            let up = members.iter().filter(|member| member["state"] == "up");
            let (up, all) = (up.count(), self.machines().len());
            ensure!(up == all, "{up} of {all} are up");
            Ok(())
        })
    }
}

/// What a program prints.
fn output(command: &mut Command) -> anyhow::Result<Vec<u8>> {
    let output = command.output().context("cannot run docker")?;
    if !output.status.success() {
        bail!(
            "docker failed ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(output.stdout)
}
