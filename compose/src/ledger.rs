//! `docs/compose.md`: prints the table of keys that the loader works by.

use std::fmt::Write as _;

use crate::schema::{self, Key, Shape, Status};

const INTRODUCTION: &str = "\
# Compose keys: what `uc` does with each

Generated from the table in `compose/src/schema`, which the loader itself uses. Do not edit this page. To write it again:
`UC_UPDATE_DOCS=1 cargo test -p uc-compose ledger`.

- **honoured**: done as in Docker Compose. A note names each difference.
- **no effect**: read and checked. The key means nothing for a deployment to machines, so `uc deploy` does not mention it. `uc config` lists
  these keys.
- **reported**: read and checked, then ignored. `uc` warns with file, line and the reason given here; with `--strict` that is an error.
  Values that ask for nothing (`false`, an empty list) are not reported.
- **refused**: an error, because ignoring the key would run something else than what the file says.

Below a key that has no effect, is reported or is refused, all keys are checked, shown by `uc config`, and treated in the same way. Any
mapping can also have `x-*` keys; they are ignored unless this page lists them. A key that this page does not list is an error.

Files are read as Docker Compose v5.6 reads them: variables in all their forms, `.env`, `env_file`, anchors and merge keys, profiles,
`extends`, `include`, and several files merged, with `!reset` and `!override`. `uc config` prints the result, even for a file that
`uc deploy` refuses.

## Files written for one computer

- **Paths.** An absolute path in `volumes` is a path on the machine. A relative path (or one that begins with `~`) is a path on the computer
  that deploys. A file or folder there travels with the deployment, up to 16 MiB and 4,096 entries, and is mounted read-only; `uc` warns if
  the file does not say `:ro`. A folder that is missing or empty is a place for data: it becomes a named volume, which stays on the machine
  where it was created. `configs` and `secrets` travel in the same way. [files.md](files.md) has the details.
- **Networks.** All services of all projects share the cluster's network and find each other by name: `db`, or `db.shop` from another
  project. Aliases, aliases of `links`, and `container_name` are more names that the whole project can use. `uc` reports a file that keeps
  two services apart, or a network from the outside.
- **Addresses.** A service's name resolves to the addresses of its healthy replicas, in random order. While none is healthy, it resolves to
  those that are starting or unhealthy: a name has an address while something runs. Addresses change when replicas are replaced; there is
  no fixed virtual address, so `endpoint_mode: vip` is reported. Clients must look the name up again. nginx does so with
  `resolver 127.0.0.11 valid=5s;` and a variable in `proxy_pass`.
- **Ports.** A port is published on the machines that run a replica, and on no other machine. Swarm's `mode: ingress`, which publishes it on
  every machine, is reported where the file writes it. `deploy.mode: global` runs a replica on every machine.
- **Containers.** They are named after project, service and replica, so that a service can have several, and one can replace another.
  `container_name` is a name in DNS only.
- **One host.** `network_mode`, `ipc` and `pid` with `service:x` place a replica on a machine that runs `x`, and replace it together with
  `x`. With `host`, it listens on the machine's own ports. `volumes_from` mounts the named volumes and host paths of another service.
- **Volumes.** A named volume is created on one machine, and its service stays there. Services that share a volume run on the same machine.
  An anonymous volume, of `volumes: [/data]` or of the image's `VOLUME`, is handed on to the replica that replaces its own on the same machine,
  as with Docker Compose. It is removed with the last one.
- **Restarts.** A new replica that exits and is restarted by its policy has not failed yet: it has 10 seconds and `update_config.monitor` (2 s without
  one), or the `start_period` of its healthcheck if that is longer. It is ready when it has then run for the monitor time or is healthy.
- **Data.** A lone replica that can write to a volume or to a path of the machine stops before the new one starts, unless `update_config.order`
  is set. Mounts with `:ro` do not count, nor paths below `/dev`, `/proc`, `/sys`, `/run`, `/var/run` and `/lib/modules`, the files
  `/etc/localtime` and `/etc/timezone`, and paths that end in `.sock`. The plan warns when a replica goes to a machine that has other data.

## Built images, and names that are templates

A service with `build:` is built by the Docker of this computer, with `docker build`, and `uc` sends the image to the machines that do not
have it. The image that runs is named by its content, `<project>-<service>:<12 digits of the image's id>`, whatever `image:` says. The names
in `image:` and `build.tags` are also set on this computer. An option that only BuildKit has is an error if the local Docker lacks BuildKit.

`image:` can be a template, as with Uncloud. These parts of Go's template syntax can be used:

