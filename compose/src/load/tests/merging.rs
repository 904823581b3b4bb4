//! Several files, anchors, merge keys, variables.

use super::*;

/// What two files say about one service, as YAML of its resolved form.
fn merged(first: &str, second: &str) -> serde_json::Value {
    let file = |keys: &str| {
        format!(
            "services:\n  web:\n    image: x\n{}volumes: {{a: , b: }}\nnetworks: {{n: }}\n",
            indented(keys)
        )
    };
    project_of(&several(&[&file(first), &file(second)])).to_json()["services"]["web"].clone()
}

#[test]
fn rules_of_override() {
    let table = [
        ("command: a b", "command: [c]", "command", "[\"c\"]"),
        (
            "entrypoint: [a, b]",
            "entrypoint: c",
            "entrypoint",
            "[\"c\"]",
        ),
        ("user: a", "user: b", "user", "\"b\""),
        (
            "environment: {A: 1, B: 2}",
            "environment: [B=3, C=4]",
            "environment",
            r#"{"A":"1","B":"3","C":"4"}"#,
        ),
        (
            "labels: [a=1]",
            "labels: {a: 2, b: 3}",
            "labels",
            r#"{"a":"2","b":"3"}"#,
        ),
        (
            "cap_add: [A, B]",
            "cap_add: [B, C]",
            "cap_add",
            r#"["A","B","C"]"#,
        ),
        (
            "dns: 1.1.1.1",
            "dns: [8.8.8.8]",
            "dns",
            r#"["1.1.1.1","8.8.8.8"]"#,
        ),
        ("tmpfs: /a", "tmpfs: /b", "tmpfs", r#"["/a","/b"]"#),
        (
            "healthcheck: {test: a, interval: 1s}",
            "healthcheck: {test: [CMD, b]}",
            "healthcheck",
            r#"{"interval":"1s","test":["CMD","b"]}"#,
        ),
        (
            "deploy: {replicas: 1, update_config: {order: stop-first}}",
            "deploy: {replicas: 2}",
            "deploy",
            r#"{"replicas":2,"update_config":{"order":"stop-first"}}"#,
        ),
        (
            "volumes: [\"a:/x\", \"b:/y\"]",
            "volumes: [\"b:/x:ro\"]",
            "volumes",
            r#"[{"read_only":true,"source":"b","target":"/x","type":"volume","volume":{}},{"source":"b","target":"/y","type":"volume","volume":{}}]"#,
        ),
        (
            "ports: [\"80:80\"]",
            "ports: [\"80:80\", \"81:80\"]",
            "ports",
            r#"[{"mode":"ingress","protocol":"tcp","published":"80","target":80},{"mode":"ingress","protocol":"tcp","published":"81","target":80}]"#,
        ),
        (
            "logging: {driver: a, options: {x: 1}}",
            "logging: {driver: b, options: {y: 2}}",
            "logging",
            r#"{"driver":"b","options":{"y":"2"}}"#,
        ),
        (
            "logging: {driver: a, options: {x: 1}}",
            "logging: {options: {y: 2}}",
            "logging",
            r#"{"driver":"a","options":{"x":"1","y":"2"}}"#,
        ),
        (
            "networks: [default]",
            "networks: {n: {aliases: [w]}}",
            "networks",
            r#"{"default":null,"n":{"aliases":["w"]}}"#,
        ),
        (
            "ulimits: {nofile: 1}",
            "ulimits: {nofile: {soft: 1, hard: 2}}",
            "ulimits",
            r#"{"nofile":{"hard":2,"soft":1}}"#,
        ),
        (
            "build: ./a",
            "build: {target: t}",
            "build",
            r#"{"context":"/srv/shop/a","dockerfile":"Dockerfile","target":"t"}"#,
        ),
        (
            "environment: {A: 1}",
            "environment: !override {B: 2}",
            "environment",
            r#"{"B":"2"}"#,
        ),
        (
            "ports: [\"80:80\"]",
            "ports: !override [\"81:81\"]",
            "ports",
            r#"[{"mode":"ingress","protocol":"tcp","published":"81","target":81}]"#,
        ),
        ("ports: [\"80:80\"]", "ports: !reset []", "ports", "null"),
        (
            "environment: {A: 1, B: 2}",
            "environment: {A: !reset null}",
            "environment",
            r#"{"B":"2"}"#,
        ),
        ("user: !reset a", "", "user", "null"),
        ("restart: always", "restart: !reset null", "restart", "null"),
    ];
    for (first, second, key, expected) in table {
        let expected: serde_json::Value = serde_json::from_str(expected).unwrap();
        assert_eq!(merged(first, second)[key], expected, "{first} + {second}");
    }
}

#[test]
fn services_and_volumes_of_all_files_are_there() {
    let project = project_of(&several(&[
        "services: {a: {image: x, volumes: [\"v:/v\"]}}\nvolumes: {v: }",
        "services: {b: {image: y}, a: {image: z}}\nvolumes: {v: {driver: nfs}}",
    ]));
    let images: Vec<_> = project
        .services
        .iter()
        .map(|service| service.spec.image.as_str())
        .collect();
    assert_eq!(images, ["z", "y"]);
    assert_eq!(project.volumes[0].driver, "nfs");
}

#[test]
fn documents_of_one_file_merge_too() {
    let project = project("services: {a: {image: x}}\n---\nservices: {a: {user: u}}\n");
    assert_eq!(project.services[0].spec.user, "u");
}

#[test]
fn an_error_names_the_file_it_is_in() {
    let loaded = load(&several(&[
        "services: {a: {image: x}}\n",
        "services:\n  a: {usr: x}\n",
    ]));
    let d = &loaded.diagnostics[0];
    assert_eq!((d.file.to_str(), d.line, d.column), (Some("2.yaml"), 2, 7));
}

#[test]
fn anchors_aliases_and_merge_keys() {
    let project = project(
        "x-base: &base\n  image: base:1\n  environment: &env {A: 1, B: 1}\nx-more: &more {user: more, hostname: more}\n\
         services:\n  one:\n    <<: *base\n    environment:\n      <<: *env\n      B: 2\n  two:\n    <<: [*more, *base]\n    hostname: own\n  \
         three: {<<: *base, \"image\": other}\n",
    );
    let [one, three, two] = &project.services[..] else {
        panic!("{:?}", project.services)
    };
    assert_eq!(one.spec.environment, map(&[("A", "1"), ("B", "2")]));
    assert_eq!(one.spec.image, "base:1");
    assert_eq!(
        (
            two.spec.user.as_str(),
            two.spec.hostname.as_str(),
            two.spec.image.as_str()
        ),
        ("more", "own", "base:1")
    );
    assert_eq!(three.spec.image, "other");
}

#[test]
fn variables_take_the_type_their_key_wants() {
    let text = "services:\n  web:\n    image: $IMAGE\n    init: ${YES}\n    scale: \"${N}\"\n    ports: [\"${P:-81}:80\"]\n    \
        healthcheck: {interval: \"${N}s\", retries: $N}\n";
    let spec = project_of(&with_environment(
        request(text),
        &[("IMAGE", "x:1"), ("YES", "true"), ("N", "3")],
    ))
    .services
    .remove(0)
    .spec;
    assert_eq!(
        (spec.image.as_str(), spec.init, spec.replicas),
        ("x:1", true, 3)
    );
    let check = spec.healthcheck.unwrap();
    assert_eq!((check.interval_ms, check.retries), (Some(3000), Some(3)));
    assert_eq!(spec.ports[0].published_port, 81);
}

#[test]
fn keys_hold_no_variables_and_comments_no_meaning() {
    let spec = spec("environment: {$A: 1} # $B ${");
    assert_eq!(spec.environment, map(&[("$A", "1")]));
}

#[test]
fn the_process_beats_dotenv_and_dotenv_beats_defaults() {
    let mut request = with_environment(
        request("services: {web: {image: \"${A:-d}${B:-d}${C:-d}\"}}"),
        &[("A", "p")],
    );
    request.dotenv = vec![SourceFile {
        path: ".env".into(),
        text: "A=e\nB=e".into(),
    }];
    assert_eq!(project_of(&request).services[0].spec.image, "ped");
}

#[test]
fn what_people_write_below_the_key_is_read() {
    // YAML 1.2 wants the closing bracket further in; Compose's library does not mind.
    let text = "services:\n  web:\n    image: x\n    command: [\n      \"a\",\n\n      # why\n      \"b\"\n    ]\n    healthcheck: {\n      \"test\": [\"CMD\",\n    \"c\"\n    ]\n    }\n    user: \"u\n v\"\n    nope: 1\n";
    let request = request(text);
    assert_eq!(
        found(&request),
        ["error 17:5 unknown key `nope` in `services.web`"]
    );
    let spec = project(&text.replace("    nope: 1\n", ""))
        .services
        .remove(0)
        .spec;
    assert_eq!(spec.command.unwrap().values, ["a", "b"]);
    assert_eq!(spec.healthcheck.unwrap().test, ["CMD", "c"]);
    assert_eq!(spec.user, "u v");
}
