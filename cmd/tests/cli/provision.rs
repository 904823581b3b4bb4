//! `uc machine init` and `add` over ssh, with a fake `ssh` that runs the commands on this computer,
//! in a directory of their own.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use rustix::process::Signal;
use uc_api::v1::{self, Liveness};

use crate::daemon::{CLUSTER, Daemon, member, status};
use crate::world::{World, eventually, names, send_signal};

/// The last argument is the command. On "the other side", `uc` reaches the socket `remote.sock`,
/// and /tmp is a directory of ours.
pub(crate) const SSH: &str = r#"
for last; do :; done
echo "$last" >> @DIR@/ssh-commands
case " $* " in *" -O exit "*) exit 0 ;; esac
last=$(printf '%s' "$last" | sed 's|^mktemp -d /tmp/|mktemp -d @DIR@/tmp/|; s|/usr/local/bin|@DIR@/remote|g')
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
pub(crate) fn world(cluster: Daemon, remote: Daemon) -> (World, Arc<Daemon>) {
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

pub(crate) fn fresh() -> Daemon {
    let facts = v1::MachineFacts {
        hostname: "pi-4.local".into(),
        ..Default::default()
    };
    // No machine id: a machine gets one with its membership.
    let info = v1::InfoResponse {
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

pub(crate) fn cluster() -> Daemon {
    let first = status(&member("id-1", "m1", "10.210.0.0/24"), Liveness::Up, true);
    Daemon {
        machines: vec![first].into(),
        ..Daemon::default()
    }
}

pub(crate) fn from(world: &World) -> String {
    world.path("from").display().to_string()
}

/// Nothing of the installation is left on the other side.
fn assert_clean(world: &World) {
    assert_eq!(names(&world.path("tmp")), [] as [&str; 0]);
}

#[test]
fn init_installs_and_creates_a_cluster() {
    let (world, remote) = world(Daemon::default(), fresh());
    let ran = world.uc(&[
        "machine",
        "init",
        "root@203.0.113.9",
        "-y",
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
fn init_of_this_computer_installs_only_after_confirmation() {
    let socket = std::path::Path::new(uc_api::layout::API_SOCKET);
    if socket.exists() {
        // `uc` would talk to the daemon of this computer.
        return;
    }
    let (world, _) = world(Daemon::default(), fresh());
    let from = from(&world);
    let line = ["machine", "init", "--install-from", &from];
    let ran = world.uc(&line);
    assert_eq!(ran.code, Some(2), "{}", ran.text());
    assert!(ran.stderr.contains("`-y`"), "{}", ran.text());
    assert_eq!(world.read("installed"), "");

    let mut command = world.command(&line);
    command.arg("-y");
    let ran = world.finish(command);
    assert_eq!(
        world.read("installed"),
        "install.sh\nuc\nucd\n",
        "{}",
        ran.text()
    );
    assert_ne!(ran.code, Some(0), "this install.sh starts no daemon");
}

#[test]
fn add_installs_joins_and_saves_the_connection() {
    let (world, remote) = world(cluster(), fresh());
    world.config(Some("a"), &[("a", &["@"])]);
    let ran = world.uc(&[
        "machine",
        "add",
        "root@203.0.113.9",
        "-y",
        "--install-from",
        &from(&world),
    ]);
    insta::assert_snapshot!(ran.text());
    let id = registered_id(&world);
    let added = format!("AddMachine {id} pi-4 [\"192.168.1.9:51820\", \"203.0.113.9:51820\"]");
    assert!(
        world.daemon.asked().contains(&added),
        "{:?}",
        world.daemon.asked()
    );
    assert_eq!(remote.asked(), ["Info", "Join with [\"m1\", \"pi-4\"]"]);
    let config = world.read("config/uc/config.toml");
    assert!(
        config.contains("ssh://root@203.0.113.9")
            && config.contains(&format!("machine = \"{id}\"")),
        "{config}"
    );
    assert_clean(&world);
}

#[test]
fn init_and_add_without_a_terminal_install_only_with_yes() {
    for command in ["init", "add"] {
        let (world, remote) = world(cluster(), fresh());
        world.config(Some("a"), &[("a", &["@"])]);
        let from = from(&world);
        let line = [
            "machine",
            command,
            "root@203.0.113.9",
            "--install-from",
            &from,
        ];
        let ran = world.uc(&line);
        assert_eq!(ran.code, Some(2), "{}", ran.text());
        assert!(
            ran.stderr.contains(
                "confirmation is required before installing uc on root@203.0.113.9, but stdin is \
                 not a terminal"
            ) && ran.stderr.contains("`-y`"),
            "{}",
            ran.text()
        );
        assert_eq!(world.read("installed"), "");
        assert!(remote.asked().is_empty(), "{:?}", remote.asked());
        let mut confirmed = world.command(&line);
        confirmed.env("UC_AUTO_CONFIRM", "1");
        assert_eq!(world.finish(confirmed).code, Some(0));
    }
}

#[test]
fn add_by_ssh_alias_offers_the_address_behind_it() {
    for (hostname, endpoints) in [
        (
            "203.0.113.77",
            "[\"192.168.1.9:51820\", \"203.0.113.77:51820\"]",
        ),
        ("127.0.0.1", "[\"192.168.1.9:51820\"]"),
    ] {
        let (world, _) = world(cluster(), fresh());
        let options =
            format!("case \" $* \" in *\" -G \"*) echo hostname {hostname}; exit ;; esac\n");
        world.program("ssh", &format!("{options}{SSH}"));
        world.config(Some("a"), &[("a", &["@"])]);
        let ran = world.uc(&[
            "machine",
            "add",
            "root@web1",
            "-y",
            "--install-from",
            &from(&world),
        ]);
        assert_eq!(ran.code, Some(0), "{}", ran.text());
        let added = format!("AddMachine {} pi-4 {endpoints}", registered_id(&world));
        assert!(
            world.daemon.asked().contains(&added),
            "{added}: {:?}",
            world.daemon.asked()
        );
    }
}

#[test]
fn name_as_wg_endpoint_reaches_the_cluster_as_a_name() {
    let (world, _) = world(cluster(), fresh());
    world.config(Some("a"), &[("a", &["@"])]);
    let mut command = add(&world);
    command.args(["--wg-endpoint", "Home.example.org", "--wg-port", "5000"]);
    let ran = world.finish(command);
    assert_eq!(ran.code, Some(0), "{}", ran.text());
    let endpoints = "[\"home.example.org:5000\", \"192.168.1.9:5000\"]";
    let added = format!("AddMachine {} pi-4 {endpoints}", registered_id(&world));
    assert!(
        world.daemon.asked().contains(&added),
        "{:?}",
        world.daemon.asked()
    );
}

#[test]
fn invalid_wg_endpoint_is_refused_alike_before_anything_is_installed() {
    let (world, _) = world(cluster(), fresh());
    world.config(Some("a"), &[("a", &["@"])]);
    let from = from(&world);
    let token = uc_api::token::JoinToken {
        id: "t".into(),
        private_key: "k".into(),
        members: Vec::new(),
        expires_at_ms: i64::MAX,
    }
    .to_line();
    let token = world.write("token.txt", &token);
    let lines: [&[&str]; 3] = [
        &[
            "init",
            "-c",
            "b",
            "root@203.0.113.9",
            "-y",
            "--install-from",
            &from,
        ],
        &["add", "root@203.0.113.9", "-y", "--install-from", &from],
        &["join"],
    ];
    let texts = lines.map(|line| {
        let mut command = world.command(&["machine"]);
        command.args(line).args(["--wg-endpoint", "my_host"]);
        command.stdin(std::fs::File::open(&token).unwrap());
        let ran = world.finish(command);
        assert_eq!(ran.code, Some(2), "{}", ran.text());
        ran.stderr
    });
    insta::assert_snapshot!(texts[0]);
    assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
    assert_eq!(world.read("ssh-commands"), "");
    assert!(world.daemon.asked().is_empty());
}

/// The id with which the machine was registered.
pub(crate) fn registered_id(world: &World) -> String {
    let asked = world.daemon.asked();
    let call = asked
        .iter()
        .rev()
        .find_map(|call| call.strip_prefix("AddMachine "))
        .unwrap_or_else(|| panic!("no machine was added: {asked:?}"));
    let id = call.split(' ').next().unwrap().to_owned();
    assert!(id.parse::<uc_api::MachineId>().is_ok(), "{call}");
    id
}

pub(crate) fn add(world: &World) -> std::process::Command {
    world.command(&[
        "machine",
        "add",
        "root@203.0.113.9",
        "-y",
        "--install-from",
        &from(world),
    ])
}

/// The members that `uc machine ls` shows.
pub(crate) fn members(world: &World) -> Vec<String> {
    let listed = world.uc(&["machine", "ls", "-o", "json"]).json();
    let machines = listed.as_array().unwrap().iter();
    machines
        .map(|machine| machine["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn add_saves_the_id_of_the_clusters_record_not_of_the_machines_answer() {
    let claimed = member(&"e".repeat(32), "claimed", "10.210.0.0/24");
    let (world, _) = world(
        cluster(),
        Daemon {
            join_answer: Some(claimed),
            ..fresh()
        },
    );
    world.config(Some("a"), &[("a", &["@"])]);
    let ran = world.finish(add(&world));
    assert_eq!(ran.code, Some(0), "{}", ran.text());
    assert!(!ran.text().contains("claimed"), "{}", ran.text());
    let config = world.read("config/uc/config.toml");
    let saved = format!("machine = \"{}\"", registered_id(&world));
    assert!(config.contains(&saved), "{config}");
}

#[test]
fn add_with_a_taken_name_is_refused_before_installing() {
    let (world, _) = world(cluster(), fresh());
    world.config(Some("a"), &[("a", &["@"])]);
    let ran = world.uc(&[
        "machine",
        "add",
        "-n",
        "m1",
        "root@203.0.113.9",
        "-y",
        "--install-from",
        &from(&world),
    ]);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr
            .contains("another machine of the cluster is already named m1"),
        "{}",
        ran.text()
    );
    assert_eq!(world.read("ssh-commands"), "");
}

#[test]
fn init_of_a_member_is_refused_before_installing() {
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
        "-y",
        "--install-from",
        &from(&world),
    ]);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr
            .contains("root@203.0.113.9 already belongs to cluster c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1, as machine old"),
        "{}",
        ran.text()
    );
    assert_eq!(world.read("installed"), "");
}

#[test]
fn init_passes_on_the_error_of_install_sh_and_cleans_up() {
    let (world, remote) = world(Daemon::default(), fresh());
    world.write("from/install.sh", "echo 'error: Docker 19.03 is too old: at least 20.10 is needed' >&2\necho 'hint: upgrade Docker' >&2\nexit 16\n");
    let ran = world.uc(&[
        "machine",
        "init",
        "root@203.0.113.9",
        "-y",
        "--install-from",
        &from(&world),
    ]);
    insta::assert_snapshot!(ran.text());
    assert_clean(&world);
    assert!(remote.asked().is_empty());
}

#[test]
fn init_reports_a_full_disk_of_the_machine() {
    let (world, _) = world(Daemon::default(), fresh());
    let ssh = SSH.replace("PATH=@DIR@", "case $last in *ucd*) cat > /dev/null; echo 'cat: write error: No space left on device' >&2; exit 1 ;; esac\nPATH=@DIR@");
    world.program("ssh", &ssh);
    let ran = world.uc(&[
        "machine",
        "init",
        "root@203.0.113.9",
        "-y",
        "--install-from",
        &from(&world),
    ]);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr.contains("cannot copy ucd") && ran.stderr.contains("No space left on device"),
        "{}",
        ran.text()
    );
    assert_clean(&world);
}

#[test]
fn init_notices_a_damaged_copy() {
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
        "-y",
        "--install-from",
        &from(&world),
    ]);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr
            .contains("the copy of uc on root@203.0.113.9 is damaged"),
        "{}",
        ran.text()
    );
    assert_eq!(world.read("installed"), "");
    assert_clean(&world);
}

