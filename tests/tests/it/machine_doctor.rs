//! `uc doctor` on real machines: nothing is wrong, a machine is gone, Docker is, and the way
//! between two of them.

use anyhow::ensure;
use serde_json::Value;
use uc_testbed::{Output, wait_for};

use crate::machine_site::{SOON, Site};

const ALL: [&str; 3] = ["m1", "m2", "m3"];
const WELL: &str = "3 machines examined: no problems found\n";

impl Site {
    /// Waits until `uc doctor` at this machine ends with this code and says this.
    fn await_doctor(&self, at: &str, code: i32, words: &[&str]) -> Output {
        let laptop = self.at(at);
        wait_for(&format!("uc doctor at {at} to say {words:?}"), SOON, || {
            let said = laptop.run(&["doctor"]);
            let text = format!("{}{}", said.stdout, said.stderr);
            ensure!(said.code == Some(code), "it ends with {said}");
            ensure!(
                words.iter().all(|word| text.contains(word)),
                "it says {said}"
            );
            Ok(said)
        })
        .expect("it does")
    }
}

#[test]
fn doctor_reports_every_problem_and_nothing_else() {
    let Some(site) = Site::take() else { return };
    site.cluster(&ALL);
    for name in ALL {
        let said = site.await_doctor(name, 0, &[WELL]);
        assert_eq!(said.stdout, "", "{said}");
    }
    let figures = site.at("m1").ok(&["doctor", "--figures", "m2"]);
    assert!(
        figures.stdout.contains("TOMBSTONES") && figures.stdout.contains("open"),
        "{figures}"
    );
    let all: Value =
        serde_json::from_str(&site.at("m2").ok(&["doctor", "-o", "json"]).stdout).expect("JSON");
    assert_eq!(all["findings"], serde_json::json!([]), "{all}");
    for (machine, name) in all["machines"].as_array().expect("a list").iter().zip(ALL) {
        assert_eq!(
            (machine["name"].as_str(), machine["answered"].as_bool()),
            (Some(name), Some(true))
        );
        assert_eq!(machine["connected"], name == "m2");
        assert_eq!(
            machine["docker_version"]
                .as_str()
                .map(|version| &version[..6]),
            Some("20.10.")
        );
        assert!(machine["store"]["changes"].as_u64() > Some(3), "{machine}");
        let peers = machine["peers"].as_array().expect("a list");
        assert_eq!(peers.len(), 2, "{machine}");
        assert!(
            peers
                .iter()
                .all(|peer| peer["connected"] == true && peer["bytes_in"] != 0),
            "{machine}"
        );
    }

    site.sh("m2", "systemctl stop docker.socket docker");
    site.await_doctor("m1", 1, &["problem: m2: Docker does not answer: "]);
    site.sh("m2", "systemctl start docker.socket docker");
    site.await_doctor("m1", 0, &[WELL]);

    // m3 reaches both, so it can tell that they do not reach each other; m1 can only tell that m2
    // says nothing to it.
    site.cut("m1", "m2").expect("cut");
    site.await_doctor(
        "m3",
        1,
        &["problem: m1 and m2 have no session with each other"],
    );
    site.await_doctor("m1", 4, &["problem: m2 ", "3 machines examined: "]);
    site.heal().expect("healed");
    site.await_doctor("m1", 0, &[WELL]);

    site.kill("m3").expect("killed");
    site.await_doctor("m1", 4, &["problem: m3 is down: ", "uc machine rm m3"]);
    let here = site.at("m1").run(&["doctor", "m1", "m2"]);
    assert_eq!(here.code, Some(0), "it is not asked about m3: {here}");
    site.start("m3").expect("started");
    site.await_doctor("m2", 0, &[WELL]);
}
