//! `cargo xtask fresh`: runs `./dev` on a fresh machine, so that an install step that is missing
//! fails here and not on a newcomer's computer.

use std::path::Path;
use std::process::ExitCode;

use anyhow::ensure;
use uc_testbed::fresh;

use crate::guard::Guard;

/// Arguments of `fresh`.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct Arguments {
    /// Only remove what an interrupted run left
    #[arg(long, conflicts_with = "words")]
    remove: bool,
    /// A command of ./dev with its arguments, such as `demo` or `test fast`
    #[arg(
        value_name = "COMMAND",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    words: Vec<String>,
}

/// Runs the command; the exit code is that of `./dev`.
pub(crate) fn run(root: &Path, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if arguments.remove {
        fresh::remove()?;
        return Ok(ExitCode::SUCCESS);
    }
    ensure!(
        arguments.words.first().is_none_or(|word| word != "fresh"),
        "a fresh machine cannot make another one\nhint: ./dev fresh demo"
    );
    let guard = Guard::start(&["fresh", "--remove"])?;
    let status = fresh::run(root, &arguments.words)?;
    drop(guard);
    Ok(exit_code(status.code()))
}

/// Exit codes pass through; without one, a signal ended the fresh machine.
fn exit_code(code: Option<i32>) -> ExitCode {
    code.and_then(|code| u8::try_from(code).ok())
        .map_or(ExitCode::FAILURE, ExitCode::from)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Fresh {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn parse(words: &[&str]) -> Result<Arguments, clap::Error> {
        Fresh::try_parse_from([&["fresh"], words].concat()).map(|fresh| fresh.arguments)
    }

    #[test]
    fn command_keeps_its_own_options() {
        let arguments = parse(&["test", "fast", "--", "--nocapture"]).expect("valid");
        assert_eq!(arguments.words, ["test", "fast", "--", "--nocapture"]);
        let arguments = parse(&["demo", "--engine", "26.1"]).expect("valid");
        assert_eq!(arguments.words, ["demo", "--engine", "26.1"]);
    }

    #[test]
    fn remove_takes_no_command() {
        assert!(parse(&["--remove"]).expect("valid").remove);
        parse(&["--remove", "demo"]).expect_err("both");
        parse(&[]).expect_err("neither");
    }

    #[test]
    fn fresh_machine_does_not_make_another() {
        let arguments = parse(&["fresh", "demo"]).expect("valid");
        let error = run(Path::new("/nonexistent"), &arguments).expect_err("refused");
        assert!(error.to_string().starts_with("a fresh machine cannot"));
    }
}
