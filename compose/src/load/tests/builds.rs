//! `build`, and images whose names are templates.

use super::*;
use crate::{Build, BuildContext, BuildSecret, GitFacts, LocalSource, TemplateFacts};

fn build(yaml: &str) -> Build {
    let text = format!("services:\n  web:\n    build: {yaml}\n");
    let request = with_environment(request(&text), &[("FROM_ENV", "1")]);
    let service = project_of(&request).services.remove(0);
    assert!(service.spec.built && service.spec.image.is_empty());
    service.build.unwrap()
}

fn in_directory(path: &str) -> Build {
    Build::of(BuildContext::Directory(path.into()))
}

#[test]
fn contexts() {
    for (yaml, directory) in [
        ("./web", "/srv/shop/web"),
        ("web/", "/srv/shop/web"),
        ("{context: web}", "/srv/shop/web"),
        ("../x", "/srv/x"),
        ("/abs", "/abs"),
        ("{}", "/srv/shop"),
    ] {
        assert_eq!(build(yaml), in_directory(directory), "{yaml}");
    }
    for remote in [
        "https://example.org/x.git#main:dir",
        "https://example.org/x.tar.gz",
        "git@example.org:a/b",
        "ssh://git@example.org/a/b",
        "github.com/a/b",
    ] {
        assert_eq!(
            build(&format!("{{context: \"{remote}\"}}")),
            Build::of(BuildContext::Remote(remote.into()))
        );
    }
}

#[test]
fn what_is_built_and_from_what() {
    let args: BTreeMap<_, _> = [("A", Some("1")), ("FROM_ENV", Some("1")), ("NOWHERE", None)]
        .map(|(name, value)| (name.to_owned(), value.map(str::to_owned)))
        .into();
    for yaml in ["[A=1, FROM_ENV, NOWHERE]", "{A: 1, FROM_ENV: , NOWHERE: }"] {
        let whole = build(&format!(
            "{{context: web, dockerfile: D, target: t, args: {yaml}}}"
        ));
        let expected = Build {
            dockerfile: Some("D".into()),
            target: Some("t".into()),
            args: args.clone(),
            ..in_directory("/srv/shop/web")
        };
        assert_eq!(whole, expected, "{yaml}");
    }
    let inline = build("{context: web, dockerfile_inline: \"FROM scratch\"}");
    assert_eq!(inline.dockerfile_inline.as_deref(), Some("FROM scratch"));
    let tagged = project("services:\n  web:\n    build: .\n    image: web:2\n")
        .services
        .remove(0);
    assert_eq!(
        (
            tagged.spec.image.as_str(),
            tagged.build.unwrap().image.as_deref()
        ),
        ("web:2", Some("web:2"))
    );
}

#[test]
fn options_of_the_builder() {
    let whole = build(
        "{context: ., cache_from: [a, \"type=gha\"], cache_to: [b], no_cache: true, no_cache_filter: st, pull: true, \
         labels: [x=y], tags: [t], platforms: [linux/arm64], network: host, extra_hosts: [\"a:1.2.3.4\"], shm_size: 1m, \
         ulimits: {nofile: {soft: 1, hard: 2}, nproc: 5}, ssh: [default, \"k=/id\"], privileged: true, \
         entitlements: [network.host], provenance: mode=max, sbom: true}",
    );
    let expected = Build {
        cache_from: strings(&["a", "type=gha"]),
        cache_to: strings(&["b"]),
        no_cache: true,
        no_cache_filter: strings(&["st"]),
        pull: true,
        labels: map(&[("x", "y")]),
        tags: strings(&["t"]),
        platforms: strings(&["linux/arm64"]),
        network: Some("host".into()),
        extra_hosts: strings(&["a=1.2.3.4"]),
        shm_size: Some(1 << 20),
        ulimits: [("nofile".into(), (1, 2)), ("nproc".into(), (5, 5))].into(),
        ssh: strings(&["default", "k=/id"]),
        entitlements: strings(&["network.host", "security.insecure"]),
        provenance: Some("mode=max".into()),
        sbom: Some("true".into()),
        ..in_directory("/srv/shop")
    };
    assert_eq!(whole, expected);
    let quiet = found_in("build: {context: ., no_cache: true, isolation: hyperv}");
    assert_eq!(quiet.len(), 1, "{quiet:?}");
    assert!(quiet[0].contains("`isolation` is ignored"), "{quiet:?}");
}

#[test]
fn further_contexts() {
    let text = "services:\n  base: {build: ./base}\n  web:\n    build:\n      context: .\n      additional_contexts: \
                [base=service:base, img=docker-image://alpine, git=github.com/a/b, dir=../x]\n";
    let project = project(text);
    let contexts = project.services[1]
        .build
        .clone()
        .unwrap()
        .additional_contexts;
    let remote = |text: &str| BuildContext::Remote(text.into());
    assert_eq!(
        contexts,
        [
            ("base".into(), BuildContext::Service("base".into())),
            ("img".into(), remote("docker-image://alpine")),
            ("git".into(), remote("github.com/a/b")),
            ("dir".into(), BuildContext::Directory("/srv/x".into())),
        ]
        .into()
    );
    assert_eq!(
        project.to_json()["services"]["web"]["build"]["additional_contexts"]["dir"],
        "/srv/x"
    );
}

