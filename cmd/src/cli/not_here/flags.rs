//! Flags of Docker Compose that `uc` does not have: what to do in their place. A flag that changes
//! nothing here is an error, too: it would promise something.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::error::CliError;

/// What to say about one flag of one command.
struct FlagNotHere {
    /// The command's words, without `uc`.
    command: &'static str,
    /// The flag's spellings, the long one last.
    flags: &'static [&'static str],
    /// Why there is none, where that needs saying. Completes "`uc ps` has no flag `--all`: …".
    reason: &'static str,
    hint: &'static str,
}

const fn flag(
    command: &'static str,
    flags: &'static [&'static str],
    reason: &'static str,
    hint: &'static str,
) -> FlagNotHere {
    FlagNotHere {
        command,
        flags,
        reason,
        hint,
    }
}

/// Ordered by command and long flag.
const TABLE: &[FlagNotHere] = &[
    flag(
        "build",
        &["--pull"],
        "",
        "use `uc build --build-pull`; it pulls newer base images",
    ),
    flag(
        "build",
        &["--push"],
        "uc pushes to no registry",
        "run `uc deploy`; it sends built images to the machines that need them",
    ),
    flag(
        "deploy",
        &["--build"],
        "images of services with `build:` are built in every deployment",
        "leave it out; `--no-build` uses the images of the last build",
    ),
    flag(
        "deploy",
        &["-d", "--detach"],
        "a deployment never stays attached to the containers",
        "leave it out; `uc deploy` ends when the new replicas are ready, and `uc logs -f` follows their output",
    ),
    flag(
        "deploy",
        &["--force-recreate"],
        "",
        "use `uc deploy --recreate`",
    ),
    flag(
        "deploy",
        &["--no-deps"],
        "a service is deployed with the services it depends on",
        "leave it out; the plan changes only what differs from the compose file",
    ),
    flag(
        "deploy",
        &["--pull"],
        "",
        "write `pull_policy: always` into the compose file; `--build-pull` pulls newer base images for builds",
    ),
    flag(
        "deploy",
        &["--scale"],
        "",
        "write `scale: N` into the compose file, or run `uc scale SERVICE N` afterwards",
    ),
    flag(
        "deploy",
        &["-t", "--timeout"],
        "",
        "write `stop_grace_period` into the compose file",
    ),
    flag(
        "deploy",
        &["--wait"],
        "a deployment always waits until its replicas are ready",
        "leave it out",
    ),
    flag(
        "exec",
        &["-d", "--detach"],
        "uc stays connected to the command",
        "start it in the background: `uc exec -T SERVICE sh -c 'CMD >/dev/null 2>&1 &'`",
    ),
    flag(
        "exec",
        &["--index"],
        "",
        "use `uc exec --container ID`; `uc ps SERVICE` lists the ids",
    ),
    flag(
        "logs",
        &["--no-color"],
        "",
        "set the variable NO_COLOR: `NO_COLOR=1 uc logs`",
    ),
    flag(
        "logs",
        &["--no-log-prefix"],
        "",
        "use `uc logs -o json | jq -r .message`",
    ),
    flag(
        "logs",
        &["-t", "--timestamps"],
        "every line has its time",
        "leave it out",
    ),
    flag(
        "ls",
        &["-a", "--all"],
        "services without containers are listed, too",
        "leave it out; `uc ps` lists the containers",
    ),
    flag("ls", &["--format"], "", "use `uc ls -o json`"),
    flag(
        "ls",
        &["-q", "--quiet"],
        "",
        "use `uc ls -o json | jq -r '.[].name'`",
    ),
    flag(
        "ps",
        &["-a", "--all"],
        "stopped containers are listed, too",
        "leave it out",
    ),
    flag(
        "ps",
        &["--filter"],
        "",
        "use `uc ps -o json | jq '.[] | select(.state == \"running\")'`",
    ),
    flag(
        "ps",
        &["--format"],
        "",
        "use `uc ps -o json` or `uc ps -o wide`",
    ),
    flag(
        "ps",
        &["--no-trunc"],
        "",
        "use `uc ps -o wide`; `-o json` has whole ids",
    ),
    flag(
        "ps",
        &["-q", "--quiet"],
        "",
        "use `uc ps -o json | jq -r '.[].container_id'`",
    ),
    flag("ps", &["--services"], "", "use `uc ls`"),
    flag(
        "ps",
        &["--status"],
        "",
        "use `uc ps -o json | jq '.[] | select(.state == \"running\")'`",
    ),
    flag(
        "rm",
        &["-a", "--all"],
        "",
        "use `uc rm --project PROJECT`; it removes all services of a project",
    ),
    flag(
        "rm",
        &["-f", "--force"],
        "",
        "use `uc rm -y`; it does not ask",
    ),
    flag(
        "rm",
        &["-s", "--stop"],
        "containers are always stopped before they are removed",
        "leave it out",
    ),
    flag(
        "rm",
        &["-v", "--volumes"],
        "named volumes are kept",
        "run `docker volume rm NAME` on the machine that has the volume",
    ),
    flag(
        "scale",
        &["--no-deps"],
        "only the service itself is scaled",
        "leave it out",
    ),
    flag("scale", &["--replicas"], "", "use `uc scale SERVICE N`"),
];

/// The answer to a flag that clap does not know, if it is one of the table's. `words` is the
/// command line without the program's name.
pub(super) fn answer(error: &clap::Error, words: &[&str]) -> Option<CliError> {
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let ContextValue::String(unknown) = error.get(ContextKind::InvalidArg)? else {
        return None;
    };
    // `--scale=web=3` is `--scale`.
    let typed = unknown.split('=').next()?;
    let path = super::path(words).join(" ");
    let entry = TABLE
        .iter()
        .find(|entry| entry.command == path && entry.flags.contains(&typed))?;
    let mut message = format!("`uc {path}` has no flag `{typed}`");
    if !entry.reason.is_empty() {
        message = format!("{message}: {}", entry.reason);
    }
    Some(CliError::usage(message).hint(entry.hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer_to(line: &str) -> Option<String> {
        let words: Vec<&str> = line.split(' ').collect();
        let error = crate::cli::command()
            .try_get_matches_from(std::iter::once("uc").chain(words.iter().copied()))
            .unwrap_err();
        super::super::answer(&error, &words)
            .map(|answer| anstream::adapter::strip_str(&answer.render()).to_string())
    }

    #[test]
    fn table_is_sorted_and_its_flags_are_unknown_to_clap() {
        assert!(TABLE.is_sorted_by_key(|entry| (entry.command, entry.flags.last())));
        for entry in TABLE {
            for flag in entry.flags {
                let text = answer_to(&format!("{} {flag} x", entry.command)).unwrap_or_default();
                let start = format!("error: `uc {}` has no flag `{flag}`", entry.command);
                assert!(text.starts_with(&start), "{} {flag}: {text}", entry.command);
            }
        }
    }

    /// Every `uc …` in a hint or reason is a command line that clap accepts.
    #[test]
    fn table_hints_are_commands_that_exist() {
        let mut checked = 0;
        let quoted = TABLE
            .iter()
            .flat_map(|entry| entry.hint.split('`').skip(1).step_by(2));
        for code in quoted.filter(|code| code.starts_with("uc ")) {
            let line = code.split(" | ").next().unwrap();
            let words = line.split(' ').map(|word| match word {
                "N" => "1",
                word => word,
            });
            let parsed = crate::cli::command().try_get_matches_from(words);
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
    fn answer_finds_the_command_behind_aliases_and_other_flags() {
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
