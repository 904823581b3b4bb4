//! The file that keeps which containers are being moved, one in each line: its id, and what the
//! engine forgets when the container leaves its network.

use std::path::{Path, PathBuf};
use std::{fs, io};

use super::super::NetworkError;
use crate::durable;

const MAC_ADDRESS: &str = "mac=";
const START: &str = "start";

/// A container that is being moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Moved {
    pub(super) id: String,
    /// The MAC address that it was given.
    pub(super) mac_address: Option<String>,
    /// It was stopped for the move, so it must be started.
    pub(super) start: bool,
}

/// The containers that are being moved, and their file.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    moved: Vec<Moved>,
}

impl Journal {
    pub(super) fn read(path: &Path) -> Result<Self, NetworkError> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(failed("read", path, source)),
        };
        Ok(Self {
            path: path.to_owned(),
            moved: text.lines().filter_map(parse).collect(),
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.moved.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.moved.len()
    }

    pub(super) fn get(&self, index: usize) -> &Moved {
        &self.moved[index]
    }

    pub(super) fn index_of(&self, id: &str) -> Option<usize> {
        self.moved.iter().position(|moved| moved.id == id)
    }

    /// Adds a container. One of an attempt that was cut short is kept as it is, since the engine
    /// may have forgotten its settings since.
    pub(super) fn add(&mut self, id: &str, mac_address: Option<String>) {
        if self.index_of(id).is_none() {
            self.moved.push(Moved {
                id: id.to_owned(),
                mac_address,
                start: false,
            });
        }
    }

    /// Writes down that the container must be started, before it is stopped.
    pub(super) fn note_start(&mut self, index: usize) -> Result<(), NetworkError> {
        self.moved[index].start = true;
        self.save()
    }

    /// Keeps the containers at these indices. The file is removed if there is none.
    pub(super) fn keep_only(mut self, indices: &[usize]) -> Result<(), NetworkError> {
        self.moved = indices
            .iter()
            .map(|index| self.get(*index).clone())
            .collect();
        if self.moved.is_empty() {
            return fs::remove_file(&self.path)
                .map_err(|source| failed("remove", &self.path, source));
        }
        self.save()
    }

    pub(super) fn save(&self) -> Result<(), NetworkError> {
        let lines: Vec<String> = self.moved.iter().map(line).collect();
        durable::replace(&self.path, lines.join("\n").as_bytes())
            .map_err(|source| failed("write", &self.path, source))
    }
}

fn line(moved: &Moved) -> String {
    let mac = moved.mac_address.iter();
    let mac = mac.map(|mac| format!("{MAC_ADDRESS}{mac}"));
    let start = moved.start.then(|| START.to_owned());
    let words = std::iter::once(moved.id.clone()).chain(mac).chain(start);
    words.collect::<Vec<_>>().join(" ")
}

/// Reads a line. Words that this version does not know are ignored.
fn parse(line: &str) -> Option<Moved> {
    let mut words = line.split_whitespace();
    let id = words.next()?.to_owned();
    let mut moved = Moved {
        id,
        mac_address: None,
        start: false,
    };
    for word in words {
        if word == START {
            moved.start = true;
        } else if let Some(mac) = word.strip_prefix(MAC_ADDRESS) {
            moved.mac_address = Some(mac.to_owned());
        }
    }
    Some(moved)
}

fn failed(action: &'static str, journal: &Path, source: io::Error) -> NetworkError {
    NetworkError::Journal {
        action,
        path: journal.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn journal_keeps_what_is_needed_to_connect_a_container() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("moved-containers");
        // Lines of an earlier version have only the id.
        fs::write(&path, "aa\nbb mac=02:aa:bb:cc:dd:ee unknown\n").unwrap();
        let mut journal = Journal::read(&path).unwrap();
        journal.add("bb", None);
        journal.add("cc", None);
        journal.note_start(2).unwrap();
        let text = "aa\nbb mac=02:aa:bb:cc:dd:ee\ncc start";
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        let read = Journal::read(&path).unwrap();
        assert_eq!(read.moved, journal.moved);
        journal.keep_only(&[1]).unwrap();
        let journal = Journal::read(&path).unwrap();
        assert_eq!((journal.len(), journal.index_of("bb")), (1, Some(0)));
        journal.keep_only(&[]).unwrap();
        assert!(!path.exists());
    }
}
