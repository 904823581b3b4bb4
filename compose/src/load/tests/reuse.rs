//! `extends` and `include`: what is said when they go wrong, bounds, and what a project lists of
//! itself.

use std::fmt::Write as _;

use super::*;
use crate::variables;

/// A load of `compose.yaml` with other files beside it.
fn load_among(text: &str, files: &[(&str, &str)]) -> (LoadRequest, Loaded) {
    let request = request(text);
    let read = |path: &Path| {
        let name = path.strip_prefix("/srv/shop").ok().and_then(Path::to_str);
        let found = files.iter().find(|(known, _)| Some(*known) == name);
        found
            .map(|(_, text)| (*text).to_owned())
            .ok_or_else(|| std::io::ErrorKind::NotFound.into())
    };
    let loaded = load_with(&request, &read);
    (request, loaded)
}

fn said(text: &str, files: &[(&str, &str)]) -> Vec<String> {
    let (_, loaded) = load_among(text, files);
    let hint = |d: &crate::Diagnostic| d.hint.clone().unwrap_or_default();
    let place = |d: &crate::Diagnostic| format!("{}:{}:{}", d.file.display(), d.line, d.column);
    loaded
        .diagnostics
        .iter()
        .map(|d| format!("{} {} [{}]", place(d), d.message, hint(d)))
        .collect()
}

#[test]
fn what_cannot_be_extended() {
    let table = [
        (
            "services:\n  a: {image: x, extends: b}\n  b: {image: x, extends: a}\n",
            "compose.yaml:3:26 services extend each other in a circle: `a` → `b` → `a` [remove one of these `extends`]",
        ),
        (
            "services:\n  a: {extends: wbe}\n  web: {image: x}\n",
            "compose.yaml:2:16 service `wbe`, which is extended here, not found in `compose.yaml` [did you mean `web`?]",
        ),
        (
            "services:\n  a: {extends: {service: wbe, file: other.yaml}}\n",
            "compose.yaml:2:26 service `wbe`, which is extended here, not found in `other.yaml` [did you mean `web`?]",
        ),
        (
            "services:\n  a: {extends: {service: web, file: none.yaml}}\n",
            "compose.yaml:2:37 cannot read `none.yaml`: entity not found [create it, or correct the path]",
        ),
        (
            "services:\n  a: {extends: {file: other.yaml}}\n",
            "compose.yaml:2:7 `extends` needs `service` [add `service:`, the name of the service to extend]",
        ),
    ];
    for (text, expected) in table {
        let found = said(text, &[("other.yaml", "services: {web: {image: x}}")]);
        assert_eq!(found.first().map(String::as_str), Some(expected), "{text}");
    }
}

#[test]
fn a_circle_over_files_names_them() {
    let found = said(
        "services:\n  a: {extends: {service: b, file: sub/b.yaml}}\n",
        &[(
            "sub/b.yaml",
            "services:\n  b: {extends: {service: b, file: b.yaml}}\n",
        )],
    );
    let expected = "/srv/shop/sub/b.yaml:2:26 services extend each other in a circle: `b` of `sub/b.yaml` → `b` of `sub/b.yaml`";
    assert!(found[0].starts_with(expected), "{found:?}");
    assert_eq!(found.len(), 1);
}

#[test]
fn problems_of_other_files_are_shown_there() {
    let files = [(
        "a.yaml",
        "services:\n  db:\n    imgae: x\n    image: x\n    ports: [nope]\n",
    )];
    let (_, loaded) = load_among("include: [a.yaml]\n", &files);
    assert_eq!(
        said("include: [a.yaml]\n", &files),
        [
            "/srv/shop/a.yaml:3:5 unknown key `imgae` in `services.db` [did you mean `image`?]",
            "/srv/shop/a.yaml:5:13 `nope` is not a port: `nope` is not a number from 0 to 65535 [write `\"8080:80\"`, `\"127.0.0.1:8080:80/udp\"` or `\"8000-8005:8000-8005\"`]",
        ]
    );
    assert!(render(&loaded.diagnostics, &loaded.read, false).contains("imgae: x"));
}

#[test]
fn files_that_include_each_other() {
    let files = [
        ("a.yaml", "include: [b.yaml]\n"),
        ("b.yaml", "include:\n  - a.yaml\n"),
    ];
    assert_eq!(
        said("include: [a.yaml]\nservices: {w: {image: x}}\n", &files)[0],
        "/srv/shop/b.yaml:2:5 files include each other in a circle: `a.yaml` → `b.yaml` → `a.yaml` [remove one of these `include`]"
    );
    let found = said(
        "include: [none.yaml, https://example.com/a.git]\nservices: {w: {image: x}}\n",
        &[],
    );
    assert_eq!(
        found,
        [
            "compose.yaml:1:11 cannot read `none.yaml`: entity not found [create it, or correct the path]",
            "compose.yaml:1:22 `https://example.com/a.git` is not a file on this computer [download it, and include the local copy]",
        ]
    );
}

