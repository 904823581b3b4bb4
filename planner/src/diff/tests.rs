use uc_api::every_field;
use uc_api::revision::revision;

use super::*;

#[test]
fn every_value_of_a_spec_is_shown_when_it_changes() {
    // What identifies a service: with another one it is another service.
    const IDENTITY: [&str; 2] = ["project", "name"];
    let whole = every_field::spec();
    for (path, changed) in every_field::changes() {
        let fields = fields(&whole, &changed);
        assert_eq!(
            fields.is_empty(),
            IDENTITY.contains(&path.as_str()),
            "{path}: {fields:?}"
        );
        let masked = path.starts_with("secret_environment.");
        assert!(
            masked || fields.iter().all(|field| field.old != field.new),
            "{path}: {fields:?}"
        );
    }
}

#[test]
fn the_reason_of_a_replacement_is_what_makes_a_revision() {
    let whole = every_field::spec();
    for (path, changed) in every_field::changes() {
        // A content that is only called otherwise is shown, and nothing is replaced for it.
        if ["project", "name", "files[].name"].contains(&path.as_str()) {
            continue;
        }
        let reason = reason(&fields(&whole, &changed));
        assert_eq!(
            reason != "runs an older revision",
            revision(&changed) != revision(&whole),
            "{path}: {reason}"
        );
    }
}

#[test]
fn secrets_are_not_shown() {
    let mut old = every_field::spec();
    old.secret_environment
        .insert("API".into(), "aaaaaaaaaaaaaaaa".into());
    old.files[0].name = "secret cert".into();
    old.logging
        .as_mut()
        .unwrap()
        .options
        .insert("splunk-token".into(), "hunter2".into());
    old.post_start[0]
        .environment
        .insert("PASSWORD".into(), "hunter2".into());
    old.pre_stop[0]
        .environment
        .insert("PASSWORD".into(), "hunter2".into());
    old.device_requests[0]
        .options
        .insert("key".into(), "hunter2".into());
    let mut new = old.clone();
    new.secret_environment
        .insert("API".into(), "bbbbbbbbbbbbbbbb".into());
    new.files[0].hash = "ffffffffffffffff".into();
    new.logging
        .as_mut()
        .unwrap()
        .options
        .insert("splunk-token".into(), "hunter3".into());
    new.post_start[0]
        .environment
        .insert("MORE".into(), "x".into());
    new.pre_stop[0]
        .environment
        .insert("PASSWORD".into(), "hunter3".into());
    new.device_requests[0].count = 3;
    let text: Vec<String> = fields(&old, &new)
        .iter()
        .map(|change| format!("{}: {} -> {}", change.field, change.old, change.new))
        .collect();
    assert_eq!(
        text,
        [
            "environment.API: *** -> ***",
            "logging.options.splunk-token: *** -> ***",
            "deploy.resources.reservations.devices: driver=nvidia count=2 device_ids=0 capabilities=gpu options=a:b+key:*** -> driver=nvidia count=3 device_ids=0 capabilities=gpu options=a:b+key:***",
            "secrets.cert: 01234567:/etc/conf (secret) -> ffffffff:/etc/conf (secret)",
            r#"post_start: ["warm"] user=root privileged working_dir=/ environment=A:b+PASSWORD:*** -> ["warm"] user=root privileged working_dir=/ environment=A:b+MORE:x+PASSWORD:***"#,
            r#"pre_stop: ["drain"] user=root privileged working_dir=/ environment=A:b+PASSWORD:*** -> ["drain"] user=root privileged working_dir=/ environment=A:b+PASSWORD:***"#,
        ]
    );
}

#[test]
fn in_the_words_of_the_file() {
    let empty = ServiceSpec::default();
    let mut new = every_field::spec();
    new.mounts[0].tmpfs_size = Some(1500);
    new.security_opt
        .push(format!("seccomp={{{}}}", " ".repeat(1000)));
    let fields = fields(&empty, &new);
    let of = |name: &str| {
        let field = fields.iter().find(|field| field.field == name);
        field
            .unwrap_or_else(|| panic!("{name} in {fields:?}"))
            .new
            .clone()
    };
    assert_eq!(of("deploy.resources.limits.cpus"), "1.5");
    assert_eq!(of("deploy.resources.limits.memory"), "1g");
    assert_eq!(of("memswap_limit"), "2g");
    assert_eq!(of("ulimits.nofile"), "10:20");
    assert_eq!(of("ports"), "127.0.0.1:8000-8010:80/udp");
    assert_eq!(
        of("volumes"),
        "image:/srv:/data:ro,propagation=rslave,create_host_path=true,recursive=disabled,z,nocopy,subpath=a/b,labels=a:b,size=1500,mode=1777,noexec"
    );
    assert_eq!(of("restart"), "on-failure:5");
    assert_eq!(of("depends_on"), "db (completed) (restart)");
    assert_eq!(of("configs.conf"), "01234567:/etc/conf (secret)");
    assert_eq!(of("deploy.update_config.delay"), "1s");
    assert_eq!(
        of("x-pre_deploy"),
        r#"["migrate"] user=root privileged=true timeout=1s"#
    );
    assert!(
        of("security_opt").starts_with("no-new-privileges, seccomp=("),
        "{}",
        of("security_opt")
    );
    assert_eq!(of("blkio_config.device_read_bps"), "/dev/b:100");
}

#[test]
fn contents_are_shown_by_their_names() {
    let with = |hash: &str| ServiceSpec {
        files: ["./site", "config motd"]
            .map(|name| uc_api::v1::FileSpec {
                hash: hash.repeat(8),
                name: name.into(),
                ..Default::default()
            })
            .to_vec(),
        ..ServiceSpec::default()
    };
    let changes = fields(&with("1234abcd"), &with("5678ef01"));
    let names: Vec<_> = changes.iter().map(|change| change.field.as_str()).collect();
    assert_eq!(names, ["configs.motd", "volumes[./site]"]);
    assert!(changes[0].new.contains("5678ef01") && !changes[0].new.contains("5678ef015678"));
    assert_eq!(reason(&changes), "configs and volumes changed");
}

#[test]
fn differences_stand_in_the_order_of_the_compose_reference() {
    let shown: Vec<String> = fields(&ServiceSpec::default(), &every_field::spec())
        .iter()
        .map(|change| format!("{}: {} -> {}", change.field, change.old, change.new))
        .collect();
    insta::assert_snapshot!(shown.join("\n"));
}
