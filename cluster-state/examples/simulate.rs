//! Runs one standard scenario of the simulator and prints its figures, one on each line.
//!
//! `cargo run --release -p uc-cluster-state --features simulation --example simulate -- 1000` runs
//! 1,000 machines with 50 ms round trip and 1 % loss. A second argument selects another network:
//! `lan`, or `wan` for no loss. The exit status is 0 if the run could measure, whether or not a
//! figure is within its budget, and 1 if the machines did not agree in the end.

use std::io::{self, Write};
use std::process::ExitCode;

use uc_cluster_state::proof::simulation::{Report, Scenario, run, standard_scenarios};

/// The budget of the design: 1,000 machines, 50 ms round trip, 1 % loss.
const BUDGET_P50_MS: f64 = 100.0;
const BUDGET_P99_MS: f64 = 300.0;
const BUDGET_MESSAGES: f64 = 8.0;

fn main() -> io::Result<ExitCode> {
    let mut words = std::env::args().skip(1);
    let machines = words.next().and_then(|word| word.parse::<usize>().ok());
    let network = words.next();
    let ending = match network.as_deref() {
        Some("lan") => "LAN",
        Some("wan") => "50 ms",
        _ => "loss",
    };
    let fits = |scenario: &Scenario| {
        Some(scenario.machines) == machines && scenario.name.ends_with(ending)
    };
    let Some(scenario) = standard_scenarios().into_iter().find(fits) else {
        writeln!(
            io::stderr(),
            "usage: simulate 3|10|50|200|1000 [lan|wan|loss]"
        )?;
        return Ok(ExitCode::FAILURE);
    };
    let report = run(&scenario);
    let mut out = io::stdout().lock();
    write!(out, "{report}")?;
    figures(&mut out, &report)?;
    Ok(if report.is_sound() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn figures(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let ms = |us: u64| us as f64 / 1_000.0;
    figure(
        out,
        "visible_p50",
        ms(report.visible.p50),
        "ms",
        BUDGET_P50_MS,
    )?;
    figure(
        out,
        "visible_p99",
        ms(report.visible.p99),
        "ms",
        BUDGET_P99_MS,
    )?;
    figure(
        out,
        "messages_per_change_and_machine",
        report.messages,
        "frames",
        BUDGET_MESSAGES,
    )
}

fn figure(out: &mut impl Write, name: &str, value: f64, unit: &str, budget: f64) -> io::Result<()> {
    let verdict = if value <= budget { "within" } else { "over" };
    writeln!(
        out,
        "sim/{name} {value:.2} {unit} budget={budget} {verdict}"
    )
}
