//! Where install.sh puts what this program refers to on other machines. Absolute paths, since
//! sudo's `secure_path` leaves out /usr/local on some distributions.

/// The program `uc` on a machine.
#[cfg_attr(not(test), expect(dead_code, reason = "for commands over ssh"))]
pub(crate) const UC: &str = "/usr/local/bin/uc";

/// The copy of install.sh on a machine, which also uninstalls uc.
pub(crate) const INSTALLER: &str = "/usr/local/lib/uc/install.sh";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_install_sh() {
        let script = include_str!("../../../install.sh");
        for (directory, path, name) in [("BIN_DIR", UC, "uc"), ("LIB_DIR", INSTALLER, "install.sh")]
        {
            let parent = path.strip_suffix(&format!("/{name}")).expect(path);
            let line = format!("\n{directory}=$ROOT{parent}\n");
            assert!(script.contains(&line), "install.sh has no {line}");
            assert!(
                script.contains(&format!("\"${directory}/{name}\"")),
                "{name}"
            );
        }
    }
}
