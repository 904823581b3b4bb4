//! Names that do not exist, and what is typed out of habit.

use uc_api::{Code, Failure};

use crate::daemon::{self, Daemon};
use crate::deploy;
use crate::world::World;

/// Whether `uc` or the daemon finds out, and whatever kind of name it is.
#[test]
fn name_that_does_not_exist_exits_2_in_every_command() {
    for (call, line) in [
        // The daemon finds out, in the answer to this call.
        ("Plan", "scale -y nope 2"),
        ("Plan", "rm -y nope"),
        ("Plan", "rm -y --project nope"),
        ("Plan", "deploy -y"),
        ("Ps", "ps nope"),
        ("Ps", "ps --project nope"),
        ("List", "ls --project nope"),
        ("Inspect", "inspect nope"),
        ("Logs", "logs nope"),
        ("Examine", "doctor nope"),
        ("RemoveMachine", "machine rm -y m2"),
        ("Backup", "machine backup nope"),
        (
            "SettleConflict",
            "conflicts settle -y service/shop/web --keep 1",
        ),
        // uc finds out.
        ("", "deploy -y nope"),
        ("", "build nope"),
        ("", "config nope"),
        ("", "machine rm -y nope"),
        ("", "machine rename nope other"),
        ("", "machine label nope a=b"),
        ("", "conflicts show nope"),
        ("", "conflicts settle -y nope --keep 1"),
        ("", "ctx use nope"),
        ("", "ctx rm -y nope"),
        ("", "-c nope ctx show"),
        ("", "-c nope ps"),
    ] {
        let world = world(call);
        let words: Vec<&str> = line.split(' ').collect();
        let ran = if words.contains(&"-c") {
            world.uc(&words)
        } else {
            world.connected(&words)
        };
        assert_eq!(ran.code, Some(2), "uc {line}: {}", ran.text());
        assert!(
            ran.stderr.contains("`nope` not found"),
            "uc {line}: {}",
            ran.text()
        );
    }
}

#[test]
fn scale_takes_the_syntax_of_compose_and_explains_an_invalid_number() {
    let world = World::with(deploy::daemon(
        vec![deploy::plan("d1", &["m1"])],
        Vec::new(),
    ));
    for line in [
        &["scale", "web", "3"][..],
        &["scale", "web=3"],
        &["scale", "web", "-o", "json", "3"],
    ] {
        // Without a terminal it ends at the question.
        let ran = world.connected(line);
        assert_eq!(ran.code, Some(2), "{}", ran.text());
        assert_eq!(world.daemon.asked(), ["Plan"], "{}", ran.text());
        world.daemon.calls.lock().unwrap().clear();
    }
    let wishes = std::mem::take(&mut *world.daemon.wishes.lock().unwrap());
    assert!(wishes.iter().all(|wish| *wish == wishes[0]), "{wishes:?}");
    let texts: Vec<String> = [
        "scale web abc",
        "scale web -1",
        "scale web=",
        "scale web",
        "scale web=1 db=2",
        "scale web db=2",
    ]
    .iter()
    .map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        let ran = world.connected(&words);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{line}");
        format!("$ uc {line}\n{}", ran.stderr)
    })
    .collect();
    insta::assert_snapshot!(texts.concat());
    assert!(world.daemon.asked().is_empty());
}

/// A cluster of two machines with a conflict, a context and a compose file. The daemon answers
/// `call` with a name that does not exist.
fn world(call: &'static str) -> World {
    let (m1, m2) = (
        daemon::member("id-1", "m1", "10.210.0.0/24"),
        daemon::member("id-2", "m2", "10.210.1.0/24"),
    );
    let up = uc_api::v1::Liveness::Up;
    let failure = Failure::new(Code::NotFound, "service `nope` not found");
    let world = World::with(Daemon {
        machines: vec![
            daemon::status(&m1, up, true),
            daemon::status(&m2, up, false),
        ]
        .into(),
        conflicts: crate::conflicts::conflicts(),
        refuse_call: Some((call, failure)),
        ..Daemon::default()
    });
    world.config(Some("prod"), &[("prod", &["@"])]);
    let compose = "name: shop\nservices:\n  web:\n    image: nginx:1\n";
    world.write("project/compose.yaml", compose);
    world
}
