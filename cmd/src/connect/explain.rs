//! Turns the stderr of `ssh` into an error that says what to do. Pure: text and exit code in, error
//! out.
//!
//! OpenSSH has no stable error codes (255 for all of its own), so its messages are recognised; what
//! is not recognised is passed on as it is.

use crate::connection::SshTarget;
use crate::error::{CliError, Kind};

/// Beginnings of lines that ssh also writes when nothing is wrong.
const NOISE: [&str; 4] = [
    "Warning: Permanently added",
    "Connection to ",
    "Shared connection to ",
    "mux_client_request_session",
];

/// Why `ssh TARGET COMMAND` did not work, from its stderr and exit code (`None`: killed, or still
/// running).
pub(crate) fn explain(target: &SshTarget, stderr: &str, exit: Option<i32>) -> CliError {
    let lines: Vec<&str> = stderr
        .lines()
        .map(|line| line.trim_end_matches('\r').trim_end())
        .filter(|line| !line.is_empty() && !NOISE.iter().any(|noise| line.starts_with(noise)))
        .collect();
    if let Some(error) = host_key(target, &lines) {
        return error;
    }
    if let Some(error) = ours(target, &lines) {
        return error;
    }
    let find = |needle: &str| lines.iter().copied().find(|line| line.contains(needle));
    if let Some(line) = find("Permission denied (") {
        return denied(target, line, &lines);
    }
    if find("Too many authentication failures").is_some() {
        return CliError::failed(format!("{target} refused the login: ssh offered too many keys"))
            .hint(format!("choose one key: `uc machine … -i KEYFILE {target}`, or set IdentityFile and IdentitiesOnly in ~/.ssh/config"));
    }
    for (needle, why) in [
        ("Could not resolve hostname", "unknown host name"),
        ("Connection refused", "nothing listens on its ssh port"),
        ("Connection timed out", "no answer"),
        ("Operation timed out", "no answer"),
        ("No route to host", "no route to the host"),
        ("Network is unreachable", "the network is unreachable"),
    ] {
        if let Some(line) = find(needle) {
            return unreachable(target, why, line);
        }
    }
    for needle in [
        "Connection closed by",
        "Connection reset by",
        "kex_exchange_identification",
        "Timeout, server",
    ] {
        if let Some(line) = find(needle) {
            return unreachable(target, "the other side closed the connection", line);
        }
    }
    if exit == Some(127) || (exit != Some(255) && lines.iter().any(|line| is_missing_uc(line))) {
        return CliError::failed(format!(
            "`uc` is not installed on {target}, or not in the PATH of non-interactive logins"
        ))
        .hint(format!(
            "install it with `uc machine add {target}`, or run install.sh on the machine"
        ));
    }
    let what = match exit {
        Some(code) => format!("ssh to {target} failed (exit code {code})"),
        None => format!("ssh to {target} was killed"),
    };
    let mut error = CliError::new(Kind::Partial, what);
    if !lines.is_empty() {
        error = error.source(lines.join("\n"));
    }
    let ssh = match target.port {
        Some(port) => format!("ssh -p {port}"),
        None => "ssh".to_owned(),
    };
    let host = &target.host;
    error.hint(match &target.user {
        Some(user) => format!("try it yourself: `{ssh} {user}@{host} true`"),
        None => format!("try it yourself: `{ssh} {host} true`"),
    })
}

/// Whether a shell reports that there is no program `uc`. Other programs can be missing as well, in
/// the user's profile, for example.
fn is_missing_uc(line: &str) -> bool {
    let missing = ["not found", "No such file or directory", "Unknown command"];
    let mut words = line.split(|c: char| c.is_whitespace() || ":'`\"".contains(c));
    missing.iter().any(|text| line.contains(text))
        && words.any(|word| word == "uc" || word.ends_with("/uc"))
}

