//! From what a person asked for (`--connect`, a context, nothing) to a client that talks to a
//! daemon.

mod call;
mod client;
mod dial;
mod explain;
mod greeting;
mod identity;
mod last_good;
mod process;
mod race;
mod ssh;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

pub(crate) use call::{ask, within};
pub(crate) use client::{Client, Destination};
pub(crate) use dial::socket_error;
pub(crate) use explain::explain as explain_ssh;
use identity::Verdict;
use last_good::LastGood;
pub(crate) use process::SshProcess;
use race::{Lost, Pace, race};
pub(crate) use ssh::{DIAL_STDIO, Ssh, no_ssh};
use uc_api::ClusterId;
use uc_api::layout::API_SOCKET;

use crate::config::{Config, Context, Entry};
use crate::connection::Connection;
use crate::env::Env;
use crate::error::{CliError, CliResult, Kind};
use crate::suggest;
use crate::ui::Ui;

/// What the global flags and the config file say about where to connect.
#[derive(Debug, Clone)]
pub(crate) struct Globals {
    /// `--connect`, unless a context was named nearer (a flag beats a variable).
    pub(crate) connect: Option<String>,
    /// `--context` or `UC_CONTEXT`.
    pub(crate) context: Option<String>,
    /// `--context` as typed: `machine init` gives this name to the new context.
    pub(crate) new_context: Option<String>,
    /// `--config` or `UC_CONFIG`.
    pub(crate) config: Option<PathBuf>,
    pub(crate) env: Env,
    /// For warnings about connections and the config file.
    pub(crate) ui: Ui,
}

/// Which cluster to connect to, and the connections that lead to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    /// `None`: one connection was named, or this machine's own socket is used.
    pub(crate) context: Option<String>,
    /// The cluster that the context is for. `None`: any machine is accepted (without a context),
    /// or the context does not have the id yet.
    pub(crate) cluster: Option<ClusterId>,
    /// At least one.
    pub(crate) candidates: Vec<Candidate>,
}

/// A connection that can be dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) connection: Connection,
    /// Id of the machine it led to when it was saved. `None`: written by hand.
    pub(crate) machine: Option<String>,
}

impl From<Connection> for Candidate {
    fn from(connection: Connection) -> Self {
        Self {
            connection,
            machine: None,
        }
    }
}

impl Route {
    /// To one machine, whatever cluster it is in.
    pub(crate) fn to(connection: Connection) -> Self {
        Self {
            context: None,
            cluster: None,
            candidates: vec![connection.into()],
        }
    }
}

impl Globals {
    /// The config file's place.
    pub(crate) fn config_path(&self) -> CliResult<PathBuf> {
        match &self.config {
            Some(path) => Ok(path.clone()),
            None => Ok(Config::default_path()?),
        }
    }

    /// The config file's content.
    pub(crate) fn load_config(&self) -> CliResult<Config> {
        Ok(Config::load(&self.config_path()?)?)
    }

    /// Where to connect. `project_context` is the compose file's `x-context`: it beats the current
    /// context, not what was named.
    pub(crate) fn route(&self, project_context: Option<&str>) -> CliResult<Route> {
        if let Some(text) = &self.connect {
            return Ok(Route::to(text.parse()?));
        }
        let named = self.context.as_deref().or(project_context);
        match self.load_config() {
            Ok(config) => {
                self.warn_of_unknown_keys(&config)?;
                choose(&config, named, has_daemon(Path::new(API_SOCKET)))
            }
            // On a machine, the socket must work without a home directory (cloud-init, systemd).
            Err(_)
                if self.config.is_none()
                    && std::env::var_os("HOME").is_none()
                    && named.is_none() =>
            {
                choose(&Config::default(), None, has_daemon(Path::new(API_SOCKET)))
            }
            Err(error) => Err(error),
        }
    }

    /// Warns about keys of the config file that have no effect.
    pub(crate) fn warn_of_unknown_keys(&self, config: &Config) -> CliResult {
        for key in &config.unknown {
            let path = self.config_path()?;
            self.ui
                .warn(&format!("{}: unknown key {key}", path.display()))?;
        }
        Ok(())
    }

    /// A client of the first machine that answers.
    pub(crate) async fn client(&self) -> CliResult<Client> {
        connect(&self.route(None)?, self).await
    }
}

/// Whether this computer has a daemon's socket. Where this user may not even look, there is one:
/// only install.sh makes that directory, and connecting then says what is missing.
pub(crate) fn has_daemon(socket: &Path) -> bool {
    match fs::symlink_metadata(socket) {
        Ok(_) => true,
        Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
    }
}

