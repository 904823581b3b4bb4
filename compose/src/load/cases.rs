//! Small projects beside Docker Compose's reading of them, by topic, in `cases/*.txt`.
//!
//! A case begins with `=== what it shows`; then come its files, each after `--- name`, and its
//! reading after `--- expected`: one line of JSON, or `refused`. `--- files a.yaml b.yaml` names
//! what to load in place of `compose.yaml`, `--- profiles a b` active profiles. A line `--- ours,
//! because …` stands before a reading of our own where Docker Compose's is not wanted.
//!
//! With `UC_RECORD_CASES` as the path of a `docker-compose` program the readings are recorded
//! again: `cargo test -p uc-compose cases`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value as Json;

use super::corpus::{comparable, difference};
use super::*;
use crate::{Severity, render};

/// The environment of every case.
const ENVIRONMENT: [(&str, &str); 3] = [
    ("PATH", "/usr/bin:/bin"),
    ("HOME", "/home/corpus"),
    ("OUTSIDE", "outside"),
];

#[derive(Debug, Default, Clone)]
struct Case {
    name: String,
    files: Vec<(String, String)>,
    load: Vec<String>,
    profiles: Vec<String>,
    /// Why our reading differs.
    ours: Option<String>,
    expected: String,
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/load/cases")
}

fn topics() -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(directory())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    found.sort();
    found
}

fn parse(text: &str) -> Vec<Case> {
    enum Into {
        Nothing,
        File,
        Expected,
    }
    let mut cases: Vec<Case> = Vec::new();
    let mut into = Into::Nothing;
    for line in text.split_inclusive('\n') {
        let trimmed = line.trim_end();
        if let Some(name) = trimmed.strip_prefix("=== ") {
            cases.push(Case {
                name: name.to_owned(),
                ..Case::default()
            });
            into = Into::Nothing;
            continue;
        }
        let Some(case) = cases.last_mut() else {
            continue;
        };
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect();
        if let Some(header) = trimmed.strip_prefix("--- ") {
            into = Into::Nothing;
            if let Some(names) = header.strip_prefix("files ") {
                case.load = words(names);
            } else if let Some(names) = header.strip_prefix("profiles ") {
                case.profiles = words(names);
            } else if header == "expected" {
                into = Into::Expected;
            } else if header.starts_with("ours, because ") {
                case.ours = Some(header.to_owned());
                into = Into::Expected;
            } else {
                case.files.push((header.to_owned(), String::new()));
                into = Into::File;
            }
            continue;
        }
        match (&into, case.files.last_mut()) {
            (Into::File, Some((_, text))) => text.push_str(line),
            (Into::Expected, _) => case.expected.push_str(line),
            _ => {}
        }
    }
    cases
}

impl Case {
    fn loaded(&self) -> Vec<&str> {
        if self.load.is_empty() {
            return vec!["compose.yaml"];
        }
        self.load.iter().map(String::as_str).collect()
    }

