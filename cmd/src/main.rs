//! `uc`: everything a user sees of a cluster.
//!
//! `main` parses the arguments, runs one command and turns its result into an exit code. Each
//! command is a file under `commands`. What commands share is beside them: connections
//! (`connect`), the terminal (`ui`), errors and exit codes (`error`), a deployment from its plan to
//! its outcome (`rollout`), and machines that are set up over ssh (`provision`). Commands that talk
//! to no daemon (`version`, `completion`, `--help`) start no runtime.

mod answer;
mod args;
mod cli;
mod commands;
mod compose;
mod config;
mod connect;
mod connection;
#[cfg(test)]
mod docs;
mod doctor;
mod env;
mod error;
mod files;
mod images;
mod interrupt;
mod picture;
mod provision;
mod rollout;
mod suggest;
mod term;
mod text;
mod times;
mod ui;
mod view;
mod words;

use std::process::ExitCode;

fn main() -> ExitCode {
    let env = env::Env::read();
    let ui = ui::Ui::new(&env);
    let cli::Invocation {
        command,
        globals,
        json,
    } = match cli::parse(env) {
        Ok(invocation) => invocation,
        Err(cli::ParseError::NotHere(error)) => {
            ui.error(&error, false);
            return ExitCode::from(error.kind.exit_code());
        }
        Err(cli::ParseError::Clap(error)) => {
            // clap reports help and version as errors, too. A closed pipe is ignored.
            _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match commands::run(command, cli::command, &ui, &globals) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            ui.error(&error, json);
            ExitCode::from(error.kind.exit_code())
        }
    }
}
