//! Prepares a machine over ssh: inspects it, copies the programs, and runs install.sh.
//!
//! Each step is one ssh command. The files are copied to a private temporary directory and compared
//! by SHA-256. The directory is removed afterwards, also after a failure.

mod artefacts;
pub(crate) mod installed;
mod remote;
mod ssh_addresses;

use std::future::Future;
use std::io;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

pub(crate) use artefacts::Artefacts;
use remote::Remote;
pub(crate) use ssh_addresses::ssh_addresses;
use tokio::io::AsyncRead;

use crate::connect::{Client, DIAL_STDIO, Ssh, over_ssh};
use crate::connection::{Connection, SshTarget};
use crate::env::Env;
use crate::error::{CliError, CliResult, Kind};
use crate::interrupt::{self, Guard};
use crate::text;
use crate::ui::{DIM, Progress, Ui};

/// Time limit of install.sh, which may install Docker from the distribution's mirrors.
const INSTALL: Duration = Duration::from_mins(20);
/// Time limit for removing the temporary directory, so that an error is not delayed for long.
const CLEANING: Duration = Duration::from_secs(15);

/// Prints one line that starts with `uc-probe`, so that text which a login prints is ignored.
const PROBE: &str = r#"sh -c 'if [ "$(id -u)" = 0 ]; then s=root; elif ! command -v sudo >/dev/null 2>&1; then s=none; elif sudo -n true 2>/dev/null; then s=sudo; else s=password; fi; u=no; { [ -x /usr/local/bin/uc ] || command -v uc >/dev/null 2>&1; } && u=yes; printf "uc-probe %s %s %s %s %s\n" "$(uname -s)" "$(uname -m)" "$(id -un)" "$s" "$u"'"#;

/// A machine that ssh reaches, and the result of the probe.
#[derive(Debug)]
pub(crate) struct Host {
    remote: Remote,
    facts: Facts,
}

/// The result of the probe.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Facts {
    system: String,
    architecture: String,
    user: String,
    power: Power,
    has_uc: bool,
}

/// How commands become root on the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Power {
    Root,
    Sudo,
    /// sudo asks for a password.
    Password,
    /// The machine has no sudo.
    None,
}

impl Host {
    /// Logs in and inspects the machine. Refuses one that cannot be set up.
    pub(crate) async fn look(target: &SshTarget, env: &Env) -> CliResult<Self> {
        let remote = Remote::new(Ssh::new(target.clone(), env));
        let output = remote.run(PROBE, remote::SHORT).await?;
        let facts = parse_probe(&output).ok_or_else(|| {
            CliError::failed(format!(
                "{target} did not run a shell command: its login shell must be like sh"
            ))
            .source(output.lines().next().unwrap_or("(no output)").to_owned())
        })?;
        check(target, &facts)?;
        Ok(Self { remote, facts })
    }

    /// Whether uc may be installed already.
    pub(crate) fn has_uc(&self) -> bool {
        self.facts.has_uc
    }

    /// For example `Linux x86_64`.
    pub(crate) fn platform(&self) -> String {
        format!("{} {}", self.facts.system, self.facts.architecture)
    }

    /// Connects to the daemon of the machine, with sudo unless the user is root: membership in the
    /// group `uc` takes effect at the next login only.
    pub(crate) async fn client(&self) -> CliResult<Client> {
        let sudo = if self.facts.power == Power::Sudo {
            "sudo -n "
        } else {
            ""
        };
        let label = Connection::Ssh(self.remote.target().clone()).to_string();
        over_ssh(self.remote.ssh(), &format!("{sudo}{DIAL_STDIO}"), label).await
    }

