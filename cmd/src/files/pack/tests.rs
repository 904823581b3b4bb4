//! The same content is the same archive, and what cannot travel is said.

use std::fs::{File, Permissions};
use std::os::unix::fs::symlink;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;
use uc_api::ContentHash;

use super::*;

fn folder(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = directory.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    }
    directory
}

/// The only thing that is wrong.
fn error(place: &Path) -> String {
    let errors = path(place).unwrap_err();
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors[0].to_string()
}

fn names(archive: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().unwrap().map(Result::unwrap);
    entries
        .map(|entry| {
            let header = entry.header();
            format!(
                "{} {:o}",
                entry.path().unwrap().display(),
                header.mode().unwrap()
            )
        })
        .collect()
}

/// A change of these is a change of what all deployed services with files are: each would be
/// replaced once.
#[test]
fn hashes_stay_what_they_are() {
    let one = text(b"hello\n", 0o444, 0, 0).unwrap();
    assert_eq!(ContentHash::of(&one).short(), "23493f64");
    let directory = folder(&[("b/c", "2"), ("a", "1")]);
    symlink("b/c", directory.path().join("link")).unwrap();
    assert_eq!(
        ContentHash::of(&path(directory.path()).unwrap().archive).short(),
        "6fb6872a"
    );
}

#[test]
fn neither_time_nor_order_nor_place_counts() {
    let one = folder(&[("b/z", "2"), ("b/a", "3"), ("a", "1")]);
    let other = folder(&[("a", "1"), ("b/a", "3"), ("b/z", "2")]);
    let past = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    File::open(other.path().join("a"))
        .unwrap()
        .set_modified(past)
        .unwrap();
    fs::set_permissions(other.path().join("b"), Permissions::from_mode(0o700)).unwrap();
    let archive = path(one.path()).unwrap().archive;
    assert_eq!(archive, path(other.path()).unwrap().archive);
    let expected = [
        "content 755",
        "content/a 644",
        "content/b 755",
        "content/b/a 644",
        "content/b/z 644",
    ];
    assert_eq!(names(&archive), expected);
}

#[test]
fn content_name_and_permission_count() {
    let hash = |directory: &TempDir| ContentHash::of(&path(directory.path()).unwrap().archive);
    let one = folder(&[("a", "1")]);
    let first = hash(&one);
    assert_ne!(hash(&folder(&[("a", "2")])), first);
    assert_ne!(hash(&folder(&[("b", "1")])), first);
    fs::set_permissions(one.path().join("a"), Permissions::from_mode(0o755)).unwrap();
    assert_ne!(hash(&one), first);
    let texts = [
        text(b"1", 0o444, 0, 0),
        text(b"2", 0o444, 0, 0),
        text(b"1", 0o400, 0, 0),
        text(b"1", 0o444, 5, 0),
        text(b"1", 0o444, 0, 5),
    ];
    let hashes: std::collections::BTreeSet<_> = texts
        .into_iter()
        .map(|text| ContentHash::of(&text.unwrap()))
        .collect();
    assert_eq!(hashes.len(), 5);
}

#[test]
fn a_file_keeps_its_permissions_and_a_link_to_it_is_followed() {
    let directory = folder(&[("run.sh", "#!/bin/sh\n")]);
    let file = directory.path().join("run.sh");
    fs::set_permissions(&file, Permissions::from_mode(0o4750)).unwrap();
    let archive = path(&file).unwrap().archive;
    assert_eq!(names(&archive), ["content 750"]);
    let link = directory.path().join("link");
    symlink(&file, &link).unwrap();
    assert_eq!(path(&link).unwrap().archive, archive);
}

#[test]
fn links_that_leave_are_named_and_others_kept() {
    let directory = folder(&[("a/b", "1")]);
    symlink("../a/b", directory.path().join("a/same")).unwrap();
    symlink("nowhere", directory.path().join("dangling")).unwrap();
    let archive = path(directory.path()).unwrap().archive;
    assert_eq!(
        names(&archive),
        [
            "content 755",
            "content/a 755",
            "content/a/b 644",
            "content/a/same 777",
            "content/dangling 777"
        ]
    );
    for target in ["/etc/passwd", "../../x", "b/../../../x"] {
        let bad = directory.path().join("a/bad");
        symlink(target, &bad).unwrap();
        assert_eq!(
            error(directory.path()),
            format!("symlink `a/bad` points outside the folder, to {target}")
        );
        fs::remove_file(&bad).unwrap();
    }
}

