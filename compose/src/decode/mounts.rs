//! Ports and mounts of a container.

use uc_api::{ProjectName, v1};

use super::{flag, resources, strings, text, text_at};
use crate::diagnostic::Rule;
use crate::node::{Node, Value};
use crate::report::{Place, Report};
use crate::{canonical, document};

pub(super) fn ports(service: &Node, report: &mut Report) -> Vec<v1::PortSpec> {
    let items = service.items_of("ports");
    items.filter_map(|item| port(item, report)).collect()
}

/// Reports `mode: ingress`, Swarm's way to publish a port on every machine. It is also the default
/// that the long form is completed with, which has the same span as its key and is not reported.
fn report_ingress(item: &Node, report: &mut Report) {
    let mode = item.as_map().and_then(|port| port.get("mode"));
    let Some(mode) = mode.filter(|mode| mode.key != mode.node.span) else {
        return;
    };
    if mode.node.as_text() == Some("ingress") {
        report.not_honoured(
            mode.node.span,
            "`mode: ingress` is ignored: the port is published only on machines that run a replica",
            "send clients to these machines and write `mode: host`, or run a replica on every machine: `deploy.mode: global`",
        );
    }
}

fn port(item: &Node, report: &mut Report) -> Option<v1::PortSpec> {
    report_ingress(item, report);
    let container_port = u32::try_from(item.get("target")?.as_int()?).ok()?;
    let protocol = match item
        .get_text("protocol")
        .map(str::to_ascii_lowercase)
        .as_deref()
    {
        Some("udp") => v1::Protocol::Udp,
        Some("sctp") => v1::Protocol::Sctp,
        _ => v1::Protocol::Tcp,
    };
    let (first, last) = match item.get_text("published") {
        // A free port of the machine's choice.
        None | Some("") => (0, 0),
        // One that is invalid has been reported.
        Some(text) => canonical::port_range(text).ok()?.into_inner(),
    };
    Some(v1::PortSpec {
        container_port,
        published_port: first.into(),
        host_ip: text(item, "host_ip"),
        protocol: protocol.into(),
        published_last: if last == first { 0 } else { last.into() },
    })
}

/// The mounts of a service: its own, those of the services it names in `volumes_from`, and its
/// tmpfs. Relative bind mounts are not among them: what they name travels with the deployment.
pub(super) fn mounts(
    service: &Node,
    tree: &Node,
    project: &ProjectName,
    report: &mut Report,
) -> Vec<v1::MountSpec> {
    let mut mounts: Vec<v1::MountSpec> = Vec::new();
    for item in service.items_of("volumes") {
        mounts.extend(mount(item, tree, project, &mut report.at("volumes")));
    }
    taken_over(service, tree, project, &mut mounts, report);
    for item in service.items_of("tmpfs") {
        let Some(text) = item.as_text() else { continue };
        let (target, options) = text.split_once(':').unwrap_or((text, ""));
        if target_is_absolute(target, item, report) {
            mounts.push(v1::MountSpec {
                kind: v1::MountKind::Tmpfs.into(),
                target: target.to_owned(),
                tmpfs_options: options
                    .split(',')
                    .filter(|o| !o.is_empty())
                    .map(str::to_owned)
                    .collect(),
                ..v1::MountSpec::default()
            });
        }
    }
    mounts
}