/// Picks the context: the named one, the current one, the only one; without contexts this machine's
/// own socket.
fn choose(config: &Config, named: Option<&str>, socket: bool) -> CliResult<Route> {
    let names = || config.contexts.keys().map(String::as_str);
    let only = || {
        if config.contexts.len() == 1 {
            names().next()
        } else {
            None
        }
    };
    let Some(name) = named.or(config.current.as_deref()).or_else(only) else {
        if socket && config.contexts.is_empty() {
            return Ok(Route::to(Connection::Unix(API_SOCKET.into())));
        }
        let error = if config.contexts.is_empty() {
            CliError::usage(
                "no cluster to connect to: there is no context, and no daemon on this computer",
            )
            .hint("make a cluster with `uc machine init USER@HOST`")
            .hint("or use a cluster that exists: `uc ctx add USER@HOST`")
        } else {
            CliError::usage("no context is the current one")
                .hint("choose one with `uc ctx use NAME`")
        };
        return Err(error);
    };
    let Some(context) = config.contexts.get(name) else {
        let error = CliError::usage(format!("context `{name}` not found"));
        return Err(error
            .hint(suggest::hint(name, names()))
            .hint("`uc ctx ls` lists the contexts"));
    };
    if context.connections.is_empty() {
        return Err(
            CliError::usage(format!("context `{name}` has no connections"))
                .hint(format!("add one with `uc ctx add {name} USER@HOST`")),
        );
    }
    Ok(Route {
        context: Some(name.to_owned()),
        cluster: context.cluster,
        candidates: candidates(context),
    })
}

/// The connections of a context; the config was checked when it was read.
fn candidates(context: &Context) -> Vec<Candidate> {
    let candidate = |entry: &Entry| {
        Some(Candidate {
            connection: entry.connection().ok()?,
            machine: entry.machine.clone(),
        })
    };
    context.connections.iter().filter_map(candidate).collect()
}

/// Connects to a machine of the route's cluster. The connection that worked last is dialled first;
/// [`mod@race`] has the rest. Machines that are not in the cluster are skipped with a warning.
pub(crate) async fn connect(route: &Route, globals: &Globals) -> CliResult<Client> {
    let state_dir = globals.env.state_dir.as_deref();
    let last = match (&route.context, state_dir) {
        (Some(context), Some(directory)) => Some((context, LastGood::load(directory))),
        _ => None,
    };
    let last_address = last
        .as_ref()
        .and_then(|(context, last)| last.address(context));
    let (order, pace) = dial_order(&route.candidates, last_address);
    let dial = |place: usize| open(route, order[place], &globals.env);
    let won = match race(order.len(), &pace, dial).await {
        Ok(won) => won,
        Err(lost) => return Err(no_connection(route, lost)),
    };
    for (_, failure) in &won.failures {
        if failure.wrong_cluster {
            globals.ui.warn(&failure.error.message)?;
            for hint in &failure.error.hints {
                globals.ui.hint(hint)?;
            }
        }
    }
    let (client, verdict) = won.value;
    settle(route, &client, verdict, globals)?;
    if let Some((context, last)) = last {
        let config = globals.load_config()?;
        let names = config.contexts.keys().map(String::as_str);
        last.remember(context, &client.label, names);
    }
    Ok(client.with_origin(route, globals))
}

/// The order in which connections are dialled, and how fast.
fn dial_order<'a>(candidates: &'a [Candidate], last: Option<&str>) -> (Vec<&'a Candidate>, Pace) {
    let worked = |candidate: &&Candidate| Some(candidate.connection.to_string().as_str()) == last;
    let (mut order, others): (Vec<_>, Vec<_>) = candidates.iter().partition(worked);
    let pace = if order.is_empty() {
        Pace::cold()
    } else {
        Pace::warm()
    };
    order.extend(others);
    (order, pace)
}

/// A connection that cannot be used.
#[derive(Debug)]
struct Failed {
    error: CliError,
    /// The machine answers, and is in another cluster or in none.
    wrong_cluster: bool,
}

impl From<CliError> for Failed {
    fn from(error: CliError) -> Self {
        Self {
            error,
            wrong_cluster: false,
        }
    }
}

/// Opens one connection and checks that it leads to the context's cluster.
async fn open(
    route: &Route,
    candidate: &Candidate,
    env: &Env,
) -> Result<(Client, Verdict), Failed> {
    let (channel, keep) = dial::dial(&candidate.connection, env).await?;
    let identity = identity::identify(&channel).await?;
    let verdict = identity::judge(route, candidate, &identity);
    if verdict == Verdict::Refused {
        return Err(Failed {
            error: identity::refused(route, candidate, &identity),
            wrong_cluster: true,
        });
    }
    let label = candidate.connection.to_string();
    let client = Client::new(channel, keep, label, identity, route.context.clone());
    Ok((client, verdict))
}

