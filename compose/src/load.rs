//! The way from texts to a project: parse, put variables in, bring into long form, merge, check, decode.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value as Json;

use crate::canonical::{self, Context};
use crate::check::{self, Known};
use crate::decode;
use crate::diagnostic::Rule;
use crate::document;
use crate::environment::{self, Environment};
use crate::honour;
use crate::implied;
use crate::interpolate;
use crate::merge;
use crate::name;
use crate::node::{Map, Node, Span, Value};
use crate::parse::{self, MAX_BYTES};
use crate::project::Project;
use crate::report::Report;
use crate::request::{LoadRequest, Loaded, ReadFile, SourceFile};
use crate::schema::{self, Shape};

/// Reads a project. Files that it names (`env_file`) cannot be read and are errors: use [`load_with`].
pub fn load(request: &LoadRequest) -> Loaded {
    load_with(request, &|_: &Path| Err(std::io::ErrorKind::Unsupported.into()))
}

/// Reads a project; files that it names come through `files`.
pub fn load_with(request: &LoadRequest, files: &dyn ReadFile) -> Loaded {
    let mut report = Report::new(request.strict);
    let mut read = Vec::new();
    let project = resolve(request, files, &mut read, &mut report).map(|(project, _)| project);
    let project = project.filter(|_| !report.has_errors());
    Loaded { project, diagnostics: report.finish(), read }
}

/// The project and its document as far as they can be made, whatever was reported.
fn resolve(
    request: &LoadRequest,
    files: &dyn ReadFile,
    read: &mut Vec<SourceFile>,
    report: &mut Report,
) -> Option<(Project, Json)> {
    let indices: Vec<u32> = request.files.iter().map(|file| report.add_file(file.path.clone())).collect();
    if request.files.is_empty() {
        report
            .error(Rule::File, Span { file: u32::MAX, ..Span::default() }, "no compose file was given")
            .hint("create `compose.yaml`, or name a file with `-f`");
        return None;
    }
    let mut variables = Environment::new(&request.environment);
    for dotenv in &request.dotenv {
        let file = report.add_file(dotenv.path.clone());
        if small_enough(dotenv, file, report) {
            variables.add_dotenv(&dotenv.text, file, report);
        }
    }
    let mut documents = Vec::new();
    for (source, index) in request.files.iter().zip(indices) {
        if small_enough(source, index, report) {
            let found = parse::parse(&source.text, index, report);
            if found.is_empty() && !report.has_errors() {
                report
                    .error(Rule::File, Span { file: index, ..Span::default() }, "the file is empty")
                    .hint("begin with `services:` and put the services below it");
            }
            documents.extend(found);
        }
    }
    if documents.is_empty() {
        return None;
    }
    let name = project_name(request, &mut documents, &mut variables, report)?;
    let mut tree = merged(documents, request, &variables, report);
    complete_builds(&mut tree, &request.directory);

    let profiles = active_profiles(request, &variables);
    let inactive = drop_inactive(&mut tree, &profiles);
    if let Some(services) = services_mut(&mut tree) {
        report.path_push("services");
        environment::resolve(services, &variables, files, read, report);
        report.path_pop();
    }
    // First, because what follows adds what the file does not say.
    honour::check(&tree, schema::TOP, report);
    implied::dependencies(&mut tree);
    check::references(&mut tree, &Known { inactive }, report);
    let services = decode::services(&tree, &name, report);
    let volumes = decode::volumes(&tree, &services, &name);
    let document = document::document(&tree, name.as_str());
    let context = tree.get_text("x-context").map(str::to_owned);
    Some((Project { name, services, volumes, context, document: document.clone() }, document))
}

fn small_enough(source: &SourceFile, file: u32, report: &mut Report) -> bool {
    if source.text.len() <= MAX_BYTES {
        return true;
    }
    let megabytes = MAX_BYTES >> 20;
    report
        .error(
            Rule::File,
            Span { file, ..Span::default() },
            format!("the file is larger than {megabytes} MB"),
        )
        .hint("a compose file is not that large: is it the right one?");
    false
}

