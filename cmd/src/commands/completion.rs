//! `uc completion`

use clap::Args;
use clap_complete::Shell;

use crate::error::CliResult;
use crate::ui::Ui;

/// Print a completion script for a shell
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  uc completion bash > /etc/bash_completion.d/uc
  uc completion zsh > ~/.zfunc/_uc
  uc completion fish > ~/.config/fish/completions/uc.fish")]
pub(crate) struct CompletionArgs {
    /// Shell to print it for
    shell: Shell,
}

pub(crate) fn run(args: &CompletionArgs, mut definition: clap::Command, ui: &Ui) -> CliResult {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut definition, "uc", &mut script);
    ui.raw_out(&script)
}
