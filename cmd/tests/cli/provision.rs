//! `uc machine init` and `add` over ssh, with a stand-in for `ssh` that runs the commands here, in
//! a world of their own.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use uc_api::v1::{self, Liveness};
use uc_api::{Code, Failure};

use crate::daemon::{CLUSTER, Daemon, member, status};
use crate::world::{World, names};

/// The last argument is the command. On "the other side", `uc` reaches the socket `remote.sock`,
/// and /tmp is a directory of ours.
const SSH: &str = r#"
for last; do :; done
echo "$last" >> @DIR@/ssh-commands
case " $* " in *" -O exit "*) exit 0 ;; esac
last=$(printf '%s' "$last" | sed 's|^mktemp -d /tmp/|mktemp -d @DIR@/tmp/|')
PATH=@DIR@/remote:/usr/bin:/bin exec sh -c "$last""#;

const REMOTE_UC: &str = "#!/bin/sh\nexec @UC@ dial-stdio --socket @DIR@/remote.sock\n";

const INSTALL: &str = r#"#!/bin/sh
[ "$1" = --from ] && ls "$2" > @DIR@/installed
echo "$@" > @DIR@/install-arguments
echo "installing uc" >&2
cp @DIR@/remote-uc @DIR@/remote/uc
"#;

/// A cluster on `uc.sock` with a context, a fresh machine on `remote.sock` behind ssh, and a
/// directory to install from.
fn world(cluster: Daemon, remote: Daemon) -> (World, Arc<Daemon>) {
    let world = World::with(cluster);
    let remote = Arc::new(remote);
    world.serve("remote.sock", Arc::clone(&remote));
    world.program("ssh", SSH);
    let fill = |text: &str| {
        text.replace("@DIR@", &world.path("").display().to_string())
            .replace("@UC@", env!("CARGO_BIN_EXE_uc"))
    };
    for directory in ["remote", "tmp"] {
        std::fs::create_dir(world.path(directory)).unwrap();
    }
    let uc = world.write("remote-uc", &fill(REMOTE_UC));
    std::fs::set_permissions(uc, std::fs::Permissions::from_mode(0o755)).unwrap();
    world.write("from/install.sh", &fill(INSTALL));
    // The beginning of a real program of this machine is enough: nothing runs it.
    let program = std::fs::read("/proc/self/exe").unwrap();
    for name in ["uc", "ucd"] {
        std::fs::write(world.path("from").join(name), &program[..100_000]).unwrap();
    }
    (world, remote)
}

fn fresh() -> Daemon {
    let facts = v1::MachineFacts {
        hostname: "pi-4.local".into(),
        ..Default::default()
    };
    let info = v1::InfoResponse {
        machine_id: "id-9".into(),
        public_key: "bmV3".into(),
        endpoints: vec!["192.168.1.9:51820".into()],
        facts: Some(facts),
        ..Default::default()
    };
    Daemon {
        info: info.into(),
        ..Daemon::default()
    }
}

fn cluster() -> Daemon {
    let first = status(&member("id-1", "m1", "10.210.0.0/24"), Liveness::Up, true);
    Daemon {
        machines: vec![first].into(),
        ..Daemon::default()
    }
}

fn from(world: &World) -> String {
    world.path("from").display().to_string()
}

/// Nothing of the installation is left on the other side.
fn assert_clean(world: &World) {
    assert_eq!(names(&world.path("tmp")), [] as [&str; 0]);
}

#[test]
fn init_installs_and_makes_a_cluster() {
    let (world, remote) = world(Daemon::default(), fresh());
    let ran = world.uc(&[
        "machine",
        "init",
        "root@203.0.113.9",
        "--install-from",
        &from(&world),
    ]);
    insta::assert_snapshot!(ran.text());
    assert_eq!(world.read("installed"), "install.sh\nuc\nucd\n");
    assert_eq!(remote.asked(), ["Info", "Init   [\"203.0.113.9:51820\"] 0"]);
    assert!(
        world
            .read("config/uc/config.toml")
            .contains("address = \"ssh://root@203.0.113.9\"")
    );
    assert_clean(&world);
    assert_eq!(
        world.uc(&["machine", "ls"]).code,
        Some(0),
        "the context leads there"
    );
}

