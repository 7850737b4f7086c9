//! Fetching a data object to scratch disk and checking it against its fact.

use std::fs::File;
use std::io::{Seek, Write};

use bytes::Bytes;
use futures::TryStreamExt;
use model::DataRef;
use model::digest::Checksummer;
use object_store::ObjectStoreExt;

use super::{Error, Result, Store};
use crate::cpu::run_blocking_section;
use crate::scratch::{Scratch, ScratchFile};

impl Store {
    /// Streams a data object to scratch disk, positioned at its start, and proves that it is the one that the fact names.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if size or checksum differ; [`Error::ScratchFull`] if there is no room now; [`Error::Missing`];
    /// [`Error::Unavailable`].
    pub async fn fetch_verified(&self, data: &DataRef, scratch: &Scratch) -> Result<ScratchFile> {
        let fetched = self.fetch(data, scratch).await;
        self.counted("fetch", fetched)
    }

    async fn fetch(&self, data: &DataRef, scratch: &Scratch) -> Result<ScratchFile> {
        let key = data.key.as_str();
        let failed = |error: std::io::Error| Error::Scratch { key: key.to_owned(), reason: error.to_string() };
        let room = scratch.reserve(data.bytes).map_err(failed)?;
        let file = room.ok_or_else(|| Error::ScratchFull { key: key.to_owned(), bytes: data.bytes })?;
        let got = self.inner.get(&self.path(key)?).await.map_err(Error::reading(key))?;
        if got.meta.size != data.bytes {
            return Err(corrupt(data, &format!("it has {} bytes, the fact says {}", got.meta.size, data.bytes)));
        }
        let mut stream = got.into_stream();
        let mut hasher = Checksummer::like(&data.checksum);
        let mut bytes = 0;
        while let Some(chunk) = stream.try_next().await.map_err(Error::reading(key))? {
            bytes += chunk.len() as u64;
            if bytes > data.bytes {
                break;
            }
            run_blocking_section(|| keep(&mut hasher, file.file(), &chunk)).map_err(failed)?;
        }
        if bytes != data.bytes {
            return Err(corrupt(data, &format!("{bytes} bytes came, the fact says {}", data.bytes)));
        }
        let checksum = hasher.finish();
        if checksum != data.checksum {
            return Err(corrupt(data, &format!("its checksum is {checksum}, the fact says {}", data.checksum)));
        }
        file.file().rewind().map_err(failed)?;
        Ok(file)
    }
}

fn keep(hasher: &mut Checksummer, mut file: &File, chunk: &Bytes) -> std::io::Result<()> {
    hasher.update(chunk);
    file.write_all(chunk)
}

fn corrupt(data: &DataRef, reason: &str) -> Error {
    Error::Corrupt { key: data.key.clone(), reason: reason.to_owned() }
}
