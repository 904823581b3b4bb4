//! `uc`: everything a person sees of a cluster.
//!
//! `main` parses, runs one command and turns its result into an exit code. Each command is a file
//! under `commands`; what they share is beside them: connections (`connect`), the terminal (`ui`),
//! errors and exit codes (`error`), the plan's way from shown to done (`rollout`), machines set up
//! over ssh (`provision`). Commands without a daemon (`version`, `completion`, `--help`) start no
//! runtime.

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
mod times;
mod ui;
mod view;

use std::process::ExitCode;

fn main() -> ExitCode {
    let env = env::Env::read();
    let ui = ui::Ui::new(&env);
    let result = match cli::parse(env) {
        Ok((command, globals)) => commands::run(command, &ui, &globals),
        Err(error) => {
            // Help and version are "errors" of clap too; a reader that went away is none.
            _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            ui.error(&error);
            ExitCode::from(error.kind.exit_code())
        }
    }
}