fn unreachable(target: &SshTarget, why: &str, line: &str) -> CliError {
    CliError::new(Kind::Partial, format!("cannot reach {target}: {why}"))
        .source(line.to_owned())
        .hint("check that the address and port are right, the machine is up, and its firewall allows ssh")
}

fn denied(target: &SshTarget, line: &str, lines: &[&str]) -> CliError {
    let methods = line
        .split_once('(')
        .map_or("", |(_, rest)| rest.trim_end_matches([')', '.']));
    let mut error = CliError::failed(format!(
        "{target} refused the login: it accepted none of your keys (it allows {methods})"
    ));
    if let Some(line) = lines
        .iter()
        .find(|line| line.contains("not accessible") || line.starts_with("Load key"))
    {
        error = error.source((*line).to_owned());
    }
    let user = target.user.as_deref().unwrap_or("the user");
    error
        .hint(format!(
            "choose a key with `-i KEYFILE`, load one with `ssh-add`, or add your public key to {user}'s authorized_keys on the machine"
        ))
        .hint("uc never asks for passwords: it needs a key or an agent")
}

/// The host key has changed, or is unknown where ssh accepts known ones only.
fn host_key(target: &SshTarget, lines: &[&str]) -> Option<CliError> {
    let changed = lines
        .iter()
        .any(|line| line.contains("REMOTE HOST IDENTIFICATION HAS CHANGED"));
    if !changed
        && !lines
            .iter()
            .any(|line| line.contains("Host key verification failed"))
    {
        return None;
    }
    if !changed {
        return Some(
            CliError::failed(format!("cannot verify the host key of {target}"))
                .source(lines.join("\n"))
                .hint(format!(
                    "compare and accept it yourself: `ssh {target} true`"
                )),
        );
    }
    // "Offending ED25519 key in /root/.ssh/known_hosts:3"
    let offending = lines
        .iter()
        .find_map(|line| line.strip_prefix("Offending ")?.split_once(" key in "));
    let fingerprint = lines
        .iter()
        .find(|line| line.starts_with("SHA256:"))
        .map(|line| line.trim_end_matches('.'));
    let mut message = format!("the host key of {target} has changed since it was accepted");
    if let Some((kind, place)) = offending {
        message = format!("{message} ({kind} key in {place})");
    }
    let mut error = CliError::failed(message);
    if let Some(fingerprint) = fingerprint {
        error = error.source(format!("the new key is {fingerprint}"));
    }
    // ssh prints the command since 7.x: "  ssh-keygen -f "/root/.ssh/known_hosts" -R "10.0.0.1""
    let printed = lines
        .iter()
        .map(|line| line.trim())
        .find(|line| line.starts_with("ssh-keygen "));
    let command = printed.map_or_else(
        || match offending.and_then(|(_, place)| place.rsplit_once(':')) {
            Some((file, _)) => format!("ssh-keygen -f {file} -R {}", known_host(target)),
            None => format!("ssh-keygen -R {}", known_host(target)),
        },
        ToOwned::to_owned,
    );
    Some(
        error
            .hint("this is expected if the machine was reinstalled or its address moved to another machine; otherwise an attacker may be in between")
            .hint(format!("if it is expected, remove the old key and try again: `{command}`")),
    )
}

/// The name of a host in known_hosts.
fn known_host(target: &SshTarget) -> String {
    match target.port {
        Some(port) if port != 22 => format!("'[{}]:{port}'", target.host),
        _ => target.host.clone(),
    }
}

