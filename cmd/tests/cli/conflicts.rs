//! `uc conflicts`, and the quiet line about conflicts in other commands.

use uc_api::v1::conflict_side::Value;
use uc_api::v1::{self};
use uc_api::{Code, Failure};

use crate::daemon::{Daemon, member, status};
use crate::world::{Ran, World};

/// 2023-11-14T22:13:20Z
const WRITTEN: i64 = 1_700_000_000_000;

fn field(name: &str, active: &str, value: &str) -> v1::ConflictField {
    let (name, active, value) = (name.to_owned(), active.to_owned(), value.to_owned());
    v1::ConflictField {
        differs: active != value,
        name,
        active,
        value,
    }
}

fn side(
    machine: &str,
    later: i64,
    fields: Vec<v1::ConflictField>,
    value: Option<Value>,
) -> v1::ConflictSide {
    v1::ConflictSide {
        dot: format!("{machine}:7"),
        machine_id: "0123456789abcdef".repeat(2),
        machine_name: machine.into(),
        written_at_ms: WRITTEN + later,
        deleted: value.is_none(),
        value,
        fields,
    }
}

fn service(image: &str) -> Value {
    let spec = v1::ServiceSpec {
        image: image.into(),
        replicas: 2,
        ..Default::default()
    };
    Value::Service(v1::ServiceRecord {
        spec: Some(spec),
        revision: "r".into(),
        ..Default::default()
    })
}

pub(crate) fn conflicts() -> Vec<v1::Conflict> {
    let web = v1::Conflict {
        id: "3f9a01c2".into(),
        name: "service/shop/web".into(),
        kind: "service".into(),
        key: "shop/web".into(),
        group: 0,
        sides: vec![
            side(
                "m2",
                1000,
                vec![field("image", "web:2", "web:2")],
                Some(service("web:2")),
            ),
            side(
                "m1",
                0,
                vec![field("image", "web:2", "web:1")],
                Some(service("web:1")),
            ),
            side("m3", 0, vec![field("image", "web:2", "")], None),
        ],
    };
    let unknown = Value::Opaque(v1::OpaqueValue {
        bytes: 3,
        digest: "abcd".into(),
    });
    let newer = v1::Conflict {
        id: "77aa77aa".into(),
        name: "kind-40/x#2".into(),
        kind: "kind-40".into(),
        key: "x".into(),
        group: 2,
        sides: vec![
            side(
                "m1",
                0,
                vec![field("bytes", "3", "3")],
                Some(unknown.clone()),
            ),
            side("", 0, vec![field("bytes", "3", "3")], Some(unknown)),
        ],
    };
    vec![newer, web]
}

fn world() -> World {
    World::with(Daemon {
        conflicts: conflicts(),
        ..Daemon::default()
    })
}

/// The output with 9999 in place of each number of days, which grows with time.
fn ageless(ran: &Ran) -> String {
    let mut text = String::new();
    let mut rest = ran.text();
    while let Some(end) = rest.find(" days ago") {
        let digits = rest[..end]
            .rfind(|c: char| !c.is_ascii_digit())
            .map_or(0, |at| at + 1);
        text.push_str(&rest[..digits]);
        text.push_str("9999 days ago");
        rest = rest[end + " days ago".len()..].to_owned();
    }
    text + &rest
}

#[test]
fn conflicts_ls_as_table_and_json() {
    let world = world();
    insta::assert_snapshot!(
        "conflicts_ls",
        ageless(&world.connected(&["conflicts", "ls"]))
    );
    insta::assert_snapshot!(
        "conflicts_ls_json",
        world.connected(&["conflicts", "ls", "-o", "json"]).stdout
    );
    let none = World::new();
    assert_eq!(
        none.connected(&["conflict", "list"]).text(),
        "exit 0\n--- stdout\n--- stderr\nno conflicts\n"
    );
    assert_eq!(
        none.connected(&["conflicts", "ls", "-o", "json"]).json(),
        serde_json::json!([])
    );
}

#[test]
fn conflicts_show_accepts_id_name_and_key() {
    let world = world();
    let ran = world.connected(&["conflicts", "show", "service/shop/web"]);
    insta::assert_snapshot!("conflicts_show", ageless(&ran));
    for text in ["3f9a01c2", "3f9a", "shop/web"] {
        assert_eq!(
            world.connected(&["conflicts", "show", text]).stdout,
            ran.stdout,
            "{text}"
        );
    }
    let json = world
        .connected(&["conflicts", "show", "3f9a01c2", "-o", "json"])
        .json();
    assert_eq!(json["sides"][1]["value"]["spec"]["image"], "web:1");
    assert_eq!(json["sides"][1]["differs"], serde_json::json!(["image"]));
    assert_eq!(json["sides"][2]["value"], serde_json::Value::Null);
}

#[test]
fn unknown_conflict_exits_2_with_a_suggestion() {
    let world = world();
    let ran = world.connected(&["conflicts", "show", "service/shop/wbe"]);
    assert_eq!(ran.code, Some(2));
    assert!(
        ran.stderr.contains("did you mean `service/shop/web`?"),
        "{}",
        ran.text()
    );
    let ran = world.connected(&["conflicts", "settle", "3f9a01c3", "--keep", "1", "-y"]);
    assert_eq!(ran.code, Some(2));
    assert!(
        ran.stderr.contains("it was resolved, or it has a new id"),
        "{}",
        ran.text()
    );
    for number in ["0", "4"] {
        let ran = world.connected(&["conflicts", "settle", "3f9a01c2", "--keep", number, "-y"]);
        assert_eq!(ran.code, Some(2));
        assert!(
            ran.stderr.contains("it has versions 1 to 3"),
            "{}",
            ran.text()
        );
    }
    assert!(
        !world
            .daemon
            .asked()
            .iter()
            .any(|call| call.starts_with("Settle"))
    );
}

