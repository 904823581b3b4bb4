//! Options that several commands have.

use clap::{Args, ValueEnum};

use crate::env;

/// `-y`, on every command that asks for confirmation.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Yes {
    /// Skip confirmation
    #[arg(
        short, long, env = env::AUTO_CONFIRM, hide_env_values = true,
        value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue
    )]
    pub(crate) yes: bool,
}

/// `--skip-health`, on the commands that make new containers.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct SkipHealth {
    /// Do not wait until new containers are healthy: it is enough that they start
    #[arg(long)]
    pub(crate) skip_health: bool,
}

/// `-o`, on every listing.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Output {
    /// Output format
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    pub(crate) output: Format,
}

// The variants have no doc comments: with them, clap writes four lines in the help of each command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
}

impl Output {
    /// `-o json`: stdout has JSON and nothing else.
    pub(crate) fn is_json(self) -> bool {
        self.output == Format::Json
    }
}

/// `-o` on the listings that have more columns than fit on most terminals.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct WideOutput {
    /// Output format; `wide` has all columns and cuts nothing
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = WideFormat::Table)]
    pub(crate) output: WideFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WideFormat {
    Table,
    Wide,
    Json,
}