#[test]
fn sockets_and_pipes_are_left_out_and_said() {
    let directory = folder(&[("a", "1")]);
    let socket = directory.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let packed = path(directory.path()).unwrap();
    assert_eq!(packed.skipped, [Path::new("socket")]);
    assert_eq!(names(&packed.archive).len(), 2);
    assert_eq!(error(&socket), "it is not a regular file or folder");
    assert!(matches!(read(&socket), Err(PackError::Kind)));
}

#[test]
fn what_is_too_large_names_the_largest() {
    let directory = folder(&[("small", "1"), ("deep/er/none", "")]);
    let large = File::create(directory.path().join("deep/er/large")).unwrap();
    large.set_len(MAX_ARCHIVE).unwrap();
    let said = error(directory.path());
    assert!(
        said.contains("the limit of 16 MiB") && said.contains("deep/er/large with 16.0 MiB"),
        "{said}"
    );
    let said = read(&directory.path().join("deep/er/large"))
        .unwrap_err()
        .to_string();
    assert!(said.contains("the file itself"), "{said}");
    large.set_len(MAX_ARCHIVE - 16 * 512).unwrap();
    let archive = path(directory.path()).unwrap().archive;
    assert!(archive.len() as u64 <= MAX_ARCHIVE, "{}", archive.len());
    assert!(matches!(
        text(&vec![0; MAX_ARCHIVE as usize], 0o444, 0, 0),
        Err(PackError::Size { .. })
    ));
}

#[test]
fn the_size_that_is_reckoned_is_an_upper_bound() {
    // Up to the very limit: what passes here, a machine takes.
    let largest = MAX_ARCHIVE - 3 * BLOCK;
    let archive = text(&vec![0; largest as usize], 0o444, 0, 0).unwrap();
    assert!(archive.len() as u64 <= MAX_ARCHIVE, "{}", archive.len());
    assert!(text(&vec![0; largest as usize + 1], 0o444, 0, 0).is_err());
}

#[test]
fn too_many_entries_name_the_fullest_folder() {
    let directory = tempfile::tempdir().unwrap();
    let full = directory.path().join("modules");
    fs::create_dir(&full).unwrap();
    for number in 0..MAX_ENTRIES - 2 {
        File::create(full.join(number.to_string())).unwrap();
    }
    path(directory.path()).unwrap();
    File::create(full.join("one-more")).unwrap();
    let said = error(directory.path());
    assert!(
        said.contains("more than 4096") && said.ends_with("in modules"),
        "{said}"
    );
}

#[test]
fn paths_have_a_limit() {
    let directory = tempfile::tempdir().unwrap();
    let mut deep = directory.path().to_owned();
    for _ in 0..6 {
        deep.push("x".repeat(200));
    }
    fs::create_dir_all(&deep).unwrap();
    assert!(error(directory.path()).contains("longer than 1024 bytes"));
    // Longer than the field of an old archive, and kept whole.
    let short = directory
        .path()
        .join("x".repeat(200))
        .join("x".repeat(200))
        .join("x".repeat(200));
    let archive = path(&short.join("x".repeat(200))).unwrap().archive;
    assert_eq!(
        names(&archive).last().unwrap().len(),
        "content/ 755".len() + 401
    );
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let directory = folder(&[("a", "1")]);
    File::create(directory.path().join("large"))
        .unwrap()
        .set_len(MAX_ARCHIVE)
        .unwrap();
    symlink("/etc/passwd", directory.path().join("link")).unwrap();
    symlink("../out", directory.path().join("other")).unwrap();
    let errors: Vec<String> = path(directory.path())
        .unwrap_err()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(errors.len(), 3, "{errors:?}");
    assert!(
        errors[0].contains("symlink `link`") && errors[1].contains("symlink `other`"),
        "{errors:?}"
    );
    assert!(
        errors[2].contains("the largest file is large"),
        "{errors:?}"
    );
}
