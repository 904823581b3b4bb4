//! What the fuzz target runs: a whole load of files that are not there. Only for `compose/fuzz` and
//! the tests, which run the same over a small corpus and damaged copies of it; no part of what
//! users run.
//!
//! An input is text: lines `--- name` begin files, and what stands before the first is
//! `compose.yaml`. Every file whose name begins with `compose` is loaded, those whose names end in
//! `.env` below the top are read when a service or an include names them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::{LoadRequest, Loaded, SourceFile, load_with, render, variables};

/// Where the files are.
const DIRECTORY: &str = "/project";

/// Longest document that is read back.
const LONGEST_PRINTED: usize = 200_000;

/// The files of an input by name.
fn split(text: &str) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let (mut name, mut file) = ("compose.yaml".to_owned(), String::new());
    for line in text.split_inclusive('\n') {
        match line.strip_prefix("--- ") {
            Some(next) => {
                files.insert(
                    std::mem::replace(&mut name, next.trim().to_owned()),
                    std::mem::take(&mut file),
                );
            }
            None => file.push_str(line),
        }
    }
    files.insert(name, file);
    files
}

fn request(files: &BTreeMap<String, String>) -> LoadRequest {
    let source = |(name, text): (&String, &String)| SourceFile {
        path: name.into(),
        text: text.clone(),
    };
    let loaded = files
        .iter()
        .filter(|(name, _)| name.starts_with("compose") && !name.contains('/'));
    let dotenv = files.iter().filter(|(name, _)| name.as_str() == ".env");
    LoadRequest {
        files: loaded.map(source).collect(),
        directory: DIRECTORY.into(),
        environment: BTreeMap::from([
            ("HOME".into(), "/home/x".into()),
            ("SET".into(), "set".into()),
        ]),
        dotenv: dotenv.map(source).collect(),
        ..LoadRequest::default()
    }
}

/// Any files are read or refused: no panic, every problem at a place that there is, and what is
/// printed of a project reads back as the same project.
pub fn load(bytes: &[u8]) {
    let files = split(&String::from_utf8_lossy(bytes));
    let mut request = request(&files);
    let read = |path: &Path| {
        let name = path.strip_prefix(DIRECTORY).ok().and_then(Path::to_str);
        let text = name.and_then(|name| files.get(name));
        text.cloned()
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    };
    let loaded = load_with(&request, &read);
    check(&request, &loaded);
    let _ = variables(&request, &read);
    if let Some(project) = &loaded.project {
        let printed = project.to_yaml();
        if printed.len() <= LONGEST_PRINTED && is_readable(&project.document) {
            reads_back(&request, &printed, &project.document, &read);
        }
    }
    request.interpolate = false;
    check(&request, &load_with(&request, &read));
}

/// What is said is said of places that there are.
fn check(request: &LoadRequest, loaded: &Loaded) {
    let mut sources: Vec<SourceFile> = request
        .files
        .iter()
        .chain(&request.dotenv)
        .cloned()
        .collect();
    sources.extend(loaded.read.iter().cloned());
    let lines: BTreeMap<&PathBuf, usize> = sources
        .iter()
        .map(|source| (&source.path, source.text.split('\n').count()))
        .collect();
    for diagnostic in &loaded.diagnostics {
        let known = lines.get(&diagnostic.file).copied().unwrap_or(0);
        assert!(diagnostic.line <= known, "{diagnostic:?} in {known} lines");
        assert!(!diagnostic.message.is_empty());
    }
    let errors = loaded
        .diagnostics
        .iter()
        .filter(|d| d.severity == crate::Severity::Error)
        .count();
    assert_eq!(
        loaded.project.is_none(),
        errors > 0,
        "{:?}",
        loaded.diagnostics
    );
    let _ = render(&loaded.diagnostics, &sources, true);
}

/// Two things that Docker Compose prints do not read back: keys with dollar signs, which it doubles
/// there too and never halves, and dependencies on services of profiles that are not active, which
/// it does not print.
fn is_readable(document: &serde_json::Value) -> bool {
    use serde_json::Value as Json;
    match document {
        Json::Object(map) => map.iter().all(|(key, value)| {
            !key.contains('$')
                && (key.as_str(), value) != ("required", &Json::Bool(false))
                && is_readable(value)
        }),
        Json::Array(items) => items.iter().all(is_readable),
        _ => true,
    }
}

/// A printed project is a compose file that says the same.
fn reads_back(
    request: &LoadRequest,
    printed: &str,
    document: &serde_json::Value,
    read: &dyn crate::ReadFile,
) {
    let again = LoadRequest {
        files: vec![SourceFile {
            path: "printed.yaml".into(),
            text: printed.to_owned(),
        }],
        dotenv: Vec::new(),
        profiles: vec!["*".into()],
        ..request.clone()
    };
    let loaded = load_with(&again, read);
    let errors = || render(&loaded.diagnostics, &again.files, false);
    let project = loaded
        .project
        .as_ref()
        .unwrap_or_else(|| panic!("{}\n{printed}", errors()));
    assert_eq!(project.document, *document, "{printed}");
}

#[cfg(test)]
mod tests;