    /// Copies the programs and runs install.sh.
    pub(crate) async fn install(&self, artefacts: &Artefacts, ui: &Ui) -> CliResult {
        artefacts
            .check_architecture(&self.facts.architecture, &self.remote.target().to_string())?;
        let made = self
            .remote
            .run("mktemp -d /tmp/uc-install.XXXXXXXX", remote::SHORT)
            .await?;
        let directory = made.lines().last().map(str::trim);
        let Some(directory) = directory.filter(|path| is_plain_path(path)) else {
            return Err(CliError::failed(format!(
                "cannot create a temporary directory on {}",
                self.remote.target()
            ))
            .source(made));
        };
        let guard = Guard::new();
        let result =
            interrupt::or_interrupted(&guard, self.copy_and_run(artefacts, directory, ui)).await;
        if self
            .remote
            .run(&format!("rm -rf {directory}"), CLEANING)
            .await
            .is_err()
        {
            ui.warn(&format!(
                "could not remove {directory} on {}",
                self.remote.target()
            ))?;
        }
        result?;
        if self.facts.power != Power::Root {
            // A shared connection keeps the groups of its login.
            self.remote.close_shared().await;
        }
        Ok(())
    }

    async fn copy_and_run(&self, artefacts: &Artefacts, directory: &str, ui: &Ui) -> CliResult {
        let progress = ui.progress();
        for (name, source) in artefacts.files() {
            self.remote
                .copy(&source, &format!("{directory}/{name}"), name, &progress)
                .await?;
        }
        let (sudo, user) = match self.facts.power {
            Power::Root => ("", String::new()),
            _ => ("sudo -n ", format!(" --user {}", self.facts.user)),
        };
        let line = format!("{sudo}sh {directory}/install.sh --from {directory}{user}");
        let mut process = self.remote.ssh().spawn(&line)?;
        drop(process.stdin());
        let (stdout, stderr) = (process.stdout(), process.stderr());
        let (status, said) = run_installer(stdout, stderr, process.wait(), &progress).await?;
        installed(
            status,
            &said,
            &format!("on {}", self.remote.target()),
            |said| self.remote.explain(said, Some(255)),
        )
    }
}

/// Installs on this computer.
pub(crate) async fn install_here(artefacts: &Artefacts, ui: &Ui) -> CliResult {
    artefacts.check_architecture(std::env::consts::ARCH, "this computer")?;
    let mut command = tokio::process::Command::new("sh");
    command
        .arg(artefacts.installer())
        .arg("--from")
        .arg(artefacts.directory());
    command
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(crate::connect::no_ssh)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (status, said) = run_installer(stdout, stderr, child.wait(), &ui.progress()).await?;
    installed(status, &said, "here", |said| {
        CliError::failed(said.to_owned())
    })
}

/// Runs install.sh and shows its output. Returns its exit code and its output.
async fn run_installer(
    stdout: Option<impl AsyncRead + Unpin>,
    stderr: Option<impl AsyncRead + Unpin>,
    ended: impl Future<Output = io::Result<ExitStatus>>,
    progress: &Progress,
) -> CliResult<(Option<i32>, String)> {
    let said = remote::follow(stdout, stderr, ended, |line| {
        progress.line(&format!("{DIM}│{DIM:#} {}", text::of_container(line)));
    });
    tokio::time::timeout(INSTALL, said).await.map_err(|_| {
        CliError::new(
            Kind::TimedOut,
            "install.sh did not finish within 20 minutes",
        )
    })?
}

/// The result of install.sh. Its lines `error: …` and `hint: …` become ours.
fn installed(
    status: Option<i32>,
    said: &str,
    place: &str,
    ssh_failed: impl Fn(&str) -> CliError,
) -> CliResult {
    if status == Some(0) {
        return Ok(());
    }
    let Some(message) = said
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("error: "))
    else {
        if status == Some(255) {
            return Err(ssh_failed(said));
        }
        let code = status.map_or_else(
            || "ended by a signal".to_owned(),
            |code| format!("exit code {code}"),
        );
        return Err(
            CliError::failed(format!("install.sh failed {place} ({code})"))
                .hint("see its output above for the reason"),
        );
    };
    let mut error = CliError::failed(format!("cannot install uc {place}: {message}"));
    for hint in said.lines().filter_map(|line| line.strip_prefix("hint: ")) {
        error = error.hint(hint);
    }
    Err(error)
}

