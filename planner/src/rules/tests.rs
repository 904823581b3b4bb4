use std::collections::BTreeMap;

use uc_api::v1::Placement;
use uc_api::{Failure, MachineId};

use super::*;

fn machine(name: &str, arch: &str, labels: &[(&str, &str)]) -> Machine {
    Machine {
        id: MachineId::from_bytes([7; 16]),
        name: name.parse().unwrap(),
        up: true,
        holds_name: true,
        dns_server: None,
        arch: arch.into(),
        cordoned: false,
        labels: labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        cpus: 0,
        memory: 0,
        replicas: Vec::new(),
        volumes: Vec::new(),
        volume_homes: BTreeMap::new(),
    }
}

fn spec(constraints: &[&str], spread: &[&str], platform: &str) -> ServiceSpec {
    let list = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    let placement = Placement {
        constraints: list(constraints),
        spread: list(spread),
        max_replicas_per_machine: 0,
    };
    ServiceSpec {
        name: "web".into(),
        placement: Some(placement),
        platform: platform.into(),
        ..Default::default()
    }
}

#[test]
fn constraints() {
    let one = machine(
        "worker-1",
        "aarch64",
        &[("disk", "ssd"), ("my/Zone", "a b")],
    );
    let id = one.id.to_string();
    for (text, holds) in [
        ("node.hostname==worker-1", true),
        ("node.hostname == worker-2", false),
        ("  node.hostname  !=  worker-2 ", true),
        ("NODE.HostName==WORKER-1", true),
        (&*format!("node.id=={id}"), true),
        (&*format!("node.id!={id}"), false),
        ("node.role==manager", true),
        ("node.role == Worker", true),
        ("node.role!=manager", false),
        ("node.role != worker", false),
        ("node.platform.os==linux", true),
        ("node.platform.os != windows", true),
        ("node.platform.os==windows", false),
        ("node.platform.arch==arm64", true),
        ("node.platform.arch==aarch64", true),
        ("node.platform.arch==amd64", false),
        ("node.platform.arch!=x86_64", true),
        ("node.labels.disk==ssd", true),
        ("node.labels.disk!=ssd", false),
        ("node.labels.disk==hdd", false),
        ("Node.Labels.my/Zone == a b", true),
        ("node.labels.my/zone==a b", false),
        ("node.labels.gpu==yes", false),
        ("node.labels.gpu!=yes", true),
        ("node.labels.disk!=a==b", true),
    ] {
        let rules = Rules::of(&spec(&[text], &[], "")).unwrap();
        assert_eq!(rules.excludes(&one).is_none(), holds, "{text}");
    }
    let both = Rules::of(&spec(
        &["node.labels.disk==ssd", "node.hostname!=worker-1"],
        &[],
        "",
    ))
    .unwrap();
    assert!(both.excludes(&one).is_some(), "all have to hold");
    let unknown = machine("m", "", &[]);
    let arch = Rules::of(&spec(&["node.platform.arch==amd64"], &[], "")).unwrap();
    assert!(
        arch.excludes(&unknown).is_some(),
        "what is not known is not what was asked for"
    );
}

#[test]
fn what_excludes_a_machine_is_said() {
    let one = machine("m1", "x86_64", &[("disk", "hdd")]);
    for (text, platform, said) in [
        (
            "node.labels.disk == ssd",
            "",
            "`node.labels.disk == ssd`, but it is `hdd`",
        ),
        (
            "node.labels.gpu==a",
            "",
            "`node.labels.gpu == a`, but it has no label `gpu`",
        ),
        (
            "node.hostname!=m1",
            "",
            "`node.hostname != m1`, but it is `m1`",
        ),
        (
            "node.role!=manager",
            "",
            "`node.role != manager`, but every machine is both manager and worker",
        ),
        (
            "node.hostname==m1",
            "linux/arm64",
            "platform `linux/arm64`, but it is linux on x86_64",
        ),
    ] {
        assert_eq!(
            Rules::of(&spec(&[text], &[], platform))
                .unwrap()
                .excludes(&one)
                .as_deref(),
            Some(said)
        );
    }
}

#[test]
fn platforms() {
    for (platform, arch, fits) in [
        ("", "x86_64", true),
        ("linux", "x86_64", true),
        ("linux", "", true),
        ("linux/amd64", "x86_64", true),
        ("linux/x86_64", "x86_64", true),
        ("linux/arm64/v8", "aarch64", true),
        ("arm64", "aarch64", true),
        ("linux/arm64", "x86_64", false),
        ("linux/arm/v7", "armv7l", true),
        ("linux/riscv64", "riscv64", true),
        ("windows/amd64", "x86_64", false),
        ("linux/amd64", "", false),
    ] {
        let rules = Rules::of(&spec(&[], &[], platform)).unwrap();
        assert_eq!(
            rules.excludes(&machine("m", arch, &[])).is_none(),
            fits,
            "{platform} on {arch}"
        );
    }
}

#[test]
fn what_cannot_be_understood_is_an_error_with_what_can() {
    for (text, problem, hint) in [
        (
            "engine.labels.os==debian",
            "labels of the Docker engine",
            "did you mean `node.labels.os`?",
        ),
        (
            "node.label.disk==ssd",
            "is not a fact about machines",
            "did you mean `node.labels.disk`?",
        ),
        (
            "node.hostnam==a",
            "is not a fact about machines",
            "did you mean `node.hostname`?",
        ),
        (
            "node.ip==10.0.0.1",
            "is not a fact about machines",
            "node.id, node.hostname",
        ),
        (
            "node.labels.==a",
            "is not a fact about machines",
            "node.labels.KEY",
        ),
        (
            "node.hostname=a",
            "needs `==` or `!=`",
            "node.labels.KEY can be compared by == and !=",
        ),
        ("node.hostname", "needs `==` or `!=`", "=="),
        ("node.hostname==", "no value after the operator", "=="),
        (
            "node.role==managr",
            "unknown role `managr`",
            "did you mean `manager`?",
        ),
        ("", "needs `==` or `!=`", "=="),
    ] {
        let error = Rules::of(&spec(&[text], &[], "")).unwrap_err();
        assert!(error.to_string().contains(&format!("`{text}`")), "{error}");
        let failure = Failure::from(error);
        assert_eq!(failure.code, uc_api::Code::Invalid);
        assert!(failure.message.contains(problem), "{text}: {failure}");
        assert!(
            failure.hint.as_deref().unwrap_or_default().contains(hint),
            "{text}: {failure:?}"
        );
    }
    for over in ["node.role", "engine.labels.zone", "zone"] {
        let error = Rules::of(&spec(&[], &[over], "")).unwrap_err();
        assert!(
            matches!(&error, PlanError::Spread { over: said, .. } if said == over),
            "{error}"
        );
    }
    let known = Rules::of(&spec(&[], &["node.labels.zone", "node.hostname"], "")).unwrap();
    assert_eq!(known.spread, [Fact::Label("zone".into()), Fact::Hostname]);
}

#[test]
fn without_rules_nothing_is_excluded() {
    let rules = Rules::of(&ServiceSpec::default()).unwrap();
    assert_eq!(rules, Rules::default());
    let bare = Machine {
        labels: BTreeMap::new(),
        ..machine("m", "", &[])
    };
    assert_eq!(rules.excludes(&bare), None);
}
