//! What is said, where, and what to do next.

use super::*;

#[test]
fn all_problems_of_a_file_are_found_in_one_run() {
    insta::assert_snapshot!(rendered(&request(
        "services:
  web:
    imgae: web:1
    image: 5
    ports: 80
    enviroment:
      A: 1
    restart: sometimes
    depends_on: [bd]
    volumes:
      - dta:/data
      - ./here:/there
    healthcheck:
      interval: 30
      test: [curl, x]
    replicas: 3
    stop_grace_period: soon
    privileged: true
    cpus: 0.5
    init: maybe
    networks: [front]
  db:
    command: \"sh -c 'x\"
  image: x
volumes:
  data:
version: \"3\"
service: 1
"
    )));
}

#[test]
fn text_that_is_not_yaml() {
    for (name, text) in [
        ("tab", "services:\n\tweb:\n\t\timage: x\n"),
        (
            "duplicate",
            "services:\n  web:\n    image: x\n    user: a\n    image: y\n",
        ),
        ("quote", "services:\n  web:\n    image: \"x\n"),
        ("colon", "services:\n  web:\n    command: a: b\n"),
        ("anchor", "services:\n  web: *nothing\n"),
        ("self", "services: &a\n  web: *a\n"),
        ("template", "services:\n  {{ name }}:\n    image: x\n"),
        ("list", "- a\n- b\n"),
        ("word", "hello\n"),
        ("empty", "\n# nothing\n"),
        (
            "non-string key",
            "services:\n  web:\n    image: x\n    labels: {1: a, true: b}\n",
        ),
        ("merge", "services:\n  web:\n    <<: 5\n    image: x\n"),
        ("unknown tag", "services:\n  web:\n    image: !Ref x\n"),
    ] {
        insta::with_settings!({description => text}, {
            insta::assert_snapshot!(format!("yaml_{}", name.replace([' ', '-'], "_")), rendered(&request(text)));
        });
    }
}

#[test]
fn variables() {
    let mut request = request(
        "services:\n  web:\n    image: ${IMAGE:?name an image}\n    user: ${USER\n    command: echo $NOTHING ${NOTHING}\n    hostname: $NOTHING\n",
    );
    request.dotenv = vec![SourceFile {
        path: ".env".into(),
        text: "A=1\nB C=2\n".into(),
    }];
    insta::assert_snapshot!(rendered(&request));
}

