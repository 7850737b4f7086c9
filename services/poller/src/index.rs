//! Which line of the provider's files is which row's. Files are shuffled; this index is all that memory holds of them,
//! 16 bytes a row.
//!
//! Lines end at line feeds and at nothing else: U+2028 inside a string is data. Of a line over the limit only the beginning is
//! read, which tells whose it is: its row can't be read, if nothing else speaks of it.

use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use model::{CustomId, Nonce};
use providers::{Outcome, Provider};

use crate::decide;

/// Where a row's line is: file, offset, length. `length` 0 means that no line is known, or, if `file` is [`TOO_LONG`], none but
/// one that is too long.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    offset: u64,
    length: u32,
    file: u32,
}

/// Stands for the file of a line that is too long to be read.
const TOO_LONG: u32 = u32::MAX;

/// The index of one attempt's result files.
pub(crate) struct Index {
    slots: Vec<Slot>,
    files: Vec<File>,
    /// Lines whose custom id is not of this attempt, and lines that can't be read at all.
    pub(crate) unknown: u64,
    /// Lines beyond the first for one row.
    pub(crate) duplicates: u64,
}

impl Index {
    /// Reads the files once and notes each row's line.
    ///
    /// # Errors
    /// When a file can't be read.
    pub(crate) fn build(
        files: Vec<File>,
        provider: &dyn Provider,
        nonce: &Nonce,
        rows: usize,
        max_line: usize,
    ) -> std::io::Result<Self> {
        let mut index = Self { slots: vec![Slot::default(); rows], files: Vec::new(), unknown: 0, duplicates: 0 };
        for file in files {
            index.add(file, provider, nonce, max_line)?;
        }
        Ok(index)
    }

    fn add(&mut self, mut file: File, provider: &dyn Provider, nonce: &Nonce, max_line: usize) -> std::io::Result<()> {
        file.seek(SeekFrom::Start(0))?;
        let number = u32::try_from(self.files.len()).unwrap_or(u32::MAX);
        self.files.push(file.try_clone()?);
        let mut lines = Lines { reader: BufReader::with_capacity(1 << 20, file), offset: 0, max_line };
        let mut line = Vec::new();
        while let Some((offset, whole)) = lines.next(&mut line)? {
            if whole && line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let id = provider.line_id(&line);
            let row = id.as_deref().and_then(CustomId::parse).filter(|id| id.nonce == nonce.as_str()).map(|id| id.row);
            let known = row.and_then(|row| usize::try_from(row).ok()).filter(|row| *row < self.slots.len());
            let Some(row) = known else {
                self.unknown += 1;
                continue;
            };
            let slot = Slot { offset, length: u32::try_from(line.len()).unwrap_or(0), file: number };
            if whole {
                self.note(provider, row, slot, &line)?;
            } else {
                self.note_too_long(row);
            }
        }
        Ok(())
    }

    fn note(&mut self, provider: &dyn Provider, row: usize, slot: Slot, line: &[u8]) -> std::io::Result<()> {
        if self.is_too_long(row) {
            self.duplicates += 1;
        } else if self.slots[row].length > 0 {
            self.duplicates += 1;
            let earlier = self.read(self.slots[row])?;
            if !decide::replaces(is_answer(provider, &earlier), is_answer(provider, line)) {
                return Ok(());
            }
        }
        self.slots[row] = slot;
        Ok(())
    }

    fn note_too_long(&mut self, row: usize) {
        if self.slots[row].length > 0 || self.is_too_long(row) {
            self.duplicates += 1;
        } else {
            self.slots[row].file = TOO_LONG;
        }
    }

    /// Whether all that is said of a row is a line that is too long to be read.
    pub(crate) fn is_too_long(&self, row: usize) -> bool {
        self.slots.get(row).is_some_and(|slot| slot.length == 0 && slot.file == TOO_LONG)
    }

    fn read(&self, slot: Slot) -> std::io::Result<Vec<u8>> {
        let mut line = vec![0; slot.length as usize];
        self.files[slot.file as usize].read_exact_at(&mut line, slot.offset)?;
        Ok(line)
    }

    /// A row's line; none if neither file has one.
    ///
    /// # Errors
    /// When the file can't be read.
    pub(crate) fn line(&self, row: usize) -> std::io::Result<Option<Vec<u8>>> {
        match self.slots.get(row) {
            Some(slot) if slot.length > 0 => self.read(*slot).map(Some),
            _ => Ok(None),
        }
    }
}

