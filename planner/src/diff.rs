//! What differs between two specs of a service, in the words of the compose file, fit to be shown
//! to anybody.

mod kinds;
mod words;

use std::collections::{BTreeMap, BTreeSet};

use uc_api::v1::{FieldChange, ServiceMode, ServiceSpec};

/// What stands in place of a value that must not be printed.
const MASK: &str = "***";
/// Variables and labels whose names contain one of these hold secrets.
const SECRET_WORDS: [&str; 8] = [
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "SECRET",
    "TOKEN",
    "KEY",
    "CREDENTIAL",
    "PRIVATE",
];
macro_rules! differences {
    ($($place:ident $field:ident: $kind:ident($key:literal);)*) => {
        /// Every field that differs, in the order of the compose reference; an absent value is an
        /// empty text.
        pub fn fields(old: &ServiceSpec, new: &ServiceSpec) -> Vec<FieldChange> {
            let mut changes = Changes(Vec::new());
            $(differences!(@ $kind, changes, $key, old, new, $field);)*
            changes.0
        }

        /// Keys of the fields whose change needs no new container. The other texts are empty.
        const NOT_IN_CONTAINER: &[&str] = &[$(differences!(@@ $place, $key)),*];
    };
    (@ identity, $changes:ident, $key:expr, $old:ident, $new:ident, $field:ident) => {};
    // Shown together with the policy.
    (@ restart_attempts, $changes:ident, $key:expr, $old:ident, $new:ident, $field:ident) => {};
    // Another image has another digest anyway.
    (@ digest, $changes:ident, $key:expr, $old:ident, $new:ident, $field:ident) => {
        if $old.image == $new.image {
            $changes.add($key, words::digest(&$old.$field), words::digest(&$new.$field));
        }
    };
    // A global service has no number of replicas.
    (@ replicas, $changes:ident, $key:expr, $old:ident, $new:ident, $field:ident) => {
        if $old.mode() != ServiceMode::Global || $new.mode() != ServiceMode::Global {
            $changes.add($key, $old.$field.to_string(), $new.$field.to_string());
        }
    };
    (@ enumeration, $changes:ident, $key:expr, $old:ident, $new:ident, $field:ident) => {
        $changes.add($key, words::$field($old), words::$field($new))
    };
    (@ $kind:ident, $changes:ident, $key:expr, $old:ident, $new:ident, $field:ident) => {
        $changes.$kind($key, &$old.$field, &$new.$field)
    };
    (@@ service, $key:expr) => { $key };
    (@@ $place:ident, $key:expr) => { "" };
}

uc_api::service_fields!(differences);

/// In a few words, why a container is replaced.
pub(super) fn reason(fields: &[FieldChange]) -> String {
    let in_container = |field: &&str| {
        !NOT_IN_CONTAINER.iter().any(|left_out| {
            field
                .strip_prefix(left_out)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    };
    let mut names: Vec<&str> = Vec::new();
    for field in fields
        .iter()
        .map(|change| change.field.as_str())
        .filter(in_container)
    {
        let name = field
            .split(['.', '['])
            .next()
            .expect("a text has a first part");
        if !names.contains(&name) {
            names.push(name);
        }
    }
    match names.as_slice() {
        // The spec is the one of last time: that deployment did not get this far.
        [] => "runs an older revision".into(),
        [one] => format!("{one} changed"),
        [one, two] => format!("{one} and {two} changed"),
        [one, rest @ ..] => format!("{one} and {} more changed", rest.len()),
    }
}

struct Changes(Vec<FieldChange>);

impl Changes {
    fn add(&mut self, field: &str, old: impl Into<String>, new: impl Into<String>) {
        let (old, new) = (old.into(), new.into());
        if old != new {
            self.0.push(FieldChange {
                field: field.to_owned(),
                old,
                new,
            });
        }
    }

    /// A change even if what is shown of both is the same, since what differs is masked.
    fn list<T: PartialEq>(
        &mut self,
        field: &str,
        old: &[T],
        new: &[T],
        show: impl Fn(&T) -> String,
    ) {
        let all = |items: &[T]| items.iter().map(&show).collect::<Vec<_>>().join(", ");
        if old != new {
            self.0.push(FieldChange {
                field: field.to_owned(),
                old: all(old),
                new: all(new),
            });
        }
    }

    /// One change for each name, even if what is shown of the two values is the same.
    fn map_as<T: PartialEq>(
        &mut self,
        field: &str,
        old: &BTreeMap<String, T>,
        new: &BTreeMap<String, T>,
        show: impl Fn(&str, &T) -> String,
    ) {
        let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        for name in names
            .into_iter()
            .filter(|name| old.get(*name) != new.get(*name))
        {
            let show = |map: &BTreeMap<String, T>| {
                map.get(name)
                    .map_or_else(String::new, |value| show(name, value))
            };
            // A path has dots of its own.
            let path = name.starts_with(['.', '~', '/']);
            let field = if path {
                format!("{field}[{name}]")
            } else {
                format!("{field}.{name}")
            };
            self.0.push(FieldChange {
                field,
                old: show(old),
                new: show(new),
            });
        }
    }
}

/// A value as it may be printed. An empty value is written `""`, so that it is not taken for an
/// absent one.
fn shown(name: &str, value: &str) -> String {
    let upper = name.to_ascii_uppercase();
    if SECRET_WORDS.iter().any(|word| upper.contains(word)) {
        return MASK.to_owned();
    }
    if value.is_empty() {
        return "\"\"".to_owned();
    }
    without_passwords(value)
}

/// `scheme://user:password@host` keeps the user and loses the password.
fn without_passwords(value: &str) -> String {
    let mut result = String::new();
    let mut rest = value;
    while let Some((before, after)) = rest.split_once("://") {
        result.push_str(before);
        result.push_str("://");
        let end = after.find(['/', '?', '#', ' ', ',']).unwrap_or(after.len());
        let (authority, tail) = after.split_at(end);
        match authority
            .rsplit_once('@')
            .map(|(login, host)| (login.split_once(':'), host))
        {
            Some((Some((user, _)), host)) => {
                result.extend([user, ":", MASK, "@", host]);
            }
            _ => result.push_str(authority),
        }
        rest = tail;
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
mod tests;
