//! `uc exec`

use std::io::IsTerminal as _;

use clap::Args;
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use uc_api::v1::exec_request::Message;
use uc_api::v1::{ExecRequest, ExecStart, TerminalSize, exec_response};

use crate::connect::Globals;
use crate::error::{CliError, CliResult, Kind};
use crate::term;
use crate::ui::Ui;

/// Bytes of stdin in one message.
const CHUNK: usize = 32 * 1024;
/// Messages that may wait for the connection.
const WAITING: usize = 16;

/// Run a command in a container of a service
///
/// Standard input is always passed on. The command gets a terminal if stdin and stdout of `uc` are
/// one. Everything after the service belongs to the command, so options of `uc exec` come before
/// it.
///
/// With a terminal, Ctrl-C goes to the command. Without one, Ctrl-C ends `uc` only: as with Docker,
/// the command continues in the container.
///
/// The exit code is the command's own. It is 125 if `uc` could not run it, 126 if it is not
/// executable and 127 if it was not found.
#[derive(Debug, Args)]
#[command(
    override_usage = "uc exec [OPTIONS] <SERVICE> [CMD]...",
    after_help = "Examples:
  uc exec web                        run a shell
  uc exec db psql -U postgres        options after the service belong to the command
  uc exec -T db pg_dump app > dump   run without a terminal, for pipes"
)]
pub(crate) struct ExecArgs {
    /// Do not allocate a TTY
    #[arg(short = 'T', long, conflicts_with = "tty")]
    no_tty: bool,
    // `docker exec -it` and `kubectl exec -it` are habits. Standard input is always passed on, so
    // `-i` changes nothing.
    #[arg(short, long, hide = true)]
    interactive: bool,
    /// Fail unless a TTY can be allocated.
    #[arg(short, long, hide = true)]
    tty: bool,
    /// Environment variable; NAME alone takes its value from this computer (repeatable)
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// User name or UID in the container
    #[arg(short, long, default_value_t, hide_default_value = true)]
    user: String,
    /// Working directory in the container
    #[arg(
        short,
        long,
        value_name = "DIR",
        default_value_t,
        hide_default_value = true
    )]
    workdir: String,
    /// Container, by its id or the start of it [default: the first running one]
    #[arg(long, value_name = "ID", default_value_t, hide_default_value = true)]
    container: String,
    /// `SERVICE` or `PROJECT/SERVICE`, then the command [default: a shell]
    // One list, not two arguments: clap would take options between the two for its own.
    #[arg(trailing_var_arg = true, required = true, num_args = 1.., value_names = ["SERVICE", "CMD"])]
    service_and_command: Vec<String>,
}

pub(crate) async fn run(args: ExecArgs, ui: &Ui, globals: &Globals) -> CliResult<u8> {
    converse(args, ui, globals)
        .await
        .map_err(|error| match error.kind {
            Kind::BrokenPipe | Kind::Interrupted(_) => error,
            _ => error.kind(Kind::Engine),
        })
}

async fn converse(args: ExecArgs, ui: &Ui, globals: &Globals) -> CliResult<u8> {
    let tty = wants_tty(&args)?;
    let mut words = args.service_and_command.into_iter();
    let service = words.next().expect("clap requires at least one word");
    let client = globals.client().await?;
    let (sender, receiver) = mpsc::channel(WAITING);
    let start = ExecStart {
        service,
        container: args.container,
        command: words.collect(),
        tty,
        size: term::size().filter(|_| tty).map(size),
        environment: args.env.into_iter().filter_map(with_value).collect(),
        user: args.user,
        working_dir: args.workdir,
    };
    // There is room: nothing else was sent.
    _ = sender
        .send(ExecRequest {
            message: Some(Message::Start(start)),
        })
        .await;
    let mut stream = client
        .services()
        .exec(ReceiverStream::new(receiver))
        .await?
        .into_inner();
    // Dropped, and the terminal restored, also when a signal ends the command: `interrupt` waits
    // for signals, because a process that a signal ends restores nothing.
    let raw = if tty {
        Some(term::RawMode::enter().map_err(|error| {
            CliError::failed("the terminal could not be set up")
                .source(error)
                .hint("try `uc exec -T …`")
        })?)
    } else {
        None
    };
    let _resizes = tty.then(|| AbortOnDropHandle::new(tokio::spawn(send_sizes(sender.clone()))));
    let _input = AbortOnDropHandle::new(tokio::spawn(send_input(sender)));
    let result = receive(&mut stream, ui).await;
    drop(raw);
    result
}

/// Whether the command gets a terminal: if there is one here and `-T` does not forbid it.
fn wants_tty(args: &ExecArgs) -> CliResult<bool> {
    let streams = [
        ("stdin", std::io::stdin().is_terminal()),
        ("stdout", std::io::stdout().is_terminal()),
    ];
    let missing = streams.iter().find(|(_, is_terminal)| !is_terminal);
    match missing {
        Some((name, _)) if args.tty => Err(CliError::usage(format!(
            "cannot allocate a TTY (-t): {name} is not a terminal"
        ))
        .hint("leave out `-t`")),
        missing => Ok(missing.is_none() && !args.no_tty),
    }
}

async fn receive(
    stream: &mut tonic::Streaming<uc_api::v1::ExecResponse>,
    ui: &Ui,
) -> CliResult<u8> {
    while let Some(response) = stream.message().await? {
        match response.message {
            Some(exec_response::Message::Stdout(bytes)) => ui.raw_out(&bytes)?,
            Some(exec_response::Message::Stderr(bytes)) => ui.raw_err(&bytes)?,
            // Codes are one byte; what is not (never seen) is at least a failure.
            Some(exec_response::Message::ExitCode(code)) => {
                return Ok(u8::try_from(code).unwrap_or(255));
            }
            None => {}
        }
    }
    Err(CliError::failed(
        "the machine ended the session without an exit code",
    ))
}

async fn send_input(sender: mpsc::Sender<ExecRequest>) {
    let mut stdin = tokio::io::stdin();
    let mut buffer = vec![0; CHUNK];
    loop {
        let message = match stdin.read(&mut buffer).await {
            Ok(0) | Err(_) => Message::StdinClosed(true),
            Ok(count) => Message::Stdin(buffer[..count].to_vec()),
        };
        let last = matches!(message, Message::StdinClosed(_));
        if sender
            .send(ExecRequest {
                message: Some(message),
            })
            .await
            .is_err()
            || last
        {
            return;
        }
    }
}

async fn send_sizes(sender: mpsc::Sender<ExecRequest>) {
    let Ok(mut changes) = signal(SignalKind::window_change()) else {
        return;
    };
    while changes.recv().await.is_some() {
        let Some(now) = term::size() else { continue };
        if sender
            .send(ExecRequest {
                message: Some(Message::Resize(size(now))),
            })
            .await
            .is_err()
        {
            return;
        }
    }
}

fn size((columns, rows): (u32, u32)) -> TerminalSize {
    TerminalSize { columns, rows }
}

/// `NAME` alone takes the value set here, and nothing if none is.
fn with_value(text: String) -> Option<String> {
    if text.contains('=') {
        return Some(text);
    }
    std::env::var(&text)
        .ok()
        .map(|value| format!("{text}={value}"))
}
