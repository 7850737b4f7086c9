//! Fetching a data object and checking it against its fact.
//!
//! **Promise.** What is handed out is, byte for byte, what the fact names; all of it was read and hashed before, or is hashed as
//! it passes ([`Store::open_data`]) and must not be shown before that was checked.
//!
//! An object of a store in a folder of this machine is a file already: it is read through and used where it lies. Data objects
//! are never changed in place, and one that is removed or replaced meanwhile stays what it was for who has it open. Any other
//! object is copied to scratch disk. A large one comes in parts, some of them on their way at a time, and is hashed in order as
//! they come: memory is at most [`AHEAD`] parts.

use std::fs::File;
use std::io::{Seek, Write};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use model::DataRef;
use model::digest::Checksummer;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{GetOptions, ObjectStore, ObjectStoreExt};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use super::{Error, Passing, Result, Store};
use crate::cpu::{has_many_threads, run_blocking_section};
use crate::metrics::Request;
use crate::scratch::{Scratch, ScratchFile};

/// Parts of an object that are on their way, or wait to be hashed, at a time.
const AHEAD: usize = 4;

/// Data objects that are fetched while something else is done. Dropped, it stops.
#[derive(Debug)]
pub struct Ahead(AbortOnDropHandle<Result<Vec<ScratchFile>>>);

impl Ahead {
    /// The files, in the order of the objects; none if one of them could not be had now.
    pub async fn files(self) -> Option<Vec<ScratchFile>> {
        self.0.await.ok()?.inspect_err(|error| tracing::debug!(%error, "data was not fetched ahead")).ok()
    }
}

impl Store {
    /// Hands a data object out as a file, positioned at its start, and proves that it is the one that the fact names.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if size or checksum differ; [`Error::ScratchFull`] if there is no room now; [`Error::Missing`];
    /// [`Error::Unavailable`].
    pub async fn fetch_verified(&self, data: &DataRef, scratch: &Scratch) -> Result<ScratchFile> {
        let fetched = self.fetch(data, scratch).await;
        self.counted("fetch", fetched)
    }

    /// Opens a data object for one reading from front to back, at the end of which [`Passing::check`] proves that it was the
    /// one that the fact names.
    ///
    /// # Errors
    /// Those of [`Store::fetch_verified`].
    pub async fn open_data(&self, data: &DataRef, scratch: &Scratch) -> Result<Passing> {
        let Some(folder) = &self.folder else {
            return self.fetch_verified(data, scratch).await.map(Passing::checked);
        };
        self.count_fetch(data);
        let opened = self.path(&data.key).and_then(|path| open_in_place(folder, &path, data, scratch));
        self.counted("fetch", opened).inspect(|_| self.count_read(data.bytes))
    }

    /// Whether [`Store::open_data`] gives what is still to be checked.
    #[must_use]
    pub fn checks_in_passing(&self) -> bool {
        self.folder.is_some()
    }

    /// Begins to fetch data objects that are needed soon. Nothing is begun for objects that need no fetching, nor on a runtime
    /// of one thread: there, the order of all calls stays that of the program.
    #[must_use]
    pub fn fetch_ahead(&self, data: Vec<DataRef>, scratch: &Scratch) -> Option<Ahead> {
        if self.folder.is_some() || !has_many_threads() {
            return None;
        }
        let (store, scratch) = (self.clone(), scratch.clone());
        let fetching = async move {
            let mut files = Vec::with_capacity(data.len());
            for data in &data {
                files.push(store.fetch(data, &scratch).await?);
            }
            Ok(files)
        };
        Some(Ahead(AbortOnDropHandle::new(tokio::spawn(fetching.in_current_span()))))
    }

