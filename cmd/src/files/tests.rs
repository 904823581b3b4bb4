//! From what a compose file names to specs, volumes and contents.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use tempfile::TempDir;

use super::*;
use crate::env::Env;

struct Bench {
    directory: TempDir,
    known: BTreeMap<String, BTreeSet<String>>,
    environment: BTreeMap<String, String>,
    strict: bool,
}

/// What came of it.
struct Done {
    services: Vec<Service>,
    volumes: Vec<VolumeSpec>,
    contents: CliResult<Contents>,
    diagnostics: Vec<String>,
    notes: Vec<String>,
}

fn bench() -> Bench {
    Bench {
        directory: tempfile::tempdir().unwrap(),
        known: BTreeMap::new(),
        environment: BTreeMap::from([("PASSWORD".to_owned(), "s3cret".to_owned())]),
        strict: false,
    }
}

fn service(name: &str, local: Vec<LocalFile>) -> Service {
    let spec = uc_api::v1::ServiceSpec {
        name: name.to_owned(),
        ..Default::default()
    };
    Service {
        spec,
        build: None,
        local,
    }
}

impl Bench {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    }

    fn local(&self, name: &str, source: LocalSource) -> LocalFile {
        LocalFile {
            target: "/x".into(),
            name: name.into(),
            source,
            secret: false,
            uid: None,
            gid: None,
            mode: None,
            variable: None,
            read_only_said: true,
            must_exist: false,
            file: self.path("compose.yaml"),
            line: 3,
            column: 5,
        }
    }

    fn bind(&self, written: &str) -> LocalFile {
        self.local(
            written,
            LocalSource::Bind(self.path(written.trim_start_matches("./"))),
        )
    }

    async fn prepare(&self, mut services: Vec<Service>) -> Done {
        let mut volumes = vec![VolumeSpec {
            name: "shop_named".into(),
            ..Default::default()
        }];
        let known = Known {
            project: "shop",
            strict: self.strict,
            environment: &self.environment,
            dry_run: false,
            current: Current {
                volumes: self.known.clone(),
                ..Current::default()
            },
        };
        let mut found = Found::default();
        let ready = collect(&mut services, &mut volumes, &known, &mut found).await;
        let diagnostics: Vec<String> = found
            .diagnostics
            .iter()
            .map(|d| {
                format!("{:?} {}:{} {}", d.severity, d.line, d.column, d.message).to_lowercase()
            })
            .collect();
        let notes = found.notes.clone();
        let contents = found.show(&Ui::new(&Env::default())).map(|()| ready);
        Done {
            services,
            volumes,
            contents,
            diagnostics,
            notes,
        }
    }
}

impl Done {
    fn files(&self, service: usize) -> Vec<(&str, &str, bool)> {
        let files = &self.services[service].spec.files;
        files
            .iter()
            .map(|file| (file.name.as_str(), file.target.as_str(), file.secret))
            .collect()
    }

    /// The only file of a content.
    fn text(&self, hash: &str) -> (String, u32, u64, bool) {
        use std::io::Read as _;
        let content = &self.contents.as_ref().unwrap().0[&hash.parse::<ContentHash>().unwrap()];
        let mut archive = tar::Archive::new(content.archive.as_slice());
        let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        let header = entry.header();
        (
            text,
            header.mode().unwrap(),
            header.uid().unwrap(),
            content.secret,
        )
    }
}

#[tokio::test]
async fn every_source_becomes_a_content() {
    let bench = bench();
    bench.write("site.conf", "site");
    bench.write("conf/a", "1");
    let secret = |file: LocalFile| LocalFile {
        secret: true,
        ..file
    };
    let local = vec![
        bench.bind("./conf"),
        LocalFile {
            uid: Some(5),
            ..bench.local("config site", LocalSource::Path(bench.path("site.conf")))
        },
        LocalFile {
            mode: Some(0o440),
            ..bench.local("config motd", LocalSource::Content("hi".into()))
        },
        secret(bench.local("secret p", LocalSource::Variable("PASSWORD".into()))),
        secret(bench.local(
            "secret c",
            LocalSource::Command(vec!["echo".into(), "out".into()]),
        )),
        LocalFile {
            variable: Some("TOKEN".into()),
            ..secret(bench.local("secret p", LocalSource::Variable("PASSWORD".into())))
        },
    ];
    let done = bench.prepare(vec![service("web", local)]).await;
    let names = done.files(0);
    assert_eq!(
        names.iter().map(|(name, ..)| *name).collect::<Vec<_>>(),
        [
            "./conf",
            "config site",
            "config motd",
            "secret p",
            "secret c"
        ]
    );
    assert_eq!(
        names.iter().map(|(.., secret)| *secret).collect::<Vec<_>>(),
        [false, false, false, true, true]
    );
    let text = |index: usize| done.text(&done.services[0].spec.files[index].hash);
    assert_eq!(text(1), ("site".into(), 0o444, 5, false));
    assert_eq!(text(2), ("hi".into(), 0o440, 0, false));
    assert_eq!(text(3), ("s3cret".into(), 0o444, 0, true));
    assert_eq!(text(4), ("out".into(), 0o444, 0, true));
    let variable = &done.services[0].spec.secret_environment["TOKEN"];
    assert_eq!(done.text(variable).0, "s3cret");
    assert_eq!(
        done.contents.as_ref().unwrap().0.len(),
        5,
        "one text is one content"
    );
    assert!(done.diagnostics.is_empty(), "{:?}", done.diagnostics);
    assert!(!format!("{:?}", done.contents).contains("s3cret"));
    assert!(done.services[0].local.is_empty());
}

