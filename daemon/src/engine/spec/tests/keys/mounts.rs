//! Mounts and contents: what reaches the engine, and what is refused.

use super::*;

fn bind(change: impl Fn(&mut v1::MountSpec)) -> v1::MountSpec {
    let mut mount = v1::MountSpec {
        kind: v1::MountKind::Bind.into(),
        source: "/srv".into(),
        target: "/data".into(),
        ..Default::default()
    };
    change(&mut mount);
    mount
}

fn mounted(mount: &v1::MountSpec) -> Value {
    host_of(|spec| spec.mounts = vec![mount.clone()])
}

#[test]
fn container_maps_bind_mounts() {
    let short = |change: fn(&mut v1::MountSpec)| mounted(&bind(change))["Binds"][0].clone();
    assert_eq!(short(|_| {}), "/srv:/data");
    assert_eq!(short(|mount| mount.selinux = "z".into()), "/srv:/data:z");
    assert_eq!(
        short(|mount| {
            mount.read_only = true;
            mount.selinux = "Z".into();
            mount.propagation = "rslave".into();
            mount.create_host_path = Some(false);
        }),
        "/srv:/data:ro,Z,rslave"
    );
    let long =
        |change: fn(&mut v1::MountSpec)| mounted(&bind(change))["Mounts"][0]["BindOptions"].clone();
    assert_eq!(
        long(|mount| {
            mount.create_host_path = Some(false);
            mount.propagation = "shared".into();
        }),
        json!({"Propagation": "shared"})
    );
    assert_eq!(
        long(|mount| mount.recursive = "disabled".into()),
        json!({"NonRecursive": true, "CreateMountpoint": true})
    );
    let read_only = |recursive: &str| {
        bind(|mount| {
            mount.read_only = true;
            mount.recursive = recursive.into();
        })
    };
    assert_eq!(
        mounted(&read_only("writable"))["Mounts"][0]["BindOptions"],
        json!({"ReadOnlyNonRecursive": true, "CreateMountpoint": true})
    );
    assert_eq!(
        mounted(&read_only("readonly"))["Mounts"][0]["BindOptions"],
        json!({"ReadOnlyForceRecursive": true, "CreateMountpoint": true, "Propagation": "rprivate"})
    );
    let old = on(
        OLD,
        &v1::ServiceSpec {
            mounts: vec![read_only("readonly")],
            ..spec()
        },
    )
    .unwrap_err();
    assert!(
        old.to_string()
            .contains("bind.recursive requires Docker 25"),
        "{old}"
    );
}

#[test]
fn container_maps_volume_and_image_mounts() {
    let mount = |kind: v1::MountKind, source: &str| v1::MountSpec {
        kind: kind.into(),
        ..bind(|mount| mount.source = source.into())
    };
    let volume = mount(v1::MountKind::Volume, "shop_data");
    assert_eq!(
        mounted(&v1::MountSpec {
            nocopy: true,
            subpath: "a/b".into(),
            labels: map(&[("a", "b")]),
            ..volume.clone()
        }),
        json!({"Mounts": [{"Type": "volume", "Source": "shop_data", "Target": "/data",
            "VolumeOptions": {"NoCopy": true, "Subpath": "a/b", "Labels": {"a": "b"}}}]})
    );
    let part = v1::MountSpec {
        subpath: "a".into(),
        ..volume
    };
    let old = on(
        OLD,
        &v1::ServiceSpec {
            mounts: vec![part],
            ..spec()
        },
    )
    .unwrap_err();
    assert!(
        old.to_string()
            .contains("volume.subpath requires Docker 26"),
        "{old}"
    );
    let image = v1::MountSpec {
        subpath: "etc".into(),
        ..mount(v1::MountKind::Image, "data:1")
    };
    assert_eq!(
        mounted(&image),
        json!({"Mounts": [{"Type": "image", "Source": "data:1", "Target": "/data", "ImageOptions": {"Subpath": "etc"}}]})
    );
    let old = on(
        ApiVersion::new(1, 47),
        &v1::ServiceSpec {
            mounts: vec![image],
            ..spec()
        },
    )
    .unwrap_err();
    assert!(
        old.to_string()
            .contains("a mount of an image requires Docker 28"),
        "{old}"
    );
}

#[test]
fn container_maps_tmpfs_mounts() {
    let mount = v1::MountSpec {
        kind: v1::MountKind::Tmpfs.into(),
        target: "/run".into(),
        read_only: true,
        tmpfs_size: Some(65536),
        tmpfs_mode: Some(0o1777),
        tmpfs_options: texts(&["exec", "uid=1000"]),
        ..Default::default()
    };
    assert_eq!(
        mounted(&mount),
        json!({"Tmpfs": {"/run": "ro,size=65536,mode=1777,exec,uid=1000"}})
    );
}