#[test]
fn what_extending_multiplies_is_bounded() {
    let items: Vec<_> = (0..20_000).map(|n| format!("\"{n}\"")).collect();
    let mut text = format!(
        "services:\n  base: {{image: x, x-items: [{}]}}\n",
        items.join(", ")
    );
    for n in 0..200 {
        let _ = writeln!(text, "  s{n}: {{extends: base}}");
    }
    let found = said(&text, &[]);
    assert!(
        found[0].contains("the project has more than 2000000 values"),
        "{}",
        found[0]
    );
}

#[test]
fn a_long_chain_ends() {
    let chain = |length: usize| {
        let mut text = String::from("services:\n  s0: {image: x}\n");
        for n in 1..=length {
            let _ = writeln!(text, "  s{n}: {{extends: s{}}}", n - 1);
        }
        text
    };
    assert_eq!(project(&chain(90)).services.len(), 91);
    assert!(
        said(&chain(150), &[])[0].contains("services extend one another more than 100 levels deep")
    );
}

#[test]
fn many_files_are_too_many() {
    let request = request("include: [a.yaml]\n");
    // A file that includes ten others, without end.
    let read = |path: &Path| {
        let name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let names: Vec<_> = (0..10).map(|n| format!("{name}{n}.yaml")).collect();
        Ok(format!("include: [{}]\n", names.join(", ")))
    };
    let loaded = load_with(&request, &read);
    assert!(loaded.project.is_none());
    assert!(loaded.read.len() <= 1_100, "{}", loaded.read.len());
}

#[test]
fn variables_of_all_files() {
    let request = request(
        "include: [a.yaml]\nservices:\n  w: {image: \"${W:-w}\", command: \"${C:?say}\"}\n  p: {image: $P, profiles: [p]}\n",
    );
    let read = |path: &Path| {
        let text = "services: {a: {image: \"$A\", ports: [\"${PORT}:80\"]}}".to_owned();
        Some(text)
            .filter(|_| path.ends_with("a.yaml"))
            .ok_or_else(|| std::io::ErrorKind::NotFound.into())
    };
    let found = variables(&request, &read);
    let shown: Vec<_> = found
        .iter()
        .map(|v| format!("{} {} {}", v.name, v.required, v.default_value))
        .collect();
    assert_eq!(
        shown,
        [
            "A false ",
            "C true ",
            "P false ",
            "PORT false ",
            "W false w"
        ]
    );
}

#[test]
fn without_variables_put_in_values_stay_as_they_are_written() {
    let text = "services:\n  web:\n    image: \"x:${TAG:-1}\"\n    init: ${I}\n    scale: ${N}\n    ports: [\"${P}:80\", \"81:81\"]\n    \
        volumes: [\"${V:-./a}:/x\", \"./d:/y\"]\n    stop_grace_period: ${T}\n    environment: {A: \"$$B ${C:?no}\"}\n    mem_limit: ${M}\n";
    let request = LoadRequest {
        interpolate: false,
        ..request(text)
    };
    let project = project_of(&request);
    assert!(project.services.is_empty());
    assert_eq!(project.service_names(), ["web"]);
    let web = &project.to_json()["services"]["web"];
    assert_eq!(web["image"], "x:${TAG:-1}");
    assert_eq!(
        (&web["init"], &web["scale"], &web["mem_limit"]),
        (&"${I}".into(), &"${N}".into(), &"${M}".into())
    );
    assert_eq!(web["ports"][0], "${P}:80");
    assert_eq!(web["ports"][1]["published"], "81");
    assert_eq!(web["volumes"][0], "${V:-./a}:/x");
    assert_eq!(web["volumes"][1]["source"], "/srv/shop/d");
    assert_eq!(web["environment"]["A"], "$$B ${C:?no}");
}

#[test]
fn what_a_project_lists() {
    let mut request = with_environment(
        request(
            "services:\n  b: {image: x, volumes: [\"vol:/v\"], networks: [n]}\n  a: {image: y, profiles: [p]}\n  c: {image: z}\n\
             volumes: {vol: , unused: }\nnetworks: {n: }\n",
        ),
        &[("A", "1")],
    );
    request.dotenv = vec![
        SourceFile {
            path: ".env".into(),
            text: "A=2\nB=2\nC=$B\n".into(),
        },
        SourceFile {
            path: "more.env".into(),
            text: "B=3\nD=$B$C\n".into(),
        },
    ];
    let project = project_of(&request);
    assert_eq!(project.service_names(), ["b", "c"]);
    assert_eq!(project.volume_names(), ["vol"]);
    assert_eq!(project.network_names(), ["default", "n"]);
    assert_eq!(project.profiles().iter().collect::<Vec<_>>(), ["p"]);
    let expected = [
        ("A", "1"),
        ("B", "3"),
        ("C", "2"),
        ("COMPOSE_PROJECT_NAME", "shop"),
        ("D", "32"),
    ];
    assert_eq!(*project.environment(), map(&expected));
    let hash = project.hash("b").unwrap();
    assert_eq!(hash.len(), 64);
    assert_eq!(project.hash("a"), None);
    assert_ne!(project.hash("c"), Some(hash.clone()));
    request.dotenv.clear();
    assert_eq!(project_of(&request).hash("b"), Some(hash));
}
