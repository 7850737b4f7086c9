//! A file of the caller's in the making: under a temporary name beside its own, so that it appears whole.
//!
//! It is hashed and written on a thread for blocking work. On a runtime of several threads what comes next is computed
//! meanwhile: one list of pieces is on its way at a time, so memory stays bounded. On a runtime of one thread each is waited
//! for, so that a simulation stays deterministic.

use std::fmt;
use std::io;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use model::digest::Checksummer;
use tempfile::NamedTempFile;
use tokio::task::JoinHandle;

use crate::cpu::has_many_threads;

/// The file so far, made at first need, and its hash.
type Written = (Option<NamedTempFile>, Checksummer);

pub(super) struct FileTarget {
    path: PathBuf,
    /// What is written; none while it is on its way, or after an error.
    written: Option<Written>,
    writing: Option<JoinHandle<io::Result<Written>>>,
}

impl fmt::Debug for FileTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileTarget").field("path", &self.path).finish_non_exhaustive()
    }
}

impl FileTarget {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), written: Some((None, Checksummer::default())), writing: None }
    }

    /// Appends pieces, as soon as those before them are written.
    pub(super) async fn append(&mut self, pieces: Vec<Bytes>) -> io::Result<()> {
        let (mut file, mut hasher) = self.wait().await?;
        let path = self.path.clone();
        self.writing = Some(tokio::task::spawn_blocking(move || {
            let mut open = match file.take() {
                Some(open) => open,
                None => temporary_beside(&path)?,
            };
            for piece in pieces {
                hasher.update(&piece);
                open.write_all(&piece)?;
            }
            Ok((Some(open), hasher))
        }));
        if !has_many_threads() {
            self.written = Some(self.wait().await?);
        }
        Ok(())
    }

    async fn wait(&mut self) -> io::Result<Written> {
        match (self.writing.take(), self.written.take()) {
            (Some(writing), _) => writing.await.map_err(io::Error::other)?,
            (None, Some(written)) => Ok(written),
            (None, None) => Err(io::Error::other("an earlier write failed")),
        }
    }

    /// Appends the last pieces, makes the file visible, and gives the hash of all.
    pub(super) async fn finish(&mut self, last: Vec<Bytes>) -> io::Result<Checksummer> {
        self.append(last).await?;
        let (file, hasher) = self.wait().await?;
        publish(file, self.path.clone()).await?;
        Ok(hasher)
    }
}

fn temporary_beside(path: &Path) -> io::Result<NamedTempFile> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(folder)?;
    let mut builder = tempfile::Builder::new();
    // The rights that a file gets which is simply written; the default of the library is the owner alone.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.prefix(".batchmill-").suffix(".part").tempfile_in(folder)
}

async fn publish(file: Option<NamedTempFile>, path: PathBuf) -> io::Result<()> {
    let publishing = tokio::task::spawn_blocking(move || {
        let Some(file) = file else { return Ok(()) };
        file.as_file().sync_all()?;
        file.persist(&path).map_err(|error| error.error)?;
        match path.parent() {
            Some(folder) => std::fs::File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    });
    publishing.await.map_err(io::Error::other)?
}
