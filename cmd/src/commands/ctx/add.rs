//! `uc ctx add`

use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

use clap::Args;
use uc_api::v1::MachineRecord;
use uc_api::{ClusterId, id};

use crate::args::Output;
use crate::commands::machine;
use crate::config::{Config, Context, Entry};
use crate::connect::{self, Globals, Route};
use crate::connection::{Connection, SshTarget};
use crate::error::{CliError, CliResult};
use crate::ui::Ui;
use crate::{text, view};

/// Save a context for a cluster that exists
///
/// Connects to one machine, looks up the cluster's id and its other machines, and saves a
/// connection to each machine that has an address this computer can use. The addresses and names
/// are those of the machines' WireGuard endpoints, with the user, port and key given here. Run it
/// again to update a context. The context becomes the current one if there is no current context.
#[derive(Debug, Args)]
#[command(
    allow_missing_positional = true,
    after_help = "Examples:
  uc ctx add root@203.0.113.1
  uc ctx add prod root@203.0.113.1"
)]
pub(crate) struct AddArgs {
    /// Name of the context [default: the cluster's context if there is one, else `default`]
    name: Option<String>,
    /// A machine of the cluster
    #[arg(value_name = "USER@HOST[:PORT]")]
    host: String,
    /// Private key for ssh
    #[arg(short = 'i', long, value_name = "FILE")]
    ssh_key: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn run(args: AddArgs, ui: &Ui, globals: &Globals) -> CliResult {
    let connection = match args.host.parse()? {
        Connection::Ssh(target) => Connection::Ssh(SshTarget {
            key: args.ssh_key.clone(),
            ..target
        }),
        unix @ Connection::Unix(_) => unix,
    };
    let client = connect::connect(&Route::to(connection.clone()), globals).await?;
    let Some(cluster) = client.destination().cluster else {
        return Err(CliError::failed(format!(
            "cannot add {}: the machine is not in a cluster",
            args.host
        ))
        .hint(format!(
            "make a cluster of it: `uc machine init {}`",
            args.host
        )));
    };
    let members = machine::list(&client).await?;
    let connected = members
        .iter()
        .find(|(_, status)| status.connected)
        .map(|(machine, _)| machine.id.clone());
    let machines: Vec<MachineRecord> = members.into_iter().map(|(machine, _)| machine).collect();
    let wanted = args.name.as_ref().or(globals.new_context.as_ref());
    let first = Entry::new(&connection, connected);
    let saved = Config::update(&globals.config_path()?, |config| {
        save(config, wanted, cluster, &first, &connection, &machines)
    })??;
    report(&saved, cluster, ui)?;
    if args.output.is_json() {
        ui.json(&saved.context)?;
    }
    Ok(())
}

/// What was saved.
struct Saved {
    /// Names of the machines with a connection.
    reachable: Vec<String>,
    /// Names of the machines without one.
    left_out: Vec<String>,
    /// As it is in the config file now.
    context: view::Context,
}

fn save(
    config: &mut Config,
    wanted: Option<&String>,
    cluster: ClusterId,
    first: &Entry,
    connection: &Connection,
    machines: &[MachineRecord],
) -> CliResult<Saved> {
    let name = match wanted {
        Some(name) => name.clone(),
        None => config
            .contexts
            .iter()
            .find(|(_, context)| context.cluster == Some(cluster))
            .map_or_else(|| config.free_name(), |(name, _)| name.clone()),
    };
    let old = config.contexts.get(&name);
    if let Some(old) = old {
        refuse_another_cluster(&name, old, cluster, first, machines)?;
    }
    let old = old.map_or(&[][..], |context| &context.connections);
    let connections = connections(first, connection, old, machines);
    let has_connection = |machine: &&MachineRecord| {
        connections
            .iter()
            .any(|entry| entry.machine.as_ref() == Some(&machine.id))
    };
    let (reachable, left_out): (Vec<_>, Vec<_>) = machines.iter().partition(has_connection);
    let names = |machines: Vec<&MachineRecord>| {
        machines
            .into_iter()
            .map(|machine| machine.name.clone())
            .collect()
    };
    let (reachable, left_out) = (names(reachable), names(left_out));
    let context = Context {
        cluster: Some(cluster),
        connections,
    };
    config.contexts.insert(name.clone(), context);
    config.current.get_or_insert_with(|| name.clone());
    Ok(Saved {
        context: super::known(config, &name)?,
        reachable,
        left_out,
    })
}

/// A context without an id is accepted if one of its connections leads to a member. An equal
/// address is not enough where the context noted a machine: that machine may have left and joined
/// this cluster since, with another id.
fn refuse_another_cluster(
    name: &str,
    old: &Context,
    cluster: ClusterId,
    first: &Entry,
    machines: &[MachineRecord],
) -> CliResult {
    let same = match old.cluster {
        Some(known) => known == cluster,
        None => old.connections.iter().any(|entry| match &entry.machine {
            Some(noted) => machines.iter().any(|machine| machine.id == *noted),
            None => entry.address == first.address,
        }),
    };
    if same {
        return Ok(());
    }
    let theirs = cluster.to_string();
    Err(CliError::usage(format!(
        "context `{name}` is for another cluster than {} (cluster {})",
        first.address,
        id::short(&theirs)
    ))
    .hint(format!(
        "choose another name: `uc ctx add NAME {}`",
        first.address
    ))
    .hint(format!("or remove the context: `uc ctx rm {name}`")))
}

/// The connection that works, the old ones that lead to members or were written by hand, and one
/// for each member that has none.
fn connections(
    first: &Entry,
    connection: &Connection,
    old: &[Entry],
    machines: &[MachineRecord],
) -> Vec<Entry> {
    let is_member = |id: &String| machines.iter().any(|machine| machine.id == *id);
    let mut list = vec![first.clone()];
    let kept = old.iter().filter(|entry| {
        entry.address != first.address && entry.machine.as_ref().is_none_or(is_member)
    });
    list.extend(kept.cloned());
    let Connection::Ssh(target) = connection else {
        return list;
    };
    for machine in machines {
        if list
            .iter()
            .any(|entry| entry.machine.as_ref() == Some(&machine.id))
        {
            continue;
        }
        if let Some(host) = reachable_host(&target.host, &machine.endpoints) {
            let other = Connection::Ssh(SshTarget {
                host,
                ..target.clone()
            });
            list.push(Entry::new(&other, Some(machine.id.clone())));
        }
    }
    list
}

/// The host of a member's WireGuard endpoints at which its sshd can be expected: in the private
/// network of the host that was typed, else a name or a public address. Private addresses of other
/// networks are left out, because another machine may have them here.
fn reachable_host(typed: &str, endpoints: &[String]) -> Option<String> {
    let typed = typed.parse::<IpAddr>().ok();
    let hosts = || {
        endpoints.iter().filter_map(|endpoint| {
            let (host, _) = endpoint.rsplit_once(':')?;
            let host = host.trim_start_matches('[').trim_end_matches(']');
            // The endpoints come from other machines. What ssh would not take as a host alone must
            // not reach the config file.
            let target = host.parse::<SshTarget>().ok()?;
            (target.host == host).then_some(host)
        })
    };
    let near = |host: &&str| {
        host.parse::<IpAddr>()
            .is_ok_and(|ip| typed.is_some_and(|typed| is_private(typed) && same_network(typed, ip)))
    };
    let public = |host: &&str| host.parse::<IpAddr>().is_ok_and(|ip| !is_private(ip));
    let named = |host: &&str| host.parse::<IpAddr>().is_err();
    let found = hosts()
        .find(near)
        .or_else(|| hosts().find(named))
        .or_else(|| hosts().find(public));
    found.map(Into::into)
}

fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let shared = ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64;
            ip.is_private() || ip.is_loopback() || ip.is_link_local() || shared
        }
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

