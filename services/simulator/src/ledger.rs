//! The ledger: one line for each accepted batch, on disk before the client hears of it.
//!
//! `{"batch":"batch_…","file":"file-…","at":<unix seconds>,"metadata":{…},"rows":[{"custom_id":"…","prompt_sha256":"…"}]}`
//!
//! A line with its `\n` *is* the acceptance. A line without one was cut off by a crash before its reply could leave, so it
//! never happened and is removed when the ledger is opened. A write that fails is taken back; if even that fails, the
//! ledger takes no further line until a restart has looked at what is really on disk.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, BufRead as _, BufReader, BufWriter, Read, Write as _},
    path::Path,
};

use serde::{Deserialize, Serialize, de::IgnoredAny};

use crate::Error;

/// The part of a line before its rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    pub(crate) batch: String,
    pub(crate) file: String,
    pub(crate) at: u64,
    pub(crate) metadata: BTreeMap<String, String>,
}

/// A line as a restart reads it.
#[derive(Debug, Deserialize)]
pub(crate) struct Entry {
    #[serde(flatten)]
    pub(crate) head: Head,
    rows: Vec<IgnoredAny>,
}

impl Entry {
    /// How many rows were accepted.
    pub(crate) fn rows(&self) -> u64 {
        self.rows.len() as u64
    }
}

/// The open ledger.
#[derive(Debug)]
pub(crate) struct Ledger {
    file: File,
    len: u64,
    broken: bool,
}

impl Ledger {
    /// Opens the ledger, cuts off a torn last line, and gives every complete line to `each`.
    pub(crate) fn open(path: &Path, mut each: impl FnMut(Entry)) -> Result<Self, Error> {
        let file =
            OpenOptions::new().read(true).append(true).create(true).open(path).map_err(Error::io("open", path))?;
        let mut reader = BufReader::with_capacity(1 << 20, &file);
        let (mut len, mut number, mut line) = (0, 0, Vec::new());
        loop {
            line.clear();
            let read = reader.read_until(b'\n', &mut line).map_err(Error::io("read", path))?;
            if line.last() != Some(&b'\n') {
                break;
            }
            number += 1;
            len += read as u64;
            let entry = serde_json::from_slice(&line).map_err(|source| Error::Ledger {
                path: path.to_owned(),
                line: number,
                source,
            })?;
            each(entry);
        }
        if !line.is_empty() {
            tracing::warn!(
                "{}: the last line was torn by a crash; it was never accepted, so it is cut off",
                path.display()
            );
            file.set_len(len).and_then(|()| file.sync_all()).map_err(Error::io("truncate", path))?;
        }
        Ok(Self { file, len, broken: false })
    }

    /// Appends one line and puts it on disk. When this returns `Ok`, the batch is accepted, whatever happens next.
    ///
    /// `rows` are the rows as comma-separated JSON objects.
    ///
    /// # Errors
    /// Nothing was accepted.
    pub(crate) fn append(&mut self, head: &Head, rows: &mut impl Read) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::other(
                "the ledger couldn't be repaired after a failed write; restart the simulator",
            ));
        }
        match self.write(head, rows) {
            Ok(written) => {
                self.len += written;
                Ok(())
            }
            Err(error) => {
                self.broken = self.file.set_len(self.len).and_then(|()| self.file.sync_all()).is_err();
                Err(error)
            }
        }
    }

    fn write(&self, head: &Head, rows: &mut impl Read) -> io::Result<u64> {
        let mut start = serde_json::to_vec(head)?;
        start.pop();
        start.extend_from_slice(b",\"rows\":[");
        let mut out = BufWriter::with_capacity(1 << 20, &self.file);
        out.write_all(&start)?;
        let copied = io::copy(rows, &mut out)?;
        out.write_all(b"]}\n")?;
        out.flush()?;
        self.file.sync_data()?;
        Ok(start.len() as u64 + copied + 3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(batch: &str) -> Head {
        Head { batch: batch.into(), file: "file-1".into(), at: 7, metadata: BTreeMap::from([("k".into(), "v".into())]) }
    }

    fn open(path: &Path) -> (Ledger, Vec<(String, u64)>) {
        let mut seen = Vec::new();
        let ledger = Ledger::open(path, |entry| seen.push((entry.head.batch.clone(), entry.rows()))).unwrap();
        (ledger, seen)
    }

    #[test]
    fn a_line_has_the_documented_form() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.jsonl");
        let row = r#"{"custom_id":"a","prompt_sha256":"00"}"#;
        open(&path).0.append(&head("batch_1"), &mut row.as_bytes()).unwrap();
        let line = format!(r#"{{"batch":"batch_1","file":"file-1","at":7,"metadata":{{"k":"v"}},"rows":[{row}]}}"#);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), line + "\n");
    }

    #[test]
    fn every_way_of_tearing_the_last_line_leaves_the_lines_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.jsonl");
        let mut ledger = open(&path).0;
        ledger.append(&head("batch_1"), &mut &b"{},{}"[..]).unwrap();
        let first = std::fs::read(&path).unwrap();
        ledger.append(&head("batch_2"), &mut &b"{}"[..]).unwrap();
        drop(ledger);
        let whole = std::fs::read(&path).unwrap();
        for cut in first.len()..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let (mut ledger, seen) = open(&path);
            assert_eq!(seen, [("batch_1".to_owned(), 2)]);
            assert_eq!(std::fs::read(&path).unwrap(), first);
            ledger.append(&head("batch_2"), &mut &b"{}"[..]).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), whole);
        }
    }

    #[test]
    fn rows_that_cannot_be_read_to_their_end_leave_no_line() {
        struct Breaks(bool);
        impl Read for Breaks {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                if std::mem::replace(&mut self.0, true) {
                    return Err(io::Error::other("broken"));
                }
                buffer.fill(b' ');
                Ok(buffer.len())
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.jsonl");
        let mut ledger = open(&path).0;
        ledger.append(&head("batch_1"), &mut &b"{}"[..]).unwrap();
        let before = std::fs::read(&path).unwrap();
        assert!(ledger.append(&head("batch_2"), &mut Breaks(false)).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), before);
        ledger.append(&head("batch_3"), &mut &b"{}"[..]).unwrap();
        assert_eq!(open(&path).1, [("batch_1".to_owned(), 1), ("batch_3".to_owned(), 1)]);
    }

    #[test]
    fn a_complete_line_that_is_not_ours_stops_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.jsonl");
        std::fs::write(&path, "{\"batch\":1}\n").unwrap();
        let error = Ledger::open(&path, |_| ()).unwrap_err();
        assert!(matches!(error, Error::Ledger { line: 1, .. }));
    }
}
