//! Commands of Docker Compose and Uncloud that `uc` does not have: what to use in their place.
//! Flags are in `flags`.
//!
//! They are not commands of their own, so they appear neither in the help nor in completions, and
//! clap's suggestions for typing errors stay as they are.

mod flags;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::error::CliError;

/// What to say about one command.
struct NotHere {
    /// The command's words, without `uc`.
    command: &'static str,
    /// Why there is none, where that needs saying. Completes "`uc up` does not exist: …".
    reason: &'static str,
    hints: &'static [&'static str],
}

const fn instead(command: &'static str, hints: &'static [&'static str]) -> NotHere {
    NotHere {
        command,
        reason: "",
        hints,
    }
}

const fn nothing(
    command: &'static str,
    reason: &'static str,
    hints: &'static [&'static str],
) -> NotHere {
    NotHere {
        command,
        reason,
        hints,
    }
}

const NO_INGRESS: &str = "uc has no ingress yet";
const INGRESS_HINTS: &[&str] =
    &["run a proxy as a service of your compose file, with `ports: [\"80:80\", \"443:443\"]`"];
const NO_PUBLIC_DNS: &str = "uc manages no public DNS names";
const DNS_HINTS: &[&str] = &[
    "inside the cluster, a service is reached as `SERVICE.internal` or `SERVICE.PROJECT.internal`",
    "for a public name, create the DNS record with your provider",
];
const VOLUME_HINTS: &[&str] = &[
    "`uc inspect SERVICE` lists the volumes of a service",
    "run `docker volume ls` and `docker volume rm NAME` on the machine that has the volume",
];
const PORT_FORWARD_HINTS: &[&str] = &[
    "forward a port with ssh: `ssh -L 8080:CONTAINER_IP:80 USER@HOST` (`uc ps -o wide` shows the IP)",
    "or publish it: `ports:` in the compose file",
];

/// In alphabetical order.
const TABLE: &[NotHere] = &[
    nothing(
        "attach",
        "uc cannot attach to a running container",
        &[
            "follow its output with `uc logs -f SERVICE`",
            "or run a shell beside it with `uc exec SERVICE`",
        ],
    ),
    nothing("caddy", NO_INGRESS, INGRESS_HINTS),
    nothing(
        "commit",
        "uc makes no images from containers",
        &["describe the image with `build:` in the compose file"],
    ),
    nothing(
        "compose",
        "uc reads compose files itself",
        &["use `uc deploy`, `uc ps` and `uc logs`; `uc help` lists the commands"],
    ),
    instead("convert", &["use `uc config`"]),
    instead(
        "cp",
        &[
            "copy out: `uc exec -T SERVICE tar -C DIR -cf - . > files.tar`",
            "copy in: `uc exec -T SERVICE tar -C DIR -xf - < files.tar`",
        ],
    ),
    instead(
        "create",
        &["use `uc deploy`; it creates and starts the containers"],
    ),
    nothing(
        "ctx connection",
        "uc tries the connections of a context on its own",
        &["`uc ctx show` lists them; `--connect` chooses one for one command"],
    ),
    instead(
        "dashboard",
        &["use `uc ps`, `uc machine ls` and `uc doctor`"],
    ),
    instead("delete", &["use `uc rm`"]),
    nothing("dns", NO_PUBLIC_DNS, DNS_HINTS),
    instead("docs", &["use `uc help COMMAND`"]),
    instead(
        "down",
        &["use `uc rm --project PROJECT`; it keeps the named volumes"],
    ),
    nothing(
        "events",
        "uc streams no events",
        &[
            "use `uc ps` for the current state and `uc logs -f` for output",
            "run `journalctl -fu ucd` on a machine for what its daemon does",
        ],
    ),
    nothing(
        "export",
        "uc exports no containers",
        &["use `uc exec -T SERVICE tar -cf - DIR > files.tar`"],
    ),
    nothing(
        "history",
        "uc keeps no history of deployments yet",
        &["`uc inspect SERVICE` shows the current revision and when it was deployed"],
    ),
    nothing(
        "image",
        "uc does not manage images",
        &[
            "`uc ls` shows the image of each service; `uc deploy` sends built images to the machines",
            "run `docker image ls` and `docker image prune` on a machine",
        ],
    ),
    instead(
        "image push",
        &["use `uc deploy`; it sends built images to the machines that need them"],
    ),
    nothing(
        "images",
        "uc does not manage images",
        &[
            "`uc ls` shows the image of each service",
            "run `docker image ls` on a machine to see the images it has",
        ],
    ),
    instead("info", &["use `uc machine ls` or `uc doctor`"]),
    instead("init", &["make a cluster with `uc machine init USER@HOST`"]),
    instead(
        "kill",
        &[
            "stop all replicas with `uc scale SERVICE 0`",
            "send a signal with `uc exec SERVICE kill -SIGNAL 1`",
        ],
    ),
    nothing(
        "login",
        "uc sends no registry credentials to the machines yet",
        &["use images that the machines can pull without logging in, or build them: `build:`"],
    ),
    nothing(
        "machine logs",
        "uc does not read the log of a machine's daemon",
        &["run `journalctl -u ucd` on the machine"],
    ),
    nothing(
        "machine rtt",
        "uc does not show round-trip times",
        &["`uc doctor` reports machines that do not reach each other"],
    ),
    instead(
        "machine update",
        &[
            "change its name with `uc machine rename`, its labels with `uc machine label`",
            "its endpoints can only be changed by removing and adding the machine again",
        ],
    ),
    nothing(
        "machine upgrade",
        "uc does not upgrade machines yet",
        &["run install.sh of the new version on each machine, one after another"],
    ),
    nothing(
        "network",
        "all services of a cluster share one network",
        &["`uc machine ls` shows the address of each machine in it"],
    ),
    instead("node", &["use `uc machine`"]),
    nothing(
        "pause",
        "uc cannot pause containers",
        &["stop all replicas with `uc scale SERVICE 0`"],
    ),
    instead(
        "port",
        &["use `uc ls` or `uc inspect SERVICE`; both show ports"],
    ),
    nothing(
        "port-forward",
        "uc forwards no ports to this computer",
        PORT_FORWARD_HINTS,
    ),
    nothing(
        "proxy",
        "uc forwards no ports to this computer",
        PORT_FORWARD_HINTS,
    ),
    nothing(
        "publish",
        "uc publishes no compose files",
        &["use `uc deploy` to deploy one"],
    ),
    instead(
        "pull",
        &[
            "use `uc deploy`; machines pull missing images, and newer ones with `pull_policy: always`",
        ],
    ),
    instead(
        "push",
        &["use `uc deploy`; it sends built images to the machines, without a registry"],
    ),
    instead(
        "restart",
        &["use `uc deploy --recreate SERVICE`; it replaces the containers"],
    ),
    nothing(
        "rollback",
        "uc keeps no earlier revisions to return to yet",
        &["deploy the earlier version of the compose file: `git checkout REVISION`, `uc deploy`"],
    ),
    nothing(
        "run",
        "uc starts no containers outside a compose file",
        &[
            "add the service to a compose file and run `uc deploy`",
            "run a command in a running container with `uc exec SERVICE CMD`",
            "run one before each deployment with `x-pre_deploy` in the compose file",
        ],
    ),
    nothing(
        "secret",
        "uc has no commands for secrets",
        &["use `secrets:` in the compose file; `uc deploy` sends them to the machines"],
    ),
    instead(
        "stack",
        &["use `uc deploy`, `uc ls` and `uc rm --project NAME`"],
    ),
    instead(
        "start",
        &["use `uc scale SERVICE N` to run N replicas, or `uc deploy` for what the file says"],
    ),
    nothing(
        "stats",
        "uc shows no resource usage",
        &["run `docker stats` on the machine that runs the container"],
    ),
    instead("status", &["use `uc ls`, `uc ps` or `uc doctor`"]),
    instead(
        "stop",
        &["use `uc scale SERVICE 0`; it stops all replicas and keeps the service"],
    ),
    instead(
        "swarm",
        &[
            "make a cluster with `uc machine init USER@HOST`, add to it with `uc machine add USER@HOST`",
        ],
    ),
    instead("top", &["use `uc exec SERVICE ps aux`"]),
    nothing(
        "unpause",
        "uc cannot pause containers",
        &["start replicas with `uc scale SERVICE N`"],
    ),
    instead("up", &["use `uc deploy`"]),
    instead(
        "update",
        &["change the compose file and run `uc deploy`, or use `uc scale`"],
    ),
    nothing("volume", "uc does not manage volumes", VOLUME_HINTS),
    instead(
        "volume create",
        &["declare it in `volumes:` of the compose file; `uc deploy` creates it"],
    ),
    nothing("volumes", "uc does not manage volumes", VOLUME_HINTS),
    nothing(
        "wait",
        "uc does not wait for containers to stop",
        &[
            "`uc deploy` waits until its replicas are running and healthy",
            "`uc ps -o json` shows the state and exit code of each container",
        ],
    ),
    nothing(
        "watch",
        "uc does not watch for changed files",
        &["run `uc deploy` again; it changes only what differs"],
    ),
    instead(
        "wg",
        &["use `uc doctor`; it examines the connections between machines"],
    ),
];