/// The same /16, or the same /48.
fn same_network(one: IpAddr, other: IpAddr) -> bool {
    let prefix = |ip: Ipv6Addr| ip.octets()[..6].to_vec();
    match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => one.octets()[..2] == other.octets()[..2],
        (IpAddr::V6(one), IpAddr::V6(other)) => prefix(one) == prefix(other),
        _ => false,
    }
}

fn report(saved: &Saved, cluster: ClusterId, ui: &Ui) -> CliResult {
    let name = &saved.context.name;
    let cluster = cluster.to_string();
    ui.status(&format!(
        "saved context `{name}` for cluster {} ({})",
        id::short(&cluster),
        text::one_line(&saved.reachable.join(", "))
    ))?;
    if !saved.left_out.is_empty() {
        ui.warn(&format!(
            "no connection to {}: no address that this computer is certain to reach",
            saved.left_out.join(", ")
        ))?;
        ui.hint(&format!(
            "add a connection with `uc ctx add {name} USER@HOST`"
        ))?;
    }
    if saved.context.current {
        ui.status(&format!("`{name}` is the current context"))
    } else {
        ui.hint(&format!(
            "make it the current context with `uc ctx use {name}`"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reachable_host_prefers_the_network_of_the_typed_host() {
        let endpoints =
            |list: &[&str]| -> Vec<String> { list.iter().map(|text| (*text).to_owned()).collect() };
        for (typed, list, expected) in [
            (
                "203.0.113.1",
                &["10.0.0.5:51820", "203.0.113.5:51820"][..],
                Some("203.0.113.5"),
            ),
            (
                "10.0.0.1",
                &["203.0.113.5:51820", "10.0.7.5:51820"],
                Some("10.0.7.5"),
            ),
            ("10.0.0.1", &["192.168.1.5:51820"], None),
            ("web-1", &["10.0.0.5:51820"], None),
            (
                "web-1",
                &["10.0.0.5:51820", "[2001:db8::5]:51820"],
                Some("2001:db8::5"),
            ),
            (
                "fd00::1",
                &["[fd00::5]:51820", "203.0.113.5:51820"],
                Some("fd00::5"),
            ),
            (
                "203.0.113.1",
                &["203.0.113.5:51820", "web-5.example.org:51820"],
                Some("web-5.example.org"),
            ),
            ("203.0.113.1", &["100.64.0.5:51820"], None),
            ("web-1", &["-oProxyCommand=x:51820"], None),
            ("web-1", &["root@web-2:51820"], None),
            (
                "web-1",
                &["a b:51820", "203.0.113.5:51820"],
                Some("203.0.113.5"),
            ),
        ] {
            let found = reachable_host(typed, &endpoints(list));
            assert_eq!(found.as_deref(), expected, "{typed} {list:?}");
        }
    }

    #[test]
    fn context_without_cluster_is_not_taken_over_by_the_cluster_its_machine_moved_to() {
        let entry = |address: &str, machine: Option<&str>| Entry {
            address: address.into(),
            ssh_key: None,
            machine: machine.map(Into::into),
        };
        let accepted = |old: Vec<Entry>| {
            let old = Context {
                cluster: None,
                connections: old,
            };
            let first = entry("ssh://root@a", Some("new-a"));
            let members = [MachineRecord {
                id: "new-a".into(),
                ..Default::default()
            }];
            let cluster = ClusterId::from_bytes([1; 16]);
            refuse_another_cluster("prod", &old, cluster, &first, &members).is_ok()
        };
        let other = entry("ssh://root@b", Some("b"));
        assert!(!accepted(vec![
            entry("ssh://root@a", Some("old-a")),
            other.clone()
        ]));
        assert!(accepted(vec![entry("ssh://root@a", None), other.clone()]));
        assert!(accepted(vec![entry("ssh://root@a", Some("new-a")), other]));
    }

    #[test]
    fn connections_drop_machines_that_left() {
        let entry = |address: &str, machine: Option<&str>| Entry {
            address: address.into(),
            ssh_key: None,
            machine: machine.map(Into::into),
        };
        let machine = |id: &str, endpoint: &str| MachineRecord {
            id: id.into(),
            endpoints: vec![endpoint.into()],
            ..Default::default()
        };
        let connection: Connection = "ssh://me@203.0.113.1:2222".parse().unwrap();
        let first = Entry::new(&connection, Some("a".into()));
        let old = [
            entry("ssh://root@gone", Some("left")),
            entry("ssh://root@b", Some("b")),
            entry("ssh://root@by-hand", None),
        ];
        let machines = [
            machine("a", "203.0.113.1:1"),
            machine("b", "203.0.113.2:1"),
            machine("c", "203.0.113.3:1"),
        ];
        assert_eq!(
            connections(&first, &connection, &old, &machines),
            [
                first,
                entry("ssh://root@b", Some("b")),
                entry("ssh://root@by-hand", None),
                entry("ssh://me@203.0.113.3:2222", Some("c")),
            ]
        );
    }
}