#[test]
fn add_installs_joins_and_remembers() {
    let (world, remote) = world(cluster(), fresh());
    world.config(Some("a"), &[("a", &["@"])]);
    let ran = world.uc(&[
        "machine",
        "add",
        "root@203.0.113.9",
        "--install-from",
        &from(&world),
    ]);
    insta::assert_snapshot!(ran.text());
    assert!(
        world.daemon.asked().contains(
            &"AddMachine id-9 pi-4 [\"192.168.1.9:51820\", \"203.0.113.9:51820\"]".to_owned()
        ),
        "{:?}",
        world.daemon.asked()
    );
    assert_eq!(remote.asked(), ["Info", "Join with [\"m1\"]"]);
    let config = world.read("config/uc/config.toml");
    assert!(
        config.contains("ssh://root@203.0.113.9") && config.contains("machine = \"id-9\""),
        "{config}"
    );
    assert_clean(&world);
}

#[test]
fn a_join_that_fails_is_taken_back() {
    let refused = Failure::new(Code::Unreachable, "no member answers on the mesh")
        .hint("let UDP 51820 through");
    let (world, _) = world(
        cluster(),
        Daemon {
            refuse_call: Some(("Join", refused)),
            ..fresh()
        },
    );
    world.config(Some("a"), &[("a", &["@"])]);
    let ran = world.uc(&[
        "machine",
        "add",
        "root@203.0.113.9",
        "--install-from",
        &from(&world),
    ]);
    assert_eq!(ran.code, Some(4));
    assert!(
        ran.stderr
            .contains("the machine could not join: no member answers on the mesh"),
        "{}",
        ran.text()
    );
    assert!(
        ran.stderr
            .contains("taken back: the cluster is as it was before"),
        "{}",
        ran.text()
    );
    assert_eq!(
        world.daemon.asked().last().unwrap(),
        "RemoveMachine id-9 no_reset=true"
    );
    assert!(!world.read("config/uc/config.toml").contains("203.0.113.9"));
}

#[test]
fn a_registration_that_is_refused_leaves_nothing_to_take_back() {
    let taken = Failure::new(Code::Exists, "the name pi-4 is taken");
    let (world, remote) = world(
        Daemon {
            refuse_call: Some(("AddMachine", taken)),
            ..cluster()
        },
        fresh(),
    );
    world.config(Some("a"), &[("a", &["@"])]);
    let ran = world.uc(&[
        "machine",
        "add",
        "root@203.0.113.9",
        "--install-from",
        &from(&world),
    ]);
    assert_eq!(ran.code, Some(1), "{}", ran.text());
    assert!(
        !world
            .daemon
            .asked()
            .iter()
            .any(|call| call.starts_with("RemoveMachine"))
    );
    assert_eq!(remote.asked(), ["Info"]);
}

#[test]
fn a_name_that_is_taken_is_refused_before_anything_is_installed() {
    let (world, _) = world(cluster(), fresh());
    world.config(Some("a"), &[("a", &["@"])]);
    let ran = world.uc(&[
        "machine",
        "add",
        "-n",
        "m1",
        "root@203.0.113.9",
        "--install-from",
        &from(&world),
    ]);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr.contains("the name m1 is taken"),
        "{}",
        ran.text()
    );
    assert_eq!(world.read("ssh-commands"), "");
}

#[test]
fn a_member_is_refused_before_anything_is_installed() {
    let info = v1::InfoResponse {
        cluster_id: CLUSTER.into(),
        machine_name: "old".into(),
        ..Default::default()
    };
    let (world, _) = world(
        Daemon::default(),
        Daemon {
            info: info.into(),
            ..Daemon::default()
        },
    );
    std::fs::copy(world.path("remote-uc"), world.path("remote/uc")).unwrap();
    let ran = world.uc(&[
        "machine",
        "init",
        "root@203.0.113.9",
        "--install-from",
        &from(&world),
    ]);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr
            .contains("root@203.0.113.9 already belongs to a cluster: it is old of cluster c1c1"),
        "{}",
        ran.text()
    );
    assert_eq!(world.read("installed"), "");
}

