//! How the system's `ssh` is called: never with a prompt, with a shared connection where that is
//! possible.

use std::ffi::OsString;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use std::{fs, io};

use tokio::process::Command;

use super::process::SshProcess;
use crate::connection::SshTarget;
use crate::env::Env;
use crate::error::{CliError, CliResult};

/// Seconds that ssh waits for the other side's TCP and key exchange.
pub(crate) const CONNECT_TIMEOUT_S: u32 = 10;
/// Connects stdin and stdout to the daemon on the other side. install.sh puts `uc` into
/// /usr/local/bin, which sudo's `secure_path` and some logins leave out of PATH. A shell of our own
/// reads the line, because the login shell may be one with another syntax.
pub(crate) const DIAL_STDIO: &str = "sh -c 'PATH=/usr/local/bin:$PATH; exec uc dial-stdio'";
/// For ssh to tell the process that keeps a shared connection to end it.
const CLOSING: Duration = Duration::from_secs(30);
/// For the process that keeps a shared connection to answer that it exists.
const CHECKING: Duration = Duration::from_secs(1);
/// Size of `sun_path`, the path of a Unix socket with the zero at its end.
const SUN_PATH: usize = if cfg!(target_os = "linux") { 108 } else { 104 };
/// Longest path of a shared connection's socket: while ssh makes it, its name is 17 characters
/// longer.
const MAX_CONTROL_PATH: usize = SUN_PATH - 1 - 17;

/// A machine that `ssh` can be asked to run commands on.
#[derive(Debug, Clone)]
pub(crate) struct Ssh {
    pub(crate) target: SshTarget,
    config: Option<PathBuf>,
    sharing: Sharing,
}

/// Whether commands share one login.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Sharing {
    /// With a socket in this private directory.
    In(PathBuf),
    /// As the user's ssh config has it.
    AsConfigured,
    /// Never, whatever the user's ssh config has.
    Never,
}

impl Ssh {
    /// For a target, with the settings of the environment.
    pub(crate) fn new(target: SshTarget, env: &Env) -> Self {
        Self {
            target,
            config: env.ssh_config.clone(),
            sharing: control_directory(env).map_or(Sharing::AsConfigured, Sharing::In),
        }
    }

    /// The same machine with a login of its own, if a process keeps a shared connection to it now.
    /// After the computer slept, that connection may be dead and the process may not have noticed.
    pub(super) async fn alone(&self) -> Option<Self> {
        let Sharing::In(directory) = &self.sharing else {
            return None;
        };
        // Any socket: its name has a hash that only ssh computes. Without one, no process is
        // started.
        let shared = has_socket(directory) && self.is_shared().await;
        shared.then(|| Self {
            sharing: Sharing::Never,
            ..self.clone()
        })
    }

    /// Whether a process keeps a shared connection to this machine. It answers without using the
    /// connection, so the answer says nothing about the machine.
    async fn is_shared(&self) -> bool {
        let Ok(mut process) = self.control("check") else {
            return false;
        };
        match tokio::time::timeout(CHECKING, process.wait()).await {
            Ok(status) => status.is_ok_and(|status| status.success()),
            // It exists and is stuck.
            Err(_) => true,
        }
    }

    /// Starts `ssh … HOST REMOTE`, with all three streams piped. `remote` is a line for the other
    /// side's shell.
    pub(crate) fn spawn(&self, remote: &str) -> CliResult<SshProcess> {
        let mut command = self.command(&[], Some(remote));
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        SshProcess::spawn(&mut command).map_err(no_ssh)
    }

    /// Ends the shared connection, so that the next one sees the user's new groups. Without a
    /// shared connection this does nothing.
    pub(crate) async fn close_shared(&self) {
        if !matches!(self.sharing, Sharing::In(_)) {
            return;
        }
        if let Ok(mut process) = self.control("exit") {
            _ = tokio::time::timeout(CLOSING, process.wait()).await;
        }
    }

    /// Starts `ssh -O …`, which asks the process that keeps the shared connection and connects
    /// nowhere.
    fn control(&self, request: &str) -> io::Result<SshProcess> {
        let mut command = self.command(&["-O", request], None);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        SshProcess::spawn(&mut command)
    }

    /// `ssh -G …`: prints the options that ssh would use for this target, and connects nowhere.
    pub(crate) fn print_options(&self) -> Command {
        let mut command = self.command(&["-G"], None);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        command
    }

    fn command(&self, options: &[&str], remote: Option<&str>) -> Command {
        let mut command = Command::new("ssh");
        command
            .args(self.arguments())
            .args(options)
            .arg("--")
            .arg(self.destination())
            .args(remote);
        command
    }

    /// Tells shared connections apart that `%C` (host, port, user) does not: another key or
    /// configuration is another login, and must not pass through a connection that the first one
    /// opened.
    fn login(&self) -> String {
        if self.target.key.is_none() && self.config.is_none() {
            return String::new();
        }
        let mut hasher = DefaultHasher::new();
        (&self.target.key, &self.config).hash(&mut hasher);
        format!("-{:08x}", hasher.finish() as u32)
    }

    fn destination(&self) -> String {
        match &self.target.user {
            Some(user) => format!("{user}@{}", self.target.host),
            None => self.target.host.clone(),
        }
    }

