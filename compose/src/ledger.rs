//! `docs/compose.md`: the table of keys as a page for people. The loader works by the same table.

use std::fmt::Write as _;

use crate::schema::{self, Key, Shape, Status};

const INTRODUCTION: &str = "\
# Compose keys: what `uc` does with each

Generated from the table in `compose/src/schema` that the loader itself works by; do not edit. To make it anew:
`UC_UPDATE_DOCS=1 cargo test -p uc-compose ledger`.

- **honoured**: done as Docker Compose does it; a note says where there is a difference.
- **reported**: read and checked, not acted on. `uc` warns with file, line and the reason given here; with `--strict` that is an error.
  Values that ask for nothing (`false`, an empty list) are not reported.
- **refused**: an error, because ignoring it would run something else than what was written.

Below a key that is reported or refused, all its keys are checked and shown by `uc config`, and share its fate. Any mapping may also have
`x-*` keys; unless they stand here they are ignored. A key that does not stand here at all is an error.

Files are read as Docker Compose v5.6 reads them: variables in all their forms, `.env`, `env_file`, anchors and merge keys, profiles,
`extends`, `include`, several files merged, with `!reset` and `!override`. `uc config` prints the result, also of files that a deployment
refuses.

## What a file for one computer assumes

- **Paths.** An absolute path in `volumes` is the machine's own. A relative one (or one that begins with `~`) is of the computer that
  deploys: a file or folder there travels with the deployment, at most 16 MiB and 4,096 entries, and is mounted read only; if it does not
  say `:ro`, `uc` warns. One that is missing or empty is a place for data: it becomes a named volume, and stays on the machine where it
  was made. `configs` and `secrets` travel in the same way.
- **Networks.** All services of all projects share the cluster's network, in which they find each other by name: `db`, `db.shop`. Aliases,
  aliases of `links` and `container_name` are further names, known to the whole project. Where a file keeps two services apart, or a
  network from the outside, `uc` says that it does not.
- **Containers.** They are named after project, service and replica, so that there can be several and one can replace another.
  `container_name` is a name in DNS only.
- **One host.** `network_mode`, `ipc` and `pid` with `service:x` bring a replica to a machine that runs `x`, and replace it with that.
  With `host` it listens on the machine's own ports. `volumes_from` takes over the named volumes and host paths of a service.
- **Volumes.** A named volume is made on one machine, and its service stays there; services that share one run on the same machine.

## Images that are built, and names that are templates

What has `build:` is built by the Docker of this computer, with `docker build`, and sent to the machines that miss it. What runs is named by
its content, `<project>-<service>:<12 digits of the image's id>`, whatever `image:` says: an unchanged build changes nothing. The names that
`image:` and `build.tags` give are set on this computer, too. Options that only BuildKit has are an error where the local Docker lacks them,
never left out in silence.

`image:` may be a template in Go's form, as with Uncloud:

| write | for |
|---|---|
| `{{.Project}}`, `{{.Service}}` | their names |
| `{{gitsha}}`, `{{gitsha 7}}`, `{{.Git.SHA}}` | the commit that is checked out in the project's directory |
| `{{gitdate \"2006-01-02\"}}`, `{{gitdate \"20060102\" \"Europe/Oslo\"}}` | when it was committed, in Go's form of dates, in UTC or a time zone |
| `{{date \"2006-01-02\"}}` | now; `\"Local\"` is this computer's time zone |
| `{{.Git.IsRepo}}`, `{{.Git.IsDirty}}` | whether there is a repository with a commit, and changes that are not committed |
| `{{.Tag}}` | date and commit, `2025-08-16-130734.84d33bb`, `.dirty` behind it with changes; now where there is no repository |
| `{{if …}}…{{else if …}}…{{else}}…{{end}}` | conditions, with `and`, `or`, `not`, `eq`, `ne`; pipelines with a bar |

Variables (`${X}`) are put in first. A template that makes no name of an image is an error at its place.
";

/// The page.
pub fn ledger() -> String {
    let mut out = INTRODUCTION.to_owned();
    let (mut honoured, mut reported, mut refused) = (0, 0, 0);
    for key in schema::SERVICE {
        match key.status {
            Status::Honoured(_) => honoured += 1,
            Status::Reported(_) => reported += 1,
            Status::Refused(_) => refused += 1,
        }
    }
    let _ = writeln!(
        out,
        "\nOf {} keys of a service {honoured} are honoured, {reported} reported and {refused} refused.",
        schema::SERVICE.len()
    );
    section(&mut out, "Top level", "", schema::TOP);
    section(&mut out, "Service", "services.*.", schema::SERVICE);
    out
}

const HEAD: &str = "| key | forms | meaning | `uc` | notes |\n|---|---|---|---|---|";

/// A table of keys, then one for each key that has keys of its own.
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

/// The fate that keys below this one share, if it is one.
fn shared(key: &Key, parent: Option<Status>) -> Option<Status> {
    parent.or(match key.status {
        Status::Honoured(_) => None,
        status => Some(status),
    })
}

fn row(out: &mut String, prefix: &str, key: &Key, parent: Option<Status>) {
    let (word, note) = match parent.unwrap_or(key.status) {
        Status::Honoured(note) => ("honoured", note),
        Status::Reported(reason) => ("reported", reason),
        Status::Refused(reason) => ("refused", reason),
    };
    // The reason stands at the key whose fate is shared.
    let note = if parent.is_some() { "" } else { note };
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
    fn the_page_in_docs_is_this_table() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/compose.md");
        if std::env::var_os("UC_UPDATE_DOCS").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, ledger()).unwrap();
        }
        let page = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            page == ledger(),
            "docs/compose.md is not what the table says: run with UC_UPDATE_DOCS=1"
        );
    }

    #[test]
    fn every_key_of_the_table_is_on_the_page() {
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