/// The answer to a command or flag that clap does not know, if it is one of a table's. `words` is
/// the command line without the program's name.
pub(super) fn answer(error: &clap::Error, words: &[&str]) -> Option<CliError> {
    if error.kind() != ErrorKind::InvalidSubcommand {
        return flags::answer(error, words);
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
    let longer = next.and_then(|next| find(&format!("{short} {next}")));
    let found = longer.or_else(|| find(&short))?;
    Some(error_of(found))
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

fn find(command: &str) -> Option<&'static NotHere> {
    TABLE.iter().find(|entry| entry.command == command)
}

fn error_of(entry: &NotHere) -> CliError {
    let mut message = format!("`uc {}` does not exist", entry.command);
    if !entry.reason.is_empty() {
        message = format!("{message}: {}", entry.reason);
    }
    let error = CliError::usage(message);
    entry.hints.iter().copied().fold(error, CliError::hint)
}

/// Uncloud has its commands for services twice: `uc service ls` is `uc ls`.
fn without_service_group(group: &str, next: Option<&str>) -> CliError {
    let error = CliError::usage(format!(
        "`uc {group}` does not exist: commands for services have no group"
    ));
    if let Some(entry) = next.and_then(find) {
        return error_of(entry);
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
        assert!(TABLE.is_sorted_by_key(|entry| entry.command));
        for entry in TABLE {
            let text = answer_to(entry.command).unwrap_or_default();
            assert!(
                text.starts_with(&format!("error: `uc {}` does not exist", entry.command)),
                "{}: {text}",
                entry.command
            );
            assert!(text.contains("\nhint: "), "{}: {text}", entry.command);
        }
    }

    /// Every `uc COMMAND` in a hint is a command line that clap accepts up to its placeholders.
    #[test]
    fn table_hints_name_only_commands_that_exist() {
        let texts = TABLE.iter().flat_map(|entry| entry.hints.iter());
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
}
