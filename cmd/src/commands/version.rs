//! `uc version`

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use uc_api::v1::InfoRequest;
use uc_api::version::{PROTOCOL, VERSION};

use crate::answer::Required as _;
use crate::args::Output;
use crate::connect::{self, Globals, Route, ask, within};
use crate::error::{CliError, CliResult, Kind};
use crate::ui::Ui;

/// The daemon has this long to answer, including the connection. A version that cannot be had must
/// not hold up the one that can.
const LIMIT: Duration = Duration::from_secs(5);
/// Git commit and date of the build. Only a build that sets these variables has them, so the same
/// tarball always gives the same program.
const COMMIT: Option<&str> = option_env!("UC_BUILD_COMMIT");
const BUILD_DATE: Option<&str> = option_env!("UC_BUILD_DATE");

/// Print the versions of uc and of the daemon
///
/// The daemon is the one that uc connects to; `uc machine ls` shows the versions of all machines.
/// Where no daemon answers within 5 seconds, only the version of uc is printed.
#[derive(Debug, Args)]
pub(crate) struct VersionArgs {
    /// Print only the version of uc, without connecting
    #[arg(long)]
    client: bool,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Serialize)]
struct Version {
    version: &'static str,
    protocol: u32,
    platform: String,
    commit: Option<&'static str>,
    built: Option<&'static str>,
    server: Option<Server>,
}

/// The daemon that answered.
#[derive(Debug, Serialize)]
struct Server {
    version: String,
    /// `None`: the machine is not in a cluster.
    machine: Option<String>,
    connection: String,
}

pub(crate) async fn run(args: VersionArgs, ui: &Ui, globals: &Globals) -> CliResult {
    let server = if args.client {
        None
    } else {
        server(ui, globals).await?
    };
    let version = Version {
        version: VERSION,
        protocol: PROTOCOL,
        platform: format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
        commit: COMMIT,
        built: BUILD_DATE,
        server,
    };
    if args.output.is_json() {
        ui.json(&version)
    } else {
        ui.out(&text(&version))
    }
}

/// The daemon's version; where it cannot be had, stderr says why.
async fn server(ui: &Ui, globals: &Globals) -> CliResult<Option<Server>> {
    let route = match globals.route(None) {
        Ok(route) => route,
        Err(_) if has_no_cluster(globals) => return Ok(None),
        Err(error) => return report(ui, &error),
    };
    match tokio::time::timeout(LIMIT, ask_version(&route, globals)).await {
        Ok(Ok(server)) => Ok(Some(server)),
        Ok(Err(error)) => report(ui, &error),
        Err(_) => report(
            ui,
            &CliError::new(
                Kind::TimedOut,
                format!("no answer within {} s", LIMIT.as_secs()),
            ),
        ),
    }
}

/// Whether there is no cluster to ask at all, which is nothing to report.
fn has_no_cluster(globals: &Globals) -> bool {
    globals.connect.is_none()
        && globals.context.is_none()
        && globals
            .load_config()
            .is_ok_and(|config| config.contexts.is_empty())
}

fn report(ui: &Ui, error: &CliError) -> CliResult<Option<Server>> {
    ui.warn(&format!(
        "the daemon's version is unknown: {}",
        error.message
    ))?;
    Ok(None)
}

async fn ask_version(route: &Route, globals: &Globals) -> CliResult<Server> {
    let client = connect::connect(route, globals).await?;
    let request = within(LIMIT.as_secs(), InfoRequest {});
    let info = ask(client.machine().info(request)).await?;
    Ok(Server {
        version: info.facts.required("facts of the machine")?.uc_version,
        machine: Some(info.machine_name).filter(|name| !name.is_empty()),
        connection: client.label.clone(),
    })
}

fn text(version: &Version) -> String {
    let mut details = vec![
        format!("protocol {}", version.protocol),
        version.platform.clone(),
    ];
    details.extend(version.commit.map(|commit| format!("commit {commit}")));
    details.extend(version.built.map(|date| format!("built {date}")));
    let mut text = format!("uc {} ({})", version.version, details.join(", "));
    if let Some(server) = &version.server {
        let machine = server.machine.as_deref().unwrap_or("no cluster");
        text = format!(
            "{text}\nucd {} ({machine}, {})",
            server.version, server.connection
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_text_shows_only_what_is_known() {
        let mut version = Version {
            version: "1.2.3",
            protocol: 1,
            platform: "linux/x86_64".into(),
            commit: None,
            built: None,
            server: None,
        };
        assert_eq!(text(&version), "uc 1.2.3 (protocol 1, linux/x86_64)");
        version.commit = Some("abc1234");
        version.built = Some("2026-11-29");
        version.server = Some(Server {
            version: "1.2.2".into(),
            machine: Some("m1".into()),
            connection: "ssh://root@203.0.113.1".into(),
        });
        assert_eq!(
            text(&version),
            "uc 1.2.3 (protocol 1, linux/x86_64, commit abc1234, built 2026-11-29)\n\
             ucd 1.2.2 (m1, ssh://root@203.0.113.1)"
        );
    }
}
