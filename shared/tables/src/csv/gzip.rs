//! Gunzipping without IO.
//!
//! The decoder reads from a [`Feed`], which says `WouldBlock` when it has run dry before the file's end; the error
//! goes up unharmed through flate2's reader (it keeps a half-read header, body or trailer), and reading goes on when
//! more was pushed. Output is pulled into a buffer of the caller's size, so a small piece that inflates to gigabytes
//! is inflated piece by piece. Files of several members, as parallel compressors write, are one text.

use std::io::{self, BufRead, Read};

use bytes::{Buf, Bytes};
use flate2::bufread::MultiGzDecoder;
use model::RefusalCode;

use crate::input::{Error, GZIP_RATIO_GRACE};

/// The gzipped bytes that were pushed and not yet read.
#[derive(Debug, Default)]
struct Feed {
    pending: Bytes,
    ended: bool,
    taken: u64,
}

impl Read for Feed {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(into)?;
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Feed {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.pending.is_empty() && !self.ended {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(&self.pending)
    }

    fn consume(&mut self, count: usize) {
        self.pending.advance(count);
        self.taken += count as u64;
    }
}

/// What a read gave.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Inflated {
    /// Bytes were appended.
    Some,
    /// More gzipped bytes are needed.
    Starved,
    /// The text is over, and its checksum was right.
    End,
}

/// A gzip stream that is pushed in and pulled out.
#[derive(Debug)]
pub(super) struct Gunzip {
    decoder: MultiGzDecoder<Feed>,
    produced: u64,
    max_ratio: u64,
}

impl Gunzip {
    pub(super) fn new(max_ratio: u64) -> Self {
        Self { decoder: MultiGzDecoder::new(Feed::default()), produced: 0, max_ratio }
    }

    /// Takes the next piece; the one before must be used up.
    pub(super) fn push(&mut self, data: Bytes, last: bool) {
        let feed = self.decoder.get_mut();
        feed.pending = data;
        feed.ended = last;
    }

    /// Appends up to `want` bytes of text.
    pub(super) fn pull(&mut self, out: &mut Vec<u8>, want: usize) -> Result<Inflated, Error> {
        let start = out.len();
        out.resize(start + want, 0);
        let mut end = start;
        let outcome = loop {
            if end == out.len() {
                break Ok(Inflated::Some);
            }
            match self.decoder.read(&mut out[end..]) {
                Ok(0) => break Ok(if end > start { Inflated::Some } else { Inflated::End }),
                Ok(count) => end += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    break Ok(if end > start { Inflated::Some } else { Inflated::Starved });
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(self.corrupt(&error)),
            }
        };
        out.truncate(end);
        self.produced += (end - start) as u64;
        self.check_ratio()?;
        outcome
    }

    fn corrupt(&self, error: &io::Error) -> Error {
        let at = self.decoder.get_ref().taken;
        let message = if error.kind() == io::ErrorKind::UnexpectedEof {
            format!("the gzip stream is cut off: it ends at byte {at} in the middle of a member. Upload the file again")
        } else {
            format!("the gzip stream is corrupt near byte {at}: {error}. Upload the file again")
        };
        Error::input(RefusalCode::InputCorrupt, message)
    }

    fn check_ratio(&self) -> Result<(), Error> {
        let taken = self.decoder.get_ref().taken.max(1);
        if self.produced > GZIP_RATIO_GRACE && self.produced / taken > self.max_ratio {
            return Err(Error::input(
                RefusalCode::InputTooLarge,
                format!(
                    "{taken} gzipped bytes have become {} bytes of text, more than {} for each: this looks like a \
                     compression bomb. Give the file uncompressed if it is not",
                    self.produced, self.max_ratio
                ),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn gunzip(data: &[u8], piece: usize, want: usize) -> Result<Vec<u8>, Error> {
        let mut stream = Gunzip::new(200);
        let (mut out, mut next) = (Vec::new(), 0);
        loop {
            match stream.pull(&mut out, want)? {
                Inflated::Some => {}
                Inflated::End => return Ok(out),
                Inflated::Starved => {
                    let end = (next + piece).min(data.len());
                    stream.push(Bytes::copy_from_slice(&data[next..end]), end == data.len());
                    next = end;
                }
            }
        }
    }

    #[test]
    fn several_members_are_one_text_however_they_are_cut() {
        let text: Vec<u8> = (0..5_000u32).flat_map(|i| format!("{i},{}\n", i * 7919).into_bytes()).collect();
        let mut data = gzip(&text[..10_000]);
        data.extend(gzip(b""));
        data.extend(gzip(&text[10_000..]));
        for (piece, want) in [(1, 7), (3, 1_000), (1_000, 1), (usize::MAX >> 1, 1 << 20)] {
            assert_eq!(gunzip(&data, piece, want).unwrap(), text, "pieces of {piece}, {want} wanted");
        }
    }

    #[test]
    fn every_cut_off_stream_is_corrupt() {
        let data = gzip(b"a,b\n1,2\n3,4\n");
        for end in 2..data.len() {
            let error = gunzip(&data[..end], 5, 100).unwrap_err();
            assert_eq!(error.refusal().unwrap().code, RefusalCode::InputCorrupt, "cut at {end}");
        }
    }

    #[test]
    fn a_wrong_checksum_is_corrupt() {
        let mut data = gzip(b"a,b\n1,2\n3,4\n");
        let at = data.len() - 6;
        data[at] ^= 1;
        assert_eq!(gunzip(&data, 5, 100).unwrap_err().refusal().unwrap().code, RefusalCode::InputCorrupt);
    }

    #[test]
    fn a_compression_bomb_is_refused_soon_after_the_grace() {
        let data = gzip(&vec![b'a'; (GZIP_RATIO_GRACE as usize) * 2]);
        let mut stream = Gunzip::new(200);
        stream.push(Bytes::from(data), true);
        let (mut out, mut produced) = (Vec::new(), 0);
        let error = loop {
            out.clear();
            match stream.pull(&mut out, 1 << 20) {
                Ok(_) => produced += out.len() as u64,
                Err(error) => break error,
            }
        };
        assert_eq!(error.refusal().unwrap().code, RefusalCode::InputTooLarge);
        assert!(produced <= GZIP_RATIO_GRACE, "{produced}");
    }
}
