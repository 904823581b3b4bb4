//! Reads the files of a project from disk, within a limit.

use std::fs;
use std::io::{self, Read as _};
use std::path::Path;

use uc_api::nearest::nearest;
use uc_compose::{Diagnostic, SourceFile};

use super::file_error;

/// Limits memory for files that are not text. `uc-compose` refuses much smaller ones with a reason.
const MAX_SIZE: u64 = 16 * 1024 * 1024;

/// A compose or `.env` file, or stdin for `-`.
pub(super) fn source(path: &Path) -> Result<SourceFile, Box<Diagnostic>> {
    let bytes = if path.as_os_str() == "-" {
        take(io::stdin().lock())
    } else {
        fs::File::open(path).and_then(take)
    };
    let bytes = bytes.map_err(|error| unreadable(path, &error))?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok(SourceFile {
            path: path.to_owned(),
            text,
        }),
        Err(error) => Err(no_text(path, &error)),
    }
}

/// A file that a compose file names.
pub(super) fn limited(path: &Path) -> io::Result<String> {
    let bytes = take(fs::File::open(path)?)?;
    String::from_utf8(bytes)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not valid UTF-8"))
}

fn take(file: impl io::Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(MAX_SIZE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_SIZE {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "it is larger than 16 MiB",
        ));
    }
    Ok(bytes)
}

fn unreadable(path: &Path, error: &io::Error) -> Box<Diagnostic> {
    let shown = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => file_error(path, format!("`{shown}` not found"), similar(path)),
        io::ErrorKind::IsADirectory => file_error(
            path,
            format!("`{shown}` is a folder, not a file"),
            inside(path),
        ),
        io::ErrorKind::PermissionDenied => file_error(
            path,
            format!("permission denied: cannot read `{shown}`"),
            format!("make it readable with `chmod u+r {shown}`, or run `uc` as its owner"),
        ),
        io::ErrorKind::FileTooLarge => file_error(
            path,
            format!("`{shown}` is larger than 16 MiB"),
            "check that this is the right file; no compose file is that large",
        ),
        _ => file_error(
            path,
            format!("cannot read `{shown}`: {error}"),
            "check that it is a file on a disk that is mounted",
        ),
    }
}

fn no_text(path: &Path, error: &std::string::FromUtf8Error) -> Box<Diagnostic> {
    let bytes = error.as_bytes();
    let at = error.utf8_error().valid_up_to();
    let (before, after) = bytes.split_at(at);
    let line = before.split(|byte| *byte == b'\n').count();
    let hint = if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        "it looks like UTF-16: save it as UTF-8".to_owned()
    } else if before.contains(&0) || after.iter().take(512).any(|byte| *byte == 0) {
        "it looks like a program or an archive; check that it is the right file".to_owned()
    } else {
        format!(
            "save it as UTF-8; `iconv -f latin1 -t utf-8 {}` converts an old text",
            path.display()
        )
    };
    file_error(
        path,
        format!("`{}` is not valid UTF-8 (line {line})", path.display()),
        hint,
    )
}

/// What may have been meant by a file that is not there.
fn similar(path: &Path) -> String {
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let Ok(entries) = fs::read_dir(directory) else {
        return format!("directory `{}` does not exist either", directory.display());
    };
    let names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    let near = path.file_name().and_then(|typed| {
        let names = names.iter().map(String::as_str);
        nearest(&typed.to_string_lossy(), names)
    });
    match near {
        Some(name) => format!("did you mean `{}`?", path.with_file_name(name).display()),
        None => "correct the path, which is relative to the current directory".to_owned(),
    }
}

/// The compose file in a folder that was named in its place.
fn inside(path: &Path) -> String {
    match uc_compose::default_files(|name| path.join(name).is_file()) {
        Some(found) => match found.files.first() {
            Some(name) => format!(
                "name the file in the folder: `-f {}`",
                path.join(name).display()
            ),
            None => String::new(),
        },
        None => "name a file".to_owned(),
    }
}
