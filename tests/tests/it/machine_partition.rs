//! A cluster cut in two: each half continues to work, and the changes of both converge after the
//! cut is healed.

use crate::machine_site::Site;

const ALL: [&str; 3] = ["m1", "m2", "m3"];

impl Site {
    /// m3 alone, m1 and m2 together, and both halves know it.
    fn split(&self, names: [&str; 3]) {
        self.cut("m1", "m3").expect("cut");
        self.cut("m2", "m3").expect("cut");
        let [one, two, three] = names;
        self.await_machines("m1", &[(one, "up"), (two, "up"), (three, "down")]);
        self.await_machines("m3", &[(one, "down"), (two, "down"), (three, "up")]);
    }

    /// The names that a machine lists, sorted.
    fn names(&self, at: &str) -> anyhow::Result<Vec<String>> {
        Ok(self
            .at(at)
            .list()?
            .into_iter()
            .map(|(name, _)| name)
            .collect())
    }
}

#[test]
fn partition_halves_work_and_converge_afterwards() {
    let Some(site) = Site::take() else { return };
    site.cluster(&ALL);
    site.split(ALL);

    // Different machines get new names on the two sides.
    site.at("m1").ok(&["machine", "rename", "m1", "left"]);
    site.at("m3").ok(&["machine", "rename", "m3", "right"]);
    site.await_machines("m2", &[("left", "up"), ("m2", "up"), ("m3", "down")]);
    assert_eq!(site.names("m3").expect("listed"), ["m1", "m2", "right"]);
    site.heal().expect("healed");
    for name in ALL {
        site.await_machines(name, &[("left", "up"), ("m2", "up"), ("right", "up")]);
    }

    // The same machine gets two names, and both sides make a token; one of the names wins, on all
    // machines.
    site.split(["left", "m2", "right"]);
    site.at("m1").ok(&["machine", "rename", "m2", "theirs"]);
    site.at("m3").ok(&["machine", "rename", "m2", "ours"]);
    site.at("m3").ok(&["machine", "token"]);
    assert_eq!(
        site.names("m1").expect("listed"),
        ["left", "right", "theirs"]
    );
    assert_eq!(site.names("m3").expect("listed"), ["left", "ours", "right"]);
    site.heal().expect("healed");
    // The later one: that is what its clock orders by.
    for name in ALL {
        site.await_machines(name, &[("left", "up"), ("ours", "up"), ("right", "up")]);
    }

    // Both sides use up the same name: the machine that joined later takes another one.
    site.split(["left", "ours", "right"]);
    site.at("m1").ok(&["machine", "rename", "left", "same"]);
    site.at("m3").ok(&["machine", "rename", "right", "same"]);
    site.heal().expect("healed");
    for name in ALL {
        site.await_machines(name, &[("ours", "up"), ("same", "up"), ("same-2", "up")]);
    }
    let machines = site.at("m3").machines().expect("listed");
    let own = machines.iter().find(|one| one["connected"] == true);
    assert_eq!(own.expect("connected to one")["name"], "same-2");
}
