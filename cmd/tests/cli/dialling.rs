//! Which connections of a context are dialled, and which are refused.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use uc_api::v1;

use crate::daemon::{CLUSTER, Daemon, Info};
use crate::world::{World, eventually};

/// Notes each login and each polite end. HOST is the name of the socket; `dead…` never answers,
/// `late…` answers after 2 seconds, `frozen…` answers on an unshared connection only. The file
/// `master-HOST` stands for the process that keeps a shared connection.
const SSH: &str = r#"
for last; do host=${previous#*@}; previous=$last; done
case " $* " in *" -O check "*) [ -e "@DIR@/master-${last#*@}" ]; exit ;; esac
echo "$host" >> @DIR@/dialled
case $host in
dead*) trap 'echo "$host" >> @DIR@/ended; exit 255' TERM; while :; do sleep 0.05; done ;;
late*) sleep 2 ;;
frozen*) case $* in *ControlMaster=auto*) exec sleep 60 ;; esac ;;
esac
exec @UC@ dial-stdio --socket "@DIR@/$host.sock""#;

fn in_cluster(cluster: &str, machine: &str) -> Daemon {
    let info = v1::InfoResponse {
        cluster_id: cluster.into(),
        machine_id: machine.into(),
        machine_name: machine.into(),
        ..Default::default()
    };
    Daemon {
        info: info.into(),
        ..Daemon::default()
    }
}

const OTHER: &str = "0dd00dd00dd00dd00dd00dd00dd00dd0";

/// A world whose `ssh` reaches these daemons by name.
fn world(daemons: &[(&str, &Arc<Daemon>)]) -> World {
    let world = World::new();
    world.program("ssh", SSH);
    for (name, daemon) in daemons {
        world.serve(&format!("{name}.sock"), Arc::clone(daemon));
    }
    world
}

fn member(name: &str) -> Arc<Daemon> {
    Arc::new(in_cluster(CLUSTER, name))
}

/// A config file with one context, `prod`. `cluster`: its line, or nothing. Each host may have a
/// machine id: `HOST=ID`.
fn context(world: &World, cluster: &str, hosts: &[&str]) {
    let mut text = format!("current = 'prod'\n[contexts.prod]\n{cluster}\n");
    for host in hosts {
        let (host, machine) = host.split_once('=').unwrap_or((host, ""));
        text.push_str("[[contexts.prod.connections]]\n");
        _ = writeln!(text, "address = 'ssh://root@{host}'");
        if !machine.is_empty() {
            _ = writeln!(text, "machine = '{machine}'");
        }
    }
    world.write("config/uc/config.toml", &text);
}

fn known() -> String {
    format!("cluster = '{CLUSTER}'")
}

fn dialled(world: &World) -> Vec<String> {
    world.read("dialled").lines().map(Into::into).collect()
}

#[test]
fn ps_with_twenty_connections_opens_one_ssh() {
    let m1 = member("m1");
    let world = world(&[("m1", &m1)]);
    let mut hosts = vec!["m1".to_owned()];
    hosts.extend((2..=20).map(|number| format!("dead{number}")));
    let hosts: Vec<_> = hosts.iter().map(String::as_str).collect();
    context(&world, &known(), &hosts);
    assert_eq!(world.uc(&["ps"]).code, Some(0));
    assert_eq!(world.uc(&["ps"]).code, Some(0));
    assert_eq!(dialled(&world).last().unwrap(), "m1");
    assert!(dialled(&world).len() <= 5, "{:?}", dialled(&world));
}

#[test]
fn ps_with_dead_first_connection_opens_four_ssh_and_then_one() {
    let last = member("m20");
    let world = world(&[("m20", &last)]);
    let mut hosts: Vec<_> = (1..=3).map(|number| format!("dead{number}")).collect();
    hosts.push("m20".into());
    hosts.extend((4..=19).map(|number| format!("dead{number}")));
    let hosts: Vec<_> = hosts.iter().map(String::as_str).collect();
    context(&world, &known(), &hosts);
    let ran = world.uc(&["ps"]);
    assert_eq!(ran.code, Some(0), "{}", ran.text());
    assert_eq!(dialled(&world), ["dead1", "dead2", "dead3", "m20"]);
    // The others got SIGTERM, not SIGKILL.
    eventually("the losers are ended", || {
        world.read("ended").lines().count() == 3
    });
    assert_eq!(world.uc(&["ps"]).code, Some(0));
    assert_eq!(dialled(&world)[4..], ["m20"]);
}