#[test]
fn what_the_installer_says_is_passed_on_and_nothing_is_left() {
    let (world, remote) = world(Daemon::default(), fresh());
    world.write("from/install.sh", "echo 'error: Docker 19.03 is too old: at least 20.10 is needed' >&2\necho 'hint: upgrade Docker' >&2\nexit 16\n");
    let ran = world.uc(&[
        "machine",
        "init",
        "root@203.0.113.9",
        "--install-from",
        &from(&world),
    ]);
    insta::assert_snapshot!(ran.text());
    assert_clean(&world);
    assert!(remote.asked().is_empty());
}

#[test]
fn a_full_disk_over_there_is_said() {
    let (world, _) = world(Daemon::default(), fresh());
    let ssh = SSH.replace("PATH=@DIR@", "case $last in *ucd*) cat > /dev/null; echo 'cat: write error: No space left on device' >&2; exit 1 ;; esac\nPATH=@DIR@");
    world.program("ssh", &ssh);
    let ran = world.uc(&[
        "machine",
        "init",
        "root@203.0.113.9",
        "--install-from",
        &from(&world),
    ]);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr.contains("copying ucd") && ran.stderr.contains("No space left on device"),
        "{}",
        ran.text()
    );
    assert_clean(&world);
}

#[test]
fn a_copy_that_arrives_damaged_is_noticed() {
    let (world, _) = world(Daemon::default(), fresh());
    world.write("remote/sha256sum", "#!/bin/sh\necho 0000 $1\n");
    std::fs::set_permissions(
        world.path("remote/sha256sum"),
        std::fs::Permissions::from_mode(0o755),
    )
    .unwrap();
    let ran = world.uc(&[
        "machine",
        "init",
        "root@203.0.113.9",
        "--install-from",
        &from(&world),
    ]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("uc arrived damaged"), "{}", ran.text());
    assert_eq!(world.read("installed"), "");
    assert_clean(&world);
}

#[test]
fn binaries_for_another_architecture_are_not_copied() {
    let (world, _) = world(Daemon::default(), fresh());
    world.write(
        "remote/uname",
        "#!/bin/sh\n[ \"$1\" = -m ] && echo riscv64 || echo Linux\n",
    );
    std::fs::set_permissions(
        world.path("remote/uname"),
        std::fs::Permissions::from_mode(0o755),
    )
    .unwrap();
    let ran = world.uc(&[
        "machine",
        "init",
        "root@203.0.113.9",
        "--install-from",
        &from(&world),
    ]);
    assert_eq!(ran.code, Some(2));
    assert!(
        ran.stderr.contains("and root@203.0.113.9 is riscv64"),
        "{}",
        ran.text()
    );
    assert_clean(&world);
}

#[test]
fn nothing_to_install_is_said_before_ssh_is_called() {
    let (world, _) = world(Daemon::default(), fresh());
    std::fs::remove_file(world.path("from/ucd")).unwrap();
    let ran = world.uc(&[
        "machine",
        "init",
        "root@203.0.113.9",
        "--install-from",
        &from(&world),
    ]);
    assert_eq!(ran.code, Some(2));
    assert!(
        ran.stderr.contains("[DIR]/from/ucd is needed"),
        "{}",
        ran.text()
    );
    assert_eq!(world.read("ssh-commands"), "");
}

#[test]
fn ctrl_c_on_the_way_cleans_up() {
    let (world, _) = world(Daemon::default(), fresh());
    world.write(
        "from/install.sh",
        &format!("touch {}; sleep 20\n", world.path("started").display()),
    );
    let child = world
        .command(&[
            "machine",
            "init",
            "root@203.0.113.9",
            "--install-from",
            &from(&world),
        ])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !world.path("started").exists() {
        assert!(
            std::time::Instant::now() < until,
            "install.sh was never started"
        );
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let id = child.id().to_string();
    assert!(
        std::process::Command::new("kill")
            .args(["-INT", &id])
            .status()
            .unwrap()
            .success()
    );
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(130),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_clean(&world);
}
