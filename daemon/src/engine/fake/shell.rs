//! The fake's shell: takes a script, and returns lines and an exit code.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, DuplexStream};
use uc_api::v1;

/// Runs a script and returns its exit code.
pub(super) async fn interpret<F: Future<Output = ()>>(
    script: &str,
    mut input: Option<DuplexStream>,
    write: impl Fn(v1::LogStream, String) -> F,
) -> i32 {
    let mut code = 0;
    for command in script.split(';').map(str::trim) {
        let (word, rest) = command.split_once(' ').unwrap_or((command, ""));
        code = 0;
        match word {
            "echo" => match rest.strip_suffix(">&2") {
                Some(text) => write(v1::LogStream::Stderr, text.trim().to_owned()).await,
                None => write(v1::LogStream::Stdout, rest.to_owned()).await,
            },
            "sleep" => tokio::time::sleep(Duration::from_secs_f64(rest.parse().unwrap())).await,
            "exit" => return rest.parse().unwrap(),
            "true" => {}
            "false" => code = 1,
            "cat" => {
                let mut text = String::new();
                if let Some(input) = &mut input {
                    input.read_to_string(&mut text).await.unwrap();
                }
                write(
                    v1::LogStream::Stdout,
                    text.trim_end_matches('\n').to_owned(),
                )
                .await;
            }
            _ => {
                write(v1::LogStream::Stderr, format!("sh: {word}: not found")).await;
                code = 127;
            }
        }
    }
    code
}

/// Converts a command line to a script. Returns `None` if there is no such program.
pub(super) fn script(command: &[String]) -> Option<String> {
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["sh" | "/bin/sh", "-c", script] => Some((*script).to_owned()),
        [first, ..] if ["echo", "sleep", "cat", "true", "false"].contains(first) => {
            Some(words.join(" "))
        }
        _ => None,
    }
}
