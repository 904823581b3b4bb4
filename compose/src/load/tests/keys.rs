//! Each form of each key that is honoured.

use v1::{
    DependencyCondition, MountKind, Protocol, PullPolicy, RestartPolicy, ServiceMode, UpdateOrder,
};

use super::*;

fn list(values: &[&str]) -> v1::StringList {
    v1::StringList {
        values: strings(values),
    }
}

#[test]
fn a_service_that_says_nothing_more_has_the_defaults() {
    let spec = spec("");
    let expected = v1::ServiceSpec {
        project: "shop".into(),
        name: "web".into(),
        image: "web:1".into(),
        mode: ServiceMode::Replicated.into(),
        replicas: 1,
        ..v1::ServiceSpec::default()
    };
    assert_eq!(spec, expected);
}

#[test]
fn command_and_entrypoint() {
    for (yaml, expected) in [
        (
            "command: sh -c \"echo 'a b'\"",
            Some(list(&["sh", "-c", "echo 'a b'"])),
        ),
        (
            "command: [\"sh\", \"-c\", \"x y\"]",
            Some(list(&["sh", "-c", "x y"])),
        ),
        ("command:\n  - a\n  - b", Some(list(&["a", "b"]))),
        ("command: \"\"", Some(list(&[]))),
        ("command: []", Some(list(&[]))),
        ("command: null", None),
        ("command:", None),
        ("", None),
    ] {
        assert_eq!(spec(yaml).command, expected, "{yaml}");
        let yaml = yaml.replace("command", "entrypoint");
        assert_eq!(spec(&yaml).entrypoint, expected, "{yaml}");
    }
}

#[test]
fn environment_as_mapping_and_as_list() {
    let expected = map(&[
        ("A", "1"),
        ("B", "x=y"),
        ("C", ""),
        ("D", "true"),
        ("E", "1.5"),
        ("F", "511"),
    ]);
    let as_map = "environment:\n  A: 1\n  B: x=y\n  C: ''\n  D: true\n  E: 1.50\n  F: 0777\n  G:\n";
    let as_list = "environment:\n- A=1\n- B=x=y\n- C=\n- D=true\n- E=1.5\n- F=511\n- G";
    assert_eq!(spec(as_map).environment, expected);
    assert_eq!(spec(as_list).environment, expected);
}

#[test]
fn a_variable_without_value_comes_from_where_uc_runs() {
    for yaml in [
        "[FROM_ENV, FROM_DOTENV, NOWHERE]",
        "{FROM_ENV: , FROM_DOTENV: null, NOWHERE: }",
    ] {
        let text = format!("services:\n  web:\n    image: x\n    environment: {yaml}\n");
        let mut request = with_environment(request(&text), &[("FROM_ENV", "1"), ("OTHER", "no")]);
        request.dotenv = vec![SourceFile {
            path: ".env".into(),
            text: "FROM_DOTENV=2\nFROM_ENV=no".into(),
        }];
        let environment = &project_of(&request).services[0].spec.environment;
        assert_eq!(
            *environment,
            map(&[("FROM_ENV", "1"), ("FROM_DOTENV", "2")]),
            "{yaml}"
        );
    }
}

