//! Loads a project from texts: parse, replace variables, normalise, merge, check, decode.

mod extends;
mod include;
mod model;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use self::model::{File, Loader, Scope, small_enough};
use crate::diagnostic::Rule;
use crate::environment::{self, Environment, Reader};
use crate::interpolate::{self, Variable};
use crate::node::{Node, Span, Value};
use crate::project::Project;
use crate::report::{Place, Report};
use crate::request::{LoadRequest, Loaded, ReadFile, SourceFile};
use crate::schema::{self, Shape};
use crate::selection::own_name;
use crate::{canonical, check, decode, document, honour, implied, name};

/// Reads a project; files that it names come through `files`.
pub fn load_with(request: &LoadRequest, files: &dyn ReadFile) -> Loaded {
    let mut report = Report::new(request.strict).reading(request.reading);
    let mut read = Vec::new();
    let project = resolve(request, files, &mut read, &mut report);
    let project = project.filter(|_| !report.has_errors());
    Loaded {
        project,
        no_effect: report.take_no_effect(),
        diagnostics: report.finish(),
        read,
    }
}

/// The variables that a project's files use, in order of their names. Only [`load_with`] reports
/// what is wrong with the files.
pub fn variables(request: &LoadRequest, files: &dyn ReadFile) -> Vec<Variable> {
    let request = LoadRequest {
        interpolate: false,
        ..request.clone()
    };
    let mut report = Report::new(false);
    match whole(&request, files, &mut Vec::new(), &mut report) {
        Some(whole) => interpolate::variables(&whole.tree),
        // No file can be read.
        None => Vec::new(),
    }
}

/// The merged files of a project, with services of all profiles.
struct Whole {
    name: uc_api::ProjectName,
    tree: Node,
    variables: Environment,
}

/// The project, as far as it can be decoded in spite of errors in the report.
fn resolve(
    request: &LoadRequest,
    files: &dyn ReadFile,
    read: &mut Vec<SourceFile>,
    report: &mut Report,
) -> Option<Project> {
    let Whole {
        name,
        mut tree,
        variables,
    } = whole(request, files, read, report)?;
    let profiles = all_profiles(&tree);
    let mut active = active_profiles(request, &variables);
    active.extend(profiles_of_named(&tree, &name, &request.services));
    let inactive = drop_inactive(&mut tree, &active);
    let mut project = Project {
        name,
        services: Vec::new(),
        inactive: inactive.iter().map(|(name, _)| name.clone()).collect(),
        volumes: Vec::new(),
        context: tree.get_text("x-context").map(str::to_owned),
        images: BTreeMap::new(),
        document: Json::Null,
        profiles,
        environment: variables.all(),
    };
    if request.interpolate {
        if let Some(services) = tree.map_of_mut("services") {
            let report = &mut report.at("services");
            environment::resolve(
                services,
                &variables,
                &mut Reader {
                    files,
                    read,
                    report,
                },
            );
        }
        // Before the steps that add what the file does not contain.
        honour::check(&tree, schema::TOP, report);
        implied::dependencies(&mut tree);
        check::references(&tree, &inactive, report);
        project.document = document::document(&tree, project.name.as_str(), true);
        check::drop_missing(&mut tree);
        project.services = decode::services(&tree, &project.name, report);
        project.images = decode::image_templates(&tree, report);
        project.volumes = decode::volumes(&tree, &project.services, &project.name);
    } else {
        project.document = document::document(&tree, project.name.as_str(), false);
    }
    Some(project)
}

/// Merges all files into one tree. `None` means that no file could be read.
fn whole(
    request: &LoadRequest,
    files: &dyn ReadFile,
    read: &mut Vec<SourceFile>,
    report: &mut Report,
) -> Option<Whole> {
    let indices: Vec<u32> = request
        .files
        .iter()
        .map(|file| report.add_file(file.path.clone()))
        .collect();
    if request.files.is_empty() {
        report.error(
            Rule::File,
            Span::NOWHERE,
            "no compose file",
            "create `compose.yaml`, or name a file with `-f`",
        );
        return None;
    }
    let mut variables = Environment::new(&request.environment);
    for dotenv in &request.dotenv {
        let file = report.add_file(dotenv.path.clone());
        if small_enough(dotenv, file, report) {
            variables.add_dotenv(&dotenv.text, file, report);
        }
    }
    let mut loader = Loader {
        request,
        files,
        read,
        report,
        warned: BTreeSet::new(),
        extended: HashMap::new(),
        circles: HashSet::new(),
        nodes: 0,
    };
    let mut main: Vec<File> = Vec::new();
    for (source, index) in request.files.iter().zip(indices) {
        let documents = loader.parse(source, index);
        main.push(File {
            path: absolute(&source.path, &request.directory),
            documents,
        });
    }
    if main.iter().all(|file| file.documents.is_empty()) {
        return None;
    }
    let name = project_name(request, &mut main, &mut variables, loader.report)?;
    let scope = Scope {
        directory: request.directory.clone(),
        variables,
        including: Vec::new(),
    };
    let mut tree = loader.model(main, &scope);
    canonical::whole(&mut tree, Shape::Object(schema::TOP), loader.report);
    if tree.entries().all(|(key, _)| key == "version") && loader.report.errors() == 0 {
        loader.report.error(
            Rule::File,
            Span::of_file(0),
            "the file declares nothing",
            "start with `services:`, and put the services below it",
        );
    }
    if request.interpolate {
        check::resources(&tree, loader.report);
    }
    Some(Whole {
        name,
        tree,
        variables: scope.variables,
    })
}

