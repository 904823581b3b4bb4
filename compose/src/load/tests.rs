//! Whole loads: YAML in, project or rendered diagnostics out.

mod builds;
mod diagnostics;
mod extensions;
mod honoured;
mod keys;
mod merging;
mod reuse;
mod robustness;

use std::collections::BTreeMap;
use std::path::Path;

use uc_api::v1;

use super::*;
use crate::{Service, Severity, render};

/// A request for one file, in `/srv/shop`, without variables.
fn request(text: &str) -> LoadRequest {
    LoadRequest {
        files: vec![SourceFile {
            path: "compose.yaml".into(),
            text: text.into(),
        }],
        directory: "/srv/shop".into(),
        ..LoadRequest::default()
    }
}

/// Several files: `1.yaml`, `2.yaml`, …
fn several(texts: &[&str]) -> LoadRequest {
    let files = texts.iter().enumerate().map(|(index, text)| SourceFile {
        path: format!("{}.yaml", index + 1).into(),
        text: (*text).into(),
    });
    LoadRequest {
        files: files.collect(),
        ..request("")
    }
}

fn with_environment(mut request: LoadRequest, variables: &[(&str, &str)]) -> LoadRequest {
    request.environment = variables
        .iter()
        .map(|(name, value)| ((*name).into(), (*value).into()))
        .collect();
    request
}

/// A load of files that name no others.
fn load(request: &LoadRequest) -> Loaded {
    load_with(request, &|_: &Path| {
        Err(std::io::ErrorKind::Unsupported.into())
    })
}

/// The project; panics with the rendered diagnostics where there is none.
#[track_caller]
fn project_of(request: &LoadRequest) -> Project {
    let loaded = load(request);
    let rendered = render(&loaded.diagnostics, &request.files, false);
    loaded.project.unwrap_or_else(|| panic!("{rendered}"))
}

#[track_caller]
fn project(text: &str) -> Project {
    project_of(&request(text))
}

/// The only service of a file that says this about it (indented by four).
#[track_caller]
fn service(keys: &str) -> Service {
    let text = format!("services:\n  web:\n    image: web:1\n{}", indented(keys));
    let mut services = project(&text).services;
    assert_eq!(services.len(), 1);
    services.remove(0)
}

#[track_caller]
fn spec(keys: &str) -> v1::ServiceSpec {
    service(keys).spec
}

fn indented(keys: &str) -> String {
    keys.lines()
        .map(|line| format!("    {line}\n"))
        .collect::<Vec<_>>()
        .concat()
}

/// Diagnostics as `severity line:column message`.
fn found(request: &LoadRequest) -> Vec<String> {
    let word = |severity| {
        if severity == Severity::Error {
            "error"
        } else {
            "warning"
        }
    };
    load(request)
        .diagnostics
        .iter()
        .map(|d| format!("{} {}:{} {}", word(d.severity), d.line, d.column, d.message))
        .collect()
}

fn found_in(keys: &str) -> Vec<String> {
    found(&request(&format!(
        "services:\n  web:\n    image: web:1\n{}",
        indented(keys)
    )))
}

fn rendered(request: &LoadRequest) -> String {
    let loaded = load(request);
    let mut sources = request.files.clone();
    sources.extend(request.dotenv.clone());
    sources.extend(loaded.read);
    render(&loaded.diagnostics, &sources, false)
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    entries
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}
