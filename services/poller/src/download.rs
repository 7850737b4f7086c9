//! A provider's file, read once from end to end: resumed by range where it broke off, whether the connection or only the
//! length that the provider gives says so.
//!
//! What comes is read as it comes ([`Answers`]); the file itself is kept nowhere.

use futures::StreamExt;
use providers::Provider;
use runtime::cpu;

use crate::answers::Answers;

/// How often a download is resumed before the event is put back: each time from where it broke.
const RESUMES: u32 = 8;
/// Bytes that are decoded in no time; with more, other tasks go on meanwhile.
const QUICK_BYTES: usize = 128 << 10;

/// Reads a file whole.
///
/// # Errors
/// When the provider can't be reached, ends the file early again and again, or scratch is full (all pass).
pub(crate) async fn read(provider: &dyn Provider, file: &str, answers: &mut Answers<'_>) -> anyhow::Result<()> {
    let mut have = 0;
    for _ in 0..RESUMES {
        let begun_at = have;
        if read_on(provider, file, answers, &mut have).await? && is_whole(provider, file, begun_at, have).await {
            return answers.end_file();
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

/// Reads on from where `have` stands; whether the end was reached.
async fn read_on(
    provider: &dyn Provider,
    file: &str,
    answers: &mut Answers<'_>,
    have: &mut u64,
) -> anyhow::Result<bool> {
    let mut download = provider.download(file, *have).await?;
    while let Some(piece) = download.stream.next().await {
        let Ok(piece) = piece else { return Ok(false) };
        if piece.len() + answers.open_bytes() > QUICK_BYTES {
            cpu::run_blocking_section(|| answers.push(&piece))?;
        } else {
            answers.push(&piece)?;
        }
        *have += piece.len() as u64;
    }
    // Without a total there is only the connection's own word that this was the end.
    Ok(download.total.is_none_or(|total| *have >= total))
}
