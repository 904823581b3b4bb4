//! Folders of a compose file that are there to be filled: on one computer Docker makes them when
//! they are missing; on several machines they are volumes, whose data stays when its container is
//! replaced, and which the planner keeps with its replicas.

use std::path::Path;
use std::{fs, io};

use uc_api::v1::{MountKind, MountSpec, VolumeSpec};

/// Files that are there so that Git keeps a folder; a folder with nothing else is empty.
const PLACEHOLDERS: [&str; 4] = [".gitkeep", ".gitignore", ".keep", ".DS_Store"];
/// Longest part of a volume's name that comes from the path.
const MAX_SLUG: usize = 80;

/// What is at the source of a bind mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing.
    Missing,
    /// A folder that is to be filled.
    Empty,
    /// A file, or a folder with something in it.
    Filled,
}

/// Looks at the disk.
pub(super) fn state(path: &Path) -> io::Result<State> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(State::Missing),
        Err(error) => return Err(error),
        Ok(metadata) if !metadata.is_dir() => return Ok(State::Filled),
        Ok(_) => {}
    }
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        if !PLACEHOLDERS.iter().any(|placeholder| name == *placeholder) {
            return Ok(State::Filled);
        }
    }
    Ok(State::Empty)
}

/// The volume of a data folder: named by the path as the compose file has it, so that it is the
/// same from every computer. Two paths never give the same name.
pub(super) fn volume_name(project: &str, written: &str) -> String {
    let parts: Vec<&str> = written
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    let plain = |part: &str| {
        part.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
    };
    if let [part] = parts.as_slice()
        && plain(part)
        && *part != ".."
        && part.len() <= MAX_SLUG
    {
        return format!("{project}_{part}");
    }
    let path = parts.join("/");
    let names = parts.iter().filter(|part| **part != "..").copied();
    let names = names
        .filter(|part| *part != "~")
        .collect::<Vec<_>>()
        .join("-");
    let clean = |c: char| {
        if c.is_ascii_alphanumeric() || "_.-".contains(c) {
            c
        } else {
            '-'
        }
    };
    let slug: String = names.chars().map(clean).take(MAX_SLUG).collect();
    let hash = uc_api::ContentHash::of(path.as_bytes());
    format!("{project}_{slug}-{}", hash.short())
}

/// The volume and its mount.
pub(super) fn volume(
    project: &str,
    name: &str,
    target: &str,
    read_only: bool,
) -> (VolumeSpec, MountSpec) {
    let volume = VolumeSpec {
        project: project.to_owned(),
        name: name.to_owned(),
        ..VolumeSpec::default()
    };
    let mount = MountSpec {
        kind: MountKind::Volume.into(),
        source: name.to_owned(),
        target: target.to_owned(),
        read_only,
        // A folder that Docker makes for a bind mount is empty, whatever the image has there.
        nocopy: true,
        ..MountSpec::default()
    };
    (volume, mount)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_its_volume() {
        for written in ["./data", "data", "./data/", "././data//"] {
            assert_eq!(volume_name("shop", written), "shop_data");
        }
        let name = volume_name("shop", "./data/db");
        assert!(
            name.starts_with("shop_data-db-") && name.len() == "shop_data-db-".len() + 8,
            "{name}"
        );
    }

    #[test]
    fn two_paths_never_share_a_volume() {
        let written = [
            "./data", "../data", "./a/b", "./a-b", "./a_b", "./a b", "./a/b/..", "..", ".", "./ä",
            "./ö",
        ];
        let names: std::collections::BTreeSet<_> = written
            .iter()
            .map(|written| volume_name("shop", written))
            .collect();
        assert_eq!(names.len(), written.len(), "{names:?}");
        for name in names {
            assert!(
                name.bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)),
                "{name}"
            );
        }
        assert!(volume_name("shop", &"x".repeat(500)).len() < 200);
    }

    #[test]
    fn a_folder_with_a_placeholder_is_empty() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        assert_eq!(state(&path.join("none")).unwrap(), State::Missing);
        assert_eq!(state(path).unwrap(), State::Empty);
        fs::write(path.join(".gitkeep"), "").unwrap();
        assert_eq!(state(path).unwrap(), State::Empty);
        fs::write(path.join("a"), "").unwrap();
        assert_eq!(state(path).unwrap(), State::Filled);
        assert_eq!(
            state(&path.join("a")).unwrap(),
            State::Filled,
            "an empty file is a file"
        );
    }
}
