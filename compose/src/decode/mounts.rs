//! Ports and mounts of a container.

use uc_api::{ProjectName, v1};

use crate::canonical::WRITTEN_SOURCE;
use crate::diagnostic::Rule;
use crate::document;
use crate::node::Node;
use crate::report::Report;

pub(super) fn ports(service: &Node, report: &mut Report) -> Vec<v1::PortSpec> {
    let items = service.get("ports").into_iter().flat_map(Node::items);
    items.filter_map(|item| port(item, report)).collect()
}

fn port(item: &Node, report: &mut Report) -> Option<v1::PortSpec> {
    let container_port = u32::try_from(item.get("target")?.as_int()?).ok()?;
    let protocol = match item.get_text("protocol").map(str::to_ascii_lowercase).as_deref() {
        Some("udp") => v1::Protocol::Udp,
        Some("sctp") => {
            let _ = report.not_honoured(item.span, "an SCTP port is not published: only TCP and UDP are");
            return None;
        }
        _ => v1::Protocol::Tcp,
    };
    let published = item.get_text("published").unwrap_or_default();
    let first = published.split('-').next().unwrap_or_default();
    if published.contains('-') {
        let _ = report.not_honoured(
            item.span,
            format!("the range {published} for one container port is not honoured: its first port is used"),
        );
    }
    Some(v1::PortSpec {
        container_port,
        // Nothing: a free port of the machine's choice.
        published_port: first.parse().unwrap_or(0),
        host_ip: item.get_text("host_ip").unwrap_or_default().to_owned(),
        protocol: protocol.into(),
        ..v1::PortSpec::default()
    })
}

pub(super) fn mounts(
    service: &Node,
    tree: &Node,
    project: &ProjectName,
    report: &mut Report,
) -> Vec<v1::MountSpec> {
    let listed = service.get("volumes").into_iter().flat_map(Node::items);
    let mut mounts: Vec<_> = listed.filter_map(|item| mount(item, tree, project, report)).collect();
    for item in service.get("tmpfs").into_iter().flat_map(Node::items) {
        let Some(text) = item.as_text() else { continue };
        let (target, options) = text.split_once(':').unwrap_or((text, ""));
        if !options.is_empty() {
            let _ = report
                .not_honoured(item.span, format!("the options `{options}` of a tmpfs are not honoured yet"));
        }
        if target_is_absolute(target, item, report) {
            mounts.push(v1::MountSpec {
                kind: v1::MountKind::Tmpfs.into(),
                source: String::new(),
                target: target.to_owned(),
                read_only: false,
                ..v1::MountSpec::default()
            });
        }
    }
    mounts
}

fn mount(item: &Node, tree: &Node, project: &ProjectName, report: &mut Report) -> Option<v1::MountSpec> {
    let source = item.get_text("source").unwrap_or_default();
    let target = item.get_text("target")?;
    let (kind, source) = match item.get_text("type")? {
        "volume" if source.is_empty() => {
            report
                .warning(
                    Rule::Value,
                    item.span,
                    format!("the volume at `{target}` has no name: its data goes with its container"),
                )
                .hint(format!(
                    "to keep the data, name it: `data:{target}`, and declare `data:` below `volumes:`"
                ));
            (v1::MountKind::Volume, String::new())
        }
        "volume" => {
            let declared = tree.get("volumes").and_then(|volumes| volumes.get(source));
            (v1::MountKind::Volume, document::outside_name(declared, source, project.as_str()))
        }
        "bind" => {
            if let Some(written) = item.get(WRITTEN_SOURCE).and_then(Node::as_text) {
                let span = item.get("source").map_or(item.span, |node| node.span);
                report
                    .error(Rule::Refused, span, format!("`{written}` is a path of this computer, not of a machine"))
                    .label("relative paths are not carried to the machines yet")
                    .hint("use a named volume, a path that begins with `/` and exists on the machines, or copy the file into the image");
                return None;
            }
            (v1::MountKind::Bind, source.to_owned())
        }
        "tmpfs" => (v1::MountKind::Tmpfs, String::new()),
        other => {
            report
                .error(
                    Rule::Refused,
                    item.span,
                    format!("a mount of type `{other}` is refused: it is not supported yet"),
                )
                .hint("use `volume`, `bind` or `tmpfs`");
            return None;
        }
    };
    let read_only = item.get("read_only").and_then(Node::as_bool).unwrap_or(false);
    target_is_absolute(target, item, report).then(|| v1::MountSpec {
        kind: kind.into(),
        source,
        target: target.to_owned(),
        read_only,
        ..v1::MountSpec::default()
    })
}

/// The engine refuses others, but only when the container is created.
fn target_is_absolute(target: &str, item: &Node, report: &mut Report) -> bool {
    if target.starts_with('/') {
        return true;
    }
    report
        .error(Rule::Value, item.span, format!("the path in the container, `{target}`, must begin with `/`"))
        .hint("write `name:/path`");
    false
}