/// The absolute path of a file of the request, whose path is relative to the current directory,
/// which can be above the project's directory.
fn absolute(path: &Path, directory: &Path) -> PathBuf {
    let name = path.file_name().filter(|_| {
        path.parent()
            .is_some_and(|parent| directory.ends_with(parent))
    });
    canonical::clean(&directory.join(name.map_or(path, Path::new)))
}

/// Determines the project's name. It is needed first, because files can use
/// `COMPOSE_PROJECT_NAME`.
fn project_name(
    request: &LoadRequest,
    files: &mut [File],
    variables: &mut Environment,
    report: &mut Report,
) -> Option<uc_api::ProjectName> {
    let variable = variables.get("COMPOSE_PROJECT_NAME");
    let mut warned = BTreeSet::new();
    for document in files.iter_mut().flat_map(|file| &mut file.documents) {
        if let Value::Map(map) = &mut document.value
            && let Some(entry) = map.get_mut("name")
        {
            interpolate::tree(
                &mut entry.node,
                &|name| variables.get(name),
                &mut warned,
                &mut report.at("name"),
            );
        }
    }
    let name = name::choose(
        &name::Sources {
            option: request.project_name.as_deref(),
            variable: variable.as_deref(),
            file: files
                .iter()
                .rev()
                .flat_map(|file| file.documents.iter().rev())
                .find_map(|document| document.get("name")),
            directory: &request.directory,
        },
        report,
    )
    // The error is reported; with some name the load can find further errors.
    .or_else(|| "unnamed".parse().ok())?;
    variables.set_default("COMPOSE_PROJECT_NAME", name.as_str());
    Some(name)
}

/// All profiles that services have.
fn all_profiles(tree: &Node) -> BTreeSet<String> {
    let services = tree.entries_of("services");
    let profiles = services
        .filter_map(|(_, entry)| entry.node.get("profiles"))
        .flat_map(Node::items);
    profiles
        .filter_map(Node::as_text)
        .map(str::to_owned)
        .collect()
}

fn active_profiles(request: &LoadRequest, variables: &Environment) -> Vec<String> {
    if !request.profiles.is_empty() {
        return request.profiles.clone();
    }
    let listed = variables.get("COMPOSE_PROFILES");
    listed
        .iter()
        .flat_map(|listed| listed.split(','))
        .map(str::trim)
        .filter(|profile| !profile.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The profiles of services that the request names: naming a service activates its profiles, as in
/// Docker Compose.
fn profiles_of_named(tree: &Node, project: &uc_api::ProjectName, named: &[String]) -> Vec<String> {
    let service = |name: &String| tree.get("services")?.get(own_name(project, name));
    let services = named.iter().filter_map(service);
    let profiles = services
        .filter_map(|service| service.get("profiles"))
        .flat_map(Node::items);
    profiles
        .filter_map(Node::as_text)
        .map(str::to_owned)
        .collect()
}

/// Removes services of inactive profiles; returns them with their first profile.
fn drop_inactive(tree: &mut Node, active: &[String]) -> Vec<(String, String)> {
    let mut inactive = Vec::new();
    let Some(services) = tree.map_of_mut("services") else {
        return inactive;
    };
    services.retain(|name, entry| {
        let mut profiles = entry.node.items_of("profiles").filter_map(Node::as_text);
        let Some(first) = profiles.next() else {
            return true;
        };
        let is_active = |profile: &str| {
            active
                .iter()
                .any(|active| active == profile || active == "*")
        };
        let keep = is_active(first) || profiles.any(is_active);
        if !keep {
            inactive.push((name.clone(), first.to_owned()));
        }
        keep
    });
    inactive
}

#[cfg(test)]
mod cases;
#[cfg(test)]
mod corpus;
#[cfg(test)]
mod tests;
