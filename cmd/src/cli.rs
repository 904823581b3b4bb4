//! The command line: global flags, how it is parsed, and which wins of a flag and a variable.

mod not_here;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory as _, FromArgMatches as _, Parser};

use crate::args::{Format, WideFormat};
use crate::commands::Command;
use crate::connect::Globals;
use crate::env::{self, Env};
use crate::error::CliError;
use crate::ui::Ui;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const ABOUT: &str = "Run Docker Compose projects on your own machines";

const AFTER: &str = "\
Examples:
  uc machine init root@203.0.113.1    create a cluster with one machine
  uc machine add root@203.0.113.2     add another machine
  uc deploy                           deploy the compose file of this directory
  uc plan                             show what that would change
  uc ps                               list all containers
  uc logs -f web                      follow the logs of a service
  uc doctor                           look for problems

Exit codes: 0 done, 1 failed, 2 usage or compose error, 3 rolled back or paused, 4 partly applied or
a machine unreachable, 5 timed out, 10 changes (`uc plan`), 129, 130 or 143 ended by a signal.
`uc exec` exits with the code of its command.";

/// The program's arguments.
#[derive(Debug, Parser)]
#[command(name = "uc", version, about = ABOUT, after_help = AFTER, styles = STYLES, disable_help_subcommand = true)]
#[command(
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 100
)]
pub(crate) struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct GlobalArgs {
    /// Machine to connect to, in place of a context: `ssh://USER@HOST[:PORT]` or `unix:///PATH`
    #[arg(long, global = true, value_name = "URL", env = env::CONNECT, hide_env_values = true, help_heading = "Global options")]
    connect: Option<String>,
    /// Context of the cluster to use; `uc ctx ls` lists them
    #[arg(short, long, global = true, value_name = "NAME", env = env::CONTEXT, hide_env_values = true, help_heading = "Global options")]
    context: Option<String>,
    /// Config file [default: $XDG_CONFIG_HOME/uc/config.toml]
    #[arg(long, global = true, value_name = "FILE", env = env::CONFIG, hide_env_values = true, help_heading = "Global options")]
    config: Option<PathBuf>,
}

/// The definition of the command line, for help, completion and documentation.
pub(crate) fn command() -> clap::Command {
    Cli::command()
}

/// The parsed command line.
#[derive(Debug)]
pub(crate) struct Invocation {
    pub(crate) command: Command,
    pub(crate) globals: Globals,
    /// The command has `-o json`: its errors are JSON, too.
    pub(crate) json: bool,
}

/// Why there is no command to run.
#[derive(Debug)]
pub(crate) enum ParseError {
    /// A usage error, or the text of `--help` and `--version`.
    Clap(Box<clap::Error>),
    /// A command of Docker Compose or Uncloud that `uc` does not have.
    NotHere(CliError),
}

impl From<clap::Error> for ParseError {
    fn from(error: clap::Error) -> Self {
        Self::Clap(Box::new(error))
    }
}

/// Parses the arguments of this process.
pub(crate) fn parse(env: Env) -> Result<Invocation, ParseError> {
    let line: Vec<OsString> = std::env::args_os().collect();
    let parsed = parse_line(&line, env);
    match parsed {
        Ok(Invocation {
            command: Command::Help(help),
            globals,
            ..
        }) => {
            let mut line: Vec<OsString> = vec!["uc".into()];
            line.extend(help.words.iter().map(OsString::from));
            line.push("--help".into());
            parse_line(&line, globals.env)
        }
        parsed => parsed,
    }
}

fn parse_line(line: &[OsString], env: Env) -> Result<Invocation, ParseError> {
    let matches = match command().try_get_matches_from(line) {
        Ok(matches) => matches,
        Err(error) => {
            let words: Vec<&str> = line
                .iter()
                .skip(1)
                .filter_map(|word| word.to_str())
                .collect();
            return Err(match not_here::answer(&error, &words) {
                Some(answer) => ParseError::NotHere(answer),
                None => error.into(),
            });
        }
    };
    let cli = Cli::from_arg_matches(&matches)?;
    let globals = globals(cli.global, &matches, env);
    Ok(Invocation {
        command: cli.command,
        globals,
        json: wants_json(&matches),
    })
}

fn wants_json(matches: &ArgMatches) -> bool {
    // Not every command has `-o`, and some have more formats.
    let matches = deepest(matches);
    matches!(
        matches.try_get_one::<Format>("output"),
        Ok(Some(Format::Json))
    ) || matches!(
        matches.try_get_one::<WideFormat>("output"),
        Ok(Some(WideFormat::Json))
    )
}

/// A flag beats a variable, so `--context x` beats `UC_CONNECT`, but not `--connect`.
fn globals(args: GlobalArgs, matches: &ArgMatches, env: Env) -> Globals {
    let typed = |id| deepest(matches).value_source(id) == Some(ValueSource::CommandLine);
    let new_context = if typed("context") {
        args.context.clone()
    } else {
        None
    };
    let connect = if typed("context") && !typed("connect") {
        None
    } else {
        args.connect
    };
    Globals {
        connect,
        context: args.context,
        new_context,
        config: args.config,
        ui: Ui::new(&env),
        env,
    }
}

/// The matches of the innermost subcommand: clap copies global arguments down to it.
fn deepest(matches: &ArgMatches) -> &ArgMatches {
    matches
        .subcommand()
        .map_or(matches, |(_, inner)| deepest(inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_definition_passes_the_checks_of_clap() {
        command().debug_assert();
    }

    fn parsed(line: &[&str]) -> Globals {
        let matches = command().try_get_matches_from(line).unwrap();
        let cli = Cli::from_arg_matches(&matches).unwrap();
        globals(cli.global, &matches, Env::default())
    }

    #[test]
    fn global_flags_work_before_and_after_the_command() {
        assert_eq!(
            parsed(&["uc", "-c", "a", "ps"]).new_context.as_deref(),
            Some("a")
        );
        assert_eq!(
            parsed(&["uc", "machine", "ls", "-c", "a"])
                .new_context
                .as_deref(),
            Some("a")
        );
    }

    #[test]
    fn output_format_is_found_on_every_command_that_has_one() {
        for (line, json) in [
            (&["uc", "ps", "-o", "json"][..], true),
            (&["uc", "machine", "ls", "--output", "json"], true),
            (&["uc", "ps"], false),
            (&["uc", "completion", "bash"], false),
        ] {
            let matches = command().try_get_matches_from(line).unwrap();
            assert_eq!(wants_json(&matches), json, "{line:?}");
        }
    }

    #[test]
    fn connect_beats_context_when_both_are_typed() {
        let globals = parsed(&["uc", "--connect", "unix:///x", "-c", "a", "ps"]);
        assert_eq!(globals.connect.as_deref(), Some("unix:///x"));
    }
}
