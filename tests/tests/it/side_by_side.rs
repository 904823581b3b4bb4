//! Testbeds of different names do not reach each other, and removing one leaves the other alone.

use uc_testbed::{Claim, Testbed, TestbedName, Turn, UpOptions};

use crate::{possible, remains};

#[test]
fn testbeds_with_different_names_are_independent() {
    if !possible() {
        return;
    }
    let _turn = Turn::take();
    let [left_name, right_name]: [TestbedName; 2] =
        ["it-left", "it-right"].map(|name| name.parse().expect("valid"));
    let _claim = Claim::stake(&left_name).expect("a claim");
    for name in [&left_name, &right_name] {
        Testbed::down(name).expect("clean");
    }
    let options = |name: &TestbedName| UpOptions {
        name: name.clone(),
        machines: 1,
        ..UpOptions::default()
    };
    let left = Testbed::up(&options(&left_name)).expect("up");
    let right = Testbed::up(&options(&right_name)).expect("up");
    let (ours, theirs) = (&left.machines()[0], &right.machines()[0]);
    assert_ne!(ours.address, theirs.address);
    let reached = ours
        .exec(&["ping", "-c", "1", "-W", "1", &theirs.address])
        .expect("ping runs");
    assert!(!reached.success(), "a packet left its testbed");
    let again = Testbed::up(&options(&left_name))
        .expect_err("it is up")
        .to_string();
    assert!(
        again.starts_with("the testbed 'it-left' is already up\nhint: "),
        "{again}"
    );

    let subnet = remains::subnet(&left.report().expect("a report"));
    assert!(
        !remains::of("it-left", &subnet).is_empty(),
        "the test does not see what there is"
    );
    drop(left);
    assert_eq!(remains::of("it-left", &subnet), [""; 0]);
    assert_eq!(
        theirs.sh("echo there").expect("the other one lives"),
        "there\n"
    );
    Testbed::open(&left_name).expect_err("it is gone");
}
