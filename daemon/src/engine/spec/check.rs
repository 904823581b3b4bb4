//! Checks a spec before anything is done for it.

use std::net::IpAddr;

use uc_api::{ProjectName, ServiceName, v1};

use super::SpecError;
use crate::engine::reference;

/// Checks a spec before anything is done for it. Returns the first problem.
pub(crate) fn check(spec: &v1::ServiceSpec) -> Result<(), SpecError> {
    let _: ProjectName = spec.project.parse()?;
    let _: ServiceName = spec.name.parse()?;
    if spec.image.is_empty() {
        return Err(SpecError::NoImage {
            service: spec.name.clone(),
        });
    }
    if !is_reference(&reference::pinned(spec)) {
        return Err(SpecError::Image {
            service: spec.name.clone(),
            image: spec.image.clone(),
        });
    }
    spec.ports
        .iter()
        .try_for_each(|port| check_port(spec, port))?;
    spec.mounts
        .iter()
        .try_for_each(|mount| check_mount(spec, mount))?;
    if let Some(file) = spec.files.iter().find(|file| !file.target.starts_with('/')) {
        return Err(wrong_mount(
            spec,
            &file.target,
            "the target must be an absolute path",
        ));
    }
    check_namespaces(spec)?;
    check_network(spec)?;
    for (key, hooks) in [
        ("post_start", &spec.post_start),
        ("pre_stop", &spec.pre_stop),
    ] {
        if hooks.iter().any(|hook| hook.command.is_empty()) {
            return Err(wrong(spec, key, "a hook has no command"));
        }
    }
    Ok(())
}

fn wrong(spec: &v1::ServiceSpec, key: &'static str, reason: impl Into<String>) -> SpecError {
    SpecError::Key {
        service: spec.name.clone(),
        key,
        reason: reason.into(),
    }
}

fn check_port(spec: &v1::ServiceSpec, port: &v1::PortSpec) -> Result<(), SpecError> {
    let wrong = |reason| {
        let last = if port.published_last == 0 {
            String::new()
        } else {
            format!("-{}", port.published_last)
        };
        Err(SpecError::Port {
            service: spec.name.clone(),
            port: format!("{}{last}:{}", port.published_port, port.container_port),
            reason,
        })
    };
    if !(1..=65535).contains(&port.container_port) {
        return wrong("the container's port must be between 1 and 65535");
    }
    if port.published_port > 65535 || port.published_last > 65535 {
        return wrong("the published port must be at most 65535");
    }
    if port.published_last != 0
        && (port.published_port == 0 || port.published_last < port.published_port)
    {
        return wrong(
            "the range of published ports must start above 0 and must not end before its start",
        );
    }
    if !port.host_ip.is_empty() && port.host_ip.parse::<IpAddr>().is_err() {
        return wrong("the host address must be an IP address");
    }
    Ok(())
}

fn wrong_mount(spec: &v1::ServiceSpec, target: &str, reason: &'static str) -> SpecError {
    SpecError::Mount {
        service: spec.name.clone(),
        target: target.to_owned(),
        reason,
    }
}

fn check_mount(spec: &v1::ServiceSpec, mount: &v1::MountSpec) -> Result<(), SpecError> {
    let wrong = |reason| Err(wrong_mount(spec, &mount.target, reason));
    if !mount.target.starts_with('/') {
        return wrong("the target must be an absolute path");
    }
    // A path that leaves the mounted tree would mount something else.
    if mount.subpath.starts_with('/') || mount.subpath.split('/').any(|part| part == "..") {
        return wrong("the subpath must be a relative path without `..`");
    }
    match mount.kind() {
        v1::MountKind::Bind => {}
        v1::MountKind::Image if !is_reference(&mount.source) => {
            return wrong("the source must be an image reference");
        }
        v1::MountKind::Unspecified => {
            return wrong("the type must be volume, bind, tmpfs or image");
        }
        v1::MountKind::Volume | v1::MountKind::Tmpfs | v1::MountKind::Image => return Ok(()),
    }
    if !mount.source.starts_with('/') {
        return wrong("the source of a bind mount must be an absolute path on the machine");
    }
    let propagations = [
        "", "private", "rprivate", "shared", "rshared", "slave", "rslave",
    ];
    if !propagations.contains(&mount.propagation.as_str()) {
        return wrong(
            "the propagation must be private, rprivate, shared, rshared, slave or rslave",
        );
    }
    match (mount.recursive.as_str(), mount.read_only) {
        ("" | "enabled" | "disabled", _) | ("writable" | "readonly", true) => {}
        ("writable" | "readonly", false) => {
            return wrong("recursive `writable` and `readonly` require a read-only mount");
        }
        _ => return wrong("recursive must be enabled, disabled, writable or readonly"),
    }
    if mount.recursive == "readonly" && !["", "rprivate"].contains(&mount.propagation.as_str()) {
        return wrong("recursive `readonly` requires propagation `rprivate`");
    }
    if !["", "z", "Z"].contains(&mount.selinux.as_str()) {
        return wrong("selinux must be z or Z");
    }
    // The engine supports SELinux labels only in its short notation, which supports neither of
    // these.
    let long =
        !mount.recursive.is_empty() || mount.source.contains(':') || mount.target.contains(':');
    if !mount.selinux.is_empty() && long {
        return wrong(
            "selinux cannot be combined with recursive, nor with a path that contains a colon",
        );
    }
    Ok(())
}