#[test]
fn ports_short_and_long() {
    let port = |container_port, published_port, host_ip: &str, protocol: Protocol| v1::PortSpec {
        container_port,
        published_port,
        host_ip: host_ip.into(),
        protocol: protocol.into(),
        ..v1::PortSpec::default()
    };
    for (yaml, expected) in [
        ("[80]", vec![port(80, 0, "", Protocol::Tcp)]),
        ("[\"80\"]", vec![port(80, 0, "", Protocol::Tcp)]),
        ("[\"8080:80\"]", vec![port(80, 8080, "", Protocol::Tcp)]),
        ("[8080:80/udp]", vec![port(80, 8080, "", Protocol::Udp)]),
        (
            "[\"127.0.0.1:8080:80\"]",
            vec![port(80, 8080, "127.0.0.1", Protocol::Tcp)],
        ),
        (
            "[\"[::1]:8080:80\"]",
            vec![port(80, 8080, "::1", Protocol::Tcp)],
        ),
        (
            "[\"81-82:91-92\"]",
            vec![
                port(91, 81, "", Protocol::Tcp),
                port(92, 82, "", Protocol::Tcp),
            ],
        ),
        ("[{target: 80}]", vec![port(80, 0, "", Protocol::Tcp)]),
        (
            "[{target: 80, published: 81, host_ip: 10.0.0.1, protocol: udp, mode: host, name: web, app_protocol: http}]",
            vec![port(80, 81, "10.0.0.1", Protocol::Udp)],
        ),
        (
            "[{target: \"80\", published: \"81\"}]",
            vec![port(80, 81, "", Protocol::Tcp)],
        ),
        (
            "[\"80:80\", \"80:80\"]",
            vec![port(80, 80, "", Protocol::Tcp)],
        ),
    ] {
        assert_eq!(spec(&format!("ports: {yaml}")).ports, expected, "{yaml}");
    }
}

#[test]
fn ranges_for_one_port_and_sctp() {
    let ports = spec("ports: [\"9000-9002:90\", \"91/sctp\"]").ports;
    assert_eq!(
        (
            ports[0].published_port,
            ports[0].published_last,
            ports[0].container_port
        ),
        (9000, 9002, 90)
    );
    assert_eq!(
        (ports[1].container_port, ports[1].protocol()),
        (91, Protocol::Sctp)
    );
}

/// A file with this mount, and volumes of all kinds.
fn mounts(yaml: &str) -> Vec<(MountKind, String, String, bool)> {
    let text = format!(
        "services:\n  web:\n    image: x\n    volumes: {yaml}\n\
         volumes:\n  data:\n  named: {{name: outside}}\n  theirs: {{external: true}}\n  old: {{external: {{name: older}}}}\n"
    );
    let mounts = project(&text).services[0].spec.mounts.clone();
    mounts
        .into_iter()
        .map(|m| (m.kind(), m.source, m.target, m.read_only))
        .collect()
}

#[test]
fn mounts_short_and_long() {
    let mount = |kind, source: &str, target: &str, read_only| {
        vec![(kind, source.to_owned(), target.to_owned(), read_only)]
    };
    for (yaml, expected) in [
        (
            "[\"data:/d\"]",
            mount(MountKind::Volume, "shop_data", "/d", false),
        ),
        (
            "[\"data:/d:ro\"]",
            mount(MountKind::Volume, "shop_data", "/d", true),
        ),
        (
            "[\"data:/d/:rw\"]",
            mount(MountKind::Volume, "shop_data", "/d", false),
        ),
        (
            "[\"named:/d\"]",
            mount(MountKind::Volume, "outside", "/d", false),
        ),
        (
            "[\"theirs:/d\"]",
            mount(MountKind::Volume, "theirs", "/d", false),
        ),
        (
            "[\"old:/d\"]",
            mount(MountKind::Volume, "older", "/d", false),
        ),
        (
            "[\"/srv/x:/d\"]",
            mount(MountKind::Bind, "/srv/x", "/d", false),
        ),
        (
            "[\"/srv/x:/d:ro,cached\"]",
            mount(MountKind::Bind, "/srv/x", "/d", true),
        ),
        ("[\"/d\"]", mount(MountKind::Volume, "", "/d", false)),
        (
            "[{type: volume, source: data, target: /d, read_only: true}]",
            mount(MountKind::Volume, "shop_data", "/d", true),
        ),
        (
            "[{type: bind, source: /srv/x, target: /d, bind: {create_host_path: true}}]",
            mount(MountKind::Bind, "/srv/x", "/d", false),
        ),
        (
            "[{type: tmpfs, target: /d}]",
            mount(MountKind::Tmpfs, "", "/d", false),
        ),
        (
            "[\"data:/d\", \"theirs:/d\"]",
            mount(MountKind::Volume, "theirs", "/d", false),
        ),
    ] {
        assert_eq!(mounts(yaml), expected, "{yaml}");
    }
}