/// Leaves a socket where ssh keeps those of shared connections.
fn leave_control_socket(world: &World) {
    let directory = world.path("run/uc-ssh");
    fs::DirBuilder::new()
        .mode(0o700)
        .create(&directory)
        .unwrap();
    UnixListener::bind(directory.join("0123abcd")).unwrap();
}

#[test]
fn ps_opens_no_second_ssh_for_a_shared_connection_to_another_machine() {
    let late = member("late1");
    let world = world(&[("late1", &late)]);
    leave_control_socket(&world);
    context(&world, &known(), &["dead1", "dead2", "dead3", "late1"]);
    let ran = world.uc(&["ps"]);
    assert_eq!(ran.code, Some(0), "{}", ran.text());
    assert_eq!(dialled(&world), ["dead1", "dead2", "dead3", "late1"]);
}

#[test]
fn ps_opens_a_second_ssh_when_the_shared_connection_does_not_answer() {
    let frozen = member("frozen1");
    let world = world(&[("frozen1", &frozen)]);
    leave_control_socket(&world);
    world.write("master-frozen1", "");
    context(&world, &known(), &["frozen1"]);
    let ran = world.uc(&["ps"]);
    assert_eq!(ran.code, Some(0), "{}", ran.text());
    assert_eq!(dialled(&world), ["frozen1", "frozen1"]);
}

#[test]
fn machine_of_another_cluster_is_skipped_with_a_warning() {
    let (stolen, m2) = (Arc::new(in_cluster(OTHER, "m9")), member("m2"));
    let world = world(&[("m1", &stolen), ("m2", &m2)]);
    context(&world, &known(), &["m1", "m2"]);
    let ran = world.uc(&["ps"]);
    insta::assert_snapshot!(ran.text());
    assert!(stolen.asked().is_empty(), "{:?}", stolen.asked());
    assert_eq!(m2.asked(), ["Ps"]);
    let again = world.uc(&["ps"]);
    assert_eq!(
        again.stderr, "no containers\n",
        "the good connection is dialled first"
    );
}

#[test]
fn machine_in_no_cluster_is_skipped_with_a_warning() {
    let removed = Arc::new(Daemon {
        info: Info::outside(),
        ..Daemon::default()
    });
    let m2 = member("m2");
    let world = world(&[("m1", &removed), ("m2", &m2)]);
    context(&world, &known(), &["m1", "m2"]);
    let ran = world.uc(&["ls"]);
    insta::assert_snapshot!(ran.text());
    assert_eq!((removed.asked().len(), m2.asked().len()), (0, 1));
}

/// Every command that uses a context: none of them reaches a machine of another cluster.
#[test]
fn no_command_reaches_another_cluster() {
    let stolen = Arc::new(in_cluster(OTHER, "m9"));
    let world = world(&[("m1", &stolen)]);
    context(&world, &known(), &["m1"]);
    world.write("project/compose.yaml", "services: {web: {image: nginx}}");
    for line in [
        "ps",
        "ls",
        "inspect web",
        "logs web",
        "logs -f web",
        "exec web true",
        "deploy -y",
        "deploy -n",
        "scale -y web 3",
        "rm -y web",
        "doctor",
        "conflicts ls",
        "conflicts settle x --keep 1 -y",
        "machine ls",
        "machine rm -y m9",
        "machine rename m9 m8",
        "machine label m9 a=b",
        "machine token",
        "machine token ls",
        "machine token rm -y x",
        "machine backup",
        "machine add -y root@m1",
    ] {
        let words: Vec<_> = line.split(' ').collect();
        let ran = world.uc(&words);
        let code = if line.starts_with("exec") { 125 } else { 4 };
        assert_eq!(ran.code, Some(code), "{line}: {}", ran.text());
        assert!(
            ran.stderr.contains("cannot use ssh://root@m1"),
            "{line}: {}",
            ran.text()
        );
    }
    assert!(stolen.asked().is_empty(), "{:?}", stolen.asked());
}

