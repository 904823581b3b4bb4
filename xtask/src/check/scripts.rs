//! shellcheck over every shell script of the repository, found by name or by first line.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::ensure;
use uc_testbed::host;

use crate::process::{read, run};

pub(super) fn check(root: &Path) -> anyhow::Result<()> {
    for program in ["git", "shellcheck"] {
        host::ensure_program(program, program)?;
    }
    let listed = read(Command::new("git").current_dir(root).args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]))?;
    let mut scripts = Vec::new();
    for path in listed.split_terminator('\0') {
        // git also lists files that were deleted and not yet committed, and links to folders.
        if let Ok(content) = fs::read(root.join(path))
            && is_script(path, &content)
        {
            scripts.push(path);
        }
    }
    ensure!(
        !scripts.is_empty(),
        "no shell script found: is this a git checkout?"
    );
    run(Command::new("shellcheck")
        .current_dir(root)
        .args(["--external-sources", "--"])
        .args(&scripts))
}

fn is_script(path: &str, content: &[u8]) -> bool {
    let end = content.iter().position(|byte| *byte == b'\n');
    let first = String::from_utf8_lossy(&content[..end.unwrap_or(content.len())]);
    let interpreter = first.strip_prefix("#!").and_then(|line| {
        let mut words = line.split_whitespace();
        let program = words.next()?.rsplit('/').next()?;
        if program == "env" {
            words.next()
        } else {
            Some(program)
        }
    });
    Path::new(path)
        .extension()
        .is_some_and(|extension| extension == "sh")
        || matches!(interpreter, Some("sh" | "bash" | "dash"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_known_by_name_or_first_line() {
        for (path, content) in [
            ("a.sh", ""),
            ("dev", "#!/bin/sh\nset -eu\n"),
            ("run", "#!/usr/bin/env bash\n"),
            ("spaced", "#! /bin/dash -e\n"),
        ] {
            assert!(is_script(path, content.as_bytes()), "{path}");
        }
        for (path, content) in [
            ("a.rs", "fn main() {}"),
            ("b", "#!/usr/bin/env python3\n"),
            ("c", ""),
        ] {
            assert!(!is_script(path, content.as_bytes()), "{path}");
        }
    }
}
