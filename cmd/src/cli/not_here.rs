//! Commands and flags of Docker Compose and Uncloud that `uc` does not have: what to use in their
//! place. The texts are in `not_here.toml`.
//!
//! They are not commands of their own, so they appear neither in the help nor in completions, and
//! clap's suggestions for typing errors stay as they are. A flag that changes nothing here is an
//! error, too: it would promise something.

use std::collections::BTreeMap;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use serde::Deserialize;

use crate::error::CliError;

const TABLE: &str = include_str!("not_here.toml");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    /// By the command's words, without `uc`.
    commands: BTreeMap<String, Answer>,
    /// By the command's words.
    flags: BTreeMap<String, Vec<Flag>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    reason: Option<String>,
    hints: Vec<String>,
}

#[derive(Deserialize)]
struct Flag {
    /// The flag's spellings, the long one last.
    flags: Vec<String>,
    #[serde(flatten)]
    answer: Answer,
}

impl Table {
    fn read() -> Self {
        toml::from_str(TABLE).expect("the file is a part of this program and tested")
    }
}

impl Answer {
    /// `what` does not exist.
    fn error(&self, what: &str) -> CliError {
        let message = match &self.reason {
            Some(reason) => format!("{what}: {reason}"),
            None => what.to_owned(),
        };
        CliError::usage(message).hints(self.hints.iter().cloned())
    }
}

/// The answer to a command or flag that clap does not know, if it is one of a table's. `words` is
/// the command line without the program's name.
pub(super) fn answer(error: &clap::Error, words: &[&str]) -> Option<CliError> {
    if error.kind() != ErrorKind::InvalidSubcommand {
        return without_flag(error, words);
    }
    let ContextValue::String(unknown) = error.get(ContextKind::InvalidSubcommand)? else {
        return None;
    };
    let position = words.iter().position(|word| word == unknown)?;
    let (before, after) = words.split_at_checked(position)?;
    let mut path = path(before);
    path.push(unknown.clone());
    let next = after.get(1).copied();
    if path == ["service"] || path == ["svc"] {
        return Some(without_service_group(unknown, next));
    }
    let short = path.join(" ");
    let longer = next.and_then(|next| without_command(&format!("{short} {next}")));
    longer.or_else(|| without_command(&short))
}

/// The answer to a flag that clap does not know, if it is one of the table's. `words` is the
/// command line without the program's name.
fn without_flag(error: &clap::Error, words: &[&str]) -> Option<CliError> {
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let ContextValue::String(unknown) = error.get(ContextKind::InvalidArg)? else {
        return None;
    };
    // `--scale=web=3` is `--scale`.
    let typed = unknown.split('=').next()?;
    let path = path(words).join(" ");
    let table = Table::read();
    let entries = table.flags.get(&path)?;
    let entry = entries
        .iter()
        .find(|entry| entry.flags.iter().any(|flag| flag == typed))?;
    Some(
        entry
            .answer
            .error(&format!("`uc {path}` has no flag `{typed}`")),
    )
}

/// The names of the command and of its groups, outermost first. Skips flags and their values.
fn path(words: &[&str]) -> Vec<String> {
    let mut parent = super::command();
    let mut path = Vec::new();
    for word in words {
        if let Some(found) = parent.find_subcommand(word).cloned() {
            path.push(found.get_name().to_owned());
            parent = found;
        }
    }
    path
}

/// The answer to a command of the table.
fn without_command(command: &str) -> Option<CliError> {
    let table = Table::read();
    let answer = table.commands.get(command)?;
    Some(answer.error(&format!("`uc {command}` does not exist")))
}

