//! The one table of what a compose file may say and what becomes of it.
//!
//! Every key of the Compose Specification stands here once, with its shape and its status. The
//! loader checks, normalises and merges by shape, reports and refuses by status, and
//! `docs/compose.md` is printed from the same table: they cannot disagree.

mod build;
mod deploy;
mod mounts;
mod resources;
mod service;
mod top;

pub(crate) use service::SERVICE;
pub(crate) use top::TOP;

/// What becomes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// Done as Docker Compose does it, but for the note (empty: no difference).
    Honoured(&'static str),
    /// Read, checked and then ignored without a message, because it means nothing for a deployment
    /// to machines, for this reason.
    NoEffect(&'static str),
    /// Read, checked and then ignored with a warning, or an error with `strict`.
    Reported(Reason),
    /// An error, because ignoring the key would run something else than what the file says.
    Refused(Reason),
}

/// Why a key is not honoured, and what its author can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reason {
    /// Completes the message after the key's name and a colon.
    pub(crate) why: &'static str,
    /// The hint.
    pub(crate) instead: &'static str,
}

/// One key of a mapping.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    pub(crate) status: Status,
    /// One line for people.
    pub(crate) meaning: &'static str,
}

/// What a value may look like, and by that how it is normalised and merged.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shape {
    /// A string.
    Text,
    /// One of these strings.
    OneOf(&'static [&'static str]),
    /// A boolean, or a string that spells one.
    Bool,
    /// A whole number, or a string that spells one.
    Int,
    /// A number, or a string that spells one.
    Number,
    /// A number or a string; becomes a string.
    NumberOrText,
    /// How many devices: a whole number, or `all`, which becomes -1.
    Count,
    /// `1m30s`.
    Duration,
    /// Permission bits: a number, or octal digits in a string.
    Mode,
    /// SSH keys: a mapping of names to paths, or a list of `NAME=path` and `default`.
    Keys,
    /// Microseconds, or a duration.
    Microseconds,
    /// `1.5g` or bytes; becomes bytes.
    Size,
    /// A path on the computer that runs `uc`; becomes absolute.
    Path,
    /// One such path or a list of them; becomes a list.
    Files,
    /// What is built: such a path, a URL or `service:x`.
    Context,
    /// Anything.
    Any,
    /// A list; items of several files are added up.
    List(&'static Shape),
    /// A list that is a set: equal items are one.
    Set(&'static Shape),
    /// A list whose items may not repeat; those of several files are added up.
    Distinct(&'static Shape),
    /// A string or a list of strings; becomes a list, a set.
    TextOrList,
    /// A command: string (split as a shell does), list or null. Of several files the last wins.
    Command,
    /// A health check's test: string (for the shell) or list. Of several files the last wins.
    Test,
    /// A mapping, or a list of `NAME=value`.
    Pairs(Unset),
    /// A mapping of strings and numbers, named by the author.
    Options,
    /// A mapping of names to build contexts, or a list of `NAME=context`.
    Contexts,
    /// A mapping, or a list of `host=ip` or `host:ip`; becomes a list.
    Hosts,
    /// A mapping whose keys the author chooses.
    Named(&'static Shape),
    /// A mapping with known keys.
    Object(&'static [Key]),
    /// A list of mappings, or of strings that stand for one.
    Items(Short, &'static [Key]),
    /// A mapping, or one string or number that stands for one.
    OrObject(Scalar, &'static [Key]),
    /// A mapping of names to mappings, or a list of names.
    Names(Names, &'static [Key]),
}

/// What a name without value means in [`Shape::Pairs`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unset {
    /// Its value comes from where `uc` runs.
    FromEnvironment,
    /// The same, but not from the variables of an included file.
    FromProcess,
    /// Its value is empty.
    Empty,
}

/// The grammar of a string among [`Shape::Items`], and what makes two items the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Short {
    Port,
    Volume,
    Device,
    /// A secret's name.
    Secret,
    /// A config's name.
    Config,
    EnvFile,
    /// A file to include.
    Include,
    /// A subnet: not in short form.
    Subnet,
    /// A request for devices: not in short form.
    Request,
}

/// What one scalar stands for in [`Shape::OrObject`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scalar {
    /// The text of this key.
    Key(&'static str),
    /// A whole number, kept (`ulimits`).
    Number,
    /// A boolean, kept (`external`).
    Flag,
    /// The word `all`, which becomes a list of one request for all (`gpus`); a list of mappings may
    /// stand there too.
    All,
}

/// What a bare name stands for in [`Shape::Names`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Names {
    /// `{condition: service_started, required: true}`
    Dependency,
    /// Nothing more.
    Bare,
}

const fn key(name: &'static str, shape: Shape, meaning: &'static str, status: Status) -> Key {
    Key {
        name,
        shape,
        status,
        meaning,
    }
}

const fn honoured(name: &'static str, shape: Shape, meaning: &'static str) -> Key {
    key(name, shape, meaning, Status::Honoured(""))
}

const fn noted(name: &'static str, shape: Shape, meaning: &'static str, note: &'static str) -> Key {
    key(name, shape, meaning, Status::Honoured(note))
}

const fn no_effect(
    name: &'static str,
    shape: Shape,
    meaning: &'static str,
    why: &'static str,
) -> Key {
    key(name, shape, meaning, Status::NoEffect(why))
}

const fn reported(name: &'static str, shape: Shape, meaning: &'static str, reason: Reason) -> Key {
    key(name, shape, meaning, Status::Reported(reason))
}

const fn refused(name: &'static str, shape: Shape, meaning: &'static str, reason: Reason) -> Key {
    key(name, shape, meaning, Status::Refused(reason))
}

const fn because(why: &'static str, instead: &'static str) -> Reason {
    Reason { why, instead }
}

/// The key of this name.
pub(crate) fn find(keys: &'static [Key], name: &str) -> Option<&'static Key> {
    keys.iter().find(|key| key.name == name)
}

impl Shape {
    /// What may be written, for people: "a list", "a string or a list".
    pub(crate) fn expected(self) -> String {
        match self {
            Self::Text | Self::Path | Self::Context => "a string".into(),
            Self::OneOf(words) => {
                let quoted: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
                quoted.join(", ")
            }
            Self::Bool => "`true` or `false`".into(),
            Self::Int => "a whole number".into(),
            Self::Number => "a number".into(),
            Self::NumberOrText => "a number or a string".into(),
            Self::Count => "a whole number or `all`".into(),
            Self::Duration => "a duration such as `1m30s`".into(),
            Self::Mode => "permissions such as `0444`".into(),
            Self::Keys => "a mapping or a list of `NAME=path`".into(),
            Self::Microseconds => "microseconds, or a duration such as `100ms`".into(),
            Self::Size => "a size such as `64m`".into(),
            Self::Any => "anything".into(),
            Self::List(item) | Self::Set(item) | Self::Distinct(item) => match item {
                Self::Text | Self::Path => "a list of strings".into(),
                item => format!("a list of {}", item.plural()),
            },
            Self::TextOrList | Self::Files => "a string or a list of strings".into(),
            Self::Command => "a string, a list of strings or null".into(),
            Self::Test => "a string or a list of strings".into(),
            Self::Pairs(_) | Self::Contexts => "a mapping or a list of `NAME=value`".into(),
            Self::Options => "a mapping of strings and numbers".into(),
            Self::Hosts => "a mapping or a list of `host=ip`".into(),
            Self::Named(_) | Self::Object(_) => "a mapping".into(),
            Self::Items(Short::Subnet | Short::Request, _) => "a list of mappings".into(),
            Self::Items(Short::EnvFile, _) => "a string, or a list of strings or mappings".into(),
            Self::Items(..) => "a list of strings or mappings".into(),
            Self::OrObject(Scalar::Key(_), _) => "a string or a mapping".into(),
            Self::OrObject(Scalar::Number, _) => "a whole number or a mapping".into(),
            Self::OrObject(Scalar::Flag, _) => "`true` or `false`".into(),
            Self::OrObject(Scalar::All, _) => "`all` or a list of mappings".into(),
            Self::Names(..) => "a list of names or a mapping".into(),
        }
    }

    fn plural(self) -> &'static str {
        match self {
            Self::NumberOrText => "numbers or strings",
            Self::Object(_) => "mappings",
            _ => "values",
        }
    }

    /// The keys that a mapping of this shape may have, if they are known.
    pub(crate) fn keys(self) -> Option<&'static [Key]> {
        match self {
            Self::Object(keys)
            | Self::Items(_, keys)
            | Self::OrObject(_, keys)
            | Self::Names(_, keys) => Some(keys),
            Self::List(item) | Self::Set(item) | Self::Distinct(item) | Self::Named(item) => {
                item.keys()
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn walk(keys: &'static [Key], visit: &mut impl FnMut(&'static Key)) {
        for key in keys {
            visit(key);
            if let Some(inner) = key.shape.keys() {
                walk(inner, visit);
            }
        }
    }

    #[test]
    fn no_key_stands_twice_in_a_mapping() {
        fn check(keys: &'static [Key]) {
            let names: BTreeSet<_> = keys.iter().map(|key| key.name).collect();
            assert_eq!(
                names.len(),
                keys.len(),
                "{:?}",
                keys.iter().map(|key| key.name).collect::<Vec<_>>()
            );
            keys.iter()
                .filter_map(|key| key.shape.keys())
                .for_each(check);
        }
        check(TOP);
    }

    #[test]
    fn what_is_not_honoured_says_why() {
        walk(TOP, &mut |key| {
            assert!(
                !key.meaning.is_empty() && !key.meaning.ends_with('.'),
                "{}",
                key.name
            );
            let texts = match key.status {
                Status::Honoured(_) => vec![],
                Status::NoEffect(reason) => vec![reason],
                Status::Reported(reason) | Status::Refused(reason) => {
                    vec![reason.why, reason.instead]
                }
            };
            for text in texts {
                assert!(
                    text.len() > 8 && !text.ends_with('.'),
                    "{}: {text}",
                    key.name
                );
            }
        });
    }

    /// The keys of the specification as of 2026-06-23, so that none is forgotten.
    #[test]
    fn the_specification_is_complete() {
        let service = "annotations attach blkio_config build cap_add cap_drop cgroup cgroup_parent command configs container_name \
            cpu_count cpu_percent cpu_period cpu_quota cpu_rt_period cpu_rt_runtime cpu_shares cpus cpuset credential_spec depends_on \
            deploy develop device_cgroup_rules devices dns dns_opt dns_search domainname entrypoint env_file environment expose extends \
            external_links extra_hosts gpus group_add healthcheck hostname image init ipc isolation label_file labels links logging \
            mac_address mem_limit mem_reservation mem_swappiness memswap_limit models network_mode networks oom_kill_disable \
            oom_score_adj pid pids_limit platform ports post_start pre_stop privileged profiles provider pull_policy \
            pull_refresh_after read_only restart runtime scale secrets security_opt shm_size stdin_open stop_grace_period stop_signal \
            storage_opt sysctls tmpfs tty ulimits use_api_socket user userns_mode uts volumes volumes_from working_dir";
        let names: Vec<_> = service.split_whitespace().collect();
        assert_eq!(names.len(), 92);
        for name in names {
            assert!(find(SERVICE, name).is_some(), "{name}");
        }
        for name in [
            "version", "name", "include", "services", "models", "networks", "volumes", "secrets",
            "configs",
        ] {
            assert!(find(TOP, name).is_some(), "{name}");
        }
    }
}
