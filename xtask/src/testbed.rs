//! `cargo xtask testbed`: controls single machines, with the library of the end-to-end tests.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;
use clap::{Subcommand, ValueEnum};
use uc_testbed::{Engine, MachineState, Report, Testbed, TestbedName, UpOptions, list};

use crate::printer::{data, note};

/// Arguments of `testbed`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Name of the testbed; testbeds with different names can be up at the same time
    #[arg(long, global = true, default_value = "default")]
    name: TestbedName,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start machines, each with systemd, sshd and a Docker engine
    Up {
        /// Number of machines
        #[arg(long, default_value_t = 3)]
        machines: u8,
        /// Version of the machines' Docker engine
        #[arg(long, default_value = "20.10")]
        engine: Engine,
    },
    /// Remove the testbed, or what a crash left of it
    Down,
    /// List testbeds and their machines
    Ls {
        /// Output format
        #[arg(short, long, value_enum, default_value = "table")]
        output: Format,
    },
    /// Run a command on a machine without using its network
    Exec {
        /// Name of the machine, such as m1
        machine: String,
        /// The command and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Drop all packets between two machines
    Cut {
        /// First machine
        a: String,
        /// Second machine
        b: String,
    },
    /// Undo all cuts
    Heal,
    /// Cut a machine's power; its disk is kept
    Kill {
        /// Name of the machine
        machine: String,
    },
    /// Switch a killed machine on again
    Start {
        /// Name of the machine
        machine: String,
    },
    /// Build the test images in the testbed's Docker engine on the host
    Images,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// Runs the command. The exit code of `exec` is that of the command on the machine.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let name = arguments.name;
    match arguments.command {
        Command::Up { machines, engine } => up(&UpOptions {
            name,
            machines,
            engine,
        })?,
        Command::Down => Testbed::down(&name)?,
        Command::Ls { output } => ls(output)?,
        Command::Exec { machine, command } => {
            return exec(&Testbed::open(&name)?, &machine, &command);
        }
        Command::Cut { a, b } => Testbed::open(&name)?.cut(&a, &b)?,
        Command::Heal => Testbed::open(&name)?.heal()?,
        Command::Kill { machine } => Testbed::open(&name)?.kill(&machine)?,
        Command::Start { machine } => Testbed::open(&name)?.start(&machine)?,
        Command::Images => data(&Testbed::open(&name)?.images()?.busybox),
    }
    Ok(ExitCode::SUCCESS)
}

fn up(options: &UpOptions) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut testbed = Testbed::up(options)?;
    testbed.keep();
    let report = testbed.report()?;
    note(&format!("up in {:.1} s", start.elapsed().as_secs_f64()));
    print(&report);
    let config = report.ssh_config.display();
    note(&format!("ssh:    ssh -F {config} m1"));
    note(&format!(
        "docker: export DOCKER_HOST={}",
        report.docker_host
    ));
    Ok(())
}

fn ls(format: Format) -> anyhow::Result<()> {
    let reports = list()?;
    match format {
        Format::Json => data(&serde_json::to_string_pretty(&reports)?),
        Format::Table => {
            reports.iter().for_each(print);
            if reports.is_empty() {
                note("no testbeds");
            }
        }
    }
    Ok(())
}

fn print(report: &Report) {
    let engine = report
        .engine
        .map_or_else(String::new, |engine| format!(", engine {engine}"));
    data(&format!(
        "{} {}{engine}, key {}",
        report.name,
        report.state,
        report.ssh_key.display()
    ));
    for machine in &report.machines {
        let state = match machine.state {
            MachineState::Running => "running",
            MachineState::Off => "off",
        };
        data(&format!(
            "  {:<4} {:<15} {state}",
            machine.name, machine.address
        ));
    }
    for (a, b) in &report.cuts {
        data(&format!("  cut  {a} {b}"));
    }
}

fn exec(testbed: &Testbed, machine: &str, words: &[String]) -> anyhow::Result<ExitCode> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let status = testbed
        .machine(machine)?
        .interactive(&words, terminal)
        .status()
        .context("cannot run docker")?;
    Ok(status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .map_or(ExitCode::FAILURE, ExitCode::from))
}