/// The question may be open for an hour. In the meantime the machine is given to another cluster.
#[test]
fn machine_that_changes_its_cluster_refuses_the_next_call() {
    let m1 = member("m1");
    let world = world(&[("m1", &m1)]);
    context(&world, &known(), &["m1"]);
    *m1.after_identify.lock().unwrap() = Some(OTHER.into());
    let ran = world.uc(&["ps"]);
    assert_eq!(ran.code, Some(4));
    assert!(
        ran.stderr
            .contains("this machine is in cluster 0dd00dd00dd0"),
        "{}",
        ran.text()
    );
}

#[test]
fn daemon_too_old_to_identify_is_checked_too() {
    let old = Arc::new(Daemon {
        refuse_identify: true,
        ..in_cluster(OTHER, "m9")
    });
    let world = world(&[("m1", &old)]);
    context(&world, &known(), &["m1"]);
    let ran = world.uc(&["ps"]);
    assert_eq!(ran.code, Some(4), "{}", ran.text());
    assert_eq!(old.asked(), ["Info"], "nothing but who it is");
}

#[test]
fn context_without_cluster_learns_it_from_the_noted_machine() {
    let (m1, m2) = (member("m1"), member("m2"));
    let world = world(&[("m1", &m1), ("m2", &m2)]);
    context(&world, "# mine", &["m1=m1", "m2=m2"]);
    let ran = world.uc(&["ps"]);
    assert_eq!(
        (ran.code, ran.stderr.as_str()),
        (Some(0), "no containers\n")
    );
    let file = world.read("config/uc/config.toml");
    assert!(file.contains(&format!("cluster = \"{CLUSTER}\"")), "{file}");
    assert!(file.contains("# mine"), "{file}");
}

#[test]
fn context_without_cluster_refuses_a_machine_that_joined_again() {
    // m1 was removed and added to another cluster: its id is another one.
    let (stolen, m2) = (Arc::new(in_cluster(OTHER, "new")), member("m2"));
    let world = world(&[("m1", &stolen), ("m2", &m2)]);
    context(&world, "", &["m1=m1", "m2=m2"]);
    let ran = world.uc(&["ps"]);
    assert_eq!(ran.code, Some(0), "{}", ran.text());
    assert!(
        ran.stderr.contains("warning: cannot use ssh://root@m1"),
        "{}",
        ran.text()
    );
    assert!(stolen.asked().is_empty());
    let file = world.read("config/uc/config.toml");
    assert!(file.contains(&format!("cluster = \"{CLUSTER}\"")), "{file}");
}

#[test]
fn context_without_cluster_and_with_several_plain_connections_learns_nothing() {
    let (m1, m2) = (member("m1"), member("m2"));
    let world = world(&[("m1", &m1), ("m2", &m2)]);
    context(&world, "", &["m1", "m2"]);
    let ran = world.uc(&["ps"]);
    insta::assert_snapshot!(ran.text());
    assert!(!world.read("config/uc/config.toml").contains(CLUSTER));
}

#[test]
fn context_without_cluster_and_with_one_connection_learns_it() {
    let m1 = member("m1");
    let world = world(&[("m1", &m1)]);
    context(&world, "", &["m1"]);
    assert_eq!(world.uc(&["ps"]).stderr, "no containers\n");
    assert!(world.read("config/uc/config.toml").contains(CLUSTER));
    assert_eq!(m1.identified.load(Ordering::SeqCst), 1);
}

#[test]
fn unknown_key_is_reported_and_kept() {
    let m1 = member("m1");
    let world = world(&[("m1", &m1)]);
    context(&world, "clutser = 'x'", &["m1"]);
    let ran = world.uc(&["ps"]);
    insta::assert_snapshot!(ran.text());
    assert!(
        world
            .read("config/uc/config.toml")
            .contains("clutser = 'x'")
    );
}

#[test]
fn invalid_machine_name_is_refused() {
    let world = World::with(Daemon {
        info: v1::InfoResponse {
            machine_name: "m1\u{1b}[2J".into(),
            ..Info::default().get()
        }
        .into(),
        ..Daemon::default()
    });
    let ran = world.connected(&["scale", "web", "3"]);
    assert_ne!(ran.code, Some(0), "{}", ran.text());
    assert!(
        ran.stderr
            .contains("the daemon returned an invalid machine name"),
        "{}",
        ran.text()
    );
    assert!(!ran.stderr.contains("[2J"), "{}", ran.text());
}
