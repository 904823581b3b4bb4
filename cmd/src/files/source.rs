//! Texts that are not files: variables of the environment, and what programs print.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use uc_api::content::{MAX_ARCHIVE, MAX_VALUE};
use uc_api::nearest::did_you_mean;

/// Enough for a password manager that asks its person.
const COMMAND_LIMIT: Duration = Duration::from_mins(1);

/// Why there is no text: the message and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) message: String,
    pub(super) hint: String,
}

impl Problem {
    pub(super) fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: hint.into(),
        }
    }
}

/// The value of a variable.
pub(super) fn variable(
    name: &str,
    environment: &BTreeMap<String, String>,
) -> Result<String, Problem> {
    environment.get(name).cloned().ok_or_else(|| {
        let near = did_you_mean(name, environment.keys().map(String::as_str));
        let hint = near.unwrap_or_else(|| {
            format!("run `export {name}=…` before `uc deploy`, or add it to .env")
        });
        Problem::new(format!("variable `{name}` is not set"), hint)
    })
}

/// Whether a text can be the value of a variable.
pub(super) fn check_value(bytes: &[u8]) -> Result<(), Problem> {
    let wrong = |message: &str| {
        Err(Problem::new(
            message,
            "mount it as a file instead: list it below `secrets:` of the service",
        ))
    };
    if bytes.len() as u64 > MAX_VALUE {
        return wrong(&format!(
            "the value is longer than {} KiB, the limit for a variable",
            MAX_VALUE >> 10
        ));
    }
    if bytes.contains(&0) || std::str::from_utf8(bytes).is_err() {
        return wrong("the value is not text, so it cannot be in a variable");
    }
    Ok(())
}

/// Runs each program once, however many services want what it prints.
#[derive(Debug, Default)]
pub(super) struct Commands {
    ran: BTreeMap<(Vec<String>, PathBuf), Result<Vec<u8>, Problem>>,
}

impl Commands {
    /// What the program prints, without one end of line at its end. Never through a shell; stdin
    /// and stderr are the terminal's.
    pub(super) async fn output(
        &mut self,
        words: &[String],
        directory: &Path,
    ) -> Result<Vec<u8>, Problem> {
        let key = (words.to_vec(), directory.to_owned());
        if let Some(output) = self.ran.get(&key) {
            return output.clone();
        }
        let output = run(words, directory, COMMAND_LIMIT).await;
        self.ran.insert(key, output.clone());
        output
    }
}

async fn run(words: &[String], directory: &Path, limit: Duration) -> Result<Vec<u8>, Problem> {
    let Some((program, arguments)) = words.split_first() else {
        return Err(Problem::new("the command is empty", "name a program"));
    };
    let mut command = Command::new(program);
    command.args(arguments).current_dir(directory);
    command
        .stdin(Stdio::inherit())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| {
        Problem::new(
            format!("cannot run `{program}`: {error}"),
            "it is run without a shell; for pipes and variables write [\"sh\", \"-c\", \"…\"]",
        )
    })?;
    let Some(mut stdout) = child.stdout.take() else {
        return Err(Problem::new(
            format!("cannot read the output of `{program}`"),
            "",
        ));
    };
    let reading = async {
        let mut bytes = Vec::new();
        // One more than may travel, so that too much is seen.
        (&mut stdout)
            .take(MAX_ARCHIVE + 1)
            .read_to_end(&mut bytes)
            .await?;
        drop(stdout);
        let status = child.wait().await?;
        Ok::<_, std::io::Error>((bytes, status))
    };
    let (mut bytes, status) = match tokio::time::timeout(limit, reading).await {
        Err(_) => {
            let message = format!(
                "command `{program}` did not end within {} s",
                limit.as_secs()
            );
            return Err(Problem::new(
                message,
                "run it by hand to see what it waits for",
            ));
        }
        Ok(Err(error)) => {
            return Err(Problem::new(
                format!("cannot read the output of `{program}`: {error}"),
                "",
            ));
        }
        Ok(Ok(read)) => read,
    };
    if !status.success() {
        return Err(Problem::new(
            format!("command `{program}` failed ({status})"),
            "its messages are above; run it by hand to try again",
        ));
    }
    if bytes.ends_with(b"\n") {
        bytes.pop();
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_variable_that_is_not_set_is_said_with_its_neighbour() {
        let environment = BTreeMap::from([("DB_PASSWORD".to_owned(), "x".to_owned())]);
        assert_eq!(variable("DB_PASSWORD", &environment).unwrap(), "x");
        let problem = variable("DB_PASSWROD", &environment).unwrap_err();
        assert_eq!(problem.message, "variable `DB_PASSWROD` is not set");
        assert_eq!(problem.hint, "did you mean `DB_PASSWORD`?");
        let problem = variable("OTHER", &environment).unwrap_err();
        assert!(
            problem.hint.contains("`export OTHER=…`") && !problem.hint.contains("DB_"),
            "{problem:?}"
        );
    }

    #[tokio::test]
    async fn one_end_of_line_is_taken_off_and_no_shell_is_between() {
        let directory = tempfile::tempdir().unwrap();
        let mut commands = Commands::default();
        for (printed, expected) in [("a\\n", "a"), ("a\\n\\n", "a\n"), ("a", "a"), ("", "")] {
            let output = commands
                .output(&words(&["printf", printed]), directory.path())
                .await
                .unwrap();
            assert_eq!(output, expected.as_bytes());
        }
        let output = commands
            .output(&words(&["echo", "$HOME", "a;b"]), directory.path())
            .await
            .unwrap();
        assert_eq!(output, b"$HOME a;b");
    }

    #[tokio::test]
    async fn a_command_runs_once_where_its_file_is() {
        let directory = tempfile::tempdir().unwrap();
        let mut commands = Commands::default();
        let count = words(&["sh", "-c", "echo x >> ran; cat ran"]);
        assert_eq!(
            commands.output(&count, directory.path()).await.unwrap(),
            b"x"
        );
        assert_eq!(
            commands.output(&count, directory.path()).await.unwrap(),
            b"x"
        );
        assert_eq!(std::fs::read(directory.path().join("ran")).unwrap(), b"x\n");
    }

    #[tokio::test]
    async fn what_goes_wrong_is_said() {
        let here = Path::new("/");
        let mut commands = Commands::default();
        let mut failed =
            async |list: &[&str]| commands.output(&words(list), here).await.unwrap_err();
        assert!(
            failed(&["no-such-program"])
                .await
                .message
                .contains("cannot run")
        );
        assert!(
            failed(&["false"])
                .await
                .message
                .contains("failed (exit status: 1)")
        );
        assert!(failed(&[]).await.message.contains("empty"));
        let slow = run(&words(&["sleep", "1000"]), here, Duration::from_millis(10))
            .await
            .unwrap_err();
        assert!(slow.message.contains("did not end"), "{slow:?}");
    }
}