fn is_answer(provider: &dyn Provider, line: &[u8]) -> bool {
    matches!(provider.decode_line(line), Ok(answer) if matches!(answer.outcome, Outcome::Answered { .. }))
}

/// Lines of a file, bounded.
struct Lines {
    reader: BufReader<File>,
    offset: u64,
    max_line: usize,
}

impl Lines {
    /// The next line without its line feed: where it begins, and whether `line` holds it whole. None at the end.
    fn next(&mut self, line: &mut Vec<u8>) -> std::io::Result<Option<(u64, bool)>> {
        line.clear();
        let (begin, mut whole) = (self.offset, true);
        loop {
            let piece = self.reader.fill_buf()?;
            if piece.is_empty() {
                return Ok((self.offset > begin).then_some((begin, whole)));
            }
            let end = memchr::memchr(b'\n', piece);
            let taken = end.unwrap_or(piece.len());
            let fits = taken.min(self.max_line - line.len());
            line.extend_from_slice(&piece[..fits]);
            whole &= fits == taken;
            let consumed = end.map_or(taken, |end| end + 1);
            self.reader.consume(consumed);
            self.offset += consumed as u64;
            if end.is_some() {
                return Ok(Some((begin, whole)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file(text: &str) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn answered(id: &str, text: &str) -> String {
        format!(
            r#"{{"id":"r","custom_id":"{id}","response":{{"status_code":200,"request_id":"q","body":{{"model":"m","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}"}},"finish_reason":"stop"}}]}}}},"error":null}}"#
        )
    }

    fn failed(id: &str) -> String {
        format!(
            r#"{{"id":"r","custom_id":"{id}","response":null,"error":{{"code":"batch_expired","message":"late"}}}}"#
        )
    }

    fn index(output: &str, error: &str, rows: usize) -> Index {
        let provider = providers::open("p", &providers::ProviderSettings::simulator("http://127.0.0.1:1/v1")).unwrap();
        Index::build(vec![file(output), file(error)], provider.as_ref(), &Nonce::from_bits(0), rows, 4_096).unwrap()
    }

    const N: &str = "0000000000000000";

    #[test]
    fn shuffled_lines_find_their_rows_and_a_line_separator_in_a_string_ends_nothing() {
        let (a, b) = (answered(&format!("{N}-1"), "x\u{2028}y"), answered(&format!("{N}-0"), "z"));
        let index = index(&format!("{a}\n\n{b}"), "", 3);
        assert_eq!(index.line(1).unwrap().unwrap(), a.as_bytes());
        assert_eq!(index.line(0).unwrap().unwrap(), b.as_bytes());
        assert_eq!(index.line(2).unwrap(), None);
        assert_eq!((index.unknown, index.duplicates), (0, 0));
    }

    #[test]
    fn lines_of_other_attempts_of_no_row_or_without_an_id_are_counted_and_kept_aside() {
        let strays = [
            answered("ffffffffffffffff-0", "x"),
            answered(&format!("{N}-3"), "x"),
            "{}".to_owned(),
            "not json".to_owned(),
        ];
        let index = index(&strays.join("\n"), "", 3);
        assert_eq!(index.unknown, 4);
        assert!((0..3).all(|row| index.line(row).unwrap().is_none()));
    }

    #[test]
    fn of_two_lines_for_a_row_a_success_beats_an_error_and_else_the_first_wins() {
        let id = format!("{N}-0");
        let (first, second) = (answered(&id, "one"), answered(&id, "two"));
        let both = index(&format!("{first}\n{second}\n"), &failed(&id), 1);
        assert_eq!((both.line(0).unwrap().unwrap(), both.duplicates), (first.clone().into_bytes(), 2));
        let error_first = index(&format!("{}\n{first}\n", failed(&id)), "", 1);
        assert_eq!(error_first.line(0).unwrap().unwrap(), first.into_bytes());
    }

    #[test]
    fn a_line_over_the_limit_costs_its_own_row_only() {
        let long = answered(&format!("{N}-0"), &"x".repeat(5_000));
        let short = answered(&format!("{N}-1"), "y");
        let index = index(&format!("{long}\n{short}"), "", 2);
        assert_eq!((index.line(0).unwrap(), index.unknown, index.is_too_long(0)), (None, 0, true));
        assert!(index.line(1).unwrap().is_some() && !index.is_too_long(1));
    }
}