/// The name comes before everything else, because `COMPOSE_PROJECT_NAME` may be used in the file.
fn project_name(
    request: &LoadRequest,
    documents: &mut [Node],
    variables: &mut Environment,
    report: &mut Report,
) -> Option<uc_api::ProjectName> {
    let variable = variables.get("COMPOSE_PROJECT_NAME");
    let mut warned = BTreeSet::new();
    report.path_push("name");
    for document in documents.iter_mut() {
        if let Value::Map(map) = &mut document.value
            && let Some(entry) = map.get_mut("name")
        {
            interpolate::tree(&mut entry.node, &|name| variables.get(name), &mut warned, report);
        }
    }
    report.path_pop();
    let name = name::choose(
        &name::Sources {
            option: request.project_name.as_deref(),
            variable: variable.as_deref(),
            file: documents.iter().rev().find_map(|document| document.get("name")),
            directory: &request.directory,
        },
        report,
    )?;
    variables.set_default("COMPOSE_PROJECT_NAME", name.as_str());
    Some(name)
}

/// All documents as one tree in long form.
fn merged(documents: Vec<Node>, request: &LoadRequest, variables: &Environment, report: &mut Report) -> Node {
    let home = variables.get("HOME");
    let mut warned = BTreeSet::new();
    let mut tree: Option<Node> = None;
    for mut document in documents {
        if let Value::Map(map) = &mut document.value {
            for (name, entry) in map.iter_mut().filter(|(name, _)| *name != "name") {
                report.path_push(name);
                interpolate::tree(&mut entry.node, &|name| variables.get(name), &mut warned, report);
                report.path_pop();
            }
        }
        let mut context = Context { directory: &request.directory, home: home.as_deref(), report };
        let document = canonical::document(document, &mut context);
        tree = Some(match tree {
            None => document,
            Some(earlier) => merge::merge(earlier, document, Shape::Object(schema::TOP)),
        });
    }
    let mut tree = tree.unwrap_or_else(|| Node::new(Value::Map(Map::new()), Span::default()));
    merge::settle(&mut tree);
    tree
}

/// Gives every build its context, absolute unless it is a URL.
fn complete_builds(tree: &mut Node, directory: &Path) {
    let Some(services) = services_mut(tree) else { return };
    for service in services.values_mut() {
        let Value::Map(service) = &mut service.node.value else { continue };
        let Some(build) = service.get_mut("build") else { continue };
        let span = build.key;
        let Value::Map(build) = &mut build.node.value else { continue };
        let context = build
            .entry("context".into())
            .or_insert_with(|| crate::node::Entry { key: span, node: Node::text(".", span) });
        if let Value::Text(path) = &mut context.node.value
            && !path.starts_with('/')
            && !decode::is_remote(path)
        {
            *path = canonical::clean(&directory.join(&path)).to_string_lossy().into_owned();
        }
    }
}

fn active_profiles(request: &LoadRequest, variables: &Environment) -> Vec<String> {
    if !request.profiles.is_empty() {
        return request.profiles.clone();
    }
    let listed = variables.get("COMPOSE_PROFILES").unwrap_or_default();
    listed.split(',').map(str::trim).filter(|profile| !profile.is_empty()).map(str::to_owned).collect()
}

/// Removes services of inactive profiles; returns them with their first profile.
fn drop_inactive(tree: &mut Node, active: &[String]) -> Vec<(String, String)> {
    let mut inactive = Vec::new();
    let Some(services) = services_mut(tree) else { return inactive };
    services.retain(|name, entry| {
        let mut profiles =
            entry.node.get("profiles").into_iter().flat_map(Node::items).filter_map(Node::as_text);
        let Some(first) = profiles.next() else { return true };
        let is_active = |profile: &str| active.iter().any(|active| active == profile || active == "*");
        let keep = is_active(first) || profiles.any(is_active);
        if !keep {
            inactive.push((name.clone(), first.to_owned()));
        }
        keep
    });
    inactive
}

fn services_mut(tree: &mut Node) -> Option<&mut Map> {
    let Value::Map(top) = &mut tree.value else { return None };
    match &mut top.get_mut("services")?.node.value {
        Value::Map(services) => Some(services),
        _ => None,
    }
}

#[cfg(test)]
mod corpus;
#[cfg(test)]
mod tests;