/// Uncloud has its commands for services twice: `uc service ls` is `uc ls`.
fn without_service_group(group: &str, next: Option<&str>) -> CliError {
    let error = CliError::usage(format!(
        "`uc {group}` does not exist: commands for services have no group"
    ));
    if let Some(error) = next.and_then(without_command) {
        return error;
    }
    let exists = |next: &&str| super::command().find_subcommand(next).is_some();
    if let Some(next) = next.filter(exists) {
        return error.hint(format!("use `uc {next}`"));
    }
    error.hint("use `uc ls`, `uc ps`, `uc logs`, `uc scale` and so on; `uc help` lists them")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer_to(line: &str) -> Option<String> {
        let words: Vec<&str> = line.split(' ').collect();
        let error = super::super::command()
            .try_get_matches_from(std::iter::once("uc").chain(words.iter().copied()))
            .unwrap_err();
        answer(&error, &words)
            .map(|answer| anstream::adapter::strip_str(&answer.render()).to_string())
    }

    #[test]
    fn table_is_sorted_and_its_commands_are_unknown_to_clap() {
        let headings = TABLE.lines().filter(|line| line.starts_with("[commands."));
        assert!(headings.is_sorted_by_key(|line| line.replace(['"', ']'], "")));
        for command in Table::read().commands.keys() {
            let text = answer_to(command).unwrap_or_default();
            assert!(
                text.starts_with(&format!("error: `uc {command}` does not exist")),
                "{command}: {text}",
            );
            assert!(text.contains("\nhint: "), "{command}: {text}");
        }
    }

    /// Every `uc COMMAND` in a hint is a command line that clap accepts up to its placeholders.
    #[test]
    fn table_hints_name_only_commands_that_exist() {
        let table = Table::read();
        let texts = table.commands.values().flat_map(|answer| &answer.hints);
        let quoted = texts.flat_map(|text| text.split('`').skip(1).step_by(2));
        let mut checked = 0;
        for code in quoted.filter(|code| code.starts_with("uc ")) {
            let mut command = super::super::command();
            for word in code.split(' ').skip(1) {
                let Some(found) = command.find_subcommand(word) else {
                    break;
                };
                command = found.clone();
            }
            assert_ne!(command.get_name(), "uc", "`{code}`");
            checked += 1;
        }
        assert!(checked > 30, "{checked}");
    }

    #[test]
    fn answer_finds_the_command_behind_flags_and_groups() {
        let text = answer_to("-c prod up -d").unwrap();
        assert_eq!(
            text,
            "error: `uc up` does not exist\nhint: use `uc deploy`\n"
        );
        let text = answer_to("m logs m1").unwrap();
        assert!(text.contains("`uc machine logs` does not exist"), "{text}");
        let text = answer_to("image push web").unwrap();
        assert!(text.contains("sends built images"), "{text}");
        let text = answer_to("caddy deploy").unwrap();
        assert!(text.contains("`uc caddy` does not exist"), "{text}");
    }

    #[test]
    fn answer_to_the_service_group_names_the_command_without_it() {
        let text = answer_to("service ls").unwrap();
        assert!(text.contains("hint: use `uc ls`"), "{text}");
        let text = answer_to("svc start web").unwrap();
        assert!(text.contains("`uc start` does not exist"), "{text}");
        assert!(answer_to("service").unwrap().contains("`uc help`"));
    }

    #[test]
    fn answer_leaves_typing_errors_to_clap() {
        assert_eq!(answer_to("deplyo"), None);
        assert_eq!(answer_to("machine lss"), None);
        assert_eq!(answer_to("deploy --nope"), None);
    }

    #[test]
    fn table_is_sorted_and_its_flags_are_unknown_to_clap() {
        for (command, entries) in Table::read().flags {
            assert!(entries.is_sorted_by_key(|entry| entry.flags.last()));
            for flag in entries.iter().flat_map(|entry| &entry.flags) {
                let text = answer_to(&format!("{command} {flag} x")).unwrap_or_default();
                let start = format!("error: `uc {command}` has no flag `{flag}`");
                assert!(text.starts_with(&start), "{command} {flag}: {text}");
            }
        }
    }

    /// Every `uc …` in a hint or reason is a command line that clap accepts.
    #[test]
    fn table_hints_for_flags_are_commands_that_exist() {
        let mut checked = 0;
        let table = Table::read();
        let entries = table.flags.values().flatten();
        let hints = entries.flat_map(|entry| &entry.answer.hints);
        let quoted = hints.flat_map(|hint| hint.split('`').skip(1).step_by(2));
        for code in quoted.filter(|code| code.starts_with("uc ")) {
            let line = code.split(" | ").next().unwrap();
            let words = line.split(' ').map(|word| match word {
                "N" => "1",
                word => word,
            });
            let parsed = super::super::command().try_get_matches_from(words);
            let complete = match &parsed {
                Ok(_) => true,
                // `uc rm -y` stands for any service.
                Err(error) => error.kind() == ErrorKind::MissingRequiredArgument,
            };
            assert!(complete, "`{code}`: {parsed:?}");
            checked += 1;
        }
        assert!(checked > 15, "{checked}");
    }

    #[test]
    fn answer_to_a_flag_finds_the_command_behind_aliases_and_other_flags() {
        assert_eq!(
            answer_to("-c prod deploy -y --build").unwrap(),
            "error: `uc deploy` has no flag `--build`: images of services with `build:` are built \
             in every deployment\nhint: leave it out; `--no-build` uses the images of the last \
             build\n"
        );
        assert!(answer_to("remove -f web").unwrap().contains("`uc rm -y`"));
        assert!(
            answer_to("deploy --scale=web=3")
                .unwrap()
                .contains("uc scale SERVICE N")
        );
        assert!(answer_to("deploy -yd").unwrap().contains("`-d`"));
    }

    #[test]
    fn answer_leaves_other_flags_to_clap() {
        assert_eq!(answer_to("deploy --nope"), None);
        assert_eq!(answer_to("machine ls -a"), None);
    }
}
