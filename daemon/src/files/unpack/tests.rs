//! Unpacks valid archives, and archives that an attacker would send.

use std::os::unix::fs::MetadataExt as _;

use proptest::prelude::*;
use tar::Header;
use uc_api::content::MAX_ARCHIVE;

use super::*;

/// Encodes one entry and writes its name unchanged, whatever it contains.
pub(crate) fn entry(kind: EntryType, path: &[u8], mode: u32, data: &[u8]) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    let link = kind == EntryType::Symlink || kind == EntryType::Link;
    header.set_size(if link { 0 } else { data.len() as u64 });
    let gnu = header.as_gnu_mut().unwrap();
    gnu.name[..path.len()].copy_from_slice(path);
    if link {
        gnu.linkname[..data.len()].copy_from_slice(data);
    }
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    if !link {
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes
}

fn file(path: &str, data: &str) -> Vec<u8> {
    entry(EntryType::Regular, path.as_bytes(), 0o644, data.as_bytes())
}

fn folder(path: &str) -> Vec<u8> {
    entry(EntryType::Directory, path.as_bytes(), 0o755, b"")
}

fn link(path: &str, target: &str) -> Vec<u8> {
    entry(
        EntryType::Symlink,
        path.as_bytes(),
        0o777,
        target.as_bytes(),
    )
}

/// Joins entries to an archive, with the two zero blocks at its end.
pub(crate) fn archive(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = entries.concat();
    bytes.extend_from_slice(&[0; 1024]);
    bytes
}

fn unpacked(entries: &[Vec<u8>]) -> Result<tempfile::TempDir, UnpackError> {
    let directory = tempfile::tempdir().unwrap();
    unpack(&archive(entries), directory.path()).map(|()| directory)
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn unpack_makes_single_file_the_content() {
    let directory = unpacked(&[entry(EntryType::Regular, b"content", 0o4440, b"hello")]).unwrap();
    let path = directory.path().join("content");
    assert_eq!(fs::read(&path).unwrap(), b"hello");
    assert_eq!(mode(&path), 0o440, "set-user-id does not travel");
}

#[test]
fn unpack_makes_folder_with_files_folders_and_links() {
    let entries = [
        folder("content/"),
        file("content/a", "1"),
        folder("content/b"),
        entry(EntryType::Regular, b"content/b/run.sh", 0o755, b"2"),
        link("content/b/up", "../a"),
        link("content/dangling", "b/none"),
    ];
    let directory = unpacked(&entries).unwrap();
    let content = directory.path().join("content");
    assert_eq!((mode(&content), mode(&content.join("b"))), (0o755, 0o755));
    assert_eq!(
        (mode(&content.join("a")), mode(&content.join("b/run.sh"))),
        (0o644, 0o755)
    );
    assert_eq!(fs::read(content.join("b/up")).unwrap(), b"1");
    assert_eq!(
        fs::read_link(content.join("dangling")).unwrap(),
        Path::new("b/none")
    );
}

#[test]
fn unpack_sets_owners_of_the_archive() {
    let directory = tempfile::tempdir().unwrap();
    if fs::metadata(directory.path()).unwrap().uid() != 0 {
        return eprintln!("skipped: only root can change owners");
    }
    let mut header = Header::new_gnu();
    header.set_path("content").unwrap();
    header.set_size(0);
    header.set_mode(0o400);
    header.set_uid(1000);
    header.set_gid(0);
    header.set_cksum();
    unpack(&archive(&[header.as_bytes().to_vec()]), directory.path()).unwrap();
    let metadata = fs::metadata(directory.path().join("content")).unwrap();
    assert_eq!(
        (metadata.uid(), metadata.gid(), metadata.mode() & 0o777),
        (1000, 0, 0o400)
    );
}

#[test]
fn unpack_refuses_paths_outside_the_content() {
    for path in [
        "/etc/x",
        "../x",
        "content/../../x",
        "content/../x",
        "x",
        "./content",
        "content/none/x",
        "",
    ] {
        let refused = unpacked(&[folder("content"), file(path, "x")]);
        assert!(
            matches!(refused, Err(UnpackError::Path { .. })),
            "{path:?}: {refused:?}"
        );
    }
}

#[test]
fn unpack_refuses_links_outside_and_never_writes_through_links() {
    for (path, target) in [
        ("content/l", "/etc"),
        ("content/l", ".."),
        ("content/l", "../x"),
        ("content/l", ""),
        ("content/d/l", "../../x"),
        ("content/d/l", "x/../../../y"),
        ("content", "content2"),
    ] {
        let folders = if path == "content" {
            Vec::new()
        } else {
            vec![folder("content"), folder("content/d")]
        };
        let refused = unpacked(&[folders, vec![link(path, target)]].concat());
        assert!(
            matches!(refused, Err(UnpackError::Link { .. })),
            "{path} -> {target:?}: {refused:?}"
        );
    }
    let through = [
        folder("content"),
        folder("content/d"),
        link("content/l", "d"),
        file("content/l/x", "x"),
    ];
    assert!(matches!(unpacked(&through), Err(UnpackError::Path { .. })));
}

#[test]
fn unpack_refuses_duplicate_paths() {
    for again in [
        file("content/a", "2"),
        folder("content/a"),
        link("content/a", "b"),
        folder("content"),
    ] {
        let twice = unpacked(&[folder("content"), file("content/a", "1"), again]);
        assert!(matches!(twice, Err(UnpackError::Twice { .. })), "{twice:?}");
    }
}

#[test]
fn unpack_refuses_other_kinds_of_entries() {
    for kind in [
        EntryType::Char,
        EntryType::Block,
        EntryType::Fifo,
        EntryType::Link,
        EntryType::GNUSparse,
        EntryType::Continuous,
    ] {
        let refused = unpacked(&[
            folder("content"),
            entry(kind, b"content/x", 0o644, b"content"),
        ]);
        assert!(refused.is_err(), "{kind:?}");
    }
}

#[test]
fn unpack_refuses_empty_truncated_and_invalid_archives() {
    assert!(matches!(unpacked(&[]), Err(UnpackError::Empty)));
    let directory = tempfile::tempdir().unwrap();
    assert!(matches!(
        unpack(b"", directory.path()),
        Err(UnpackError::Empty)
    ));
    assert!(unpack(&[b'x'; 2000], directory.path()).is_err());
    let whole = file("content", &"y".repeat(2_000));
    for cut in [100, 512, 600, 2_000] {
        let directory = tempfile::tempdir().unwrap();
        let refused = unpack(&whole[..cut], directory.path());
        assert!(
            matches!(refused, Err(UnpackError::Archive(_))),
            "{cut}: {refused:?}"
        );
    }
}

#[test]
fn unpack_limits_entries_and_path_lengths() {
    let mut entries = vec![folder("content")];
    entries.extend((1..MAX_ENTRIES).map(|number| folder(&format!("content/{number}"))));
    unpacked(&entries).unwrap();
    entries.push(folder("content/one-more"));
    assert!(matches!(unpacked(&entries), Err(UnpackError::Entries)));

    // A long path has an entry of its own before the entry that it belongs to.
    let long = |length: usize| {
        let path = format!("content/{}", "d/".repeat((length - 8) / 2));
        let name = entry(
            EntryType::GNULongName,
            b"././@LongLink",
            0o644,
            path.as_bytes(),
        );
        [name, file("content/short", "x")].concat()
    };
    let refused = unpacked(&[folder("content"), long(MAX_PATH + 200)]);
    assert!(
        matches!(refused, Err(UnpackError::Path { .. })),
        "{refused:?}"
    );
    assert!(
        MAX_ARCHIVE > 1024 * MAX_ENTRIES as u64,
        "the maximum number of small files fits"
    );
}

fn parts() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("content"),
        Just("a"),
        Just("b"),
        Just(".."),
        Just("."),
        Just("")
    ];
    proptest::collection::vec(part, 0..4).prop_map(|parts| parts.join("/"))
}

