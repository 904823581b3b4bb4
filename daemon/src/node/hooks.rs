//! Runs hooks: commands inside a replica after its start and before its stop. The container's
//! labels hold them, so they always belong to the spec that the container was made from.

use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;
use uc_api::{Code, Failure, v1};

use super::NodeService;
use crate::engine::{Container, EngineError, ExecOptions, ExecOutput, logs};

/// Time limit of all post-start hooks of a replica together. Compose has no limit. This one keeps a
/// hook that never ends from blocking a deployment.
const POST_START_LIMIT: Duration = Duration::from_mins(10);
/// Minimum time for all pre-stop hooks together, however short the grace period is.
const PRE_STOP_LEAST: Duration = Duration::from_secs(10);
/// Last lines of output that are kept.
const OUTPUT_LINES: usize = 10;
/// Last bytes of output that are kept for these lines.
const OUTPUT_BYTES: usize = 16 * 1024;

/// Why a hook failed, and the end of its output.
#[derive(Debug)]
struct HookFailure {
    why: String,
    output: Vec<String>,
}

impl NodeService {
    /// Runs the post-start hooks of a container that was just started. Stops at the first failure.
    pub(super) async fn run_post_start_hooks(&self, container: &Container) -> Result<(), Failure> {
        if container.post_start.is_empty() {
            return Ok(());
        }
        let (id, name) = (
            &container.record.container_id,
            &container.record.container_name,
        );
        let ended = match timeout(POST_START_LIMIT, self.run_hooks(id, &container.post_start)).await
        {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(ended)) => ended,
            Err(_) => {
                let limit = POST_START_LIMIT.as_secs();
                let message =
                    format!("the post_start hooks of `{name}` did not finish within {limit} s");
                return Err(Failure::new(Code::TimedOut, message)
                    .log_tail(logs::tail(&*self.engine, id, OUTPUT_LINES).await));
            }
        };
        let message = format!("post_start hook of `{name}` failed: {}", ended.why);
        // If the hook printed nothing, or could not run because the container had exited, the
        // container's log is more useful.
        let log = match ended.output {
            output if output.is_empty() => logs::tail(&*self.engine, id, OUTPUT_LINES).await,
            output => output,
        };
        Err(Failure::new(Code::Refused, message).log_tail(log))
    }

    /// Runs the pre-stop hooks of a running container. A failure is only logged, because it must
    /// always be possible to stop a container.
    pub(super) async fn run_pre_stop_hooks(&self, container: &Container, grace: Duration) {
        if container.pre_stop.is_empty() {
            return;
        }
        let (id, name) = (
            &container.record.container_id,
            &container.record.container_name,
        );
        let limit = grace.max(PRE_STOP_LEAST);
        match timeout(limit, self.run_hooks(id, &container.pre_stop)).await {
            Ok(Ok(())) => {}
            Ok(Err(ended)) => {
                let output = ended.output.join("\n");
                tracing::warn!(container = %name, why = %ended.why, %output, "a pre_stop hook failed; stopping the container anyway");
            }
            Err(_) => {
                tracing::warn!(container = %name, ?limit, "the pre_stop hooks took too long; stopping the container anyway");
            }
        }
    }

    async fn run_hooks(&self, id: &str, hooks: &[v1::Hook]) -> Result<(), HookFailure> {
        for hook in hooks {
            let command = hook.command.join(" ");
            let mut output = Vec::new();
            let why = match self.run_hook(id, hook, &mut output).await {
                Ok(0) => continue,
                Ok(code) => format!("`{command}` exited with code {code}"),
                Err(error) => format!("cannot run `{command}`: {error}"),
            };
            return Err(HookFailure {
                why,
                output: last_lines(&output),
            });
        }
        Ok(())
    }

    /// Runs one hook and returns its exit code. Appends the end of its output to `output`.
    async fn run_hook(
        &self,
        id: &str,
        hook: &v1::Hook,
        output: &mut Vec<u8>,
    ) -> Result<i32, EngineError> {
        let options = ExecOptions {
            command: hook.command.clone(),
            tty: false,
            environment: hook
                .environment
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect(),
            user: hook.user.clone(),
            working_dir: hook.working_dir.clone(),
            privileged: hook.privileged,
        };
        let mut session = self.engine.exec(id, options).await?;
        // Hooks have no standard input.
        let _already_closed = session.input.shutdown().await;
        while let Some(piece) = session.output.next().await {
            let (ExecOutput::Stdout(bytes) | ExecOutput::Stderr(bytes)) = piece?;
            output.extend_from_slice(&bytes);
            let excess = output.len().saturating_sub(OUTPUT_BYTES);
            output.drain(..excess);
        }
        self.engine.exec_exit_code(&session.id).await
    }
}

fn last_lines(output: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(output);
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(OUTPUT_LINES);
    lines
        .get(from..)
        .expect("it begins at or before the end")
        .iter()
        .map(|line| (*line).to_owned())
        .collect()
}
