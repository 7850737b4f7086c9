//! Files of this machine, for one-process mode.
//!
//! A file's ETag is made of its inode, size and time of change, like those of web servers. Names are taken as they are, `#` and
//! `%` included, which a general object store over files would refuse.

use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use bytes::Bytes;

use super::Pinned;

fn open(path: &PathBuf) -> io::Result<(File, Pinned)> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is not a regular file"));
    }
    let pinned = Pinned { etag: etag(&metadata), bytes: metadata.len() };
    Ok((file, pinned))
}

fn etag(metadata: &Metadata) -> String {
    #[cfg(unix)]
    let inode = std::os::unix::fs::MetadataExt::ino(metadata);
    #[cfg(not(unix))]
    let inode = 0;
    let changed = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    format!("\"{inode:x}-{:x}-{:x}\"", changed.as_nanos(), metadata.len())
}

pub(super) async fn head(path: PathBuf) -> io::Result<Pinned> {
    blocking(move || open(&path).map(|(_, pinned)| pinned)).await
}

/// The ranges of that version; `None` if the file is another now. The version is looked at after reading too.
pub(super) async fn read(path: PathBuf, ranges: Vec<Range<u64>>, expected: String) -> io::Result<Option<Vec<Bytes>>> {
    blocking(move || {
        let (mut file, pinned) = open(&path)?;
        if pinned.etag != expected {
            return Ok(None);
        }
        let mut parts = Vec::with_capacity(ranges.len());
        for range in ranges {
            file.seek(SeekFrom::Start(range.start))?;
            let wanted = range.end.saturating_sub(range.start);
            let mut part = Vec::with_capacity(usize::try_from(wanted).unwrap_or_default());
            let got = Read::by_ref(&mut file).take(wanted).read_to_end(&mut part)?;
            if got as u64 != wanted {
                return Ok(None);
            }
            parts.push(Bytes::from(part));
        }
        Ok((etag(&file.metadata()?) == expected).then_some(parts))
    })
    .await
}

pub(super) async fn remove(path: PathBuf) -> io::Result<()> {
    blocking(move || std::fs::remove_file(&path)).await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
