use super::*;

fn home(directory: &Path) -> CargoHome {
    CargoHome {
        cargo: directory.join("cargo"),
        rustup: directory.join("rustup"),
    }
}

#[test]
fn shares_are_read_only_but_for_registry_and_target() {
    let directory = tempfile::tempdir().expect("a directory");
    let (home, target) = (home(directory.path()), directory.path().join("target"));
    for made in ["cargo/bin", "cargo/registry", "rustup", "target"] {
        fs::create_dir_all(directory.path().join(made)).expect("created");
    }
    fs::write(home.cargo.join("bin/cargo"), "").expect("written");
    let shown: Vec<_> = shares(&home, &target)
        .iter()
        .map(|share| format!("{} {}", share.target.display(), share.writable))
        .collect();
    assert_eq!(
        shown,
        [
            "/root/.cargo/bin false",
            "/root/.rustup false",
            "/root/.cargo/registry true",
            "/root/uc/target true",
        ]
    );
}

#[test]
fn shares_leave_the_toolchain_to_dev_where_the_host_has_no_rustup() {
    let directory = tempfile::tempdir().expect("a directory");
    let target = directory.path().join("target");
    fs::create_dir_all(&target).expect("created");
    let shares = shares(&home(directory.path()), &target);
    assert_eq!(
        shares,
        [Share {
            source: target,
            target: "/root/uc/target".into(),
            writable: true,
        }]
    );
}

#[test]
fn environment_passes_the_way_to_the_registries_and_nothing_of_the_login() {
    let host = [
        ("HOME", "/home/ann"),
        ("PATH", "/home/ann/.cargo/bin"),
        ("RUSTUP_TOOLCHAIN", "nightly"),
        ("UC_TESTBED", "it"),
        ("DOCKER_HOST", "tcp://elsewhere"),
        ("https_proxy", "http://proxy.example:3128"),
        ("NO_PROXY", "localhost"),
        (
            "CARGO_REGISTRIES_OURS_INDEX",
            "sparse+https://crates.example/",
        ),
        ("CI", "true"),
    ];
    let variables = environment(
        host.iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
    );
    assert_eq!(
        variables,
        [
            "HOME=/root",
            "USER=root",
            "LANG=C.UTF-8",
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "CARGO_REGISTRIES_OURS_INDEX=sparse+https://crates.example/",
            "CI=true",
            "NO_PROXY=localhost",
            "https_proxy=http://proxy.example:3128",
        ]
    );
}

#[test]
fn sources_name_the_suites_that_the_host_has() {
    let host = |suite: &str| match suite {
        "bookworm" => Some("http://mirror.example/debian".to_owned()),
        "bookworm-security" => Some("http://mirror.example/security".to_owned()),
        _ => None,
    };
    assert_eq!(
        sources(host).as_deref(),
        Some(
            "deb http://mirror.example/debian bookworm main\n\
             deb http://mirror.example/security bookworm-security main\n"
        )
    );
    assert_eq!(sources(|_| None), None);
}

#[test]
fn acquire_settings_leave_out_hooks_that_run_programs_of_the_host() {
    let dump = "APT \"\";\n\
                Acquire::http::Proxy \"http://proxy.example:3128\";\n\
                DPkg::Post-Invoke:: \"/usr/bin/update-something\";\n\
                Acquire::Check-Date \"false\";\n";
    assert_eq!(
        acquire_settings(dump),
        "Acquire::http::Proxy \"http://proxy.example:3128\";\nAcquire::Check-Date \"false\";\n"
    );
}
