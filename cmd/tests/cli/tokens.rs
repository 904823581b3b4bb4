//! `uc machine token ls` and `rm`.

use uc_api::v1::{TokenRecord, TokenState, TokenStatus};

use crate::daemon::Daemon;
use crate::world::World;

/// 2030-03-17T17:46:40Z
const FUTURE_MS: i64 = 1_900_000_000_000;

fn token(id: &str, state: TokenState) -> TokenStatus {
    TokenStatus {
        token: Some(TokenRecord {
            id: id.into(),
            public_key: "k".into(),
            expires_at_ms: FUTURE_MS,
            created_at_ms: 1_000_000_000_000,
            created_by: "id-1".into(),
            ..TokenRecord::default()
        }),
        state: state.into(),
        created_by_name: "m1".into(),
        used_by_name: String::new(),
    }
}

/// An unused token, one that was used by a machine that is a member, and one that was used by a
/// machine that has left.
fn three() -> World {
    let used = |id: &str, by: &str, name: &str| {
        let mut status = token(id, TokenState::Used);
        let record = status.token.as_mut().unwrap();
        record.used_by = by.into();
        record.used_at_ms = 1_000_000_060_000;
        status.used_by_name = name.into();
        status
    };
    World::with(Daemon {
        tokens: vec![
            token("aaaa11112222", TokenState::Unused),
            used("aaaa33334444", "id-2", "m2"),
            used("bbbb55556666", "0123456789abcdef0123456789abcdef", ""),
        ]
        .into(),
        ..Daemon::default()
    })
}

#[test]
fn token_ls_shows_state_creator_and_user() {
    let world = three();
    let ran = world.connected(&["machine", "token", "ls"]);
    assert_eq!(ran.code, Some(0), "{}", ran.text());
    for part in [
        "ID            STATE",
        "aaaa11112222  unused",
        "aaaa33334444  used by m2",
        "bbbb55556666  used by 0123456789ab",
    ] {
        assert!(ran.stdout.contains(part), "{part}: {}", ran.text());
    }
    assert!(!ran.stdout.contains("uc1:"), "the secret is not shown");
    assert_eq!(world.daemon.asked(), ["ListTokens"]);
    let ran = World::new().connected(&["machine", "token", "ls"]);
    assert_eq!(
        ran.text(),
        "exit 0\n--- stdout\n--- stderr\nno join tokens\n"
    );
}

#[test]
fn token_ls_as_json() {
    let json = three()
        .connected(&["machine", "token", "ls", "-o", "json"])
        .json();
    assert_eq!(
        json[0],
        serde_json::json!({
            "id": "aaaa11112222",
            "state": "unused",
            "created_by": { "id": "id-1", "name": "m1" },
            "created_at": "2001-09-09T01:46:40Z",
            "expires_at": "2030-03-17T17:46:40Z",
            "used_by": null,
            "used_at": null,
        })
    );
    assert_eq!(
        json[2]["used_by"],
        serde_json::json!({ "id": "0123456789abcdef0123456789abcdef", "name": null })
    );
    assert_eq!(json[2]["used_at"], "2001-09-09T01:47:40Z");
    assert_eq!(json.as_array().map(Vec::len), Some(3));
}

#[test]
fn token_rm_takes_ids_and_beginnings_of_ids() {
    let world = three();
    let line = [
        "machine",
        "token",
        "rm",
        "-y",
        "aaaa1",
        "bbbb55556666",
        "bbbb",
    ];
    let ran = world.connected(&line);
    insta::assert_snapshot!(ran.text());
    assert_eq!(
        world.daemon.asked(),
        [
            "ListTokens",
            "RemoveToken aaaa11112222",
            "RemoveToken bbbb55556666"
        ]
    );
    let json = world
        .connected(&["machine", "token", "rm", "-y", "aaaa", "-o", "json"])
        .json();
    assert_eq!(json[0]["id"], "aaaa33334444");
    assert_eq!(json[0]["state"], "used");
}

#[test]
fn token_rm_of_an_unknown_or_ambiguous_id_removes_nothing() {
    let world = three();
    for (id, said) in [
        ("aaaa11112223", "hint: did you mean `aaaa11112222`?"),
        ("nonsense", "hint: available: aaaa11112222, "),
        ("bbb", "join token `bbb` not found"),
        ("aaaa", "the ids of several join tokens begin with `aaaa`"),
    ] {
        // The first id exists.
        let ran = world.connected(&["machine", "token", "rm", "-y", "bbbb55556666", id]);
        assert_eq!(ran.code, Some(2), "{}", ran.text());
        assert!(ran.stderr.contains(said), "{}", ran.text());
    }
    assert_eq!(world.daemon.asked(), ["ListTokens"; 4]);
    let ran = World::new().connected(&["machine", "token", "rm", "-y", "aaaa"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("there are no join tokens"));
}

#[test]
fn token_rm_asks_first_and_needs_an_id() {
    let world = three();
    let ran = world.connected(&["machine", "token", "rm", "bbbb55556666"]);
    assert_eq!(ran.code, Some(2), "{}", ran.text());
    assert!(ran.stderr.contains("-y"), "{}", ran.text());
    assert_eq!(world.connected(&["machine", "token", "rm"]).code, Some(2));
    let ran = world.connected(&["machine", "token", "--ttl", "1h", "ls"]);
    assert_eq!(ran.code, Some(2), "{}", ran.text());
    assert_eq!(world.daemon.asked(), ["ListTokens"]);
}