    fn arguments(&self) -> Vec<OsString> {
        let mut list: Vec<OsString> = vec!["-T".into()];
        let mut option = |text: String| list.extend(["-o".into(), text.into()]);
        option("BatchMode=yes".into());
        option(format!("ConnectTimeout={CONNECT_TIMEOUT_S}"));
        // A new machine's key is taken; a changed one is refused.
        option("StrictHostKeyChecking=accept-new".into());
        option("ServerAliveInterval=5".into());
        option("ServerAliveCountMax=3".into());
        option("ForwardX11=no".into());
        option("ForwardAgent=no".into());
        option("ClearAllForwardings=yes".into());
        match &self.sharing {
            Sharing::In(directory) => {
                option("ControlMaster=auto".into());
                option("ControlPersist=60".into());
                option(format!(
                    "ControlPath={}/%C{}",
                    directory.display(),
                    self.login()
                ));
            }
            Sharing::AsConfigured => {}
            Sharing::Never => {
                option("ControlMaster=no".into());
                option("ControlPath=none".into());
            }
        }
        if let Some(config) = &self.config {
            list.extend(["-F".into(), config.into()]);
        }
        if let Some(key) = &self.target.key {
            list.extend([
                "-i".into(),
                key.into(),
                "-o".into(),
                "IdentitiesOnly=yes".into(),
            ]);
        }
        if let Some(port) = self.target.port {
            list.extend(["-p".into(), port.to_string().into()]);
        }
        list
    }
}

/// `ssh` itself could not be started.
pub(crate) fn no_ssh(error: std::io::Error) -> CliError {
    let hint = if error.kind() == std::io::ErrorKind::NotFound {
        "install the OpenSSH client (on Debian: `apt-get install openssh-client`)"
    } else {
        ""
    };
    CliError::failed("cannot start `ssh`")
        .source(error)
        .hint(hint)
}

/// A directory that only this user can use: a user who can write there could take over our
/// connections.
fn control_directory(env: &Env) -> Option<PathBuf> {
    let directory = match &env.runtime_dir {
        Some(runtime) => runtime.join("uc-ssh"),
        None => std::env::temp_dir().join(format!("uc-ssh-{}", own_uid())),
    };
    // `%C` is 40 hexadecimal digits, what tells logins apart at most 9 characters.
    let fits = directory.as_os_str().len() + 1 + 40 + 9 <= MAX_CONTROL_PATH;
    let plain = !directory.to_string_lossy().contains(['%', ' ', '"', '$']);
    (fits && plain && make_private(&directory)).then_some(directory)
}

fn make_private(directory: &Path) -> bool {
    _ = fs::DirBuilder::new().mode(0o700).create(directory);
    fs::symlink_metadata(directory).is_ok_and(|meta| {
        meta.is_dir() && meta.uid() == own_uid() && meta.mode().trailing_zeros() >= 6
    })
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Whether any login is shared at present.
fn has_socket(directory: &Path) -> bool {
    fs::read_dir(directory).is_ok_and(|entries| {
        entries
            .filter_map(Result::ok)
            .any(|entry| entry.file_type().is_ok_and(|kind| kind.is_socket()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(target: &str, env: &Env) -> String {
        let ssh = Ssh::new(target.parse().unwrap(), env);
        let command = ssh.command(&[], Some("true"));
        let list: Vec<_> = command
            .as_std()
            .get_args()
            .map(|arg| arg.to_string_lossy())
            .collect();
        list.join(" ")
    }

    #[test]
    fn the_target_comes_after_all_options() {
        let runtime = tempfile::tempdir_in("/tmp").unwrap();
        let env = Env {
            ssh_config: Some("/c".into()),
            runtime_dir: Some(runtime.path().into()),
            ..Env::default()
        };
        let line = arguments("root@[fd00::1]:2222", &env)
            .replace(&runtime.path().display().to_string(), "RUN");
        assert!(
            line.ends_with("-F /c -p 2222 -- root@fd00::1 true"),
            "{line}"
        );
        assert!(line.contains("-o ControlPath=RUN/uc-ssh/%C-"), "{line}");
        assert!(
            line.contains("-o BatchMode=yes") && line.contains("accept-new"),
            "{line}"
        );
    }

    #[test]
    fn another_key_does_not_share_a_connection() {
        let runtime = tempfile::tempdir_in("/tmp").unwrap();
        let path = |key: Option<&str>| {
            let env = Env {
                runtime_dir: Some(runtime.path().into()),
                ..Env::default()
            };
            let mut target: SshTarget = "root@h".parse().unwrap();
            target.key = key.map(PathBuf::from);
            let line = Ssh::new(target, &env).arguments();
            line.iter()
                .find_map(|arg| {
                    arg.to_str()?
                        .strip_prefix("ControlPath=")
                        .map(str::to_owned)
                })
                .unwrap()
        };
        assert!(path(None).ends_with("/%C"));
        assert_eq!(path(Some("/a")), path(Some("/a")));
        assert_ne!(path(Some("/a")), path(Some("/b")));
        assert_ne!(path(Some("/a")), path(None));
    }

    #[test]
    fn a_path_too_long_for_a_socket_means_no_shared_connection() {
        let long = PathBuf::from(format!("/tmp/{}", "x".repeat(80)));
        let line = arguments(
            "h",
            &Env {
                runtime_dir: Some(long),
                ..Env::default()
            },
        );
        assert!(!line.contains("ControlPath"), "{line}");
    }

    #[test]
    fn a_directory_that_others_can_write_is_not_used() {
        use std::os::unix::fs::PermissionsExt as _;
        let runtime = tempfile::tempdir_in("/tmp").unwrap();
        let directory = runtime.path().join("uc-ssh");
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
        let env = Env {
            runtime_dir: Some(runtime.path().into()),
            ..Env::default()
        };
        assert!(!arguments("h", &env).contains("ControlPath"));
    }
}