    fn text(&self, name: &str) -> Option<String> {
        self.files
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, text)| text.clone())
    }

    fn request(&self) -> LoadRequest {
        let source = |name: &str| SourceFile {
            path: name.into(),
            text: self.text(name).unwrap(),
        };
        LoadRequest {
            files: self.loaded().into_iter().map(source).collect(),
            project_name: Some("corpus".into()),
            directory: "/project".into(),
            environment: ENVIRONMENT
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into()))
                .collect(),
            dotenv: self
                .text(".env")
                .map(|_| source(".env"))
                .into_iter()
                .collect(),
            profiles: self.profiles.clone(),
            ..LoadRequest::default()
        }
    }

    /// Our reading, with the diagnostics. That we refuse what only a deployment to several machines
    /// minds is not a difference.
    fn ours(&self) -> (Option<Json>, String) {
        let refused = self.expected.trim() == "refused";
        let request = self.request();
        let mut read = Vec::new();
        let mut report = Report::new(false);
        let files = |path: &Path| {
            let name = path.strip_prefix("/project").ok().and_then(Path::to_str);
            name.and_then(|name| self.text(name))
                .ok_or_else(|| std::io::ErrorKind::NotFound.into())
        };
        let document =
            resolve(&request, &files, &mut read, &mut report).map(|project| project.to_json());
        let mut errors = report.finish();
        errors.retain(|d| d.severity == Severity::Error && (refused || d.rule != Rule::Refused));
        read.extend(request.files);
        read.extend(request.dotenv);
        (
            document.filter(|_| errors.is_empty()),
            render(&errors, &read, false),
        )
    }

    fn record(&self, program: &Path) -> String {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("project");
        for (name, text) in &self.files {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let mut command = Command::new(program);
        command.env_clear().envs(ENVIRONMENT).current_dir(&root);
        for name in self.loaded() {
            command.args(["-f", name]);
        }
        for name in &self.profiles {
            command.args(["--profile", name]);
        }
        command.args(["--project-name", "corpus", "config", "--format", "json"]);
        let output = command.output().unwrap();
        if !output.status.success() {
            return format!(
                "refused\n# {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        let text = String::from_utf8(output.stdout).unwrap();
        let text = text.replace(root.to_str().unwrap(), "/project");
        let above = folder.path().to_str().unwrap();
        let text = text.replace(&format!("{above}/"), "/").replace(above, "/");
        let json: Json = serde_json::from_str(&text).unwrap();
        json.to_string()
    }
}

fn written(cases: &[Case]) -> String {
    let mut out = String::new();
    for case in cases {
        let _ = writeln!(out, "=== {}", case.name);
        if !case.load.is_empty() {
            let _ = writeln!(out, "--- files {}", case.load.join(" "));
        }
        if !case.profiles.is_empty() {
            let _ = writeln!(out, "--- profiles {}", case.profiles.join(" "));
        }
        for (name, text) in &case.files {
            let _ = write!(out, "--- {name}\n{text}");
        }
        let _ = writeln!(
            out,
            "--- {}\n{}\n",
            case.ours.as_deref().unwrap_or("expected"),
            case.expected.trim()
        );
    }
    out
}

#[test]
fn as_docker_compose_reads_them() {
    let recorder = std::env::var_os("UC_RECORD_CASES").map(PathBuf::from);
    let mut wrong: BTreeMap<String, String> = BTreeMap::new();
    let mut count = 0;
    for path in topics() {
        let mut cases = parse(&fs::read_to_string(&path).unwrap());
        let topic = path.file_stem().unwrap().to_string_lossy().into_owned();
        for case in &mut cases {
            let mut said = String::new();
            if let Some(program) = recorder.as_ref().filter(|_| case.ours.is_none()) {
                let recorded = case.record(program);
                let (expected, reason) = recorded.split_once('\n').unwrap_or((&recorded, ""));
                case.expected = expected.to_owned();
                said = reason.to_owned();
            }
            count += 1;
            let (ours, errors) = case.ours();
            if recorder.is_some() && case.ours.is_some() {
                case.expected = ours
                    .as_ref()
                    .map_or_else(|| "refused".to_owned(), Json::to_string);
            }
            let expected: Option<Json> = serde_json::from_str(case.expected.trim()).ok();
            assert!(
                expected.is_some() || case.expected.trim() == "refused",
                "{}: no reading",
                case.name
            );
            let difference = match (&ours, &expected) {
                (None, None) => continue,
                (Some(_), None) => format!("accepted, and Docker Compose refuses it {said}"),
                (None, Some(_)) => format!("refused:\n{errors}"),
                (Some(a), Some(b)) if comparable(a, &[]) == comparable(b, &[]) => continue,
                (a, Some(b)) => format!("differs at{}", difference(a.as_ref(), b)),
            };
            wrong.insert(format!("{topic}: {}", case.name), difference);
        }
        if recorder.is_some() {
            fs::write(&path, written(&cases)).unwrap();
        }
    }
    let wrong: Vec<_> = wrong
        .iter()
        .map(|(name, difference)| format!("{name}: {difference}"))
        .collect();
    assert!(
        wrong.is_empty(),
        "{} of {count} cases:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(count > 0);
}
