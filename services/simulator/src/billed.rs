//! What was executed: `<data>/billed.jsonl`, one line for each batch that has ended.
//!
//! `{"batch":"batch_…","file":"file-…","at":<unix seconds>,"status":"…","rows":["<custom id>",…]}`
//!
//! The ledger says what was accepted; a row that was accepted but expired, was cancelled or failed before it ran is not
//! billed, and is not in this file. A row that was executed is, whatever the result files say of it.
//!
//! A crash can leave a line twice, with the same rows, or a torn line: the next line then starts on a new line of its own, and
//! says all. Who reads keeps the last line of each batch and skips what is no JSON.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead as _, BufReader, BufWriter, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::Mutex,
};

use serde_json::json;

use crate::{Error, records::Record, store::lock};

/// The file, written by one batch at a time.
#[derive(Debug)]
pub(crate) struct Billed {
    path: PathBuf,
    turn: Mutex<()>,
}

impl Billed {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, turn: Mutex::default() }
    }

    /// Adds a batch's line. `rows` names a file with a JSON string a line; none: no row was executed.
    pub(crate) fn append(&self, record: &Record, status: &str, at: u64, rows: Option<&Path>) -> Result<(), Error> {
        let _turn = lock(&self.turn);
        self.write(record, status, at, rows).map_err(Error::io("append to", &self.path))
    }

    fn write(&self, record: &Record, status: &str, at: u64, rows: Option<&Path>) -> io::Result<()> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(&self.path)?;
        let torn = file.metadata()?.len() > 0 && {
            let mut last = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            last != *b"\n"
        };
        let mut out = BufWriter::with_capacity(1 << 20, file);
        if torn {
            out.write_all(b"\n")?;
        }
        let (batch, input) = (json!(record.id), json!(record.input_file_id));
        write!(out, r#"{{"batch":{batch},"file":{input},"at":{at},"status":"{status}","rows":["#)?;
        if let Some(rows) = rows {
            for (place, row) in BufReader::with_capacity(1 << 20, File::open(rows)?).split(b'\n').enumerate() {
                out.write_all(if place == 0 { b"" } else { b"," })?;
                out.write_all(&row?)?;
            }
        }
        out.write_all(b"]}\n")?;
        out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_the_rows_and_a_torn_one_is_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("billed.jsonl");
        let billed = Billed::new(path.clone());
        let record = Record::new("batch_1".into(), 1, "file-1".into(), 0);
        let rows = folder.path().join("rows");
        std::fs::write(&rows, "\"a\"\n\"b\"\n").unwrap();
        billed.append(&record, "completed", 7, Some(&rows)).unwrap();
        let line = r#"{"batch":"batch_1","file":"file-1","at":7,"status":"completed","rows":["a","b"]}"#;
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{line}\n"));
        std::fs::write(&path, &line[..9]).unwrap();
        billed.append(&record, "failed", 8, None).unwrap();
        let last = r#"{"batch":"batch_1","file":"file-1","at":8,"status":"failed","rows":[]}"#;
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n{last}\n", &line[..9]));
    }
}