#[test]
fn secrets_come_from_files_and_variables() {
    let text = "services:\n  web:\n    build: {context: ., secrets: [token, {source: key, target: id_rsa}]}\n\
                secrets:\n  token: {environment: TOKEN}\n  key: {file: ./key}\n";
    let secrets = project(text).services.remove(0).build.unwrap().secrets;
    assert_eq!(
        secrets,
        [
            BuildSecret {
                id: "token".into(),
                source: LocalSource::Variable("TOKEN".into())
            },
            BuildSecret {
                id: "id_rsa".into(),
                source: LocalSource::Path("/srv/shop/key".into())
            },
        ]
    );
}

#[test]
fn a_service_of_one_platform_is_built_for_it() {
    let platforms = |text: &str| project(text).services.remove(0).build.unwrap().platforms;
    assert_eq!(
        platforms("services: {a: {platform: linux/arm64, build: .}}"),
        ["linux/arm64"]
    );
    let both =
        "services: {a: {platform: linux/arm64, build: {platforms: [linux/amd64, linux/arm64]}}}";
    assert_eq!(platforms(both), ["linux/arm64"]);
    let other = "services: {a: {platform: linux/arm64, build: {platforms: [linux/amd64]}}}";
    assert_eq!(
        found(&request(other)),
        ["error 1:58 the service runs on `linux/arm64`, but is built for linux/amd64"]
    );
}

#[test]
fn builds_that_cannot_be() {
    for (keys, expected) in [
        (
            "build: {dockerfile: a, dockerfile_inline: b}",
            "error 4:47 `dockerfile` and `dockerfile_inline` exclude each other",
        ),
        (
            "build: {additional_contexts: {a: \"service:wbe\"}}",
            "error 4:38 service `wbe` is not in this project",
        ),
        (
            "build: {additional_contexts: {a: \"service:web\"}}",
            "error 4:38 the builds of `web` and `web` need each other",
        ),
        (
            "build: {secrets: [nowhere]}",
            "error 4:23 secret `nowhere` is not declared",
        ),
    ] {
        assert_eq!(found_in(keys), [expected], "{keys}");
    }
    let text =
        "services:\n  a: {image: x}\n  b: {build: {additional_contexts: {c: \"service:a\"}}}\n";
    assert_eq!(
        found(&request(text)),
        ["error 3:40 service `a` has no `build`, so it cannot be a build context"]
    );
    let text = "services:\n  a: {build: {secrets: [s]}}\nsecrets:\n  s: {external: true}\n";
    let found = found(&request(text));
    let expected =
        "error 2:25 secret `s` cannot be used in a build: it has neither `file` nor `environment`";
    assert!(found.iter().any(|found| found == expected), "{found:?}");
}

#[test]
fn names_of_images_that_are_templates() {
    let text = "services:\n  web:\n    build: .\n    image: web:${V:-1}-{{gitsha 7}}\n  db:\n    image: \"{{.Project}}/{{.Service}}:1\"\n";
    let mut project = project(text);
    assert!(project.has_image_templates());
    let git = GitFacts {
        sha: "84d33bbf0dbb37f96e7df6a5010aed7bab00b089".into(),
        committed_at: 0,
        dirty: false,
    };
    let facts = TemplateFacts {
        git: Some(&git),
        now: 0,
        zone: |_| None,
    };
    assert_eq!(project.fill_images(&facts), []);
    let images: Vec<_> = project
        .services
        .iter()
        .map(|service| service.spec.image.as_str())
        .collect();
    assert_eq!(images, ["shop/db:1", "web:1-84d33bb"]);
    assert_eq!(
        project.services[1].build.as_ref().unwrap().image.as_deref(),
        Some("web:1-84d33bb")
    );
    assert_eq!(project.to_json()["services"]["db"]["image"], "shop/db:1");
    let without = TemplateFacts { git: None, ..facts };
    assert_eq!(project.fill_images(&without), []);
    assert_eq!(project.services[1].spec.image, "web:1-");
}

#[test]
fn templates_that_cannot_be_are_shown_with_their_place() {
    let text =
        "services:\n  web:\n    image: web:{{gitshaa 7}}\n  db:\n    image: db:{{.Servic}}\n";
    insta::assert_snapshot!(rendered(&request(text)));
    let mut project = project("services:\n  web:\n    image: web:{{gitsha 7}}\n");
    let facts = TemplateFacts {
        git: None,
        now: 0,
        zone: |_| None,
    };
    let wrong = project.fill_images(&facts);
    let found: Vec<_> = wrong
        .iter()
        .map(|d| format!("{}:{} {}", d.line, d.column, d.message))
        .collect();
    assert_eq!(
        found,
        ["3:12 the template gives `web:`, which is not a valid image name: its tag is empty"]
    );
}
