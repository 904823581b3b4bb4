//! The files for a new machine: `uc` and `ucd` from the directory of this program or of
//! `--install-from`, and install.sh from the same directory, else the one this program was built
//! with.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use crate::error::{CliError, CliResult};

const INSTALL_SH: &str = include_str!("../../../install.sh");

/// The files to install.
#[derive(Debug, Clone)]
pub(crate) struct Artefacts {
    directory: PathBuf,
    installer: PathBuf,
    /// Contains the built-in install.sh, and is removed with the last clone.
    _scratch: Option<Arc<TempDir>>,
}

impl Artefacts {
    /// Finds the files. A missing one is an error before anything is changed.
    pub(crate) fn find(from: Option<&Path>) -> CliResult<Self> {
        let directory = match from {
            Some(directory) => directory.to_owned(),
            None => {
                let program =
                    std::env::current_exe()
                        .and_then(fs::canonicalize)
                        .map_err(|error| {
                            CliError::failed("cannot determine the path of this program")
                                .source(error)
                                .hint("name the directory of uc and ucd with `--install-from DIR`")
                        })?;
                program.parent().unwrap_or(Path::new("/")).to_owned()
            }
        };
        for name in ["uc", "ucd"] {
            let path = directory.join(name);
            if !path.is_file() {
                return Err(CliError::usage(format!(
                    "{} not found: it is needed to set up a machine",
                    path.display()
                ))
                .hint("name a directory that has uc and ucd: `--install-from DIR`"));
            }
        }
        let beside = directory.join("install.sh");
        if beside.is_file() {
            return Ok(Self {
                directory,
                installer: beside,
                _scratch: None,
            });
        }
        let scratch = tempfile::tempdir().map_err(no_installer)?;
        let installer = scratch.path().join("install.sh");
        fs::write(&installer, INSTALL_SH).map_err(no_installer)?;
        Ok(Self {
            directory,
            installer,
            _scratch: Some(Arc::new(scratch)),
        })
    }

    pub(crate) fn installer(&self) -> &Path {
        &self.installer
    }

    /// The directory of uc and ucd.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Name and path of each file.
    pub(crate) fn files(&self) -> [(&'static str, PathBuf); 3] {
        let beside = |name| (name, self.directory.join(name));
        [
            beside("uc"),
            beside("ucd"),
            ("install.sh", self.installer.clone()),
        ]
    }

    /// Refuses programs that the machine cannot run. `machine` is its `uname -m`, `place` its name
    /// in messages.
    pub(crate) fn check_architecture(&self, machine: &str, place: &str) -> CliResult {
        for name in ["uc", "ucd"] {
            let path = self.directory.join(name);
            let mut head = [0; 20];
            let read = fs::File::open(&path).and_then(|mut file| file.read_exact(&mut head));
            read.map_err(|error| {
                CliError::failed(format!("cannot read {}", path.display())).source(error)
            })?;
            let Some(ours) = architecture(&head) else {
                return Err(CliError::usage(format!(
                    "{} is not a Linux program",
                    path.display()
                )));
            };
            if ours != machine {
                return Err(CliError::usage(format!(
                    "{} is for {ours}, but {place} is {machine}",
                    path.display()
                ))
                .hint(format!(
                    "name a directory that has uc and ucd for {machine}: `--install-from DIR`"
                )));
            }
        }
        Ok(())
    }
}

/// The architecture of an ELF file as `uname -m` names it, from its first bytes (ELF specification,
/// `e_machine` at offset 18).
fn architecture(head: &[u8; 20]) -> Option<&'static str> {
    if head[..4] != *b"\x7fELF" {
        return None;
    }
    Some(match u16::from_le_bytes([head[18], head[19]]) {
        0x3e => "x86_64",
        0xb7 => "aarch64",
        0x28 => "armv7l",
        0xf3 => "riscv64",
        _ => "an unknown architecture",
    })
}

fn no_installer(error: std::io::Error) -> CliError {
    CliError::failed("cannot write install.sh to a temporary directory").source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elf(machine: u8) -> Vec<u8> {
        let mut bytes = b"\x7fELF".to_vec();
        bytes.resize(64, 0);
        bytes[18] = machine;
        bytes
    }

    #[test]
    fn missing_program_is_named() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("uc"), "").unwrap();
        let text = Artefacts::find(Some(directory.path()))
            .unwrap_err()
            .render();
        assert!(
            text.contains("/ucd not found") && text.contains("--install-from"),
            "{text}"
        );
    }

    #[test]
    fn built_in_install_sh_is_used_unless_the_directory_has_one() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["uc", "ucd"] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        let built_in = Artefacts::find(Some(directory.path())).unwrap();
        assert_eq!(
            fs::read_to_string(built_in.installer()).unwrap(),
            INSTALL_SH
        );
        fs::write(directory.path().join("install.sh"), "mine").unwrap();
        let beside = Artefacts::find(Some(directory.path())).unwrap();
        assert_eq!(fs::read_to_string(beside.installer()).unwrap(), "mine");
    }

    #[test]
    fn programs_for_another_architecture_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        for (name, bytes) in [
            ("uc", elf(0x3e)),
            ("ucd", elf(0x3e)),
            ("install.sh", b"#!/bin/sh".to_vec()),
        ] {
            fs::write(directory.path().join(name), bytes).unwrap();
        }
        let artefacts = Artefacts::find(Some(directory.path())).unwrap();
        assert!(artefacts.check_architecture("x86_64", "h").is_ok());
        let text = artefacts
            .check_architecture("aarch64", "pi@h")
            .unwrap_err()
            .message;
        assert!(
            text.contains("is for x86_64, but pi@h is aarch64"),
            "{text}"
        );
        fs::write(directory.path().join("ucd"), "#!/bin/sh\necho a script\n").unwrap();
        assert!(
            artefacts
                .check_architecture("x86_64", "h")
                .unwrap_err()
                .message
                .contains("not a Linux program")
        );
    }
}