/// Mounts of the services in `volumes_from`, unless something of its own is there. An anonymous
/// volume cannot be shared: it belongs to one container.
fn taken_over(
    service: &Node,
    tree: &Node,
    project: &ProjectName,
    mounts: &mut Vec<v1::MountSpec>,
    report: &mut Report,
) {
    for item in service.items_of("volumes_from") {
        let Some(text) = item.as_text() else { continue };
        if text.starts_with("container:") {
            report.refuse(
                item.span,
                format!("`{text}` is a container on one machine, not a service of the project"),
                "mount the volume by name in `volumes:` of this service",
            );
            continue;
        }
        let (name, mode) = text.split_once(':').unwrap_or((text, ""));
        let other = tree.find(&["services", name]);
        for mount_node in other
            .into_iter()
            .flat_map(|other| other.items_of("volumes"))
        {
            // A missing target has been reported.
            let Some(target) = mount_node.get_text("target") else {
                continue;
            };
            if mount_node.get_text("source").is_none_or(str::is_empty) || is_local(mount_node) {
                report.not_honoured(
                    item.span,
                    format!(
                        "the mount at `{target}` of `{name}` is not shared: it has no name that two services could use"
                    ),
                    format!("give it a name: `data:{target}`, and declare `data:` below `volumes:`"),
                );
                continue;
            }
            if mounts.iter().any(|mount| mount.target == target) {
                continue;
            }
            if let Some(taken) = mount(mount_node, tree, project, report) {
                mounts.push(v1::MountSpec {
                    read_only: taken.read_only || mode == "ro",
                    ..taken
                });
            }
        }
    }
}

/// Whether this is a bind mount whose source was not written as an absolute path.
pub(super) fn is_local(item: &Node) -> bool {
    item.get_text("type") == Some("bind")
        && item
            .get("source")
            .is_some_and(|source| source.written.is_some())
}

fn mount(
    item: &Node,
    tree: &Node,
    project: &ProjectName,
    report: &mut Report,
) -> Option<v1::MountSpec> {
    if is_local(item) {
        return None;
    }
    let source = text(item, "source");
    let target = item.get_text("target")?;
    let (kind, source) = match item.get_text("type")? {
        "volume" if source.is_empty() => {
            report.warning(
                Rule::Value,
                item.span,
                format!(
                    "the volume at `{target}` has no name: its data is lost when the container is replaced"
                ),
                format!(
                    "to keep the data, name it: `data:{target}`, and declare `data:` below `volumes:`"
                ),
            );
            (v1::MountKind::Volume, String::new())
        }
        "volume" => {
            let declared = tree.find(&["volumes", &source]);
            (
                v1::MountKind::Volume,
                document::outside_name(declared, &source, project.as_str()),
            )
        }
        "bind" => (v1::MountKind::Bind, source),
        "tmpfs" => (v1::MountKind::Tmpfs, String::new()),
        "image" => (v1::MountKind::Image, source),
        other => {
            report.refuse(
                item.span,
                format!(
                    "a mount of type `{other}` is not supported: Docker on Linux does not have it"
                ),
                "use `volume`, `bind`, `tmpfs` or `image`",
            );
            return None;
        }
    };
    let subpath = Some(text_at(item, &["volume", "subpath"])).filter(|path| !path.is_empty());
    let mount = v1::MountSpec {
        kind: kind.into(),
        source,
        target: target.to_owned(),
        read_only: flag(item, "read_only"),
        propagation: text_at(item, &["bind", "propagation"]),
        create_host_path: item
            .find(&["bind", "create_host_path"])
            .and_then(Node::as_bool),
        recursive: text_at(item, &["bind", "recursive"]),
        selinux: text_at(item, &["bind", "selinux"]),
        nocopy: item
            .get("volume")
            .is_some_and(|volume| flag(volume, "nocopy")),
        subpath: subpath.unwrap_or_else(|| text_at(item, &["image", "subpath"])),
        labels: strings(item.find(&["volume", "labels"])),
        tmpfs_size: resources::bytes(item.find(&["tmpfs", "size"]), report),
        tmpfs_mode: item.find(&["tmpfs", "mode"]).and_then(mode),
        tmpfs_options: Vec::new(),
    };
    target_is_absolute(target, item, report).then_some(mount)
}

fn mode(node: &Node) -> Option<u32> {
    match &node.value {
        Value::Int(number) => u32::try_from(*number).ok(),
        Value::Text(text) => u32::from_str_radix(text, 8).ok(),
        _ => None,
    }
}

/// The engine refuses others, but only when the container is created.
pub(super) fn target_is_absolute(target: &str, item: &Node, report: &mut Report) -> bool {
    if target.starts_with('/') {
        return true;
    }
    report.refuse(
        item.span,
        format!("the container path `{target}` must begin with `/`"),
        "write `name:/path`",
    );
    false
}
