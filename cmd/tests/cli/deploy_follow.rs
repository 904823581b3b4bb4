//! A deployment that is watched: Ctrl-C on a terminal, and a stream that ends before it does.

use uc_api::v1::deploy_event::Event;
use uc_api::v1::{self, DeployOutcome, StepPhase};
use uc_api::{Code, Failure};

use crate::daemon::Daemon;
use crate::deploy::{daemon, event, finished, plan, step};
use crate::world::World;

/// The id of the deployment of these tests.
pub(crate) const ID: &str = "0123456789abcdef0123456789abcdef";

pub(crate) fn began() -> v1::DeployEvent {
    event(Event::Began(v1::DeployBegan {
        deployment_id: ID.into(),
        machine_name: "m1".into(),
    }))
}

/// A deployment that does not end until it is cancelled.
pub(crate) fn endless() -> Daemon {
    let started = step("m1", StepPhase::Started, "waiting", &[]);
    Daemon {
        endless: true,
        after_cancel: vec![
            step("m1", StepPhase::Undone, "", &[]),
            finished(
                DeployOutcome::RolledBack,
                "the deployment was cancelled",
                "",
            ),
        ],
        ..daemon(
            vec![plan("d1", &["m1"])],
            vec![(vec![began(), started], None)],
        )
    }
}

const SCALE: &str = "scale -y web 3";
const WAITS: &str = "waiting\r\n";
const QUESTION: &str = "[w]atch, [d]etach, or [c]ancel and roll back? ";

#[test]
fn ctrl_c_offers_to_detach() {
    let world = World::with(endless());
    let ran = world.dialogue(SCALE, &[(WAITS, "\u{3}"), (QUESTION, "d\n")]);
    assert_eq!(ran.code, Some(130), "{}", ran.text());
    assert!(
        ran.stdout
            .contains("hint: watch it again with `uc deployments watch 0123456789ab`"),
        "{}",
        ran.text()
    );
    assert_eq!(world.daemon.asked(), ["Plan", "Execute d1"]);
}

#[test]
fn ctrl_c_offers_to_cancel_and_shows_how_it_is_rolled_back() {
    let world = World::with(endless());
    let ran = world.dialogue(SCALE, &[(WAITS, "\u{3}"), (QUESTION, "x\nc\n")]);
    assert_eq!(ran.code, Some(3), "{}", ran.text());
    assert!(
        ran.stdout.contains("enter `w`, `d` or `c`"),
        "{}",
        ran.text()
    );
    assert!(
        ran.stdout.contains("error: the deployment was cancelled"),
        "{}",
        ran.text()
    );
    let cancel = format!("Cancel {ID}");
    assert_eq!(
        world.daemon.asked(),
        ["Plan", "Execute d1", cancel.as_str()]
    );
}

#[test]
fn ctrl_c_asks_again_after_the_user_continued_to_watch() {
    let world = World::with(endless());
    let ran = world.dialogue(
        SCALE,
        &[
            (WAITS, "\u{3}"),
            (QUESTION, "w\n"),
            ("watching the deployment\r\n", "\u{3}"),
            (QUESTION, "c\n"),
        ],
    );
    assert_eq!(ran.code, Some(3), "{}", ran.text());
}

#[test]
fn second_ctrl_c_detaches() {
    let world = World::with(endless());
    let ran = world.dialogue(SCALE, &[(WAITS, "\u{3}"), (QUESTION, "\u{3}")]);
    assert_eq!(ran.code, Some(130), "{}", ran.text());
    assert!(
        ran.stdout
            .contains("stopped watching; the deployment continues"),
        "{}",
        ran.text()
    );
    assert_eq!(world.daemon.asked(), ["Plan", "Execute d1"]);
}

/// The moving lines are drawn several times a second, and the question would be lost among them.
#[test]
fn moving_lines_are_hidden_while_the_question_is_open() {
    let world = World::with(endless());
    let question = "roll back?\u{1b}[0m ";
    let ran = world.live_dialogue(
        SCALE,
        &[
            ("waiting", "\u{3}"),
            (question, "w\n"),
            ("watching the deployment\r\n", ""),
            ("waiting", "\u{3}"),
            (question, "d\n"),
        ],
    );
    assert_eq!(ran.code, Some(130), "{}", ran.text());
    let (_, answer) = ran.stdout.split_once(question).unwrap();
    assert!(
        answer.starts_with("w\r\nwatching the deployment\r\n"),
        "{answer:?}"
    );
}

#[test]
fn cancel_that_is_refused_is_a_warning_and_the_deployment_is_watched() {
    let ended = Failure::new(Code::Refused, "deployment 0123 has ended");
    let world = World::with(Daemon {
        refuse_call: Some(("Cancel", ended)),
        ..endless()
    });
    let ran = world.dialogue(
        SCALE,
        &[
            (WAITS, "\u{3}"),
            (QUESTION, "c\n"),
            ("deployment 0123 has ended\r\n", "\u{3}"),
            (QUESTION, "d\n"),
        ],
    );
    assert_eq!(ran.code, Some(130), "{}", ran.text());
}

/// The stream ends in the middle, and the deployment is watched again from its beginning.
#[test]
fn lost_deployment_is_watched_again_and_nothing_is_shown_twice() {
    let first = vec![
        began(),
        event(Event::Notice("m9 is down and is skipped".into())),
        step("m1", StepPhase::Started, "creating", &[]),
        step("m1", StepPhase::Failed, "exited with code 1", &["boom"]),
        step("m1", StepPhase::Undone, "", &[]),
        step("m2", StepPhase::Started, "creating", &[]),
        step("m3", StepPhase::Started, "creating", &[]),
        step("m3", StepPhase::Done, "healthy", &[]),
    ];
    let mut all = first.clone();
    all.extend([
        step("m2", StepPhase::Progress, "waiting", &[]),
        step("m2", StepPhase::Done, "healthy", &[]),
        finished(DeployOutcome::Incomplete, "web failed on m1", ""),
    ]);
    let restarts = Failure::new(Code::Unreachable, "the daemon restarts");
    let world = World::with(daemon(
        vec![plan("d1", &["m1", "m2", "m3"])],
        vec![(first, Some(restarts)), (all, None)],
    ));
    let ran = world.connected(&["scale", "-y", "web", "3"]);
    insta::assert_snapshot!(ran.text());
    let watch = format!("Watch {ID}");
    assert_eq!(world.daemon.asked(), ["Plan", "Execute d1", watch.as_str()]);
}

#[test]
fn deployment_that_is_lost_for_good_is_named() {
    let events = vec![began(), step("m1", StepPhase::Started, "", &[])];
    let world = World::with(daemon(vec![plan("d1", &["m1"])], vec![(events, None)]));
    let ran = world.connected(&["scale", "-y", "web", "3", "-o", "json"]);
    assert_eq!(ran.code, Some(4), "{}", ran.text());
    assert!(
        ran.stderr
            .contains("hint: `uc deployments show 0123456789ab` reports how it ended"),
        "{}",
        ran.text()
    );
    let document: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(document["deployment"], ID);
    assert_eq!(document["outcome"], "unknown");
}