    async fn fetch(&self, data: &DataRef, scratch: &Scratch) -> Result<ScratchFile> {
        let path = self.path(&data.key)?;
        self.count_fetch(data);
        if let Some(folder) = &self.folder {
            return run_blocking_section(|| {
                let file = open_in_place(folder, &path, data, scratch)?.check()?;
                file.file().rewind().map_err(|error| unreadable(data, &error))?;
                self.count_read(data.bytes);
                Ok(file)
            });
        }
        let failed = |error: std::io::Error| Error::Scratch { key: data.key.clone(), reason: error.to_string() };
        let room = scratch.reserve(data.bytes).map_err(failed)?;
        let file = room.ok_or_else(|| Error::ScratchFull { key: data.key.clone(), bytes: data.bytes })?;
        let mut copy = Copy { data, file: file.file(), hasher: Checksummer::like(&data.checksum), bytes: 0 };
        if data.bytes > self.part_bytes as u64 {
            self.copy_parts(&path, &mut copy).await?;
        } else {
            let got = self.inner.get(&path).await.map_err(Error::reading(&data.key))?;
            check_size(data, got.meta.size)?;
            let mut stream = got.into_stream();
            while let Some(chunk) = stream.try_next().await.map_err(Error::reading(&data.key))? {
                copy.take(&chunk)?;
            }
        }
        copy.check()?;
        file.file().rewind().map_err(failed)?;
        self.count_read(data.bytes);
        Ok(file)
    }

    /// In a folder no part is asked for, but what it would be elsewhere is the better figure.
    fn count_fetch(&self, data: &DataRef) {
        self.count_requests(Request::Get, data.bytes.div_ceil(self.part_bytes as u64).max(1));
    }

    /// Reads the parts of a large object side by side, and takes them in their order. Each answer tells the size of the
    /// whole object.
    async fn copy_parts(&self, path: &Key, copy: &mut Copy<'_>) -> Result<()> {
        let (data, part) = (copy.data, self.part_bytes as u64);
        let starts = (0..data.bytes.div_ceil(part)).map(|number| number * part);
        let parts = futures::stream::iter(starts).map(|start| async move {
            let range = start..(start + part).min(data.bytes);
            let options = GetOptions { range: Some(range.into()), ..GetOptions::default() };
            let got = self.inner.get_opts(path, options).await.map_err(Error::reading(&data.key))?;
            check_size(data, got.meta.size)?;
            got.bytes().await.map_err(Error::reading(&data.key))
        });
        let mut parts = std::pin::pin!(parts.buffered(AHEAD));
        while let Some(part) = parts.try_next().await? {
            copy.take(&part)?;
        }
        Ok(())
    }
}

/// A copy in the making.
struct Copy<'a> {
    data: &'a DataRef,
    file: &'a File,
    hasher: Checksummer,
    bytes: u64,
}

impl Copy<'_> {
    fn take(&mut self, chunk: &Bytes) -> Result<()> {
        self.bytes += chunk.len() as u64;
        if self.bytes > self.data.bytes {
            return Err(corrupt(self.data, &format!("more than the fact's {} bytes came", self.data.bytes)));
        }
        let kept = run_blocking_section(|| {
            self.hasher.update(chunk);
            self.file.write_all(chunk)
        });
        kept.map_err(|error| Error::Scratch { key: self.data.key.clone(), reason: error.to_string() })
    }

    fn check(self) -> Result<()> {
        check_content(self.data, self.bytes, self.hasher)
    }
}

/// Opens the file of an object.
fn open_in_place(folder: &LocalFileSystem, path: &Key, data: &DataRef, scratch: &Scratch) -> Result<Passing> {
    let path = folder.path_to_filesystem(path).map_err(Error::reading(&data.key))?;
    let file = File::open(path).map_err(|error| unreadable(data, &error))?;
    Passing::unchecked(scratch.lend(file), data)
}

/// The error of a file in the store's folder.
pub(super) fn unreadable(data: &DataRef, error: &std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::NotFound => Error::Missing { key: data.key.clone() },
        _ => Error::Unavailable { key: data.key.clone(), reason: error.to_string() },
    }
}

pub(super) fn check_size(data: &DataRef, bytes: u64) -> Result<()> {
    if bytes == data.bytes {
        return Ok(());
    }
    Err(corrupt(data, &format!("it has {bytes} bytes, the fact says {}", data.bytes)))
}

pub(super) fn check_content(data: &DataRef, bytes: u64, hasher: Checksummer) -> Result<()> {
    if bytes != data.bytes {
        return Err(corrupt(data, &format!("{bytes} bytes came, the fact says {}", data.bytes)));
    }
    let checksum = hasher.finish();
    if checksum != data.checksum {
        return Err(corrupt(data, &format!("its checksum is {checksum}, the fact says {}", data.checksum)));
    }
    Ok(())
}

fn corrupt(data: &DataRef, reason: &str) -> Error {
    Error::Corrupt { key: data.key.clone(), reason: reason.to_owned() }
}
