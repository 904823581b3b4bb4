//! Every environment variable that `uc` reads, and the only place that reads them.

use std::env;
use std::path::PathBuf;

use etcetera::BaseStrategy as _;

/// One connection, in place of a context: as `--connect`.
pub(crate) const CONNECT: &str = "UC_CONNECT";
/// The context: as `--context`.
pub(crate) const CONTEXT: &str = "UC_CONTEXT";
/// The config file: as `--config`.
pub(crate) const CONFIG: &str = "UC_CONFIG";
/// Set and not `0`, `false`, `no`, `n`, `f` or `off`: as `--yes`.
pub(crate) const AUTO_CONFIRM: &str = "UC_AUTO_CONFIRM";
/// Set and not empty: plain lines instead of moving progress.
const NO_PROGRESS: &str = "UC_NO_PROGRESS";
/// A file for `ssh -F`.
const SSH_CONFIG: &str = "UC_SSH_CONFIG";

/// Compose files, with [`COMPOSE_PATH_SEPARATOR`] between them.
pub(crate) const COMPOSE_FILE: &str = "COMPOSE_FILE";
/// What separates the files of [`COMPOSE_FILE`]; `:` if it is not set.
pub(crate) const COMPOSE_PATH_SEPARATOR: &str = "COMPOSE_PATH_SEPARATOR";
/// Files of variables, with commas between them: as `--env-file`.
pub(crate) const COMPOSE_ENV_FILES: &str = "COMPOSE_ENV_FILES";
/// True: `.env` is not read.
pub(crate) const COMPOSE_DISABLE_ENV_FILE: &str = "COMPOSE_DISABLE_ENV_FILE";

/// The settings from the environment, read once at the start.
#[derive(Debug, Clone, Default)]
pub(crate) struct Env {
    pub(crate) no_progress: bool,
    pub(crate) ssh_config: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`: where the shared ssh connections live.
    pub(crate) runtime_dir: Option<PathBuf>,
    /// `XDG_STATE_HOME`, else `~/.local/state`. `None`: no home directory is known.
    pub(crate) state_dir: Option<PathBuf>,
    /// `TERM` is `dumb` or not set.
    pub(crate) dumb_terminal: bool,
    /// The locale's character set is not UTF-8: only ASCII can be printed.
    pub(crate) ascii: bool,
}

impl Env {
    /// From the process.
    pub(crate) fn read() -> Self {
        let path = |name| {
            env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        Self {
            no_progress: path(NO_PROGRESS).is_some(),
            ssh_config: path(SSH_CONFIG),
            runtime_dir: path("XDG_RUNTIME_DIR"),
            state_dir: etcetera::base_strategy::Xdg::new()
                .ok()
                .and_then(|base| base.state_dir()),
            dumb_terminal: env::var_os("TERM").is_none_or(|term| term == "dumb" || term.is_empty()),
            ascii: LOCALE
                .into_iter()
                .filter_map(env::var_os)
                .find(|value| !value.is_empty())
                .is_some_and(|locale| !is_utf8(&locale.to_string_lossy())),
        }
    }
}

/// Variables that name the character set; the first that is set and not empty counts (POSIX, 8.2).
const LOCALE: [&str; 3] = ["LC_ALL", "LC_CTYPE", "LANG"];

/// Whether a locale such as `en_US.UTF-8` has the character set UTF-8. `C` and `POSIX` do not.
fn is_utf8(locale: &str) -> bool {
    let character_set = locale
        .split_once('.')
        .map_or("", |(_, rest)| rest.split('@').next().unwrap_or(rest));
    ["utf-8", "utf8"]
        .iter()
        .any(|name| character_set.eq_ignore_ascii_case(name))
}

/// All variables that are text, for compose files.
pub(crate) fn all() -> std::collections::BTreeMap<String, String> {
    env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locale_names_its_character_set() {
        for locale in ["en_US.UTF-8", "C.utf8", "de_DE.UTF8@euro"] {
            assert!(is_utf8(locale), "{locale}");
        }
        for locale in ["C", "POSIX", "de_DE", "de_DE.ISO-8859-15@euro"] {
            assert!(!is_utf8(locale), "{locale}");
        }
    }
}