#[test]
fn init_does_not_copy_programs_of_another_architecture() {
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
        "-y",
        "--install-from",
        &from(&world),
    ]);
    assert_eq!(ran.code, Some(2));
    assert!(
        ran.stderr.contains("but root@203.0.113.9 is riscv64"),
        "{}",
        ran.text()
    );
    assert_clean(&world);
}

#[test]
fn init_reports_missing_programs_before_it_calls_ssh() {
    let (world, _) = world(Daemon::default(), fresh());
    std::fs::remove_file(world.path("from/ucd")).unwrap();
    let ran = world.uc(&[
        "machine",
        "init",
        "root@203.0.113.9",
        "-y",
        "--install-from",
        &from(&world),
    ]);
    assert_eq!(ran.code, Some(2));
    assert!(
        ran.stderr.contains("[DIR]/from/ucd not found"),
        "{}",
        ran.text()
    );
    assert_eq!(world.read("ssh-commands"), "");
}

#[test]
fn init_interrupted_during_installation_cleans_up() {
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
            "-y",
            "--install-from",
            &from(&world),
        ])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    eventually("install.sh is started", || world.path("started").exists());
    send_signal(&child, Signal::INT);
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(130),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_clean(&world);
}

/// Two `init` at the same time choose their names from the same config file.
#[test]
fn init_keeps_a_context_that_was_added_during_the_installation() {
    for (arguments, code, said) in [
        (&[][..], 0, "saved as context `default-2`"),
        (
            &["-c", "default"][..],
            1,
            "cluster c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1 was created, but its context could not be \
             saved: context `default` was added in the meantime",
        ),
    ] {
        let (world, _) = world(Daemon::default(), fresh());
        let other = "0dd00dd00dd00dd00dd00dd00dd00dd0";
        let config = world.path("config/uc");
        let installer = format!(
            "{}mkdir -p {dir}\nprintf '[contexts.default]\\ncluster = \"{other}\"\\n' > {dir}/config.toml\n",
            world.read("from/install.sh"),
            dir = config.display()
        );
        world.write("from/install.sh", &installer);
        let mut command = world.command(arguments);
        command.args([
            "machine",
            "init",
            "root@203.0.113.9",
            "-y",
            "--install-from",
        ]);
        command.arg(from(&world));
        let ran = world.finish(command);
        assert_eq!(ran.code, Some(code), "{}", ran.text());
        assert!(ran.stderr.contains(said), "{}", ran.text());
        let text = world.read("config/uc/config.toml");
        let kept = format!("[contexts.default]\ncluster = \"{other}\"\n");
        assert!(text.contains(&kept), "{text}");
    }
}

#[test]
fn add_succeeds_with_a_warning_if_the_config_cannot_be_written() {
    let (world, _) = world(cluster(), fresh());
    world.config(Some("a"), &[("a", &["@"])]);
    // A file in place of the directory.
    let config = world.path("config/uc");
    let installer = format!(
        "{}rm -r {dir}\n: > {dir}\n",
        world.read("from/install.sh"),
        dir = config.display()
    );
    world.write("from/install.sh", &installer);
    let ran = world.finish(add(&world));
    assert_eq!(ran.code, Some(0), "{}", ran.text());
    assert!(
        ran.stderr
            .contains("warning: the context on this computer was not updated: cannot write")
            && ran
                .stderr
                .contains("hint: save the connection with `uc ctx add a root@203.0.113.9`"),
        "{}",
        ran.text()
    );
}