/// The error that `uc dial-stdio` reported on the machine.
fn ours(target: &SshTarget, lines: &[&str]) -> Option<CliError> {
    let message = lines.iter().find_map(|line| line.strip_prefix("error: "))?;
    let mut error = CliError::new(Kind::Partial, format!("{target}: {message}"));
    for hint in lines.iter().filter_map(|line| line.strip_prefix("hint: ")) {
        error = error.hint(hint);
    }
    Some(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(stderr: &str, exit: i32) -> String {
        let error = explain(&"root@10.0.0.9".parse().unwrap(), stderr, Some(exit));
        format!(
            "exit {}\n{}",
            error.kind.exit_code(),
            anstream::adapter::strip_str(&error.render())
        )
    }

    #[test]
    fn unreachable_hosts() {
        insta::assert_snapshot!(text(
            "ssh: connect to host 10.0.0.9 port 22: Connection timed out\r\n",
            255
        ));
        insta::assert_snapshot!(text(
            "ssh: Could not resolve hostname nope: Name or service not known\r\n",
            255
        ));
        assert!(
            text(
                "ssh: connect to host 10.0.0.9 port 22: Connection refused\r\n",
                255
            )
            .contains("nothing listens")
        );
        assert!(text("kex_exchange_identification: Connection closed by remote host\r\nConnection closed by 10.0.0.9 port 22\r\n", 255).contains("closed the connection"));
    }

    #[test]
    fn wrong_key() {
        insta::assert_snapshot!(text(
            "root@10.0.0.9: Permission denied (publickey,password).\r\n",
            255
        ));
        insta::assert_snapshot!(text(
            "Warning: Identity file /nope not accessible: No such file or directory.\nroot@10.0.0.9: Permission denied (publickey).\r\n",
            255
        ));
    }

    const CHANGED: &str = "@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@\r
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\r
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@\r
IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!\r
Someone could be eavesdropping on you right now (man-in-the-middle attack)!\r
It is also possible that a host key has just been changed.\r
The fingerprint for the ED25519 key sent by the remote host is\r
SHA256:abcdef.\r
Please contact your system administrator.\r
Add correct host key in /root/.ssh/known_hosts to get rid of this message.\r
Offending ED25519 key in /root/.ssh/known_hosts:3\r
  remove with:\r
  ssh-keygen -f \"/root/.ssh/known_hosts\" -R \"10.0.0.9\"\r
Host key for 10.0.0.9 has changed and you have requested strict checking.\r
Host key verification failed.\r
";

    #[test]
    fn changed_host_key() {
        insta::assert_snapshot!(text(CHANGED, 255));
        let without = CHANGED.replace("ssh-keygen", "see");
        assert!(text(&without, 255).contains("`ssh-keygen -f /root/.ssh/known_hosts -R 10.0.0.9`"));
    }

    #[test]
    fn host_key_not_verified() {
        let text = text(
            "No ED25519 host key is known for 10.0.0.9 and you have requested strict checking.\r\nHost key verification failed.\r\n",
            255,
        );
        assert!(
            text.contains("cannot verify the host key") && text.contains("No ED25519 host key"),
            "{text}"
        );
    }

    #[test]
    fn no_uc_over_there() {
        insta::assert_snapshot!(text("bash: line 1: uc: command not found\n", 127));
        for line in [
            "sh: 1: exec: uc: not found",
            "fish: Unknown command: uc",
            "/usr/local/bin/uc: No such file or directory",
            "sudo: uc: command not found",
        ] {
            assert!(text(line, 1).contains("`uc` is not installed"), "{line}");
        }
    }

    #[test]
    fn explain_with_other_missing_file_does_not_blame_uc() {
        for line in [
            "cat: /etc/motd.d: No such file or directory",
            "-bash: succeed: command not found",
        ] {
            let text = text(line, 1);
            assert!(
                text.contains(line) && !text.contains("`uc` is not installed"),
                "{text}"
            );
        }
    }

    #[test]
    fn what_our_own_side_says_is_passed_on() {
        insta::assert_snapshot!(text(
            "Warning: Permanently added '10.0.0.9' (ED25519) to the list of known hosts.\r\nerror: the daemon does not run: /run/uc/uc.sock refuses connections\nhint: systemctl status ucd\n",
            1
        ));
    }

    #[test]
    fn what_is_not_known_is_shown_as_it_is() {
        insta::assert_snapshot!(text("something odd\n", 255));
    }
}
