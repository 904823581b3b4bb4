//! `uc doctor`

use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use uc_api::v1::{ExamineRequest, ExaminedMachine, Kept, ListServicesRequest, PsRequest};

use crate::answer::{Required as _, with_part};
use crate::args::Output;
use crate::connect::{Client, Globals, ask, within};
use crate::doctor::replicas::{self, Deployed};
use crate::doctor::{self, Finding, Severity, figures};
use crate::error::{CliResult, Kind};
use crate::ui::{CYAN, DIM, RED, Ui, YELLOW};
use crate::words::counted;
use crate::{text, view};

/// Pause between two looks: lag is reported about once a second, and a session that broke is opened
/// again about as fast.
const AGAIN: Duration = Duration::from_secs(3);
/// Seconds for one look: the daemon gives each machine 5 s, 128 machines at a time.
const LIMIT_S: u64 = 60;

/// Examine the machines and the services, and report problems
///
/// Prints findings, the worst first, each with a hint what to do. They are about machines that do
/// not answer or are evicted, missing sessions, lag, failed or slow writes, full disks, damaged
/// stores, clocks, conflicts and versions, and about services whose replicas are missing, too many,
/// unhealthy, of an earlier revision, left over, or to be removed by a machine that does not do it.
/// With machines named, only they are examined.
///
/// Some problems pass on their own, such as a lag or what a running deployment causes. If the first
/// look shows one, uc looks again after 3 seconds and reports it only if it lasts. Nothing is
/// changed.
///
/// The exit code is 0 if there are no problems (there may be warnings), 1 if there are, and 4 if a
/// machine did not answer.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  uc doctor                        examine all machines
  uc doctor m1 m2                  examine only these two
  uc doctor --figures              also print the figures of their record stores
  uc doctor -o json | jq '.findings[] | select(.severity == \"problem\")'")]
