//! What a load needs to know: texts, names and variables. Nothing is read from disk or from the
//! process.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::diagnostic::{Diagnostic, Rule, Severity};
use crate::project::Project;

/// One file's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// As a person would name it; diagnostics show it so.
    pub path: PathBuf,
    /// Its content.
    pub text: String,
}

impl SourceFile {
    /// A file's bytes as text: UTF-8, or UTF-16 that begins with its byte order mark. Anything else
    /// is an error that says where.
    pub fn from_bytes(path: PathBuf, bytes: Vec<u8>) -> Result<Self, Box<Diagnostic>> {
        let units = |from: fn([u8; 2]) -> u16| -> Vec<u16> {
            bytes
                .chunks_exact(2)
                .skip(1)
                .map(|pair| from([pair[0], pair[1]]))
                .collect()
        };
        let wide = match bytes.as_slice() {
            _ if !bytes.len().is_multiple_of(2) => None,
            [0xff, 0xfe, ..] => String::from_utf16(&units(u16::from_le_bytes)).ok(),
            [0xfe, 0xff, ..] => String::from_utf16(&units(u16::from_be_bytes)).ok(),
            _ => None,
        };
        if let Some(text) = wide {
            return Ok(Self { path, text });
        }
        String::from_utf8(bytes)
            .map(|text| Self {
                path: path.clone(),
                text,
            })
            .map_err(|error| {
                let at = error.utf8_error().valid_up_to();
                let before =
                    String::from_utf8_lossy(error.as_bytes().get(..at).unwrap_or_default())
                        .into_owned();
                let byte = error.as_bytes().get(at).copied().unwrap_or_default();
                let column = before
                    .rsplit('\n')
                    .next()
                    .unwrap_or_default()
                    .chars()
                    .count()
                    + 1;
                Box::new(Diagnostic {
                    severity: Severity::Error,
                    rule: Rule::File,
                    file: path,
                    line: before.matches('\n').count() + 1,
                    column,
                    length: 1,
                    path: String::new(),
                    message: format!("byte 0x{byte:02x} is not text in UTF-8"),
                    label: None,
                    hint: Some("save the file as UTF-8; is it a text file at all?".into()),
                })
            })
    }
}

/// Everything that decides what a compose file means.
#[derive(Debug, Clone)]
pub struct LoadRequest {
    /// Compose files; later ones override earlier ones.
    pub files: Vec<SourceFile>,
    /// `--project-name`: beats every other source of the name.
    pub project_name: Option<String>,
    /// Absolute: relative paths start here, and its last part is the default name.
    pub directory: PathBuf,
    /// The process's environment; it beats `.env`.
    pub environment: BTreeMap<String, String>,
    /// `.env` files; later ones override earlier ones, and may use their variables.
    pub dotenv: Vec<SourceFile>,
    /// Active profiles; `*` is all of them. `COMPOSE_PROFILES` counts where none is given.
    pub profiles: Vec<String>,
    /// Keys that are not honoured are errors.
    pub strict: bool,
    /// The project is only read and shown: what a deployment would refuse, and Docker Compose
    /// reads, is a warning.
    pub reading: bool,
    /// Whether variables are put in (they are by default). Without, values stay as they are
    /// written: the document can be printed, but what services and volumes say may hold `${…}`
    /// where a number or a name belongs.
    pub interpolate: bool,
}

impl Default for LoadRequest {
    /// No files, no variables, everything put in.
    fn default() -> Self {
        Self {
            files: Vec::new(),
            project_name: None,
            directory: PathBuf::new(),
            environment: BTreeMap::new(),
            dotenv: Vec::new(),
            profiles: Vec::new(),
            strict: false,
            reading: false,
            interpolate: true,
        }
    }
}

/// What came of a load.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// `None` if there is any error.
    pub project: Option<Project>,
    /// In order of file and position.
    pub diagnostics: Vec<Diagnostic>,
    /// Files that were read on the way (`env_file`), for [`crate::render()`].
    pub read: Vec<SourceFile>,
}

/// Where files that a compose file names come from. The caller owns the disk.
pub trait ReadFile {
    /// The text at an absolute path.
    fn read(&self, path: &Path) -> io::Result<String>;
}

impl<F: Fn(&Path) -> io::Result<String>> ReadFile for F {
    fn read(&self, path: &Path) -> io::Result<String> {
        self(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<String, String> {
        let read = SourceFile::from_bytes("compose.yaml".into(), bytes.to_vec());
        read.map(|source| source.text)
            .map_err(|d| format!("{}:{} {}", d.line, d.column, d.message))
    }

    #[test]
    fn bytes_become_text_or_say_where_they_do_not() {
        assert_eq!(read("a: é".as_bytes()), Ok("a: é".into()));
        assert_eq!(read(b"\xff\xfea\0:\0"), Ok("a:".into()));
        assert_eq!(read(b"\xfe\xff\0a\0:"), Ok("a:".into()));
        let nowhere = "2:4 byte 0xff is not text in UTF-8".to_owned();
        assert_eq!(
            read(&["a: 1\né: ".as_bytes(), b"\xff"].concat()),
            Err(nowhere)
        );
        assert_eq!(
            read(b"\xff\xfe\0"),
            Err("1:1 byte 0xff is not text in UTF-8".into())
        );
    }
}