/// Each namespace has its own keywords. Where it can be shared, `service:NAME` and `container:NAME`
/// are valid as well.
fn check_namespaces(spec: &v1::ServiceSpec) -> Result<(), SpecError> {
    for (key, value, words, shared) in [
        (
            "network_mode",
            &spec.network_mode,
            ["none", "host", ""].as_slice(),
            true,
        ),
        (
            "ipc",
            &spec.ipc,
            &["host", "shareable", "private", "none", ""],
            true,
        ),
        ("pid", &spec.pid, &["host", ""], true),
        ("uts", &spec.uts, &["host", ""], false),
        ("userns_mode", &spec.userns, &["host", ""], false),
        ("cgroup", &spec.cgroup, &["host", "private", ""], false),
    ] {
        if words.contains(&value.as_str()) {
            continue;
        }
        match value.split_once(':') {
            Some(("service", name)) if shared => {
                let _: ServiceName = name.parse()?;
                if name == spec.name {
                    return Err(wrong(
                        spec,
                        key,
                        "a service cannot share a namespace with itself",
                    ));
                }
            }
            Some(("container", name)) if shared && is_object_name(name) => {}
            _ => return Err(wrong(spec, key, format!("invalid value `{value}`"))),
        }
    }
    Ok(())
}

fn check_network(spec: &v1::ServiceSpec) -> Result<(), SpecError> {
    for entry in &spec.extra_hosts {
        let address = entry
            .split_once('=')
            .map(|(_, address)| address.trim_matches(['[', ']']));
        if !address
            .is_some_and(|address| address == "host-gateway" || address.parse::<IpAddr>().is_ok())
        {
            return Err(wrong(
                spec,
                "extra_hosts",
                format!("invalid entry `{entry}`: use HOST=ADDRESS"),
            ));
        }
    }
    if let Some(server) = spec
        .dns
        .iter()
        .find(|server| server.parse::<IpAddr>().is_err())
    {
        return Err(wrong(
            spec,
            "dns",
            format!("`{server}` is not an IP address"),
        ));
    }
    // Docker refuses these, too, but without naming the key.
    if is_shared(&spec.network_mode) {
        for (key, set) in [
            ("hostname", !spec.hostname.is_empty()),
            ("dns", !spec.dns.is_empty()),
            ("extra_hosts", !spec.extra_hosts.is_empty()),
        ] {
            if set {
                let reason = format!(
                    "cannot be combined with network_mode `{}`",
                    spec.network_mode
                );
                return Err(wrong(spec, key, reason));
            }
        }
    }
    if !spec.mac_address.is_empty() && !spec.network_mode.is_empty() {
        let reason = format!(
            "cannot be combined with network_mode `{}`",
            spec.network_mode
        );
        return Err(wrong(spec, "mac_address", reason));
    }
    if !spec.hostname.is_empty() && !spec.uts.is_empty() {
        return Err(wrong(
            spec,
            "hostname",
            "cannot be combined with uts `host`",
        ));
    }
    Ok(())
}

/// Reports whether a mode means the namespace of another container.
pub(super) fn is_shared(mode: &str) -> bool {
    mode.starts_with("service:") || mode.starts_with("container:")
}

/// Reports whether a text has only characters of an image reference. It becomes part of a path in
/// the engine's API.
pub(crate) fn is_reference(image: &str) -> bool {
    image
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"._-/:@".contains(&b))
        && image.starts_with(|first: char| first.is_ascii_alphanumeric())
        && !image.contains("..")
        && !image.contains("//")
}

/// Reports whether a text is valid as the name or id of an engine object. It also becomes part of a
/// path.
pub(crate) fn is_object_name(name: &str) -> bool {
    name.bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
}
