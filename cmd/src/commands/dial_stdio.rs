//! `uc dial-stdio`: runs on the machine, at the other end of an ssh connection.
//!
//! Two threads that copy; no runtime, and no buffer that could hold back a frame.

use std::fs::File;
use std::io;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use clap::Args;
use uc_api::layout::API_SOCKET;

use crate::connect::socket_error;
use crate::error::{CliError, CliResult};

/// Pipe stdin and stdout to the daemon's socket
///
/// For `uc` on another computer, which runs this through ssh.
#[derive(Debug, Args)]
#[command(hide = true)]
pub(crate) struct DialStdioArgs {
    /// The daemon's socket
    #[arg(long, value_name = "PATH", default_value = API_SOCKET)]
    socket: PathBuf,
}

pub(crate) fn run(args: &DialStdioArgs) -> CliResult {
    let stream =
        UnixStream::connect(&args.socket).map_err(|error| socket_error(&args.socket, error))?;
    // The standard handles buffer by line; the descriptors themselves do not.
    let mut input = File::from(
        io::stdin()
            .as_fd()
            .try_clone_to_owned()
            .map_err(pipe_error)?,
    );
    let mut output = File::from(
        io::stdout()
            .as_fd()
            .try_clone_to_owned()
            .map_err(pipe_error)?,
    );
    let mut to_daemon = stream.try_clone().map_err(pipe_error)?;
    // Ends with the process at the latest: it may wait for input that never comes.
    std::thread::spawn(move || {
        _ = carry(&mut input, &mut to_daemon);
        _ = to_daemon.shutdown(Shutdown::Write);
    });
    let mut from_daemon = stream;
    match carry(&mut from_daemon, &mut output) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(CliError::failed("lost the connection to the daemon").source(error)),
    }
}

/// Copies until the end, each piece as it comes.
///
/// Not `io::copy`: between a socket and a pipe that is `splice`, which holds the pipe's lock while
/// it waits for the socket, and sshd on the pipe's other end then hangs in its read and serves no
/// other session.
fn carry(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        to.write_all(&buffer[..length])?;
        to.flush()?;
    }
}

fn pipe_error(error: io::Error) -> CliError {
    CliError::failed("cannot open another handle of stdin, stdout or the socket").source(error)
}