#[test]
fn tmpfs_as_string_and_list() {
    for yaml in ["tmpfs: /run", "tmpfs: [/run]"] {
        let mounts = spec(yaml).mounts;
        assert_eq!(
            (mounts[0].kind(), mounts[0].target.as_str()),
            (MountKind::Tmpfs, "/run"),
            "{yaml}"
        );
    }
    assert_eq!(
        spec("tmpfs: /run:size=64m,noexec").mounts[0].tmpfs_options,
        ["size=64m", "noexec"]
    );
}

#[test]
fn volumes_that_are_used_are_there_with_their_full_names() {
    let project = project(
        "services:\n  web:\n    image: x\n    volumes: [\"data:/a\", \"nfs:/b\", \"theirs:/c\"]\n\
         volumes:\n  data: {labels: [a=b]}\n  nfs:\n    driver: local\n    driver_opts: {type: nfs, o: \"addr=10.0.0.1\", n: 5}\n  \
         theirs: {external: true, name: outside}\n  unused:\n",
    );
    let volume = |name: &str| v1::VolumeSpec {
        project: "shop".into(),
        name: name.into(),
        ..v1::VolumeSpec::default()
    };
    assert_eq!(
        project.volumes,
        [
            v1::VolumeSpec {
                external: true,
                ..volume("outside")
            },
            v1::VolumeSpec {
                labels: map(&[("a", "b")]),
                ..volume("shop_data")
            },
            v1::VolumeSpec {
                driver: "local".into(),
                driver_opts: map(&[("type", "nfs"), ("o", "addr=10.0.0.1"), ("n", "5")]),
                ..volume("shop_nfs")
            },
        ]
    );
}

#[test]
fn healthchecks() {
    let test = |yaml: &str| {
        spec(&format!("healthcheck: {yaml}"))
            .healthcheck
            .map(|check| check.test)
    };
    for (yaml, expected) in [
        (
            "{test: curl -f x || exit 1}",
            &["CMD-SHELL", "curl -f x || exit 1"][..],
        ),
        ("{test: [CMD, curl, x]}", &["CMD", "curl", "x"]),
        ("{test: [CMD-SHELL, curl x]}", &["CMD-SHELL", "curl x"]),
        ("{test: [NONE]}", &["NONE"]),
        ("{disable: true}", &["NONE"]),
        ("{disable: \"true\", test: x}", &["NONE"]),
        ("{interval: 5s}", &[]),
    ] {
        assert_eq!(test(yaml), Some(strings(expected)), "{yaml}");
    }
    assert_eq!(test("{}"), None);
    let check = spec(
        "healthcheck:\n  test: x\n  interval: 1m30s\n  timeout: 500ms\n  retries: \"4\"\n  start_period: 1h",
    )
    .healthcheck
    .unwrap();
    assert_eq!(
        (
            check.interval_ms,
            check.timeout_ms,
            check.retries,
            check.start_period_ms
        ),
        (Some(90_000), Some(500), Some(4), Some(3_600_000))
    );
}

#[test]
fn dependencies_as_list_and_mapping() {
    let conditions = |yaml: &str| {
        let text = format!(
            "services:\n  web:\n    image: x\n    depends_on: {yaml}\n  db: {{image: x}}\n  cache: {{image: x}}\n  \
             off: {{image: x, profiles: [p]}}\n"
        );
        let web = project(&text)
            .services
            .into_iter()
            .find(|service| service.spec.name == "web")
            .unwrap();
        web.spec
            .depends_on
            .into_iter()
            .map(|d| (d.condition(), d.service))
            .collect::<Vec<_>>()
    };
    let started = |name: &str| (DependencyCondition::Started, name.to_owned());
    assert_eq!(conditions("[db, cache]"), [started("cache"), started("db")]);
    assert_eq!(
        conditions("{db: {condition: service_started}}"),
        [started("db")]
    );
    assert_eq!(
        conditions(
            "{db: {condition: service_healthy}, cache: {condition: service_completed_successfully, required: true}}"
        ),
        [
            (DependencyCondition::Completed, "cache".into()),
            (DependencyCondition::Healthy, "db".into())
        ]
    );
    assert_eq!(
        conditions(
            "{off: {condition: service_started, required: false}, db: {condition: service_started}}"
        ),
        [started("db")]
    );
}

