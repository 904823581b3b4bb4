//! The data plane survives the control plane: packets between containers on two machines are
//! counted while the daemons of both are killed.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{ChildStdout, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use uc_testbed::{Machine, Testbed, Uc, wait_for};

use super::cluster::{container_on, replicas};
use super::story::Story;

/// Number of packets, one every 20 ms. The daemons have restarted long before the last.
const PACKETS: usize = 500;

/// Replies before the first daemon is killed, so that traffic flows.
const BEFORE: usize = 50;

/// Limit for systemd to restart a daemon.
const RESTART: Duration = Duration::from_secs(30);

/// Kills `ucd` on both machines while a container pings another through the mesh. Every packet must
/// be answered.
pub(super) fn survives_the_daemon(story: &Story, testbed: &Testbed, uc: &Uc) -> anyhow::Result<()> {
    let all = replicas(uc)?;
    let (from, to) = (testbed.machine("m1")?, testbed.machine("m2")?);
    let sender = container_on(&all, "web", &from.name)?;
    let address = container_on(&all, "web", &to.name)?
        .ip
        .clone()
        .context("the other container has no address")?;
    let ping = format!("ping -n -i 0.02 -W 2 -c {PACKETS} {address}");
    story.say(&format!(
        "{} $ {ping}    (in the network of container {:.12})",
        from.name, sender.container_id
    ));
    let script = format!(
        "set -e; {}; exec nsenter --target $pid --net {ping}",
        sender.pid()
    );
    let mut child = from
        .command(&["sh", "-c", &script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut output = BufReader::new(child.stdout.take().context("ping has an output")?);
    let killed = await_answers(&mut output, BEFORE).and_then(|()| {
        for machine in [from, to] {
            kill_daemon(story, machine)?;
        }
        Ok(())
    });
    let mut rest = String::new();
    output.read_to_string(&mut rest)?;
    child.wait()?;
    killed?;
    let summary = rest
        .lines()
        .find(|line| line.contains("packets transmitted"))
        .unwrap_or("ping printed no summary");
    story.say(summary);
    let (sent, received) =
        counts(summary).with_context(|| format!("unexpected output of ping: {summary}"))?;
    ensure!(
        sent == PACKETS && received == PACKETS,
        "{} of {sent} packets were lost",
        sent.saturating_sub(received)
    );
    // The daemons have to answer again as well.
    wait_for("the daemons to answer again", RESTART, || {
        replicas(uc).map(|_| ())
    })
}

/// Reads the output of ping until it has received `wanted` replies.
fn await_answers(output: &mut BufReader<ChildStdout>, wanted: usize) -> anyhow::Result<()> {
    let mut answers = 0;
    let mut line = String::new();
    while answers < wanted {
        line.clear();
        if output.read_line(&mut line)? == 0 {
            bail!("ping ended after {answers} answers");
        }
        if line.contains(" bytes from ") {
            answers += 1;
        }
    }
    Ok(())
}

/// Kills `ucd` and waits until systemd has restarted it.
fn kill_daemon(story: &Story, machine: &Machine) -> anyhow::Result<()> {
    let pid = || {
        machine
            .sh("systemctl show --property MainPID --value ucd")
            .map(|pid| pid.trim().to_owned())
    };
    let before = pid()?;
    ensure!(before != "0", "ucd does not run on {}", machine.name);
    story.say(&format!("{} $ kill -9 {before}    (ucd)", machine.name));
    machine.sh(&format!("kill -9 {before}"))?;
    wait_for(
        &format!("ucd to restart on {}", machine.name),
        RESTART,
        || {
            let now = pid()?;
            ensure!(now != "0" && now != before, "its process is {now}");
            Ok(())
        },
    )
}

/// From `500 packets transmitted, 500 received, 0% packet loss, time 9999ms`.
fn counts(summary: &str) -> Option<(usize, usize)> {
    let mut parts = summary.split(", ");
    let mut number = || parts.next()?.split(' ').next()?.parse().ok();
    Some((number()?, number()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_from_the_summary_of_ping() {
        assert_eq!(
            counts("500 packets transmitted, 499 received, 0.2% packet loss, time 9999ms"),
            Some((500, 499))
        );
        let errors =
            "500 packets transmitted, 0 received, +3 errors, 100% packet loss, time 9999ms";
        assert_eq!(counts(errors), Some((500, 0)));
        assert_eq!(counts("ping printed no summary"), None);
    }
}
