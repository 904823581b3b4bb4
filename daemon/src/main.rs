//! `ucd`: parses its arguments, sets up logging, runs.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use uc_daemon::paths::Paths;

/// The uc daemon. `install.sh` sets it up, and `uc` controls it.
#[derive(Debug, Parser)]
#[command(name = "ucd", version)]
struct Arguments {
    /// Directory of the state
    #[arg(long, env = "UC_STATE_DIR", default_value = uc_api::layout::STATE_DIR, global = true)]
    state_dir: PathBuf,
    /// Directory of the sockets
    #[arg(long, env = "UC_RUN_DIR", default_value = uc_api::layout::RUN_DIR, global = true)]
    run_dir: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the API, replicate and deploy (unit ucd.service)
    Run,
    /// Run the WireGuard tunnel (unit uc-mesh.service)
    Mesh,
    /// Leave the cluster: remove uc's containers, network, tunnel and state, but not named volumes
    Reset {
        /// Confirm; without it nothing is done
        #[arg(long)]
        yes: bool,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_env("UC_LOG").unwrap_or_else(|_| {
        tracing_subscriber::EnvFilter::new("info,hickory_server=warn,gotatun=warn")
    });
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .without_time()
        .init();
    let paths = Paths::new(arguments.state_dir, arguments.run_dir);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start the runtime");
            return ExitCode::FAILURE;
        }
    };
    let result = match arguments.command {
        Command::Run => runtime.block_on(uc_daemon::run(paths)),
        Command::Mesh => runtime.block_on(uc_daemon::run_mesh(paths)),
        Command::Reset { yes } => runtime.block_on(uc_daemon::reset(paths, yes)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tracing::error!("{failure}");
            if let Some(hint) = failure.hint {
                tracing::error!("hint: {hint}");
            }
            ExitCode::FAILURE
        }
    }
}