#[test]
fn links_and_shared_namespaces_imply_dependencies() {
    let text = "services:\n  web: {image: x, links: [\"db:database\"], network_mode: \"service:cache\"}\n  db: {image: x}\n  cache: {image: x}\n";
    let project = project(text);
    let web = project
        .services
        .iter()
        .find(|service| service.spec.name == "web")
        .unwrap();
    let names: Vec<_> = web
        .spec
        .depends_on
        .iter()
        .map(|d| d.service.as_str())
        .collect();
    assert_eq!(names, ["cache", "db"]);
}

#[test]
fn mode_and_number() {
    let number = |yaml: &str| {
        let spec = spec(yaml);
        (spec.mode(), spec.replicas)
    };
    assert_eq!(
        number("deploy: {replicas: 3}"),
        (ServiceMode::Replicated, 3)
    );
    assert_eq!(
        number("deploy: {replicas: \"3\", mode: replicated}"),
        (ServiceMode::Replicated, 3)
    );
    assert_eq!(
        number("deploy: {replicas: 0}"),
        (ServiceMode::Replicated, 0)
    );
    assert_eq!(number("scale: 2"), (ServiceMode::Replicated, 2));
    assert_eq!(
        number("scale: 2\ndeploy: {replicas: 2}"),
        (ServiceMode::Replicated, 2)
    );
    assert_eq!(number("deploy: {mode: global}"), (ServiceMode::Global, 1));
    assert_eq!(number("deploy:"), (ServiceMode::Replicated, 1));
    assert_eq!(
        found_in("scale: 2\ndeploy: {replicas: 3}"),
        ["error 4:12 `scale` is 2, but `deploy.replicas` is 3"]
    );
    assert_eq!(
        found_in("scale: -1"),
        ["error 4:12 -1 is not a number of replicas"]
    );
    assert_eq!(
        found_in("deploy: {mode: global-job}"),
        ["error 4:20 mode `global-job` is not supported: a service runs until it is removed"]
    );
    assert_eq!(
        found_in("deploy: {mode: globl}"),
        ["error 4:20 `services.web.deploy.mode` cannot be `globl`"]
    );
}

#[test]
fn simple_keys() {
    let spec = spec(
        "user: \"1000:1000\"\nworking_dir: /app\nlabels: {a: b, c: }\nstop_grace_period: 1m30s\nstop_signal: SIGINT\ninit: true\n\
         read_only: \"true\"\ntty: true\nstdin_open: true\nhostname: box\ncap_add: [NET_ADMIN, NET_ADMIN]\ncap_drop: [ALL]\n\
         x-machines: \"one, two,one\"\ndeploy: {update_config: {order: stop-first}}",
    );
    let expected = v1::ServiceSpec {
        project: "shop".into(),
        name: "web".into(),
        image: "web:1".into(),
        mode: ServiceMode::Replicated.into(),
        replicas: 1,
        user: "1000:1000".into(),
        working_dir: "/app".into(),
        labels: map(&[("a", "b"), ("c", "")]),
        stop_grace_period_ms: Some(90_000),
        stop_signal: "SIGINT".into(),
        init: true,
        read_only: true,
        tty: true,
        stdin_open: true,
        hostname: "box".into(),
        cap_add: strings(&["NET_ADMIN"]),
        cap_drop: strings(&["ALL"]),
        machines: strings(&["one", "two"]),
        update_order: UpdateOrder::StopFirst.into(),
        ..v1::ServiceSpec::default()
    };
    assert_eq!(spec, expected);
    assert_eq!(
        self::spec("labels: [a=b, c, d=e=f]").labels,
        map(&[("a", "b"), ("c", ""), ("d", "e=f")])
    );
    assert_eq!(
        self::spec("x-machines: [one, two]").machines,
        strings(&["one", "two"])
    );
    assert_eq!(
        self::spec("deploy: {update_config: {order: start-first}}").update_order(),
        UpdateOrder::StartFirst
    );
}

