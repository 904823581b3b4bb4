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
/// The exit code is the command's own; 125 if it could not be run at all, 126 and 127 as with
/// Docker.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  uc exec web                        a shell
  uc exec db psql -U postgres        flags after the service belong to the command
  uc exec -T db pg_dump app > dump   without a terminal, for pipes")]
pub(crate) struct ExecArgs {
    /// No terminal, even if there is one here
    #[arg(short = 'T', long)]
    no_tty: bool,
    /// Set a variable; without a value: the one set here
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// User or UID in the container
    #[arg(short, long)]
    user: Option<String>,
    /// Directory in the container
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// This container, by id or the beginning of it [default: the first that runs]
    #[arg(long, value_name = "ID")]
    container: Option<String>,
    /// `SERVICE` or `PROJECT/SERVICE`
    service: String,
    /// The command [default: a shell]
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CMD"
    )]
    command: Vec<String>,
}

pub(crate) async fn run(args: ExecArgs, ui: &Ui, globals: &Globals) -> CliResult<u8> {
    converse(args, ui, globals)
        .await
        .map_err(|error| match error.kind {
            Kind::BrokenPipe | Kind::Interrupted => error,
            _ => error.kind(Kind::Engine),
        })
}

async fn converse(args: ExecArgs, ui: &Ui, globals: &Globals) -> CliResult<u8> {
    let tty = !args.no_tty && std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let client = globals.client().await?;
    let (sender, receiver) = mpsc::channel(WAITING);
    let start = ExecStart {
        service: args.service,
        container: args.container.unwrap_or_default(),
        command: args.command,
        tty,
        size: term::size().filter(|_| tty).map(size),
        environment: args.env.into_iter().filter_map(with_value).collect(),
        user: args.user.unwrap_or_default(),
        working_dir: args.workdir.unwrap_or_default(),
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
