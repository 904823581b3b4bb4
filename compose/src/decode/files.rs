//! Decodes what a service needs from the computer that deploys it: relative bind mounts, configs,
//! secrets. The caller reads their contents, which travel with the deployment.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::mounts::{is_local, target_is_absolute};
use super::text;
use crate::node::{Node, Span, Value};
use crate::project::{LocalFile, LocalSource};
use crate::report::{Place, Report};
use crate::{check, document, shell};

/// Prefix of a variable's value that names a secret (Uncloud).
const SECRET_SCHEME: &str = "secret://";

/// Everything that travels for a service, in the order of the file: bind mounts, configs, secrets,
/// secrets in variables. Variables that hold a secret are taken out of `environment`.
pub(super) fn local(
    service: &Node,
    tree: &Node,
    environment: &mut BTreeMap<String, String>,
    report: &mut Report,
) -> Vec<LocalFile> {
    let mut files = Vec::new();
    for item in service.items_of("volumes") {
        files.extend(bind(item, &mut report.at("volumes")));
    }
    for (kind, word, secret) in [("configs", "config", false), ("secrets", "secret", true)] {
        let report = &mut report.at(kind);
        for item in service.items_of(kind) {
            let Some(name) = item.get_text("source") else {
                continue;
            };
            // The check of references has reported undeclared names.
            let Some(declared) = tree.find(&[kind, name]) else {
                continue;
            };
            let Some(source) = source(word, name, declared, item.span, report) else {
                continue;
            };
            let target = grant_target(item, name, secret);
            if target_is_absolute(&target, item, report) {
                files.push(LocalFile {
                    target,
                    uid: owner(item, "uid", report),
                    gid: owner(item, "gid", report),
                    mode: mode(item, report),
                    ..local_file(format!("{word} {name}"), source, item.span, report, secret)
                });
            }
        }
    }
    files.extend(secret_variables(service, tree, environment, report));
    files
}

fn local_file(
    name: String,
    source: LocalSource,
    span: Span,
    report: &Report,
    secret: bool,
) -> LocalFile {
    let (file, line, column) = report.position(span);
    LocalFile {
        target: String::new(),
        name,
        source,
        secret,
        uid: None,
        gid: None,
        mode: None,
        variable: None,
        read_only_said: false,
        must_exist: false,
        file,
        line,
        column,
    }
}

/// A bind mount whose source is a path of this computer.
fn bind(item: &Node, report: &mut Report) -> Option<LocalFile> {
    let source = item.get("source").filter(|_| is_local(item))?;
    let written = source.written.as_deref()?.to_owned();
    let target = text(item, "target");
    let path = source.as_text()?;
    if !path.starts_with('/') {
        report.refuse(
            source.span,
            format!("`{written}` is a Windows path, and machines run Linux"),
            "write it with `/`, relative to the compose file",
        );
        return None;
    }
    let flag = |node: Option<&Node>| node.and_then(Node::as_bool);
    let create = flag(item.find(&["bind", "create_host_path"]));
    target_is_absolute(&target, item, report).then(|| LocalFile {
        target,
        read_only_said: flag(item.get("read_only")) == Some(true),
        must_exist: create == Some(false),
        ..local_file(
            written,
            LocalSource::Bind(PathBuf::from(path)),
            source.span,
            report,
            false,
        )
    })
}

/// Where the content of a config or secret comes from.
fn source(
    word: &str,
    name: &str,
    declared: &Node,
    span: Span,
    report: &mut Report,
) -> Option<LocalSource> {
    if document::is_external(Some(declared)) {
        report.refuse(
            span,
            format!("{word} `{name}` is external, but the cluster stores no {word}s"),
            "give its content with `file`, `environment` or, for secrets, `x-command`",
        );
        return None;
    }
    if let Some(path) = declared.get_text("file") {
        return Some(LocalSource::Path(PathBuf::from(path)));
    }
    if let Some(content) = declared.get_text("content") {
        return Some(LocalSource::Content(content.to_owned()));
    }
    if let Some(variable) = declared.get_text("environment") {
        return Some(LocalSource::Variable(variable.to_owned()));
    }
    if let Some(command) = declared.get("x-command").or_else(|| exec_driver(declared)) {
        return words(command, report).map(LocalSource::Command);
    }
    let unknown = declared
        .get("driver")
        .or_else(|| declared.get("template_driver"));
    let (message, hint) = match unknown.and_then(Node::as_text) {
        Some(driver) => (
            format!("{word} `{name}` uses the driver `{driver}`, which machines do not have"),
            "give its content with `file`, `environment` or, for secrets, `x-command`",
        ),
        None => (
            format!("{word} `{name}` has no content"),
            "add `file:`, `environment:` or, for configs, `content:`",
        ),
    };
    report.refuse(span, message, hint);
    None
}

