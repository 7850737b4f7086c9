//! Scratch space: files on the local disk that nobody else sees and that never outlive the process. A data object of a store in a
//! local folder is lent as one, and takes no room: it is only read, and stays the store's.
//!
//! **Promise.** All files together keep below one bound; who would cross it is told so and waits. A file has no name
//! from the moment it is made, so a crash leaves nothing behind.
//!
//! **What it lacks on purpose.** No cache and no names: what has to last goes to the store.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A bounded part of the local disk. Clones share the bound.
#[derive(Clone, Debug)]
pub struct Scratch {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    max_bytes: u64,
    used: AtomicU64,
}

impl Scratch {
    /// Scratch space in a folder, which is made if it is missing; without one, in the system's temporary folder.
    ///
    /// # Errors
    /// If the folder can't be made.
    pub fn new(dir: Option<&Path>, max_bytes: u64) -> io::Result<Self> {
        let dir = dir.map_or_else(std::env::temp_dir, Path::to_path_buf);
        std::fs::create_dir_all(&dir).map_err(|error| {
            io::Error::new(error.kind(), format!("scratch folder {} (setting scratch.dir): {error}", dir.display()))
        })?;
        Ok(Self { inner: Arc::new(Inner { dir, max_bytes, used: AtomicU64::new(0) }) })
    }

    /// Sets that many bytes aside and opens an empty file for them. `None` if there is no room now: try again later.
    ///
    /// # Errors
    /// If the file can't be made.
    pub fn reserve(&self, bytes: u64) -> io::Result<Option<ScratchFile>> {
        let Some(reservation) =
            self.inner.reserve(bytes).then(|| Reservation { inner: Arc::clone(&self.inner), bytes })
        else {
            return Ok(None);
        };
        let file = tempfile::tempfile_in(&self.inner.dir)?;
        Ok(Some(ScratchFile { file, reservation }))
    }

    /// A file that lies elsewhere and needs no room, as if it were scratch.
    #[must_use]
    pub fn lend(&self, file: File) -> ScratchFile {
        ScratchFile { file, reservation: Reservation { inner: Arc::clone(&self.inner), bytes: 0 } }
    }

    /// Bytes set aside now.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.inner.used.load(Ordering::Relaxed)
    }

    /// The bound.
    #[must_use]
    pub fn max_bytes(&self) -> u64 {
        self.inner.max_bytes
    }
}

impl Inner {
    fn reserve(&self, bytes: u64) -> bool {
        let more = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.max_bytes);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }
}

#[derive(Debug)]
struct Reservation {
    inner: Arc<Inner>,
    bytes: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.inner.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A nameless file, and the bytes that are set aside for it until it is dropped.
#[derive(Debug)]
pub struct ScratchFile {
    file: File,
    reservation: Reservation,
}

impl ScratchFile {
    /// Sets more bytes aside. `false` if there is no room now.
    #[must_use]
    pub fn grow(&mut self, bytes: u64) -> bool {
        let granted = self.reservation.inner.reserve(bytes);
        if granted {
            self.reservation.bytes += bytes;
        }
        granted
    }

    /// The bytes set aside for it. The caller keeps the file within them.
    #[must_use]
    pub fn reserved(&self) -> u64 {
        self.reservation.bytes
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Another handle on the same file (and the same position in it). The reservation stays with `self`.
    ///
    /// # Errors
    /// The operating system's.
    pub fn try_clone(&self) -> io::Result<File> {
        self.file.try_clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_together_keep_below_the_bound_and_give_back_what_they_had() {
        let dir = tempfile::tempdir().unwrap();
        let scratch = Scratch::new(Some(&dir.path().join("made/for/it")), 100).unwrap();
        let mut first = scratch.reserve(60).unwrap().unwrap();
        assert!(scratch.reserve(41).unwrap().is_none());
        let second = scratch.reserve(20).unwrap().unwrap();
        assert!(!first.grow(21));
        assert!(first.grow(20));
        assert_eq!((first.reserved(), scratch.used()), (80, 100));
        drop(first);
        assert_eq!(scratch.used(), 20);
        drop(second);
        assert_eq!(scratch.used(), 0);
        assert!(scratch.reserve(u64::MAX).unwrap().is_none());
    }

    #[test]
    fn a_file_leaves_no_name_in_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let scratch = Scratch::new(Some(dir.path()), 100).unwrap();
        let file = scratch.reserve(10).unwrap().unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        drop(file);
    }
}
