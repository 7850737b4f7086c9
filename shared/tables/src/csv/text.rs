//! The text of a file as one stream: asks for the file's bytes piece after piece and hands out text, gunzipped or not.

use std::ops::Range;

use bytes::{Buf, Bytes};

use super::gzip::{Gunzip, Inflated};
use crate::input::{Caps, Error};

/// What filling a buffer came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fill {
    /// Text was appended: one byte at least.
    Some,
    /// This range of the file is needed first.
    Need(Range<u64>),
    /// The text is over.
    End,
}

#[derive(Debug)]
enum Source {
    Plain(Bytes),
    Gzip(Box<Gunzip>),
}

/// A file's text, from front to back.
#[derive(Debug)]
pub(crate) struct TextStream {
    bytes: u64,
    next: u64,
    read_bytes: u64,
    source: Source,
    misuse: Option<String>,
}

impl TextStream {
    /// The text of a file of `bytes` bytes, from the file's byte `from` on (which must be 0 for a gzipped one).
    pub(crate) fn new(bytes: u64, from: u64, gzip: bool, caps: &Caps) -> Self {
        let source =
            if gzip { Source::Gzip(Box::new(Gunzip::new(caps.max_gzip_ratio))) } else { Source::Plain(Bytes::new()) };
        Self { bytes, next: from, read_bytes: caps.read_bytes.max(1), source, misuse: None }
    }

    /// Takes the bytes of the range that [`TextStream::fill`] asked for.
    pub(crate) fn push(&mut self, range: Range<u64>, data: Bytes) {
        if range.start != self.next || range.end > self.bytes || range.end - range.start != data.len() as u64 {
            self.misuse = Some(format!(
                "a CSV reader that stood at byte {} was given {} bytes for {}..{}",
                self.next,
                data.len(),
                range.start,
                range.end
            ));
            return;
        }
        self.next = range.end;
        match &mut self.source {
            Source::Plain(pending) => *pending = data,
            Source::Gzip(stream) => stream.push(data, range.end == self.bytes),
        }
    }

    /// Appends up to `want` bytes of text.
    pub(crate) fn fill(&mut self, out: &mut Vec<u8>, want: usize) -> Result<Fill, Error> {
        if let Some(message) = &self.misuse {
            return Err(Error::data(message.clone()));
        }
        match &mut self.source {
            Source::Plain(pending) if !pending.is_empty() => {
                let count = want.min(pending.len());
                out.extend_from_slice(&pending[..count]);
                pending.advance(count);
                return Ok(Fill::Some);
            }
            Source::Plain(_) => {}
            Source::Gzip(stream) => match stream.pull(out, want)? {
                Inflated::Some => return Ok(Fill::Some),
                Inflated::End => return Ok(Fill::End),
                Inflated::Starved => {}
            },
        }
        if self.next >= self.bytes {
            return Ok(Fill::End);
        }
        Ok(Fill::Need(self.next..self.bytes.min(self.next + self.read_bytes)))
    }
}