pub(crate) struct DoctorArgs {
    /// Names, ids or unique starts of ids [default: all machines]
    #[arg(value_name = "MACHINE")]
    machines: Vec<String>,
    /// Also print the figures of each machine's record store and of its peers
    #[arg(long)]
    figures: bool,
    /// Look only once; what can pass on its own is then a note
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(args: DoctorArgs, ui: &Ui, globals: &Globals) -> CliResult<u8> {
    let client = globals.client().await?;
    let request = ExamineRequest {
        all: args.machines.is_empty(),
        machines: args.machines,
    };
    let mut looks = vec![examine(&client, &request).await?];
    let mut deployed = Vec::new();
    if request.all {
        deployed.push(look_at_services(&client).await?);
    }
    let may_pass = doctor::may_pass(&looks[0]) || !replicas::findings(&deployed).is_empty();
    if !args.once && may_pass {
        tokio::time::sleep(AGAIN).await;
        looks.push(examine(&client, &request).await?);
        if request.all {
            deployed.push(look_at_services(&client).await?);
        }
    }
    let mut findings = doctor::findings(&looks);
    findings.extend(replicas::findings(&deployed));
    findings.sort_by_key(|finding| finding.severity);
    let machines = looks.last().expect("there is one look at least");
    if args.output.is_json() {
        ui.json(&view::Doctor::new(machines, &findings)?)?;
    } else {
        if !findings.is_empty() {
            ui.out(&render(&findings))?;
        }
        if args.figures {
            let gap = if findings.is_empty() { "" } else { "\n" };
            ui.out(&format!("{gap}{}", figures::tables(machines)))?;
        }
        ui.status(&summary(machines.len(), &findings))?;
    }
    Ok(exit_code(machines, &findings))
}

async fn examine(client: &Client, request: &ExamineRequest) -> CliResult<Vec<ExaminedMachine>> {
    let machines = ask(client.cluster().examine(within(LIMIT_S, request.clone())))
        .await?
        .machines;
    for machine in &machines {
        if let Some(examination) = &machine.examination {
            machine.machine.as_ref().required("a machine")?;
            examination.store.as_ref().required("the store's figures")?;
        }
    }
    Ok(machines)
}

async fn look_at_services(client: &Client) -> CliResult<Deployed> {
    let request = ListServicesRequest::default();
    let services = ask(client.services().list(within(30, request))).await?;
    let replicas = ask(client.services().ps(within(30, PsRequest::default()))).await?;
    let mut replicas = super::ps::listed(replicas.replicas)?;
    // What is only kept for its logs is not a replica.
    replicas.retain(|(record, _)| record.kept() == Kept::Unspecified);
    Ok(Deployed {
        at_ms: Timestamp::now().as_millisecond(),
        services: with_part(services.services, "a spec", |status| status.spec.take())?,
        replicas,
    })
}

fn render(findings: &[Finding]) -> String {
    let mut out = String::new();
    for finding in findings {
        let style = match finding.severity {
            Severity::Problem => RED,
            Severity::Warning => YELLOW,
            Severity::Note => DIM,
        };
        let style = style.bold();
        let lines = [
            format!(
                "{style}{}{style:#}: {}\n",
                finding.severity.word(),
                text::one_line(&finding.message)
            ),
            format!("  {CYAN}hint{CYAN:#}: {}\n", text::one_line(&finding.hint)),
        ];
        out.extend(lines);
    }
    out
}

/// `3 machines examined: 1 problem, 2 warnings`
fn summary(machines: usize, findings: &[Finding]) -> String {
    let examined = format!(
        "{} examined",
        counted(machines as u64, "machine", "machines")
    );
    let counts: Vec<String> = [Severity::Problem, Severity::Warning, Severity::Note]
        .into_iter()
        .filter_map(|severity| {
            let count = findings
                .iter()
                .filter(|finding| finding.severity == severity)
                .count() as u64;
            let word = severity.word();
            (count > 0).then(|| counted(count, word, &format!("{word}s")))
        })
        .collect();
    if counts.is_empty() {
        format!("{examined}: no problems found")
    } else {
        format!("{examined}: {}", counts.join(", "))
    }
}

fn exit_code(machines: &[ExaminedMachine], findings: &[Finding]) -> u8 {
    if machines.iter().any(|machine| machine.examination.is_none()) {
        Kind::Partial.exit_code()
    } else if findings
        .iter()
        .any(|finding| finding.severity == Severity::Problem)
    {
        Kind::Failed.exit_code()
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use uc_api::v1::Examination;

    use super::*;

    fn finding(severity: Severity) -> Finding {
        Finding {
            severity,
            kind: "x",
            machines: vec!["m1".into()],
            message: "a\u{1b}[31m\nb".into(),
            hint: "c".into(),
        }
    }

    #[test]
    fn exit_code_follows_the_worst_finding() {
        let there = ExaminedMachine {
            examination: Some(Examination::default()),
            ..Default::default()
        };
        let gone = ExaminedMachine::default();
        let code = |machines: &[&ExaminedMachine], severities: &[Severity]| {
            let machines: Vec<_> = machines.iter().copied().cloned().collect();
            exit_code(
                &machines,
                &severities.iter().copied().map(finding).collect::<Vec<_>>(),
            )
        };
        assert_eq!(code(&[&there], &[]), 0);
        assert_eq!(code(&[&there], &[Severity::Warning, Severity::Note]), 0);
        assert_eq!(code(&[&there], &[Severity::Problem, Severity::Note]), 1);
        assert_eq!(code(&[&there, &gone], &[Severity::Problem]), 4);
    }

    #[test]
    fn summary_counts_findings_by_severity() {
        assert_eq!(summary(1, &[]), "1 machine examined: no problems found");
        let findings = [Severity::Problem, Severity::Note, Severity::Note].map(finding);
        assert_eq!(
            summary(3, &findings),
            "3 machines examined: 1 problem, 2 notes"
        );
    }

    #[test]
    fn render_removes_control_characters() {
        let text = anstream::adapter::strip_str(&render(&[finding(Severity::Note)])).to_string();
        assert_eq!(text, "note: a b\n  hint: c\n");
    }
}
