//! A home directory of its own, a daemon, and `uc` in between.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::daemon::{self, CLUSTER, Daemon};

/// Everything one test needs; gone when it is dropped.
pub(crate) struct World {
    pub(crate) daemon: Arc<Daemon>,
    directory: TempDir,
    // Dropped last: the daemon runs on it.
    runtime: Runtime,
}

/// What a run of `uc` left behind.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl World {
    /// With a daemon that answers as [`Daemon::default`].
    pub(crate) fn new() -> Self {
        Self::with(Daemon::default())
    }

    /// With a daemon of one's own.
    pub(crate) fn with(daemon: Daemon) -> Self {
        let directory = tempfile::tempdir_in("/tmp").unwrap();
        for name in ["bin", "config", "run", "project"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        fs::set_permissions(
            directory.path().join("run"),
            fs::Permissions::from_mode(0o700),
        )
        .unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let daemon = Arc::new(daemon);
        let world = Self {
            daemon,
            directory,
            runtime,
        };
        world.serve("uc.sock", Arc::clone(&world.daemon));
        world
    }

    /// One more daemon, on a socket of this name.
    pub(crate) fn serve(&self, socket: &str, daemon: Arc<Daemon>) {
        let _guard = self.runtime.enter();
        daemon::serve(&self.path(socket), daemon);
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// A program that `uc` finds in its PATH. `@DIR@` in the text is this world's directory, `@UC@`
    /// the real `uc`.
    pub(crate) fn program(&self, name: &str, script: &str) {
        let script = script
            .replace("@DIR@", &self.directory.path().display().to_string())
            .replace("@UC@", env!("CARGO_BIN_EXE_uc"));
        let path = self.write(&format!("bin/{name}"), &format!("#!/bin/sh\n{script}\n"));
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// `uc` with nothing of the outside world in its environment.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_uc"));
        command.args(arguments);
        self.environment(&mut command);
        command
    }

    pub(crate) fn environment(&self, command: &mut Command) {
        command
            .env_clear()
            .env(
                "PATH",
                format!("{}:/usr/bin:/bin", self.path("bin").display()),
            )
            .env("HOME", self.directory.path())
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .current_dir(self.path("project"))
            .stdin(Stdio::null());
    }

    /// Runs `uc` without saying where the daemon is.
    pub(crate) fn uc(&self, arguments: &[&str]) -> Ran {
        self.finish(self.command(arguments))
    }

    /// Runs `uc` connected to the daemon.
    pub(crate) fn connected(&self, arguments: &[&str]) -> Ran {
        let socket = format!("unix://{}", self.path("uc.sock").display());
        let mut command = self.command(arguments);
        command.env("UC_CONNECT", socket);
        self.finish(command)
    }

    /// Runs `uc` connected to the daemon, with this text on stdin.
    pub(crate) fn connected_with(&self, arguments: &[&str], input: &str) -> Ran {
        let socket = format!("unix://{}", self.path("uc.sock").display());
        let mut command = self.command(arguments);
        command
            .env("UC_CONNECT", socket)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        drop(stdin);
        self.ran(&child.wait_with_output().unwrap())
    }

    /// Ends the daemon, and with it all its connections.
    pub(crate) fn stop_daemon(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        std::mem::replace(&mut self.runtime, runtime).shutdown_background();
    }

    /// Runs `uc` on a terminal (of `script`), with these keys typed.
    pub(crate) fn on_terminal(&self, arguments: &str, keys: &str) -> Ran {
        let mut child = self.start_on_terminal("exec", arguments);
        child
            .stdin
            .as_mut()
            .unwrap()
            .write_all(keys.as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        self.ran(&output)
    }

    /// Runs `uc` on a terminal, with these keys typed once it has printed this prompt.
    pub(crate) fn on_terminal_at(&self, arguments: &str, prompt: &str, keys: &str) -> Ran {
        self.dialogue(arguments, &[(prompt, keys)])
    }

    /// Runs `uc` on a terminal. After each text that it prints, these keys are typed.
    pub(crate) fn dialogue(&self, arguments: &str, parts: &[(&str, &str)]) -> Ran {
        self.dialogue_with("exec", arguments, Duration::ZERO, parts)
    }

    /// [`Self::dialogue`] where progress is shown as moving lines, and each answer takes longer
    /// than these need to move.
    pub(crate) fn live_dialogue(&self, arguments: &str, parts: &[(&str, &str)]) -> Ran {
        let start = "stty rows 24 cols 80; unset UC_NO_PROGRESS; TERM=xterm exec";
        self.dialogue_with(start, arguments, Duration::from_millis(400), parts)
    }

    fn dialogue_with(
        &self,
        start: &str,
        arguments: &str,
        pause: Duration,
        parts: &[(&str, &str)],
    ) -> Ran {
        let mut child = self.start_on_terminal(start, arguments);
        let mut printed = Vec::new();
        let mut stdout = child.stdout.take().unwrap();
        let mut byte = [0];
        for (prompt, keys) in parts {
            while !String::from_utf8_lossy(&printed).ends_with(prompt) {
                let read = stdout.read_exact(&mut byte);
                let so_far = String::from_utf8_lossy(&printed);
                read.unwrap_or_else(|error| panic!("no {prompt:?}: {error}: {so_far}"));
                printed.extend(byte);
            }
            std::thread::sleep(pause);
            let stdin = child.stdin.as_mut().unwrap();
            stdin.write_all(keys.as_bytes()).unwrap();
        }
        stdout.read_to_end(&mut printed).unwrap();
        let mut output = child.wait_with_output().unwrap();
        output.stdout = printed;
        self.ran(&output)
    }

    /// `start` runs the rest of the line, which is the command. Ctrl-C would end a shell between
    /// the terminal and `uc`, whose exit code would be lost, so it is `exec`.
    fn start_on_terminal(&self, start: &str, arguments: &str) -> Child {
        let mut command = Command::new("script");
        let line = format!("{start} '{}' {arguments}", env!("CARGO_BIN_EXE_uc"));
        command.args(["-q", "-e", "-c", &line, "/dev/null"]);
        self.environment(&mut command);
        command
            .env(
                "UC_CONNECT",
                format!("unix://{}", self.path("uc.sock").display()),
            )
            .env("UC_NO_PROGRESS", "1")
            .env("SHELL", "/bin/sh")
            .env("TERM", "dumb");
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Runs `uc` on a terminal of this many columns.
    pub(crate) fn on_terminal_of(&self, columns: &str, arguments: &str) -> Ran {
        let line = format!(
            "stty rows 24 cols {columns}; '{}' {arguments}",
            env!("CARGO_BIN_EXE_uc")
        );
        self.shell_on_terminal(&line)
    }

    /// Runs a line of shell on a terminal, connected to the daemon.
    pub(crate) fn shell_on_terminal(&self, line: &str) -> Ran {
        let mut command = Command::new("script");
        command.args(["-q", "-e", "-c", line, "/dev/null"]);
        self.environment(&mut command);
        command
            .env(
                "UC_CONNECT",
                format!("unix://{}", self.path("uc.sock").display()),
            )
            .env("UC_NO_PROGRESS", "1")
            .env("SHELL", "/bin/sh")
            .env("TERM", "dumb");
        // The end of stdin would be typed into the terminal, so it stays open.
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = child.wait_with_output().unwrap();
        self.ran(&output)
    }

    pub(crate) fn finish(&self, mut command: Command) -> Ran {
        let output = command.output().unwrap();
        self.ran(&output)
    }

    fn ran(&self, output: &std::process::Output) -> Ran {
        let clean = |bytes: &[u8]| {
            String::from_utf8_lossy(bytes)
                .replace(&self.directory.path().display().to_string(), "[DIR]")
        };
        Ran {
            code: output.status.code(),
            stdout: clean(&output.stdout),
            stderr: clean(&output.stderr),
        }
    }

    /// A config file with one context per name, each with these addresses (`@` is the daemon's
    /// socket).
    pub(crate) fn config(&self, current: Option<&str>, contexts: &[(&str, &[&str])]) -> PathBuf {
        let socket = format!("unix://{}", self.path("uc.sock").display());
        let mut text = current
            .map(|name| format!("current = \"{name}\"\n"))
            .unwrap_or_default();
        for (name, addresses) in contexts {
            _ = writeln!(text, "[contexts.{name}]\ncluster = \"{CLUSTER}\"");
            for address in *addresses {
                let address = if *address == "@" {
                    socket.as_str()
                } else {
                    *address
                };
                _ = writeln!(
                    text,
                    "[[contexts.{name}.connections]]\naddress = \"{address}\""
                );
            }
        }
        self.write("config/uc/config.toml", &text)
    }
}

impl Ran {
    /// For snapshots.
    pub(crate) fn text(&self) -> String {
        let code = self
            .code
            .map_or("signal".to_owned(), |code| code.to_string());
        format!(
            "exit {code}\n--- stdout\n{}--- stderr\n{}",
            self.stdout, self.stderr
        )
    }

    /// Stdout as JSON; nothing else may be there.
    pub(crate) fn json(&self) -> serde_json::Value {
        assert_eq!(self.code, Some(0), "{}", self.text());
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

/// Names of the files in a directory.
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .map(|entries| {
            entries
                .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
                .collect()
        })
        .unwrap_or_default();
    names.sort();
    names
}

/// Waits until a condition holds.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "not within 20 s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Sends a signal to a process.
pub(crate) fn send_signal(child: &std::process::Child, signal: rustix::process::Signal) {
    let id = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(id, signal).unwrap();
}

/// Sends a signal to the process group that a process leads, as a terminal does.
pub(crate) fn send_signal_to_group(child: &std::process::Child, signal: rustix::process::Signal) {
    let id = rustix::process::Pid::from_child(child);
    rustix::process::kill_process_group(id, signal).unwrap();
}