#[test]
fn names_that_are_not_declared() {
    insta::assert_snapshot!(rendered(&request(
        "services:
  web:
    image: x
    depends_on: [bd, cache]
    volumes: [\"dta:/a\", \"word:/b\"]
    networks: [frnt]
    secrets: [key]
  db: {image: x}
  cache: {image: x, profiles: [extra]}
volumes: {data: }
networks: {front: }
"
    )));
}

#[test]
fn circles_of_dependencies() {
    assert_eq!(
        found(&request(
            "services:\n  a: {image: x, depends_on: [b]}\n  b: {image: x, depends_on: [c]}\n  c: {image: x, depends_on: [a, d]}\n  d: {image: x, depends_on: [d]}\n"
        )),
        [
            "error 4:30 services depend on each other in a circle: `a` → `b` → `c` → `a`",
            "error 5:30 services depend on each other in a circle: `d` → `d`",
        ]
    );
}

#[test]
fn keys_that_are_not_honoured_warn_or_with_strict_fail() {
    let text = "services:\n  web:\n    image: x\n    external_links: [a]\n    cpu_count: 2\n    privileged: false\n    isolation: ''\n    deploy: {rollback_config: {order: stop-first}}\n";
    let mut request = request(text);
    let loaded = load(&request);
    assert!(loaded.project.is_some());
    assert_eq!(
        found(&request),
        [
            "warning 4:5 `external_links` is ignored: containers outside the cluster cannot be found by name",
            "warning 5:5 `cpu_count` is ignored: it is for Windows containers, and machines run Linux",
            "warning 8:14 `rollback_config` is ignored: a rollback restores all earlier replicas as fast as possible",
        ]
    );
    request.strict = true;
    let loaded = load(&request);
    assert!(loaded.project.is_none());
    assert!(
        loaded
            .diagnostics
            .iter()
            .all(|d| d.severity == Severity::Error && d.rule == Rule::NotHonoured)
    );
}

#[test]
fn what_a_deployment_refuses_can_be_read() {
    let request = request(
        "services:\n  web: {image: x, provider: {type: p}, volumes: [{type: npipe, source: a, target: /a}]}\n",
    );
    assert!(load(&request).project.is_none());
    let loaded = load(&LoadRequest {
        reading: true,
        ..request
    });
    assert!(loaded.project.is_some());
    assert_eq!(loaded.diagnostics.len(), 2);
    assert!(
        loaded
            .diagnostics
            .iter()
            .all(|d| d.severity == Severity::Warning && d.rule == Rule::Refused)
    );
}

#[test]
fn keys_that_are_refused() {
    assert_eq!(
        found(&request(
            "services:\n  web: {image: x, provider: {type: x}}\n"
        )),
        ["error 2:19 `provider` is not supported: machines run containers only"]
    );
}

#[test]
fn services_that_cannot_be() {
    for (text, expected) in [
        (
            "services:\n  web: {}\n",
            "error 2:3 service `web` has neither `image` nor `build`",
        ),
        (
            "services:\n  web:\n",
            "error 2:3 `services.web` must be a mapping, not nothing",
        ),
        (
            "services:\n  web: x\n",
            "error 2:8 `services.web` must be a mapping, not a string",
        ),
        (
            "services: [web]\n",
            "error 1:11 `services` must be a mapping, not a list",
        ),
        (
            "services:\n  web: {image: \"\"}\n",
            "error 2:16 `` is not a valid image name",
        ),
        (
            "services:\n  -web: {image: x}\n",
            "error 2:3 invalid service name `-web`: use letters, digits, `_`, `.` and `-`, starting with a letter or digit",
        ),
    ] {
        let found = found(&request(text));
        assert_eq!(found.first().map(String::as_str), Some(expected), "{text}");
    }
}

#[test]
fn values_that_cannot_be() {
    for (keys, expected) in [
        ("image: x", "error 4:5 duplicate key `image`"),
        (
            "ports: [\"99999\"]",
            "error 4:13 `99999` is not a port: `99999` is not a number from 0 to 65535",
        ),
        (
            "ports: [80.5]",
            "error 4:13 a port must be a number, a string or a mapping, not a number",
        ),
        (
            "ports: [{published: 80}]",
            "error 4:13 a port needs `target`",
        ),
        (
            "ports: [{target: 0}]",
            "error 4:22 a port is a number from 1 to 65535",
        ),
        (
            "volumes: [{type: bind, target: /a}]",
            "error 4:15 a bind mount needs `source`",
        ),
        (
            "volumes: [{type: cluster, source: x, target: /a}]",
            "error 4:15 a mount of type `cluster` is not supported: Docker on Linux does not have it",
        ),
        (
            "volumes: [\"a:b:c:d\"]",
            "error 4:15 `a:b:c:d` is not a mount: too many colons",
        ),
        (
            "volumes: [\":/a\"]",
            "error 4:15 `:/a` is not a mount: one of its parts is empty",
        ),
        (
            "volumes: [\"/x:a\"]",
            "error 4:15 the container path `a` must begin with `/`",
        ),
        (
            "environment: [A: 1]",
            "error 4:19 each item must be a string, not a mapping",
        ),
        (
            "environment: {A: [1]}",
            "error 4:22 the value of `A` must be a string, not a list",
        ),
        (
            "environment: [\"=x\"]",
            "error 4:19 a name is missing before `=`",
        ),
        (
            "environment: x",
            "error 4:18 `services.web.environment` must be a mapping or a list of `NAME=value`, not a string",
        ),
        (
            "environment:",
            "error 4:5 `services.web.environment` must be a mapping or a list of `NAME=value`, not nothing",
        ),
        (
            "command: {a: b}",
            "error 4:14 `services.web.command` must be a string, a list of strings or null, not a mapping",
        ),
        (
            "command: [1]",
            "error 4:15 `services.web.command[0]` must be a string, not a number",
        ),
        (
            "stop_grace_period: 10",
            "error 4:24 `services.web.stop_grace_period` must be a duration such as `1m30s`, not a number",
        ),
        (
            "stop_grace_period: -5s",
            "error 4:24 `stop_grace_period` cannot be negative",
        ),
        (
            "healthcheck: {retries: -1}",
            "error 4:28 `retries` must be a whole number, 0 or more",
        ),
        ("mem_limit: much", "error 4:16 `much` is not a size"),
        (
            "read_only: 1",
            "error 4:16 `services.web.read_only` must be `true` or `false`, not a number",
        ),
        (
            "labels: {uc.project: x}",
            "error 4:14 label `uc.project` is reserved: labels that begin with `uc.` belong to the cluster",
        ),
        (
            "ulimits: {nofile: x}",
            "error 4:23 `services.web.ulimits.nofile` must be a whole number, not `x`",
        ),
        (
            "gpus: 5",
            "error 4:11 `services.web.gpus` must be `all` or a list of mappings, not a number",
        ),
        (
            "depends_on: {db: {required: true}}",
            "error 4:18 a dependency in long form needs `condition`",
        ),
        (
            "network_mode: host\nnetworks: [default]",
            "error 4:19 `network_mode` and `networks` exclude each other",
        ),
        (
            "container_name: a b",
            "error 4:21 `a b` is not a valid container name",
        ),
        (
            "depends_on: {db: {condition: service_ready}}",
            "error 4:34 `services.web.depends_on.db.condition` cannot be `service_ready`",
        ),
    ] {
        let found = found_in(keys);
        assert!(
            found.iter().any(|found| found == expected),
            "{keys}: {found:?}"
        );
    }
}

#[test]
fn hints_for_misplaced_keys() {
    let hint = |text: &str| {
        load(&request(text)).diagnostics[0]
            .hint
            .clone()
            .unwrap_or_default()
    };
    assert_eq!(
        hint("services:\n  web: {image: x, replicas: 2}\n"),
        "it belongs below `deploy`"
    );
    assert_eq!(
        hint("services: {}\nports: []\n"),
        "it belongs to a service, below `services:`; check the indentation"
    );
    assert_eq!(
        hint("services:\n  web: {image: x, services: {}}\n"),
        "it belongs at the top level; check the indentation"
    );
    assert_eq!(
        hint("services:\n  web: {image: x, volums: []}\n"),
        "did you mean `volumes`?"
    );
    assert_eq!(
        hint("services:\n  web: {image: x, zzz: 1}\n"),
        "remove it, or rename it to `x-zzz`: such keys can have any value"
    );
}

#[test]
fn what_is_lost_in_a_command_is_said() {
    assert_eq!(
        found_in("command: a && b"),
        ["warning 4:14 the command ends at `&`: it is not run by a shell, so the rest is ignored"]
    );
}

#[test]
fn files_that_are_too_large_or_missing() {
    let large = format!("services: {{}}\n#{}", "x".repeat(crate::parse::MAX_BYTES));
    assert_eq!(
        found(&request(&large)),
        ["error 0:0 the file is larger than 5 MB"]
    );
    assert_eq!(found(&several(&[])), ["error 0:0 no compose file"]);
}

#[test]
fn very_many_problems_are_counted() {
    let text = (0..1000)
        .map(|n| format!("k{n}: 1\n"))
        .collect::<Vec<_>>()
        .concat();
    let loaded = load(&request(&text));
    assert_eq!(loaded.diagnostics.len(), 201);
    assert!(
        loaded
            .diagnostics
            .last()
            .unwrap()
            .message
            .contains("800 more")
    );
}

#[test]
fn diagnostics_are_data_too() {
    let loaded = load(&request("services:\n  web: {image: x, foo: 1}\n"));
    insta::assert_snapshot!(serde_json::to_string_pretty(&loaded.diagnostics).unwrap());
}
