//! Real compose files beside Docker Compose's reading of them. The files are not part of the
//! repository: where they are absent, this test says so and passes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use super::*;
pub(super) use crate::comparison::comparable;

/// Where the files are: `UC_COMPOSE_CORPUS`, or beside the repository.
fn corpus() -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/compose-corpus");
    let path = std::env::var_os("UC_COMPOSE_CORPUS").map_or(default, PathBuf::from);
    path.join("README.md").exists().then_some(path)
}

struct Case {
    name: String,
    directory: PathBuf,
    /// Docker Compose's reading; `None`: it refuses the file.
    expected: Option<Json>,
}

fn cases(corpus: &Path) -> Vec<Case> {
    let mut cases = Vec::new();
    for set in subdirectories(corpus) {
        for directory in subdirectories(&set) {
            let expected = fs::read_to_string(directory.join("expected.json"));
            let expected = expected
                .ok()
                .map(|text| serde_json::from_str(&text).unwrap());
            let file_name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
            let name = format!("{}/{}", file_name(&set), file_name(&directory));
            cases.push(Case {
                name,
                directory,
                expected,
            });
        }
    }
    cases
}

fn subdirectories(path: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    found.retain(|path| path.is_dir());
    found.sort();
    found
}

fn request(case: &Case) -> LoadRequest {
    let text = |name: &str| fs::read_to_string(case.directory.join(name));
    LoadRequest {
        files: vec![SourceFile {
            path: "compose.yaml".into(),
            text: text("compose.yaml").unwrap(),
        }],
        project_name: Some("corpus".into()),
        directory: "/project".into(),
        environment: BTreeMap::from([
            ("PATH".into(), "/usr/bin:/bin".into()),
            ("HOME".into(), "/home/corpus".into()),
        ]),
        dotenv: text(".env")
            .ok()
            .map(|text| SourceFile {
                path: ".env".into(),
                text,
            })
            .into_iter()
            .collect(),
        reading: true,
        ..LoadRequest::default()
    }
}

#[test]
fn files_that_docker_compose_reads() {
    let Some(corpus) = corpus() else {
        println!("skipped: no compose corpus (set UC_COMPOSE_CORPUS)");
        return;
    };
    let (mut accepted, mut loaded, mut deployable, mut equal, mut refused, mut to_refuse) =
        (0, 0, 0, 0, 0, 0);
    let mut said: BTreeMap<String, usize> = BTreeMap::new();
    let mut others = Vec::new();
    for case in cases(&corpus) {
        let request = request(&case);
        let files = |path: &Path| {
            let inside = path.strip_prefix("/project").unwrap_or(path);
            fs::read_to_string(case.directory.join(inside))
        };
        let result = load_with(&request, &files);
        let Some(expected) = &case.expected else {
            to_refuse += 1;
            refused += usize::from(result.project.is_none());
            continue;
        };
        accepted += 1;
        loaded += usize::from(result.project.is_some());
        let errors: Vec<_> = result
            .diagnostics
            .iter()
            .filter(|d| d.severity == crate::Severity::Error)
            .collect();
        others.extend(
            errors
                .iter()
                .map(|d| format!("{}: {}:{} {}", case.name, d.line, d.column, d.message)),
        );
        let deploy = load_with(
            &LoadRequest {
                reading: false,
                ..request.clone()
            },
            &files,
        );
        deployable += usize::from(deploy.project.is_some());
        for diagnostic in &deploy.diagnostics {
            if diagnostic.severity == crate::Severity::Error
                || diagnostic.rule == crate::Rule::NotHonoured
            {
                *said.entry(general(&diagnostic.message)).or_default() += 1;
            }
        }
        let mut report = Report::new(false).reading(true);
        let document = resolve(&request, &files, &mut Vec::new(), &mut report)
            .map(|project| project.to_json());
        if document
            .as_ref()
            .and_then(|document| comparable(document, &[]))
            == comparable(expected, &[])
        {
            equal += 1;
        } else if std::env::var_os("UC_COMPOSE_CORPUS_DIFF").is_some() {
            others.push(format!(
                "{}: differs{}",
                case.name,
                difference(document.as_ref(), expected)
            ));
        }
    }
    println!("loads without error: {loaded} of {accepted}");
    println!("can be deployed: {deployable} of {accepted}");
    println!("document equal to Docker Compose's: {equal} of {accepted}");
    println!("refused as expected: {refused} of {to_refuse}");
    println!("{}", others.join("\n"));
    for (message, times) in &said {
        println!("said {times} times: {message}");
    }
    // Floors that only a regression goes below.
    assert!(loaded * 100 >= accepted * 99, "{loaded} of {accepted}");
    assert!(
        deployable * 100 >= accepted * 97,
        "{deployable} of {accepted}"
    );
    assert_eq!(
        equal, accepted,
        "set UC_COMPOSE_CORPUS_DIFF to see the first difference of each"
    );
    assert_eq!(refused, to_refuse);
}

/// A message without the names in it.
fn general(message: &str) -> String {
    let parts: Vec<_> = message.split('`').collect();
    parts
        .iter()
        .enumerate()
        .map(|(at, part)| if at % 2 == 1 && at > 1 { "…" } else { part })
        .collect()
}

/// The first place where two documents differ.
pub(super) fn difference(ours: Option<&Json>, theirs: &Json) -> String {
    fn walk(path: &str, ours: Option<&Json>, theirs: Option<&Json>) -> Option<String> {
        match (ours, theirs) {
            (Some(Json::Object(a)), Some(Json::Object(b))) => {
                let keys: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).collect();
                keys.into_iter()
                    .find_map(|key| walk(&format!("{path}.{key}"), a.get(key), b.get(key)))
            }
            (a, b) if a == b => None,
            (Some(Json::Array(a)), Some(Json::Array(b))) if a.len() == b.len() => a
                .iter()
                .zip(b)
                .find_map(|(a, b)| walk(&format!("{path}[]"), Some(a), Some(b))),
            (a, b) => {
                let show = |value: Option<&Json>| {
                    value.map_or("-".to_owned(), |v| {
                        v.to_string().chars().take(300).collect()
                    })
                };
                Some(format!("{path}: {} instead of {}", show(a), show(b)))
            }
        }
    }
    let ours = ours.and_then(|ours| comparable(ours, &[]));
    walk(" ", ours.as_ref(), comparable(theirs, &[]).as_ref()).unwrap_or_default()
}
