//! The replicas as the Docker engines report them, whichever tool started them.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use uc_testbed::wait_for;

use super::LABEL;
use super::site::Site;

/// For the engines to remove containers.
const PATIENCE: Duration = Duration::from_secs(60);

/// A container that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Replica {
    id: String,
    /// When the engine last started it, in nanoseconds since 1970.
    pub(super) started: u64,
}

/// The replicas of a version that run now, of all machines in their order.
pub(super) fn replicas(site: &Site, version: &str) -> anyhow::Result<Vec<Replica>> {
    let script = format!(
        "docker ps --quiet --filter label={LABEL}={version} | sort |
         xargs -r docker inspect --format '{{{{.Id}}}} {{{{.State.StartedAt}}}}' |
         while read -r id started; do echo \"$id $(date --date \"$started\" +%s%N)\"; done"
    );
    let printed = site.everywhere(&script)?;
    let lines = printed.iter().flat_map(|text| text.lines());
    lines.map(replica).collect()
}

/// Waits until no machine has a container of this benchmark.
pub(super) fn wait_for_none(site: &Site) -> anyhow::Result<()> {
    let script = format!("docker ps --all --quiet --filter label={LABEL}");
    wait_for("the engines to remove the replicas", PATIENCE, || {
        let left: usize = site
            .everywhere(&script)?
            .iter()
            .map(|text| text.lines().count())
            .sum();
        ensure!(left == 0, "{left} are left");
        Ok(())
    })
}

fn replica(line: &str) -> anyhow::Result<Replica> {
    let (id, started) = line
        .split_once(' ')
        .with_context(|| format!("docker inspect printed {line:?}"))?;
    Ok(Replica {
        id: id.to_owned(),
        started: started.parse()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_has_id_and_nanoseconds() {
        let found = replica("0a1b 1796054229486559411").expect("valid");
        assert_eq!(
            found,
            Replica {
                id: "0a1b".to_owned(),
                started: 1_796_054_229_486_559_411
            }
        );
        replica("0a1b").expect_err("no time");
    }
}