#[test]
fn restart_policies() {
    for (text, expected) in [
        ("\"no\"", RestartPolicy::No),
        ("no", RestartPolicy::No),
        ("always", RestartPolicy::Always),
        ("on-failure", RestartPolicy::OnFailure),
        ("on-failure:3", RestartPolicy::OnFailure),
        ("unless-stopped", RestartPolicy::UnlessStopped),
    ] {
        assert_eq!(
            spec(&format!("restart: {text}")).restart(),
            expected,
            "{text}"
        );
    }
    assert_eq!(spec("").restart(), RestartPolicy::Unspecified);
    for text in ["sometimes", "on-failure:x", "always:3"] {
        assert_eq!(
            found_in(&format!("restart: {text}")),
            [format!("error 4:14 `{text}` is not a restart policy")]
        );
    }
}

#[test]
fn pull_policies() {
    for (text, expected) in [
        ("always", PullPolicy::Always),
        ("missing", PullPolicy::Missing),
        ("if_not_present", PullPolicy::Missing),
        ("never", PullPolicy::Never),
        ("build", PullPolicy::Unspecified),
        ("daily", PullPolicy::Always),
        ("every_1w2d", PullPolicy::Always),
    ] {
        assert_eq!(
            spec(&format!("pull_policy: {text}")).pull_policy(),
            expected,
            "{text}"
        );
    }
    for text in ["allways", "every_", "every_1", "every_d"] {
        assert_eq!(
            found_in(&format!("pull_policy: {text}")),
            [format!("error 4:18 `{text}` is not a pull policy")]
        );
    }
}

#[test]
fn names_of_projects() {
    let file = "name: ${X:-from-file}\nservices: {web: {image: \"${COMPOSE_PROJECT_NAME}:1\"}}\n";
    let mut request = request(file);
    let name_and_image = |request: &LoadRequest| {
        let project = project_of(request);
        (
            project.name.to_string(),
            project.services[0].spec.image.clone(),
        )
    };
    assert_eq!(
        name_and_image(&request),
        ("from-file".into(), "from-file:1".into())
    );
    request
        .environment
        .insert("COMPOSE_PROJECT_NAME".into(), "from-env".into());
    assert_eq!(
        name_and_image(&request),
        ("from-env".into(), "from-env:1".into())
    );
    request.project_name = Some("given".into());
    assert_eq!(project_of(&request).name.as_str(), "given");
    assert_eq!(
        found(&super::request("name: My Shop\nservices: {}\n")),
        [
            "error 1:7 invalid project name `My Shop`: use lower-case letters, digits, `_` and `-`, starting with a letter or digit"
        ]
    );
}

#[test]
fn profiles() {
    let text = "services:\n  web: {image: x}\n  debug: {image: x, profiles: [dev, test]}\n  admin: {image: x, profiles: [ops]}\n";
    let names = |profiles: &[&str], variable: &str| {
        let mut request = with_environment(request(text), &[("COMPOSE_PROFILES", variable)]);
        request.profiles = strings(profiles);
        project_of(&request)
            .services
            .into_iter()
            .map(|service| service.spec.name)
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&[], ""), ["web"]);
    assert_eq!(names(&["test"], ""), ["debug", "web"]);
    assert_eq!(names(&["*"], ""), ["admin", "debug", "web"]);
    assert_eq!(names(&[], "dev, ops"), ["admin", "debug", "web"]);
    assert_eq!(names(&["ops"], "dev"), ["admin", "web"]);
}

