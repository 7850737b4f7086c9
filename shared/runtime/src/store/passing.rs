//! A data object that is read once, from front to back, and checked on its way.
//!
//! **Promise.** [`Passing::check`] says whether what passed was, byte for byte, what the fact names. Until then nobody vouches
//! for it: whoever makes something of it must not show it before. In return each byte is read from front to back once, and hashed
//! while the processor's caches still have it. Only the end, where a footer tells what is where, is looked at beforehand too: a look
//! is not hashed, and the same bytes are when they pass.
//!
//! An object that had to be copied to scratch disk was checked when it came, and is not hashed again.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

use model::DataRef;
use model::digest::Checksummer;

use super::Result;
use super::fetch::{check_content, check_size, unreadable};
use crate::scratch::ScratchFile;

/// So much is read at a time, and hashed before the next: what a processor's own cache holds.
const READ_BYTES: u64 = 256 * 1024;

/// A data object, open for one reading.
#[derive(Debug)]
pub struct Passing {
    file: ScratchFile,
    unchecked: Option<Unchecked>,
}

/// What is not checked yet.
struct Unchecked {
    data: DataRef,
    hasher: Checksummer,
    /// All before this byte went through the hasher.
    passed: u64,
}

impl fmt::Debug for Unchecked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unchecked").field("data", &self.data).field("passed", &self.passed).finish_non_exhaustive()
    }
}

impl Passing {
    /// An object whose bytes were checked before.
    #[must_use]
    pub fn checked(file: ScratchFile) -> Self {
        Self { file, unchecked: None }
    }

    /// An object where it lies. Its size is looked at here and now.
    pub(super) fn unchecked(file: ScratchFile, data: &DataRef) -> Result<Self> {
        check_size(data, file.file().metadata().map_err(|error| unreadable(data, &error))?.len())?;
        let hasher = Checksummer::like(&data.checksum);
        Ok(Self { file, unchecked: Some(Unchecked { data: data.clone(), hasher, passed: 0 }) })
    }

    /// How long it is.
    ///
    /// # Errors
    /// The operating system's.
    pub fn bytes(&self) -> io::Result<u64> {
        Ok(self.file.file().metadata()?.len())
    }

    /// Bytes at any place, which do not count as passed.
    ///
    /// # Errors
    /// The operating system's; when the object ends before them.
    pub fn look(&self, range: Range<u64>) -> io::Result<Vec<u8>> {
        read(self.file.file(), range, |_| ())
    }

    /// The bytes of a range that begins where the one before it ended, or later: what lies between passes too.
    ///
    /// # Errors
    /// The operating system's; when the object ends before them, or the range lies before what has passed.
    pub fn pass(&mut self, range: Range<u64>) -> io::Result<Vec<u8>> {
        let Some(unchecked) = &mut self.unchecked else { return self.look(range) };
        if range.start < unchecked.passed {
            let what = format!("bytes from {} on were asked for behind byte {}", range.start, unchecked.passed);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        unchecked.pass_to(self.file.file(), range.start)?;
        let bytes = read(self.file.file(), range.clone(), |piece| unchecked.hasher.update(piece))?;
        unchecked.passed = range.end;
        Ok(bytes)
    }

    /// Lets the rest pass, and says whether all of it was what the fact names: then here is the file.
    ///
    /// # Errors
    /// [`super::Error::Corrupt`] if it was not; [`super::Error::Unavailable`] if it can't be read.
    pub fn check(self) -> Result<ScratchFile> {
        let Some(mut unchecked) = self.unchecked else { return Ok(self.file) };
        let end = self.file.file().metadata().map(|metadata| metadata.len());
        let passed = end.and_then(|end| unchecked.pass_to(self.file.file(), end));
        passed.map_err(|error| unreadable(&unchecked.data, &error))?;
        check_content(&unchecked.data, unchecked.passed, unchecked.hasher)?;
        Ok(self.file)
    }
}

impl Unchecked {
    fn pass_to(&mut self, file: &File, end: u64) -> io::Result<()> {
        while self.passed < end {
            let next = end.min(self.passed + READ_BYTES);
            read(file, self.passed..next, |piece| self.hasher.update(piece))?;
            self.passed = next;
        }
        Ok(())
    }
}

/// Reads a range into memory of its size, which is not cleared before; `see` sees each piece as it comes.
fn read(mut file: &File, range: Range<u64>, mut see: impl FnMut(&[u8])) -> io::Result<Vec<u8>> {
    let length = range.end.saturating_sub(range.start);
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(usize::try_from(length).map_err(io::Error::other)?).map_err(io::Error::other)?;
    file.seek(SeekFrom::Start(range.start))?;
    while (bytes.len() as u64) < length {
        let seen = bytes.len();
        if file.take(READ_BYTES.min(length - seen as u64)).read_to_end(&mut bytes)? == 0 {
            let what = format!("the file ends within bytes {} to {}", range.start, range.end);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
        }
        see(&bytes[seen..]);
    }
    Ok(bytes)
}
