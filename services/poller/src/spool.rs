//! A provider's file, on scratch disk: downloaded once, resumed by range where it broke off, whether
//! the connection or only the length that the provider gives says so; bounded.

use std::io::Write;

use anyhow::Context as _;
use futures::StreamExt;
use providers::Provider;
use runtime::scratch::{Scratch, ScratchFile};

/// How often a download is resumed before the event is put back: each time from where it broke.
const RESUMES: u32 = 8;

/// Downloads a file whole.
///
/// # Errors
/// When the provider can't be reached, ends the file early again and again, or scratch is full (all pass).
pub(crate) async fn spool(provider: &dyn Provider, file: &str, scratch: &Scratch) -> anyhow::Result<ScratchFile> {
    let mut spooled = scratch.reserve(0)?.context("scratch is full")?;
    let mut have = 0;
    for _ in 0..RESUMES {
        let begun_at = have;
        if download(provider, file, &mut spooled, &mut have).await? && is_whole(provider, file, begun_at, have).await {
            return Ok(spooled);
        }
    }
    anyhow::bail!("the provider's file {file} broke off {RESUMES} times, last at byte {have}")
}

/// Whether a download that ended as if that were all did end with the file. What stands between us and the provider can end
/// it early with a length of its own, or without one, and the rows behind would count as missing and be paid for again;
/// so the provider is asked how long the file is. A file that gives nothing more is as long as it is.
async fn is_whole(provider: &dyn Provider, file: &str, begun_at: u64, have: u64) -> bool {
    match provider.file_bytes(file).await {
        Ok(Some(bytes)) if have < bytes && have > begun_at => {
            tracing::warn!(file, bytes, have, "the download ended before the file does");
            false
        }
        _ => true,
    }
}

/// Downloads from where `have` stands; whether the end was reached.
async fn download(
    provider: &dyn Provider,
    file: &str,
    spooled: &mut ScratchFile,
    have: &mut u64,
) -> anyhow::Result<bool> {
    let mut download = provider.download(file, *have).await?;
    while let Some(piece) = download.stream.next().await {
        let Ok(piece) = piece else { return Ok(false) };
        anyhow::ensure!(spooled.grow(piece.len() as u64), "scratch is full");
        spooled.file().write_all(&piece).context("writing to scratch")?;
        *have += piece.len() as u64;
    }
    // Without a total there is only the connection's own word that this was the end.
    Ok(download.total.is_none_or(|total| *have >= total))
}