#[test]
fn naming_a_service_activates_its_profiles_only() {
    let text = "services:\n  web: {image: x}\n  debug: {image: x, profiles: [dev, test], depends_on: [tool]}\n  tool: {image: x, profiles: [test]}\n  admin: {image: x, profiles: [ops]}\n";
    for (named, expected) in [
        ("web", vec!["web"]),
        ("tool", vec!["debug", "tool", "web"]),
        ("debug", vec!["debug", "tool", "web"]),
        ("shop/debug", vec!["debug", "tool", "web"]),
        ("other/debug", vec!["web"]),
        ("nowhere", vec!["web"]),
    ] {
        let request = LoadRequest {
            services: vec![named.to_owned()],
            ..request(text)
        };
        let project = project_of(&request);
        assert_eq!(project.service_names(), expected, "{named}");
    }
}

#[test]
fn environment_files() {
    let files = |path: &Path| match path.to_str() {
        Some("/srv/shop/a.env") => Ok("A=1\nB=a\nC=${A}-${HOME}\n".to_owned()),
        Some("/srv/shop/b.env") => Ok("B='b $A'\nD=$A\n".to_owned()),
        _ => Err(std::io::ErrorKind::NotFound.into()),
    };
    let environment = |yaml: &str| {
        let text = format!(
            "services:\n  web:\n    image: x\n    env_file: {yaml}\n    environment: [\"B=own\", \"HOME\"]\n"
        );
        let request = with_environment(
            request(&text.replace(", \"HOME\"", "")),
            &[("HOME", "/root")],
        );
        load_with(&request, &files)
            .project
            .unwrap()
            .services
            .remove(0)
            .spec
            .environment
    };
    assert_eq!(
        environment("a.env"),
        map(&[("A", "1"), ("B", "own"), ("C", "1-/root")])
    );
    assert_eq!(
        environment("[./a.env, {path: none.env, required: false}]"),
        map(&[("A", "1"), ("B", "own"), ("C", "1-/root")])
    );
    assert_eq!(
        environment("[{path: a.env, format: raw}]"),
        map(&[("A", "1"), ("B", "own"), ("C", "${A}-${HOME}")])
    );
    let text = "services:\n  web:\n    image: x\n    env_file: [a.env, b.env]\n";
    let loaded = load_with(&request(text), &files);
    let environment = &loaded.project.unwrap().services[0].spec.environment;
    assert_eq!(
        (environment["B"].as_str(), environment["D"].as_str()),
        ("b $A", "1")
    );
    assert_eq!(loaded.read.len(), 2);
    let missing = load_with(
        &request("services:\n  web:\n    image: x\n    env_file: none.env\n"),
        &files,
    );
    assert!(missing.project.is_none());
    assert_eq!(
        (missing.diagnostics[0].line, missing.diagnostics[0].column),
        (4, 15)
    );
}

#[test]
fn context_and_other_extensions() {
    let project = project(
        "x-context: prod\nx-anything: {a: [1]}\nservices:\n  web: {image: x, x-note: hi}\n",
    );
    assert_eq!(project.context.as_deref(), Some("prod"));
}

#[test]
fn the_resolved_file_is_in_compose_s_own_words() {
    let text = "x-note: {a: 1}\nservices:\n  web:\n    build: {context: ., args: [A=1, B]}\n    command: echo $$HOME\n    environment: [B=2, A=1, NOWHERE]\n    \
        ports: [\"8080:80\", 90]\n    volumes: [\"data:/d:ro\", /srv/x:/x]\n    depends_on: [db]\n    stop_grace_period: 90s\n    \
        deploy: {replicas: 2}\n    healthcheck: {test: curl x, interval: 1m}\n    mem_limit: 64m\n  db: {image: \"db:1\", env_file: [], profiles: []}\nvolumes: {data: , unused: }\n";
    let project = project(text);
    insta::assert_snapshot!(project.to_yaml());
    // It can be read again, and means the same.
    let again = super::project(&project.to_yaml());
    assert_eq!(again.to_json(), project.to_json());
    assert_eq!(again.services[1].spec, project.services[1].spec);
    assert_eq!(again.volumes, project.volumes);
}