#[test]
fn settle_sends_all_versions_that_were_seen() {
    let world = world();
    let ran = world.connected(&["conflicts", "settle", "3f9a01c2", "--keep", "2", "-y"]);
    insta::assert_snapshot!("conflicts_settle", ran.text());
    assert_eq!(
        world.daemon.asked(),
        [
            "ListConflicts",
            "SettleConflict service/shop/web keep m1:7 of m2:7 m1:7 m3:7"
        ]
    );
    let ran = world.connected(&["conflicts", "settle", "shop/web", "--keep", "3", "-y"]);
    assert!(ran.stderr.contains("`uc rm shop/web`"), "{}", ran.text());
    let json = world
        .connected(&[
            "conflicts",
            "settle",
            "77aa77aa",
            "-k",
            "1",
            "-y",
            "-o",
            "json",
        ])
        .json();
    assert_eq!(
        (&json["kept"], &json["conflict"]["group"]),
        (&1.into(), &2.into())
    );
}

#[test]
fn settle_without_a_terminal_needs_the_choice() {
    let world = world();
    for (arguments, said) in [
        (&["--keep", "2"][..], "add `-y`"),
        (&["-y"][..], "add `--keep N`; `uc conflicts show 3f9a01c2`"),
        (&[][..], "add `--keep N`"),
    ] {
        let ran = world.connected(&[&["conflicts", "settle", "3f9a01c2"], arguments].concat());
        assert_eq!(ran.code, Some(2));
        assert!(ran.stderr.contains(said), "{}", ran.text());
    }
    assert_eq!(world.daemon.asked(), ["ListConflicts"; 3]);
}

#[test]
fn settle_on_a_terminal_shows_versions_and_asks() {
    let world = world();
    let ran = world.on_terminal("conflicts settle 3f9a01c2", "\n");
    assert_eq!(ran.code, Some(1), "{}", ran.text());
    assert!(ran.stdout.contains("nothing was changed"), "{}", ran.text());
    let ran = world.on_terminal("conflicts settle 3f9a01c2 --keep 2", "n\n");
    assert_eq!(ran.code, Some(1), "{}", ran.text());
    assert!(
        ran.stdout.contains("- image: web:2") && ran.stdout.contains("+ image: web:1"),
        "{}",
        ran.text()
    );
    assert_eq!(world.daemon.asked(), ["ListConflicts"; 2]);

    let ran = world.on_terminal("conflicts settle 3f9a01c2", "9\n2\n");
    assert_eq!(ran.code, Some(0), "{}", ran.text());
    assert!(
        ran.stdout.contains("Which version do you want to keep?")
            && ran.stdout.contains("enter a number from 1 to 3"),
        "{}",
        ran.text()
    );
    assert!(
        world.daemon.asked().last().unwrap().contains("keep m1:7"),
        "{:?}",
        world.daemon.asked()
    );
}

#[test]
fn settle_passes_on_a_refusal_of_the_daemon() {
    let failure = Failure::new(
        Code::Refused,
        "service/shop/web changed since it was shown: m3 wrote it",
    )
    .hint("look again with `uc conflicts show service/shop/web`");
    let world = World::with(Daemon {
        conflicts: conflicts(),
        refuse_call: Some(("SettleConflict", failure)),
        ..Daemon::default()
    });
    let ran = world.connected(&["conflicts", "settle", "3f9a01c2", "--keep", "2", "-y"]);
    assert_eq!(
        ran.text(),
        "exit 1\n--- stdout\n--- stderr\nerror: service/shop/web changed since it was shown: m3 wrote it\n\
         hint: look again with `uc conflicts show service/shop/web`\n"
    );
}

#[test]
fn other_commands_note_conflicts_in_one_line() {
    let machines = vec![status(
        &member("m-1", "m1", "10.210.0.0/24"),
        v1::Liveness::Up,
        true,
    )];
    let mut daemon = Daemon {
        conflicts: conflicts(),
        machines: machines.into(),
        ..Daemon::default()
    };
    let world = World::with(Daemon {
        conflicts: daemon.conflicts.clone(),
        ..Daemon::default()
    });
    let ran = world.connected(&["machine", "ls", "-o", "json"]);
    assert_eq!(ran.json(), serde_json::json!([]));
    assert_eq!(
        ran.stderr,
        "2 records were changed on both sides of a network split: see `uc conflicts ls`\n"
    );

    daemon.conflicts.truncate(1);
    let world = World::with(daemon);
    assert_eq!(
        world.connected(&["machine", "ls"]).stderr,
        "1 record was changed on both sides of a network split: see `uc conflicts ls`\n"
    );
    world.write("project/compose.yaml", "services: {web: {image: web}}\n");
    let ran = world.connected(&["deploy", "-y"]);
    assert_eq!(
        ran.stderr,
        "1 record was changed on both sides of a network split: see `uc conflicts ls`\nservices are up to date\n",
        "{}",
        ran.text()
    );
    assert_eq!(
        world.connected(&["ls"]).stderr,
        "no services\nhint: deploy the compose file of this directory with `uc deploy`\n"
    );
}

#[test]
fn daemon_without_conflicts_api_is_not_an_error() {
    let refusal = Failure::new(Code::Version, "what?");
    let world = World::with(Daemon {
        refuse_call: Some(("ListConflicts", refusal)),
        ..Daemon::default()
    });
    let ran = world.connected(&["machine", "ls", "-o", "json"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
}