fn parse_probe(output: &str) -> Option<Facts> {
    let line = output
        .lines()
        .find_map(|line| line.strip_prefix("uc-probe "))?;
    let mut words = line.split_whitespace().map(ToOwned::to_owned);
    let (system, architecture, user) = (words.next()?, words.next()?, words.next()?);
    let power = match words.next()?.as_str() {
        "root" => Power::Root,
        "sudo" => Power::Sudo,
        "password" => Power::Password,
        "none" => Power::None,
        _ => return None,
    };
    Some(Facts {
        system,
        architecture,
        user,
        power,
        has_uc: words.next()? == "yes",
    })
}

fn check(target: &SshTarget, facts: &Facts) -> CliResult {
    if facts.system != "Linux" {
        return Err(CliError::failed(format!(
            "{target} runs {}, but a machine must run Linux",
            facts.system
        )));
    }
    let user = &facts.user;
    match facts.power {
        Power::Root | Power::Sudo => Ok(()),
        Power::Password => Err(CliError::failed(format!(
            "{target}: {user} is not root, and sudo asks for a password"
        ))
        .hint(format!("log in as root: `root@{}`", target.host))
        .hint(format!(
            "or allow sudo without a password: put `{user} ALL=(ALL) NOPASSWD: ALL` into /etc/sudoers.d/{user}"
        ))),
        Power::None => Err(CliError::failed(format!(
            "{target}: {user} is not root, and sudo is not installed"
        ))
        .hint(format!(
            "log in as root: `root@{}`, or install sudo on the machine",
            target.host
        ))),
    }
}

/// Whether a path needs no quoting in a shell.
fn is_plain_path(path: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    Path::new(path).is_absolute()
        && path.chars().all(plain)
        && !path.contains("..")
        && path.len() > 5
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probe_is_found_after_a_greeting() {
        let facts = parse_probe("Welcome!\nuc-probe Linux aarch64 pi sudo yes\n").unwrap();
        assert_eq!(
            (facts.architecture.as_str(), facts.power, facts.has_uc),
            ("aarch64", Power::Sudo, true)
        );
        assert_eq!(parse_probe("uc-probe Linux"), None);
        assert_eq!(parse_probe("This account is not available"), None);
    }

    #[test]
    fn unsuitable_machine_is_refused_with_the_way_out() {
        let target: SshTarget = "pi@h".parse().unwrap();
        let facts = |system: &str, power| Facts {
            system: system.into(),
            architecture: "x86_64".into(),
            user: "pi".into(),
            power,
            has_uc: false,
        };
        assert!(check(&target, &facts("Linux", Power::Sudo)).is_ok());
        let text = |facts| check(&target, &facts).unwrap_err().render();
        assert!(text(facts("Darwin", Power::Root)).contains("must run Linux"));
        assert!(text(facts("Linux", Power::Password)).contains("NOPASSWD"));
        assert!(text(facts("Linux", Power::None)).contains("root@h"));
    }

    #[test]
    fn path_with_shell_characters_is_not_plain() {
        assert!(is_plain_path("/tmp/uc-install.AbC123"));
        for path in [
            "",
            "/",
            "tmp/x",
            "/tmp/$(x)",
            "/tmp/a b",
            "/tmp/../etc",
            "/tmp/'",
        ] {
            assert!(!is_plain_path(path), "{path}");
        }
    }

    #[test]
    fn error_and_hint_of_install_sh_are_passed_on() {
        let said = "checking\nerror: Docker 19.03 is too old: 20.10 is needed\nhint: upgrade it\n";
        let error = installed(Some(16), said, "on root@h", |_| unreachable!()).unwrap_err();
        insta::assert_snapshot!(anstream::adapter::strip_str(&error.render()).to_string());
        assert!(installed(Some(0), said, "here", |_| unreachable!()).is_ok());
        assert!(
            installed(Some(3), "odd", "here", |_| unreachable!())
                .unwrap_err()
                .message
                .contains("exit code 3")
        );
    }
}
