//! Runs the command lines the rules are made of.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;

use super::command::Command;
use super::error::FirewallError;

/// iptables waits up to 5 s for its lock; a machine short of memory may take longer to start it.
const LIMIT: Duration = Duration::from_secs(20);

/// Where administration programs are, if the environment leaves them out.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    command: String,
    success: bool,
    stdout: String,
    stderr: String,
}

impl Ended {
    /// Whether it succeeded.
    pub fn is_success(&self) -> bool {
        self.success
    }

    /// What it printed, without the last end of line.
    pub fn stdout(&self) -> &str {
        &self.stdout
    }

    /// An error unless it succeeded.
    pub fn success(self) -> Result<(), FirewallError> {
        if self.success {
            return Ok(());
        }
        let hint = hint(&self.stderr);
        Err(FirewallError::Failed {
            command: self.command,
            stderr: self.stderr,
            hint,
        })
    }
}

/// Runs a program to its end. Fails only if the program cannot be run: the caller checks its exit
/// status.
pub async fn run(command: &Command) -> Result<Ended, FirewallError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => FirewallError::MissingProgram {
            program: command.program,
            package: "iptables",
        },
        _ => FirewallError::Run {
            command: command.to_string(),
            source,
        },
    };
    let path = match std::env::var("PATH") {
        Ok(path) if !path.is_empty() => format!("{path}:{PATH}"),
        _ => PATH.to_owned(),
    };
    let mut child = tokio::process::Command::new(command.program)
        .args(&command.arguments)
        .env("PATH", path)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let stdin = child.stdin.take();
    let whole = async {
        if let Some(mut stdin) = stdin {
            match stdin.write_all(command.input.as_bytes()).await {
                // It ended without reading all; its exit code says more.
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
                _ => {}
            }
        }
        child.wait_with_output().await
    };
    let output = match tokio::time::timeout(LIMIT, whole).await {
        Ok(output) => output.map_err(failed)?,
        Err(_) => {
            return Err(failed(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no end within {LIMIT:?}"),
            )));
        }
    };
    let stdout = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let stderr = String::from_utf8_lossy(&output.stderr)
        .trim()
        .replace('\n', "; ");
    Ok(Ended {
        command: command.to_string(),
        success: output.status.success(),
        stdout,
        stderr,
    })
}

fn hint(stderr: &str) -> &'static str {
    if stderr.contains("ermission denied") || stderr.contains("not permitted") {
        "; the daemon has to run as root"
    } else if stderr.contains("xtables lock") {
        "; another program holds the firewall's lock"
    } else if stderr.contains("Address family not supported") {
        "; IPv6 is disabled in this kernel, but the mesh needs it: boot without ipv6.disable=1"
    } else if stderr.contains("does not exist (do you need to insmod")
        || stderr.contains("not supported")
    {
        "; a kernel module for iptables is missing (install the distribution's full kernel package)"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(program: &'static str, arguments: &[&str]) -> Command {
        Command {
            program,
            arguments: arguments.iter().map(|text| (*text).to_owned()).collect(),
            input: "in".to_owned(),
        }
    }

    #[tokio::test]
    async fn a_missing_program_is_named_with_its_package() {
        let error = run(&command("uc-no-such-program", &[])).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "uc-no-such-program is not installed; install the package iptables"
        );
    }

    #[tokio::test]
    async fn a_failure_tells_the_command_its_words_and_what_to_do() {
        let script = "read -r line; echo \"$line: Permission denied\" >&2; exit 4";
        let ended = run(&command("sh", &["-c", script])).await.unwrap();
        assert!(!ended.is_success());
        let error = ended.success().unwrap_err().to_string();
        assert!(error.starts_with("sh -c read"), "{error}");
        assert!(
            error.ends_with("failed: in: Permission denied; the daemon has to run as root"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_program_that_does_not_read_its_input_is_no_failure() {
        let mut command = command("true", &[]);
        command.input = "x".repeat(1 << 20);
        assert!(run(&command).await.unwrap().is_success());
    }
}
