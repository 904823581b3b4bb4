//! What we depend on: how many packages, under which licences, from where. The rules are in
//! deny.toml, which cargo-deny reads too; this check needs no tool but cargo.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde::Deserialize;

use super::licence;
use crate::process::{cargo, read};

/// Packages in Cargo.lock. Users have to trust and to compile each of them.
const BUDGET: usize = 420;

/// The only place where packages come from. Without a source, a package is one of ours.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

#[derive(Debug, Deserialize)]
struct Rules {
    licenses: LicenceRules,
    bans: BanRules,
}

#[derive(Debug, Deserialize)]
struct LicenceRules {
    allow: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct BanRules {
    deny: Vec<Ban>,
}

#[derive(Debug, Deserialize)]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
    reason: String,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
}

pub(super) fn check(root: &Path) -> anyhow::Result<()> {
    let rules = fs::read_to_string(root.join("deny.toml")).context("cannot read deny.toml")?;
    let rules: Rules = toml::from_str(&rules).context("deny.toml is not as expected")?;
    // All features and all platforms, as in Cargo.lock.
    let text = read(cargo(root).args([
        "metadata",
        "--format-version",
        "1",
        "--locked",
        "--all-features",
    ]))?;
    let metadata: Metadata = serde_json::from_str(&text)?;
    let problems = problems(&rules, &metadata.packages);
    if !problems.is_empty() {
        bail!("{}", problems.join("\n  "));
    }
    Ok(())
}

fn problems(rules: &Rules, packages: &[Package]) -> Vec<String> {
    let mut problems = Vec::new();
    if packages.len() > BUDGET {
        problems.push(format!(
            "{} packages, the budget is {BUDGET}",
            packages.len()
        ));
    }
    for Package {
        name,
        version,
        license,
        source,
    } in packages
    {
        let mut problem = |text: String| problems.push(format!("{name} {version}: {text}"));
        match license
            .as_deref()
            .map(|licence| (licence, licence::allows(licence, &rules.licenses.allow)))
        {
            None => problem("names no licence".to_owned()),
            Some((licence, Ok(false))) => {
                problem(format!("its licence {licence} is not in deny.toml"));
            }
            Some((_, Err(error))) => problem(error),
            Some((_, Ok(true))) => {}
        }
        if let Some(source) = source.as_deref().filter(|source| *source != REGISTRY) {
            problem(format!("comes from {source}"));
        }
        if let Some(ban) = rules.bans.deny.iter().find(|ban| ban.name == *name) {
            problem(format!("banned: {}", ban.reason));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, license: Option<&str>, source: Option<&str>) -> Package {
        let own = |text: Option<&str>| text.map(str::to_owned);
        Package {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            license: own(license),
            source: own(source),
        }
    }

    fn rules() -> Rules {
        toml::from_str(
            "[licenses]\nallow = ['MIT']\n[bans]\nmultiple-versions = 'allow'\n\
             deny = [{ crate = 'bad', reason = 'it is' }]\n",
        )
        .expect("as in deny.toml")
    }

    #[test]
    fn each_rule_is_kept() {
        let packages = [
            package("ours", Some("MIT"), None),
            package("fine", Some("MIT OR GPL-3.0"), Some(REGISTRY)),
            package("closed", None, Some(REGISTRY)),
            package("viral", Some("GPL-3.0"), Some(REGISTRY)),
            package("odd", Some("MIT AND"), Some(REGISTRY)),
            package(
                "branch",
                Some("MIT"),
                Some("git+https://example.org/branch"),
            ),
            package("bad", Some("MIT"), Some(REGISTRY)),
        ];
        assert_eq!(
            problems(&rules(), &packages),
            [
                "closed 1.0.0: names no licence",
                "viral 1.0.0: its licence GPL-3.0 is not in deny.toml",
                "odd 1.0.0: a licence is expected, not 'the end'",
                "branch 1.0.0: comes from git+https://example.org/branch",
                "bad 1.0.0: banned: it is",
            ]
        );
    }

    #[test]
    fn the_budget_is_a_number_of_packages() {
        let many = |number: usize| -> Vec<_> {
            (0..number)
                .map(|_| package("p", Some("MIT"), None))
                .collect()
        };
        assert_eq!(problems(&rules(), &many(BUDGET)), [""; 0]);
        assert_eq!(
            problems(&rules(), &many(BUDGET + 1)),
            ["421 packages, the budget is 420"]
        );
    }
}
