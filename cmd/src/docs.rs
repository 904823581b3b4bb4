//! `docs/cli.md`, made from the command definitions so that help and documentation cannot part. The
//! test writes it again with `UC_UPDATE_DOCS=1`.

use std::fmt::Write as _;

/// What clap does not know: exit codes, variables, JSON.
const TAIL: &str = include_str!("docs/tail.md");

fn document() -> String {
    let mut root = crate::cli::command();
    root.build();
    let mut text = String::from(
        "# uc: command reference\n\nMade from the program itself (`UC_UPDATE_DOCS=1 cargo test -p uc-cmd`); do not edit by hand.\n\n",
    );
    _ = writeln!(text, "```\n{}\n```\n", help(&mut root));
    commands(&mut text, &mut root, "uc");
    text.push_str(&TAIL.replace("@EXIT_CODES@", &crate::error::exit_code_table()));
    text
}

fn commands(text: &mut String, parent: &mut clap::Command, path: &str) {
    for command in parent
        .get_subcommands_mut()
        .filter(|command| !command.is_hide_set())
    {
        let name = format!("{path} {}", command.get_name());
        _ = writeln!(text, "## {name}\n\n```\n{}\n```\n", help(command));
        commands(text, command, &name);
    }
}

/// Global options are listed once, at the top.
fn help(command: &mut clap::Command) -> String {
    let rendered = command
        .clone()
        .term_width(100)
        .render_long_help()
        .to_string();
    let rendered = if command.get_name() == "uc" {
        rendered
    } else {
        match (
            rendered.find("\nGlobal options:"),
            rendered.find("\nExample"),
        ) {
            (Some(from), Some(to)) if to > from => {
                format!("{}{}", &rendered[..from], &rendered[to..])
            }
            (Some(from), _) => rendered[..from].to_owned(),
            (None, _) => rendered,
        }
    };
    rendered
        .lines()
        .map(str::trim_end)
        .collect::<Vec<_>>()
        .join("\n")
        .trim()
        .to_owned()
}

#[test]
fn the_reference_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/cli.md");
    let document = document();
    if std::env::var_os("UC_UPDATE_DOCS").is_some() {
        std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs")).unwrap();
        std::fs::write(path, &document).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        written == document,
        "docs/cli.md is out of date: run `UC_UPDATE_DOCS=1 cargo test -p uc-cmd`"
    );
}
