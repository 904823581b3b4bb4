//! Runs a command in a replica: one stream in each direction, and then the exit code.

use std::pin::Pin;

use futures_util::StreamExt as _;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use uc_api::v1::exec_request::Message as Asked;
use uc_api::v1::exec_response::Message as Answer;
use uc_api::{Code, Failure, v1};

use super::{Incoming, NodeService, QUEUE, Replies};
use crate::engine::{ExecOptions, ExecOutput};

/// The command that runs when the user gives none.
const SHELL: [&str; 3] = [
    "/bin/sh",
    "-c",
    "if command -v bash >/dev/null 2>&1; then exec bash; else exec sh; fi",
];

/// The character that Ctrl-D sends.
const END_OF_TRANSMISSION: u8 = 4;

impl NodeService {
    /// Runs a command. The first message must be the start, which names the container. The last
    /// reply is the exit code; 127 means that the command does not exist.
    pub(crate) async fn exec_with<S>(
        &self,
        mut incoming: S,
    ) -> Result<Replies<v1::ExecResponse>, Failure>
    where
        S: futures_util::Stream<Item = Result<v1::ExecRequest, Status>> + Send + Unpin + 'static,
    {
        let first = incoming.next().await.transpose().map_err(Failure::from)?;
        let Some(Asked::Start(start)) = first.and_then(|request| request.message) else {
            return Err(Failure::new(
                Code::Invalid,
                "the first message of an exec must be a start",
            ));
        };
        let container = self.managed(&start.container).await?;
        if container.record.state() != v1::ReplicaState::Running {
            let name = &container.record.container_name;
            return Err(
                Failure::new(Code::Refused, format!("`{name}` is not running"))
                    .hint("`uc ps` lists the running replicas"),
            );
        }
        let (tty, size) = (start.tty, start.size);
        let session = self
            .engine
            .exec(&container.record.container_id, options(start))
            .await?;
        let (answers, receiver) = mpsc::channel(QUEUE);
        let node = self.clone();
        self.tasks.spawn(async move {
            if tty {
                node.resize(&session.id, size).await;
            }
            let id = session.id;
            let feed = node.feed(&id, incoming, Input { writer: Some(session.input), tty });
            let drain = node.drain(&id, session.output, &answers);
            // `feed` returns only when the caller's stream breaks.
            let broken_off = tokio::select! {
                answer = drain => answer,
                () = feed => return,
                () = answers.closed() => return,
                () = node.cancel.cancelled() => Err(Failure::new(Code::Unreachable, "the daemon is going down")),
            };
            let last = match broken_off {
                Ok(code) => Ok(v1::ExecResponse { message: Some(Answer::ExitCode(code)) }),
                Err(failure) => Err(node.status(failure)),
            };
            let _caller_may_be_gone = answers.send(last).await;
        });
        Ok(ReceiverStream::new(receiver).boxed())
    }

    /// Moves input from the caller to the command. Returns only when the caller's stream breaks.
    /// When the stream ends normally, standard input is closed and the command continues.
    async fn feed(
        &self,
        exec_id: &str,
        mut incoming: impl Incoming<v1::ExecRequest>,
        mut input: Input,
    ) {
        while let Some(request) = incoming.next().await {
            let Ok(request) = request else { return };
            match request.message {
                Some(Asked::Stdin(bytes)) => input.write(&bytes).await,
                Some(Asked::Resize(size)) => self.resize(exec_id, Some(size)).await,
                Some(Asked::StdinClosed(true)) => input.end().await,
                Some(Asked::StdinClosed(false) | Asked::Start(_)) | None => {}
            }
        }
        input.end().await;
        std::future::pending::<()>().await;
    }