/// Saves the cluster's id in a context that has none, where it is certain; warns where it is not.
fn settle(route: &Route, client: &Client, verdict: Verdict, globals: &Globals) -> CliResult {
    let Some(context) = &route.context else {
        return Ok(());
    };
    match verdict {
        Verdict::Accepted | Verdict::Refused => Ok(()),
        Verdict::Learn(cluster) => {
            let path = globals.config_path()?;
            let saved = Config::update(&path, |config| {
                if let Some(context) = config.contexts.get_mut(context) {
                    context.cluster.get_or_insert(cluster);
                }
            });
            match saved {
                Ok(()) => Ok(()),
                Err(error) => globals.ui.warn(&format!(
                    "cannot save that context `{context}` is for cluster {cluster}: {error}"
                )),
            }
        }
        Verdict::Unknown => {
            globals.ui.warn(&format!(
                "context `{context}` does not name its cluster, so uc cannot check that {} is in it",
                client.destination().through()
            ))?;
            globals.ui.hint(&format!(
                "let uc look it up: `uc ctx add {context} USER@HOST`"
            ))
        }
    }
}

/// Why none of the connections can be used.
fn no_connection(route: &Route, lost: Lost<Failed>) -> CliError {
    let mut errors: Vec<CliError> = lost
        .failures
        .into_iter()
        .map(|(_, failed)| failed.error)
        .collect();
    let total = route.candidates.len();
    if total == 1 && errors.len() == 1 {
        return errors.remove(0);
    }
    let context = route
        .context
        .as_deref()
        .expect("without a context there is one connection, and its error was returned");
    let mut message = format!("none of the {total} connections of context `{context}` works");
    let mut hints: Vec<String> = Vec::new();
    for error in &errors {
        message.push_str("\n- ");
        message.push_str(&error.message);
        for hint in &error.hints {
            if !hints.contains(hint) {
                hints.push(hint.clone());
            }
        }
    }
    let untried = total - errors.len();
    if untried > 0 {
        _ = write!(message, "\n- {untried} more were not tried");
    }
    let mut all = CliError::new(Kind::Partial, message);
    all.hints = hints;
    all
}

/// A client through `remote`, a command line that connects its stdin and stdout to the daemon's
/// socket on the other side. It accepts whatever machine answers.
pub(crate) async fn over_ssh(ssh: &Ssh, remote: &str, label: String) -> CliResult<Client> {
    let (channel, keep) = dial::over_ssh(ssh, remote).await?;
    let identity = identity::identify(&channel).await?;
    Ok(Client::new(channel, keep, label, identity, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(names: &[&str], current: Option<&str>) -> Config {
        let connection: Connection = "ssh://root@h".parse().unwrap();
        let context = Context {
            cluster: None,
            connections: vec![Entry::new(&connection, None)],
        };
        Config {
            current: current.map(Into::into),
            contexts: names
                .iter()
                .map(|name| ((*name).to_owned(), context.clone()))
                .collect(),
            unknown: Vec::new(),
        }
    }

    fn chosen(
        config: &Config,
        named: Option<&str>,
        socket: bool,
    ) -> Result<Option<String>, String> {
        choose(config, named, socket)
            .map(|route| route.context)
            .map_err(|error| error.render())
    }

    #[test]
    fn the_named_context_beats_the_current_one() {
        let config = config(&["a", "b"], Some("a"));
        assert_eq!(chosen(&config, Some("b"), true), Ok(Some("b".into())));
        assert_eq!(chosen(&config, None, true), Ok(Some("a".into())));
    }

    #[test]
    fn the_only_context_needs_no_choice() {
        assert_eq!(
            chosen(&config(&["a"], None), None, true),
            Ok(Some("a".into()))
        );
        assert!(chosen(&config(&["a", "b"], None), None, true).is_err());
    }

    #[test]
    fn without_contexts_the_own_socket_is_used() {
        assert_eq!(chosen(&Config::default(), None, true), Ok(None));
        assert!(
            chosen(&Config::default(), None, false)
                .unwrap_err()
                .contains("uc machine init")
        );
    }

    #[test]
    fn an_unknown_context_is_refused_with_the_nearest() {
        let text = chosen(&config(&["staging", "prod"], None), Some("stagign"), true).unwrap_err();
        assert!(text.contains("did you mean `staging`?"), "{text}");
    }
}