#[test]
fn check_refuses_invalid_mounts() {
    let wrong = |mount: v1::MountSpec| refused(|spec| spec.mounts = vec![mount.clone()]);
    for (change, words) in [
        (
            (|mount| mount.propagation = "up".into()) as fn(&mut v1::MountSpec),
            "propagation must be",
        ),
        (|mount| mount.recursive = "yes".into(), "recursive must be"),
        (
            |mount| mount.recursive = "readonly".into(),
            "require a read-only mount",
        ),
        (
            |mount| {
                (mount.recursive, mount.read_only, mount.propagation) =
                    ("readonly".into(), true, "shared".into());
            },
            "requires propagation `rprivate`",
        ),
        (|mount| mount.selinux = "y".into(), "z or Z"),
        (
            |mount| (mount.selinux, mount.source) = ("z".into(), "/a:b".into()),
            "colon",
        ),
        (
            |mount| mount.subpath = "../etc".into(),
            "relative path without",
        ),
        (
            |mount| mount.subpath = "/etc".into(),
            "relative path without",
        ),
        (
            |mount| (mount.kind, mount.source) = (v1::MountKind::Image.into(), "a b".into()),
            "image reference",
        ),
    ] {
        let message = wrong(bind(change));
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn container_mounts_contents() {
    let file = v1::FileSpec {
        hash: "ab12".into(),
        target: "/etc/app.conf".into(),
        name: "config app".into(),
        secret: false,
    };
    let spec = with(|spec| {
        spec.files = vec![file.clone()];
        spec.secret_environment = map(&[("TOKEN", "cd34"), ("LEVEL", "ef56")]);
        spec.environment = map(&[("LEVEL", "1"), ("A", "b")]);
    });
    let none = on(OLD, &spec).unwrap_err();
    let files = [(
        "ab12".to_owned(),
        PathBuf::from("/var/lib/uc/files/ab12/content"),
    )]
    .into();
    let secrets = map(&[("TOKEN", "hush"), ("LEVEL", "9")]);
    let placement = Placement {
        files: &files,
        handed_on: &[],
        secrets: &secrets,
        ..placement(&[])
    };
    let body = container(&spec, "shop-web-abcd", &placement).unwrap();
    assert_eq!(
        body.env.unwrap(),
        ["A=b", "LEVEL=9", "TOKEN=hush", "UC_MACHINE_ID=m1"]
    );
    assert_eq!(body.labels.unwrap()[label::FILES], "ab12,ef56,cd34");
    assert_eq!(
        serde_json::to_value(body.host_config.unwrap().mounts.unwrap()).unwrap(),
        json!([{"Type": "bind", "Source": "/var/lib/uc/files/ab12/content", "Target": "/etc/app.conf", "ReadOnly": true}])
    );
    let error = container(
        &spec,
        "x",
        &Placement {
            handed_on: &[],
            secrets: &secrets,
            ..placement_without()
        },
    )
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "service `web`: the content of config app is not on this machine"
    );
    assert!(
        none.to_string().contains("is not on this machine"),
        "{none}"
    );
    let failure = uc_api::Failure::from(none);
    assert_eq!(failure.code, uc_api::Code::Refused);
    assert!(
        refused(|spec| spec.files = vec![v1::FileSpec {
            target: "x".into(),
            ..file.clone()
        }])
        .contains("absolute")
    );
}

#[test]
fn container_mounts_what_is_handed_on() {
    let volume = |name: &str, target: &str| AnonymousVolume {
        name: name.into(),
        target: target.into(),
    };
    let handed_on = [volume("v1", "/scratch"), volume("v2", "/image")];
    let mut spec = spec();
    spec.mounts = vec![v1::MountSpec {
        kind: v1::MountKind::Volume.into(),
        target: "/scratch/".into(),
        read_only: true,
        ..Default::default()
    }];
    let placement = Placement {
        handed_on: &handed_on,
        ..placement(&[])
    };
    let body = container(&spec, "shop-web-abcd", &placement).unwrap();
    let mounts = serde_json::to_value(body.host_config.unwrap().mounts).unwrap();
    assert_eq!(
        mounts,
        json!([
            {"Target": "/scratch/", "Source": "v1", "Type": "volume", "ReadOnly": true},
            {"Target": "/image", "Source": "v2", "Type": "volume"}
        ])
    );
    assert_eq!(body.labels.unwrap()["uc.handed-on"], "v1,v2");
}