    /// Moves output from the command to the caller. Returns the exit code.
    async fn drain(
        &self,
        exec_id: &str,
        mut output: futures_util::stream::BoxStream<
            'static,
            Result<ExecOutput, crate::engine::EngineError>,
        >,
        answers: &mpsc::Sender<Result<v1::ExecResponse, Status>>,
    ) -> Result<i32, Failure> {
        let mut first = None;
        while let Some(piece) = output.next().await {
            let message = match piece? {
                ExecOutput::Stdout(bytes) => Answer::Stdout(bytes.to_vec()),
                ExecOutput::Stderr(bytes) => Answer::Stderr(bytes.to_vec()),
            };
            if first.is_none() {
                first = Some(message.clone());
            }
            let _closed_is_seen_elsewhere = answers
                .send(Ok(v1::ExecResponse {
                    message: Some(message),
                }))
                .await;
        }
        let code = self.engine.exec_exit_code(exec_id).await?;
        Ok(exit_code(code, first.as_ref()))
    }

    /// Resizes the terminal. A failure is only logged: a wrong size must not end the session.
    async fn resize(&self, exec_id: &str, size: Option<v1::TerminalSize>) {
        let Some(size) = size.filter(|size| size.columns > 0 && size.rows > 0) else {
            return;
        };
        let clamp = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
        if let Err(error) = self
            .engine
            .exec_resize(exec_id, clamp(size.columns), clamp(size.rows))
            .await
        {
            tracing::debug!(%error, "cannot resize a terminal");
        }
    }
}

/// Returns 127 for a command that does not exist, as every shell does. Engines before 23 return 126
/// and give the reason in the output only.
fn exit_code(code: i32, first: Option<&Answer>) -> i32 {
    let (Some(Answer::Stdout(text) | Answer::Stderr(text)), 126) = (first, code) else {
        return code;
    };
    let text = String::from_utf8_lossy(text);
    let unknown =
        text.contains("executable file not found") || text.contains("no such file or directory");
    if text.starts_with("OCI runtime exec failed") && unknown {
        127
    } else {
        code
    }
}

/// The command's standard input. `writer` is `None` once the command has closed it.
struct Input {
    writer: Option<Pin<Box<dyn AsyncWrite + Send>>>,
    tty: bool,
}

impl Input {
    async fn write(&mut self, bytes: &[u8]) {
        let Some(writer) = &mut self.writer else {
            return;
        };
        // A command can close its input at any time.
        if writer.write_all(bytes).await.is_err() || writer.flush().await.is_err() {
            self.writer = None;
        }
    }

    /// Ends the input. A terminal needs the end-of-transmission character, because closing its
    /// connection would also end its output.
    async fn end(&mut self) {
        if self.tty {
            self.write(&[END_OF_TRANSMISSION]).await;
        } else if let Some(mut writer) = self.writer.take() {
            let _already_closed = writer.shutdown().await;
        }
    }
}

fn options(start: v1::ExecStart) -> ExecOptions {
    let command = if start.command.is_empty() {
        SHELL.map(str::to_owned).to_vec()
    } else {
        start.command
    };
    ExecOptions {
        command,
        tty: start.tty,
        environment: start.environment,
        user: start.user,
        working_dir: start.working_dir,
        privileged: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_code_of_unknown_command_is_127() {
        let said = |text: &str| Answer::Stdout(text.as_bytes().to_vec());
        let not_found = said(
            "OCI runtime exec failed: exec: \"x\": executable file not found in $PATH: unknown\r\n",
        );
        assert_eq!(exit_code(126, Some(&not_found)), 127);
        assert_eq!(exit_code(1, Some(&not_found)), 1);
        let not_allowed =
            said("OCI runtime exec failed: exec: \"x\": permission denied: unknown\r\n");
        assert_eq!(exit_code(126, Some(&not_allowed)), 126);
        assert_eq!(
            exit_code(126, Some(&said("sh: executable file not found"))),
            126
        );
        assert_eq!(exit_code(126, None), 126);
    }

    #[test]
    fn options_without_command_start_a_shell() {
        let shell = options(v1::ExecStart::default()).command;
        assert!(
            shell[2].contains("exec bash") && shell[2].contains("exec sh"),
            "{shell:?}"
        );
        let start = v1::ExecStart {
            command: vec!["ls".into()],
            tty: true,
            user: "app".into(),
            ..Default::default()
        };
        let got = options(start);
        assert_eq!(
            (got.command, got.tty, got.user),
            (vec!["ls".to_owned()], true, "app".to_owned())
        );
    }
}
