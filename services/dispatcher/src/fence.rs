//! The fence: is there a batch of a file whose create has no recorded outcome, and if not, can there ever be one?
//!
//! Look, delete the file, look again. A create that was accepted before the deletion is in the second list at the latest;
//! one that arrives after it finds no file. Each list is read by the provider's own times, back to the file's upload. An
//! error on any page, or of the deletion, proves nothing: it ends the step, and the whole fence is tried again.

use providers::Deleted;

use faults::{Mutation, is_broken};

use crate::Dispatcher;
use crate::decide::{OpenFile, is_older_than, is_ours};
use crate::submit::{MARK, Task};

/// What the fence found.
pub(crate) enum Fence {
    /// This provider batch: adopt it.
    Found(String),
    /// None, and none can come any more.
    Clear,
}

impl Dispatcher {
    pub(crate) async fn fence(&self, task: &Task<'_>, open: &OpenFile) -> anyhow::Result<Fence> {
        if let Some(found) = self.find(task, open).await? {
            return Ok(Fence::Found(found));
        }
        faults::crash_point!(DispatcherListed);
        let deleted = match task.job.provider.delete_file(&open.file_id).await {
            _ if is_broken(Mutation::SkipFence) => Deleted::NotFound,
            Err(_) if is_broken(Mutation::TrustFailedDelete) => Deleted::Deleted,
            deleted => deleted?,
        };
        faults::crash_point!(DispatcherDeleted);
        let known = matches!(deleted, Deleted::Deleted);
        tracing::info!(job = %task.job.spec.id, batch = %task.batch.id, file = open.file_id, known, "fenced");
        if is_broken(Mutation::SkipSecondList) {
            return Ok(Fence::Clear);
        }
        Ok(match self.find(task, open).await? {
            Some(found) => Fence::Found(found),
            None => {
                faults::crash_point!(DispatcherFenced);
                Fence::Clear
            }
        })
    }

    async fn find(&self, task: &Task<'_>, open: &OpenFile) -> anyhow::Result<Option<String>> {
        let mark = task.mark();
        let mut after: Option<String> = None;
        loop {
            let page = task.job.provider.list_batches(after.as_deref()).await?;
            for batch in &page.batches {
                if is_ours(batch.input_file.as_deref(), batch.metadata.get(MARK).map(String::as_str), open, &mark) {
                    return Ok(Some(batch.id.clone()));
                }
            }
            let far_enough = page.batches.last().is_some_and(|oldest| is_older_than(oldest.created_at, open));
            match page.next {
                Some(next) if !far_enough && !is_broken(Mutation::ListOnePage) => after = Some(next),
                _ => return Ok(None),
            }
        }
    }
}
