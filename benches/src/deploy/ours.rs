//! `uc deploy` on the computer of a person, over ssh.

use std::fs;
use std::path::PathBuf;

use super::site::Site;
use super::{COMMAND, IMAGE, LABEL, MONITOR, PARALLELISM, REPLICAS, Span, Stage, Tool, now};

const PROJECT: &str = "uc-bench";

/// The compose file that is deployed.
#[derive(Debug)]
pub(super) struct Ours(PathBuf);

impl Ours {
    pub(super) fn new(site: &Site) -> anyhow::Result<Self> {
        let directory = site.uc.home().join(PROJECT);
        fs::create_dir_all(&directory)?;
        Ok(Self(directory.join("compose.yaml")))
    }

    fn write(&self, version: &str) -> anyhow::Result<()> {
        let [program, argument] = COMMAND;
        let text = format!(
            "name: {PROJECT}
services:
  web:
    image: {IMAGE}
    pull_policy: never
    command: [{program}, {argument}]
    stop_signal: SIGKILL
    labels: {{{LABEL}: \"{version}\"}}
    deploy:
      replicas: {REPLICAS}
      update_config: {{parallelism: {PARALLELISM}, order: start-first, monitor: {MONITOR}s}}
"
        );
        Ok(fs::write(&self.0, text)?)
    }
}

impl Tool for Ours {
    fn name(&self) -> &'static str {
        "uc"
    }

    fn run(&mut self, site: &Site, _: Stage, version: &str) -> anyhow::Result<Option<Span>> {
        self.write(version)?;
        let file = self.0.to_string_lossy();
        let began = now()?;
        site.uc.run(&["deploy", "-y", "-f", &file])?.checked()?;
        let ended = now()?;
        Ok(Some(Span { began, ended }))
    }

    fn remove(&mut self, site: &Site) -> anyhow::Result<()> {
        site.uc.run(&["rm", "-y", "-p", PROJECT])?.checked()?;
        Ok(())
    }
}