fn path() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => parts().prop_map(|path| if path.is_empty() { "content".to_owned() } else { format!("content/{path}") }),
        1 => parts(),
    ]
}

fn entries() -> impl Strategy<Value = Vec<(u8, String, String)>> {
    proptest::collection::vec((0..3_u8, path(), parts()), 0..12)
}

fn everything_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        found.push(entry.path());
        if entry.file_type().unwrap().is_dir() {
            found.extend(everything_below(&entry.path()));
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn unpack_of_any_entries_creates_nothing_outside(entries in entries()) {
        let world = tempfile::tempdir().unwrap();
        let into = world.path().join("store/into");
        fs::create_dir_all(&into).unwrap();
        let mut all = vec![folder("content")];
        all.extend(entries.iter().map(|(kind, path, target)| match kind {
            0 => file(path, "x"),
            1 => folder(path),
            _ => link(path, target),
        }));
        let _refused = unpack(&archive(&all), &into);
        let root = into.join("content");
        for path in everything_below(world.path()) {
            prop_assert!(path == world.path().join("store") || path == into || path.starts_with(&root), "{}", path.display());
            // A link that leads to something leads to something inside.
            if let Ok(real) = fs::canonicalize(&path)
                && path.starts_with(&root)
            {
                prop_assert!(real.starts_with(fs::canonicalize(&root).unwrap()), "{} -> {}", path.display(), real.display());
            }
        }
    }

    #[test]
    fn unpack_of_any_bytes_does_no_harm(mut bytes in proptest::collection::vec(any::<u8>(), 0..3_000), good in any::<bool>()) {
        if good {
            bytes = [folder("content"), bytes].concat();
        }
        let directory = tempfile::tempdir().unwrap();
        let _refused = unpack(&bytes, directory.path());
        let names = fs::read_dir(directory.path()).unwrap().count();
        prop_assert!(names <= 1);
    }
}