#[tokio::test]
async fn missing_and_empty_folders_are_volumes() {
    let bench = bench();
    fs::create_dir(bench.path("empty")).unwrap();
    bench.write("db/.gitkeep", "");
    let writable = |file: LocalFile| LocalFile {
        read_only_said: false,
        ..file
    };
    let one = vec![
        writable(bench.bind("./data")),
        writable(bench.bind("./empty")),
        writable(bench.bind("./db")),
    ];
    let done = bench
        .prepare(vec![
            service("web", one),
            service("reader", vec![bench.bind("./data")]),
        ])
        .await;
    let mounts = |service: usize| {
        let mounts = &done.services[service].spec.mounts;
        mounts
            .iter()
            .map(|m| (m.source.as_str(), m.read_only, m.nocopy))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        mounts(0),
        [
            ("shop_data", false, true),
            ("shop_empty", false, true),
            ("shop_db", false, true)
        ]
    );
    assert_eq!(mounts(1), [("shop_data", true, true)]);
    let volumes: Vec<_> = done
        .volumes
        .iter()
        .map(|volume| volume.name.as_str())
        .collect();
    assert_eq!(
        volumes,
        ["shop_named", "shop_data", "shop_db", "shop_empty"]
    );
    assert_eq!(done.volumes[1].project, "shop");
    assert_eq!(
        done.notes,
        [
            "./data does not exist, so it becomes volume shop_data on the machine that runs the service",
            "./empty is empty, so it becomes volume shop_empty on the machine that runs the service",
            "./db is empty, so it becomes volume shop_db on the machine that runs the service",
        ]
    );
    assert!(done.contents.unwrap().0.is_empty());
}

#[tokio::test]
async fn a_data_folder_stays_one_even_if_files_appear_here() {
    let mut bench = bench();
    bench.write("data/db", "of a try on this computer");
    bench.known = BTreeMap::from([("web".to_owned(), BTreeSet::from(["shop_data".to_owned()]))]);
    let writable = LocalFile {
        read_only_said: false,
        ..bench.bind("./data")
    };
    let services = || {
        vec![
            service("web", vec![writable.clone()]),
            service("other", vec![writable.clone()]),
        ]
    };
    let done = bench.prepare(services()).await;
    assert_eq!(done.services[0].spec.mounts[0].source, "shop_data");
    assert!(done.files(0).is_empty());
    assert_eq!(
        done.files(1),
        [("./data", "/x", false)],
        "this one never had it"
    );
    assert!(
        done.diagnostics[0].contains("`./data` is not uploaded"),
        "{:?}",
        done.diagnostics
    );
    // What is only read is sent, whatever was there before.
    let done = bench
        .prepare(vec![service("web", vec![bench.bind("./data")])])
        .await;
    assert_eq!(done.files(0), [("./data", "/x", false)]);
}

#[tokio::test]
async fn what_was_not_said_to_be_read_only_is_warned_about() {
    let mut bench = bench();
    bench.write("nginx.conf", "x");
    let writable = LocalFile {
        read_only_said: false,
        ..bench.bind("./nginx.conf")
    };
    let done = bench
        .prepare(vec![service("web", vec![writable.clone()])])
        .await;
    assert_eq!(
        done.diagnostics,
        ["warning 3:5 `./nginx.conf` is mounted read-only on the machines"]
    );
    assert_eq!(done.contents.unwrap().0.len(), 1);
    bench.strict = true;
    let done = bench
        .prepare(vec![service("web", vec![writable, bench.bind("./data")])])
        .await;
    assert_eq!(
        done.diagnostics,
        [
            "error 3:5 `./nginx.conf` is mounted read-only on the machines",
            "error 3:5 ./data does not exist, so it would become volume shop_data",
        ]
    );
    let error = done.contents.unwrap_err();
    assert_eq!(error.kind, crate::error::Kind::Usage);
    assert!(
        error
            .message
            .contains("2 errors in local files that the compose file uses"),
        "{error:?}"
    );
}

#[tokio::test]
async fn everything_that_is_wrong_is_said_at_once() {
    let bench = bench();
    std::os::unix::fs::symlink("/etc", {
        bench.write("conf/a", "1");
        bench.path("conf/out")
    })
    .unwrap();
    bench.write("zero", "a\0b");
    let variable = |file: LocalFile| LocalFile {
        variable: Some("V".into()),
        ..file
    };
    let local = vec![
        bench.local("config site", LocalSource::Path(bench.path("none"))),
        bench.local("secret p", LocalSource::Variable("PASWORD".into())),
        bench.local("secret c", LocalSource::Command(vec!["false".into()])),
        bench.bind("./conf"),
        LocalFile {
            must_exist: true,
            ..bench.bind("./gone")
        },
        bench.bind("./named"),
        variable(bench.local("secret z", LocalSource::Path(bench.path("zero")))),
        variable(bench.local("secret d", LocalSource::Path(bench.path("conf")))),
    ];
    let done = bench
        .prepare(vec![service("web", local.clone()), service("again", local)])
        .await;
    let expected = [
        format!(
            "config site: cannot read {}: no such file or directory (os error 2)",
            bench.path("none").display()
        ),
        "secret p: variable `pasword` is not set".into(),
        "secret c: command `false` failed (exit status: 1)".into(),
        "./conf: symlink `out` points outside the folder, to /etc".into(),
        "`./gone` does not exist".into(),
        "./named does not exist, so it would become volume shop_named, which the file already declares"
            .into(),
        "secret z: the value is not text, so it cannot be in a variable".into(),
        "secret d: it is not a regular file or folder".into(),
    ];
    let expected: Vec<String> = expected
        .iter()
        .map(|text| format!("error 3:5 {text}").to_lowercase())
        .collect();
    assert_eq!(done.diagnostics, expected);
    assert!(done.contents.is_err());
}
