//! No text makes a load panic, hang or grow without bounds.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

const EXAMPLE: &str = "name: shop
x-env: &env {A: \"${A:-1}\", B: $B}
services:
  web:
    build: {context: ./web, args: [X=1], target: t}
    command: sh -c \"echo $$HOME\"
    environment: {<<: *env, C: 1.5}
    ports: [\"80:80\", {target: 90, published: 91-92}, 1000-1002:1000-1002/udp]
    volumes: [data:/data:ro, /srv:/srv, {type: tmpfs, target: /t, tmpfs: {size: 1g}}]
    healthcheck: {test: [CMD, x], interval: 1m30s, retries: 3}
    depends_on: {db: {condition: service_healthy}}
    deploy: {replicas: 3, resources: {limits: {cpus: 0.5}}}
  db:
    image: db:1
    labels: [a=b]
    networks: {back: {aliases: [x]}}
    ulimits: {nofile: {soft: 1, hard: 2}}
volumes: {data: {driver_opts: {n: 5}}}
networks: {back: }
";

#[test]
fn the_example_loads() {
    let loaded = load(&request(EXAMPLE));
    assert!(loaded.project.is_some(), "{}", rendered(&request(EXAMPLE)));
}

/// Generous for two busy cores in a debug build; without bounds these take minutes or all memory.
const SOON: Duration = Duration::from_secs(30);

fn refused_soon(text: &str) -> String {
    let start = Instant::now();
    let loaded = load(&request(text));
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    assert!(loaded.project.is_none());
    loaded.diagnostics[0].message.clone()
}

#[test]
fn alias_bombs_are_refused() {
    let mut text = "x-0: &a0 [a, a, a, a, a, a, a, a, a, a]\n".to_owned();
    for level in 1..10 {
        let items = vec![format!("*a{}", level - 1); 10].join(", ");
        let _ = writeln!(text, "x-{level}: &a{level} [{items}]");
    }
    assert_eq!(
        refused_soon(&text),
        "the file is too large when its aliases are expanded"
    );
}

#[test]
fn bombs_of_long_texts_are_refused() {
    let aliases = vec!["*a"; 2000].join(", ");
    let text = format!("x-a: &a {}\nx-b: [{aliases}]\n", "x".repeat(100_000));
    assert_eq!(
        refused_soon(&text),
        "the file is too large when its aliases are expanded"
    );
}

#[test]
fn nested_aliases_count_as_depth() {
    let mut text = "x-0: &a0 [x]\n".to_owned();
    for level in 1..150 {
        let _ = writeln!(text, "x-{level}: &a{level} [*a{}]", level - 1);
    }
    assert_eq!(
        refused_soon(&text),
        "the file is too large when its aliases are expanded"
    );
}

#[test]
fn deep_nesting_is_refused() {
    assert_eq!(
        refused_soon(&format!("a: {}", "[".repeat(5000))),
        "nested more than 100 levels deep"
    );
    assert_eq!(
        refused_soon(&format!("a: {}", "{b: ".repeat(5000))),
        "nested more than 100 levels deep"
    );
    let block = (0..500)
        .map(|depth| format!("{}a:\n", " ".repeat(depth)))
        .collect::<Vec<_>>()
        .concat();
    assert_eq!(refused_soon(&block), "nested more than 100 levels deep");
}

#[test]
fn many_lines_that_must_be_indented_end() {
    let text = (0..3000)
        .map(|n| format!("  k{n}: [\n    \"x\"\n  ]\n"))
        .collect::<Vec<_>>()
        .concat();
    let start = Instant::now();
    let loaded = load(&request(&format!("x-a:\n{text}services: {{}}\n")));
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    assert!(loaded.project.is_some() || !loaded.diagnostics.is_empty());
}

#[test]
fn a_long_chain_of_services_is_no_stack() {
    let text = (0..5000)
        .map(|n| format!("  s{n}: {{image: x, depends_on: [s{}]}}\n", n + 1))
        .collect::<Vec<_>>()
        .concat();
    let project = project(&format!("services:\n{text}  s5000: {{image: x}}\n"));
    assert_eq!(project.services.len(), 5001);
}

/// Loads it and prints all there is to print.
fn exercise(text: &str) {
    let request = with_environment(request(text), &[("A", "1"), ("B", "x y")]);
    let loaded = load(&request);
    let _ = render(&loaded.diagnostics, &request.files, true);
    if let Some(project) = &loaded.project {
        // What is printed is a file that loads.
        let printed = project.to_yaml();
        let again = load(&LoadRequest {
            project_name: Some(project.name.to_string()),
            ..super::request(&printed)
        });
        assert!(
            again.project.is_some(),
            "{text}\n→\n{printed}\n{:?}",
            again.diagnostics
        );
    } else {
        assert!(
            loaded
                .diagnostics
                .iter()
                .any(|d| d.severity == Severity::Error),
            "{text}"
        );
    }
    for d in &loaded.diagnostics {
        assert!(
            !d.message.is_empty() && (d.line == 0 || d.column > 0),
            "{d:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_text(text in "\\PC{0,200}") {
        exercise(&text);
    }

    #[test]
    fn any_yaml_like_text(text in r##"([ \n\t\-:\[\]{}&*!|>'"#$,?%a-c0-2.]|services:|\n  |image: |<<: |!reset |ports: ){0,60}"##) {
        exercise(&text);
    }

    #[test]
    fn an_example_with_a_piece_replaced(at in 0_usize..EXAMPLE.len(), length in 0_usize..20, piece in "[ \n:\\-\\[\\]{}&*!'\"$a0.,]{0,6}") {
        let end = (at + length).min(EXAMPLE.len());
        exercise(&format!("{}{piece}{}", &EXAMPLE[..at], &EXAMPLE[end..]));
    }

    #[test]
    fn an_example_with_lines_swapped(a in 0_usize..18, b in 0_usize..18) {
        let mut lines: Vec<_> = EXAMPLE.lines().collect();
        lines.swap(a, b);
        exercise(&lines.join("\n"));
    }

    #[test]
    fn any_value_for_any_key(key in 0_usize..200, value in r"([a-z0-9:/.\-]{0,12}|\[[a-z0-9:/., \-]{0,20}\]|\{[a-z]{1,3}: [a-z0-9:/.\-]{0,8}\}|'[ -&(-~]{0,20}')") {
        let keys = schema::SERVICE;
        exercise(&format!("services:\n  web:\n    build: .\n    {}: {value}\n", keys[key % keys.len()].name));
    }
}
