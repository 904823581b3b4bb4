//! A node as the test sees it: a child process, a socket for commands, and signals. It dies with
//! this handle.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::protocol::{Command, Reply, Start};

/// Variable that makes the test program a node, and tells it which one.
pub(crate) const NODE: &str = "UC_CLUSTER_STATE_NODE";
/// Time limit for one answer of a node that is not stopped, on a machine with fifty of them.
const ANSWER: Duration = Duration::from_secs(90);

/// A running node.
pub(crate) struct Process {
    child: Child,
    socket: BufReader<UnixStream>,
}

impl Process {
    /// Starts a node. Its first answer will be `Reply::Started`.
    pub(crate) fn start(start: &Start, log: &Path) -> Self {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        ours.set_read_timeout(Some(ANSWER)).expect("a timeout");
        ours.set_write_timeout(Some(ANSWER)).expect("a timeout");
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(log)
            .expect("the node's log");
        // The harness must run exactly one test and must not capture its output.
        let child = std::process::Command::new(std::env::current_exe().expect("our own path"))
            .args(["--exact", "node_process", "--nocapture"])
            .env(NODE, serde_json::to_string(start).expect("JSON"))
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("a child process");
        Self {
            child,
            socket: BufReader::new(ours),
        }
    }

    /// Sends a command. A caller that sends several before reading must not send megabytes.
    pub(crate) fn send(&mut self, command: &Command) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(command).expect("JSON");
        line.push(b'\n');
        self.socket.get_mut().write_all(&line)
    }

    /// Returns the next answer. Returns `None` if the node has died; half an answer does not count.
    pub(crate) fn receive(&mut self) -> std::io::Result<Option<Reply>> {
        let mut line = String::new();
        match self.socket.read_line(&mut line) {
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(None),
            Err(error) => Err(error),
            Ok(_) if line.ends_with('\n') => Ok(Some(serde_json::from_str(&line)?)),
            Ok(_) => Ok(None),
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    fn signal(&self, signal: Signal) {
        let id = Pid::from_child(&self.child);
        kill_process(id, signal).expect("a child that was not waited for can be signalled");
    }

    /// Stops every thread of the node. Returns when all are stopped.
    pub(crate) fn stop(&self) {
        self.signal(Signal::STOP);
        let deadline = Instant::now() + ANSWER;
        while !self.all_threads_stand() {
            assert!(
                Instant::now() < deadline,
                "process {} does not stop",
                self.id()
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn all_threads_stand(&self) -> bool {
        let tasks =
            std::fs::read_dir(format!("/proc/{}/task", self.id())).expect("the child's threads");
        tasks.flatten().all(|task| {
            // `pid (name) state …`. A thread that has ended in the meantime counts as stopped.
            let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ")
                .is_none_or(|(_, rest)| rest.starts_with('T'))
        })
    }

    /// Returns the resident memory in bytes.
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()))
            .expect("the child's status");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .expect("VmRSS");
        let kilobytes = line
            .trim()
            .trim_end_matches(" kB")
            .parse::<u64>()
            .expect("a number of kB");
        kilobytes * 1_024
    }

    /// Sends SIGKILL. Returns what the node had answered until then.
    pub(crate) fn kill(mut self) -> Vec<Reply> {
        self.signal(Signal::KILL);
        self.child.wait().expect("a child to wait for");
        let mut replies = Vec::new();
        while let Ok(Some(reply)) = self.receive() {
            replies.push(reply);
        }
        replies
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have been killed or may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