/// Uncloud's other way to write `x-command`: `driver: exec` with `driver_opts.command`.
fn exec_driver(declared: &Node) -> Option<&Node> {
    declared
        .get_text("driver")
        .filter(|driver| *driver == "exec")?;
    declared.get("driver_opts")?.get("command")
}

/// A command as a list, or as a string that is split as a shell does.
pub(super) fn words(node: &Node, report: &mut Report) -> Option<Vec<String>> {
    let words = match &node.value {
        Value::Text(text) => shell::split(text).map(|split| split.words),
        Value::List(items) => items
            .iter()
            .map(|item| item.as_text().map(str::to_owned))
            .collect(),
        _ => None,
    };
    let words = words.filter(|words| words.first().is_some_and(|word| !word.is_empty()));
    if words.is_none() {
        report.refuse(
            node.span,
            format!(
                "`{}` must be a command: a string or a list of strings",
                report.path()
            ),
            "write `[\"program\", \"argument\"]`",
        );
    }
    words
}

fn grant_target(item: &Node, name: &str, secret: bool) -> String {
    let folder = if secret { "/run/secrets/" } else { "/" };
    match item.get_text("target").filter(|target| !target.is_empty()) {
        Some(target) if target.starts_with('/') => target.to_owned(),
        Some(target) => format!("{folder}{target}"),
        None => format!("{folder}{name}"),
    }
}

fn owner(item: &Node, key: &str, report: &mut Report) -> Option<u32> {
    let node = item.get(key)?;
    let text = node.as_text().filter(|text| !text.is_empty())?;
    let number = text.parse().ok();
    if number.is_none() {
        report.refuse(
            node.span,
            format!(
                "`{key}` must be a number, not `{text}`: user names of the image are not known here"
            ),
            format!(
                "write the number of the {}",
                if key == "uid" { "user" } else { "group" }
            ),
        );
    }
    number
}

/// Permission bits: a number, or text that spells one in base 8.
fn mode(item: &Node, report: &mut Report) -> Option<u32> {
    let node = item.get("mode")?;
    let mode = match &node.value {
        Value::Int(number) => u32::try_from(*number).ok(),
        Value::Text(text) => u32::from_str_radix(text.trim_start_matches("0o"), 8).ok(),
        _ => return None,
    };
    let mode = mode.filter(|mode| *mode <= 0o7777);
    if mode.is_none() {
        report.refuse(
            node.span,
            "these are not permission bits",
            "write them in octal with a leading 0, as in `0440`",
        );
    }
    mode
}

fn secret_variables(
    service: &Node,
    tree: &Node,
    environment: &mut BTreeMap<String, String>,
    report: &mut Report,
) -> Vec<LocalFile> {
    let mut files = Vec::new();
    let report = &mut report.at("environment");
    let named: Vec<(String, String)> = environment
        .iter()
        .filter_map(|(variable, value)| {
            Some((
                variable.clone(),
                value.strip_prefix(SECRET_SCHEME)?.to_owned(),
            ))
        })
        .collect();
    for (variable, name) in named {
        environment.remove(&variable);
        let span = service
            .find(&["environment", &variable])
            .map_or(service.span, |node| node.span);
        let Some(node) = check::declared(tree, "secrets", &name, span, report) else {
            continue;
        };
        if let Some(source) = source("secret", &name, node, span, report) {
            let file = local_file(format!("secret {name}"), source, span, report, true);
            files.push(LocalFile {
                variable: Some(variable),
                ..file
            });
        }
    }
    files
}
