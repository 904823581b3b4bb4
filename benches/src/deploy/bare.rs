//! `docker run` for every replica, all at the same time on all machines: what the engines can do.

use std::time::Duration;

use anyhow::Context as _;

use super::site::Site;
use super::{COMMAND, IMAGE, LABEL, REPLICAS, Span, Stage, Tool, now};

pub(super) const NAME: &str = "docker-run";

/// The scripts on the machines are running by then, so they start at the same moment.
const AHEAD: Duration = Duration::from_secs(1);

/// No tool at all.
#[derive(Debug)]
pub(super) struct Bare;

impl Tool for Bare {
    fn name(&self) -> &'static str {
        NAME
    }

    /// An update starts the new replicas beside the old ones, and then removes these.
    fn run(&mut self, site: &Site, stage: Stage, version: &str) -> anyhow::Result<Option<Span>> {
        let old = match stage {
            Stage::First => "",
            Stage::Update => "docker rm --force $old >/dev/null",
            Stage::Nothing => return Ok(None),
        };
        let each = REPLICAS / site.machines().len();
        let [program, argument] = COMMAND;
        let began = now()? + u64::try_from(AHEAD.as_nanos())?;
        let script = format!(
            "old=$(docker ps --quiet --filter label={LABEL})
             rest=$(( ({began} - $(date +%s%N)) / 1000000 ))
             [ $rest -gt 0 ] && sleep $(printf '%d.%03d' $((rest / 1000)) $((rest % 1000)))
             for number in $(seq {each}); do
                 docker run --detach --pull never --label {LABEL}={version} {IMAGE} {program} {argument} >/dev/null &
             done
             wait
             {old}
             date +%s%N"
        );
        let mut ended = began;
        for printed in site.everywhere(&script)? {
            let end = printed.trim().parse().context("`date` printed no number")?;
            ended = ended.max(end);
        }
        Ok(Some(Span { began, ended }))
    }

    fn remove(&mut self, site: &Site) -> anyhow::Result<()> {
        site.everywhere(&format!(
            "docker ps --all --quiet --filter label={LABEL} | xargs -r docker rm --force"
        ))?;
        Ok(())
    }
}