| write | to get |
|---|---|
| `{{.Project}}`, `{{.Service}}` | the name of the project, of the service |
| `{{gitsha}}`, `{{gitsha 7}}`, `{{.Git.SHA}}` | the commit that is checked out in the project's directory |
| `{{gitdate \"2006-01-02\"}}`, `{{gitdate \"20060102\" \"Europe/Oslo\"}}` | its date, in Go's date format without offsets and fractions of a second, in UTC or a time zone |
| `{{date \"2006-01-02\"}}` | the current date; `\"Local\"` is this computer's time zone |
| `{{.Git.IsRepo}}`, `{{.Git.IsDirty}}` | whether there is a repository with a commit, whether it has uncommitted changes |
| `{{.Tag}}` | date and commit, `2025-08-16-130734.84d33bb`, with `.dirty` if there are uncommitted changes; the current date without a repository |
| `{{if .Git.IsDirty}}…{{else}}…{{end}}` | the first text or the second, by `.Git.IsRepo` or `.Git.IsDirty`; a condition cannot contain another one |

Variables (`${X}`) are replaced first. A template that uses another part of Go's syntax, or does not give a valid image name, is an error.
";

/// The text of `docs/compose.md`.
pub fn ledger() -> String {
    let mut out = INTRODUCTION.to_owned();
    let count = |word: &str| {
        let keys = schema::SERVICE.iter();
        keys.filter(|key| status_word(key.status) == word).count()
    };
    let _ = writeln!(
        out,
        "\nOf the {} keys of a service, {} are honoured, {} have no effect, {} are reported and {} are refused.",
        schema::SERVICE.len(),
        count(HONOURED),
        count(NO_EFFECT),
        count(REPORTED),
        count(REFUSED),
    );
    section(&mut out, "Top level", "", schema::TOP);
    section(&mut out, "Service", "services.*.", schema::SERVICE);
    out
}

const HONOURED: &str = "honoured";
const NO_EFFECT: &str = "no effect";
const REPORTED: &str = "reported";
const REFUSED: &str = "refused";

/// The word for a status on the page.
fn status_word(status: Status) -> &'static str {
    match status {
        Status::Honoured(_) => HONOURED,
        Status::NoEffect(_) => NO_EFFECT,
        Status::Reported(_) => REPORTED,
        Status::Refused(_) => REFUSED,
    }
}

const HEAD: &str = "| key | forms | meaning | `uc` | notes |\n|---|---|---|---|---|";

/// A table of keys, then a table for each key that has keys of its own.
fn section(out: &mut String, title: &str, path: &str, keys: &'static [Key]) {
    let _ = writeln!(out, "\n## {title}\n\n{HEAD}");
    for key in keys {
        row(out, "", key, None);
    }
    for key in keys.iter().filter(|key| key.name != "services") {
        if let Some(inner) = key.shape.keys() {
            let star = if matches!(key.shape, Shape::Named(_) | Shape::Names(..)) {
                ".*"
            } else {
                ""
            };
            let _ = writeln!(out, "\n### `{path}{}{star}`\n\n{HEAD}", key.name);
            deep_rows(out, "", inner, shared(key, None));
        }
    }
}

/// Rows of keys and of all keys below them.
fn deep_rows(out: &mut String, prefix: &str, keys: &'static [Key], parent: Option<Status>) {
    for key in keys {
        row(out, prefix, key, parent);
        if let Some(inner) = key.shape.keys() {
            deep_rows(
                out,
                &format!("{prefix}{}.", key.name),
                inner,
                shared(key, parent),
            );
        }
    }
}

/// The status that all keys below this one share. `None` means that each has its own.
fn shared(key: &Key, parent: Option<Status>) -> Option<Status> {
    parent.or(match key.status {
        Status::Honoured(_) => None,
        status => Some(status),
    })
}

fn row(out: &mut String, prefix: &str, key: &Key, parent: Option<Status>) {
    let word = status_word(parent.unwrap_or(key.status));
    let note = match key.status {
        // The row of the parent gives the reason.
        _ if parent.is_some() => "",
        Status::Honoured(note) | Status::NoEffect(note) => note,
        Status::Reported(reason) | Status::Refused(reason) => reason.why,
    };
    let cells = [
        &format!("`{prefix}{}`", key.name),
        &key.shape.expected(),
        key.meaning,
        word,
        note,
    ];
    let cells: Vec<_> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    let _ = writeln!(out, "| {} |", cells.join(" | ").trim_end());
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn page_in_docs_equals_table() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/compose.md");
        if std::env::var_os("UC_UPDATE_DOCS").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, ledger()).unwrap();
        }
        let page = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            page == ledger(),
            "docs/compose.md differs from the table: run this test with UC_UPDATE_DOCS=1"
        );
    }

    #[test]
    fn page_has_keys_of_all_levels() {
        let page = ledger();
        for line in [
            "| `image` |",
            "| `resources` |",
            "| `resources.limits.cpus` |",
            "| `bind.propagation` |",
            "| `version` |",
        ] {
            assert!(page.contains(line), "{line}");
        }
    }
}
