//! Cleaning up, a while after the end: the data of ended jobs, their files at the provider, and uploads that nobody needs.
//!
//! What may go is decided in `model::cleanup`, from facts alone; the retention only leaves people time to look. A job's files
//! at the provider go before its data, and its data is what shows that it was not cleaned yet; so a round that dies
//! is made up for by the next, and a job that is clean costs one listing.
//!
//! It is the poller's, since it knows the providers and what it fetched from them. Any number of pollers may do it at
//! a time: to delete what is gone is no failure.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::SignedDuration;
use model::cleanup::{self, Upload};
use model::keys::{self, Key};
use model::{BatchId, JobFact, JobId, ResultFact, SubmissionEntry, SubmissionStep};
use providers::{Deleted, Error, Provider};
use runtime::load_facts;

use crate::Poller;

/// What a round removed, or would.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cleaned {
    /// Jobs whose data went.
    pub jobs: u64,
    /// Data objects in the store.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files at providers: of ended jobs, and uploads that nobody needs. A dry run counts those too that are gone already.
    pub files: u64,
}

impl Poller {
    /// One round over all jobs of the store and all providers; with `dry_run` nothing is removed. What fails is logged and left
    /// to the next round.
    ///
    /// # Errors
    /// If the store's jobs can't be listed.
    pub async fn clean_up(&self, dry_run: bool) -> anyhow::Result<Cleaned> {
        let mut cleaned = Cleaned::default();
        if self.context.common.cleanup.retention_hours == 0 {
            return Ok(cleaned);
        }
        for name in self.context.store.folders(keys::JOBS).await? {
            let Ok(job) = name.parse::<JobId>() else { continue };
            if let Err(error) = self.clean_job(&job, dry_run, &mut cleaned).await {
                tracing::warn!(%job, error = format!("{error:#}"), "a job could not be cleaned up; the next round tries again");
            }
        }
        if self.context.common.cleanup.provider_files {
            for (name, provider) in self.providers.usable() {
                match self.clean_uploads(provider, dry_run).await {
                    Ok(files) => cleaned.files += files,
                    Err(error) => {
                        tracing::warn!(
                            provider = name,
                            error = format!("{error:#}"),
                            "leftover uploads could not be removed"
                        );
                    }
                }
            }
        }
        Ok(cleaned)
    }

    async fn clean_job(&self, job: &JobId, dry_run: bool, cleaned: &mut Cleaned) -> anyhow::Result<()> {
        let store = &self.context.store;
        let listed = store.list(&keys::job_folder(job)).await?;
        let has = |wanted: fn(&Key) -> bool| listed.iter().filter_map(|l| keys::parse(&l.key)).any(|key| wanted(&key));
        // Most jobs are living or clean, and need no look at their facts.
        if !has(|key| matches!(key, Key::End(_))) || !has(|key| matches!(key, Key::BatchData(..) | Key::ResultData(..)))
        {
            return Ok(());
        }
        let facts = load_facts(store, job).await?;
        let retention = SignedDuration::from_hours(self.context.common.cleanup.retention_hours.into());
        let all = listed.iter().map(|listed| listed.key.as_str());
        let removable = cleanup::removable(&facts, all, self.context.clock.now(), retention);
        if removable.is_empty() {
            return Ok(());
        }
        if self.context.common.cleanup.provider_files
            && let Some(fact) = &facts.job
        {
            cleaned.files += self.clean_batches(fact, facts.results.values(), dry_run).await?;
        }
        cleaned.jobs += 1;
        let removable: BTreeSet<&str> = removable.into_iter().collect();
        for listed in listed.iter().filter(|listed| removable.contains(listed.key.as_str())) {
            if !dry_run {
                store.delete(&listed.key).await?;
            }
            cleaned.objects += 1;
            cleaned.bytes += listed.bytes;
        }
        tracing::info!(%job, objects = removable.len(), dry_run, "cleaned up");
        Ok(())
    }

    /// Input and result files of an ended job's batches. A provider that the settings do not have any more keeps them.
    async fn clean_batches(
        &self,
        job: &JobFact,
        results: impl Iterator<Item = &ResultFact>,
        dry_run: bool,
    ) -> anyhow::Result<u64> {
        let Ok(provider) = self.providers.of(&job.spec) else { return Ok(0) };
        let mut files = 0;
        for batch in results.filter_map(|result| result.provider_batch.as_deref()) {
            let batch = match provider.get(batch).await {
                Ok(batch) => batch,
                Err(Error::NotFound { .. }) => continue,
                Err(error) => return Err(error.into()),
            };
            // A batch that still runs after its job has ended is one that would not be cancelled: its files are in use.
            if !batch.status.is_terminal() {
                continue;
            }
            for file in [batch.input_file, batch.output_file, batch.error_file].into_iter().flatten() {
                files += delete(provider, &file, dry_run).await?;
            }
        }
        Ok(files)
    }

    /// Uploads of collected attempts and ended jobs of this store.
    async fn clean_uploads(&self, provider: &Arc<dyn Provider>, dry_run: bool) -> anyhow::Result<u64> {
        let (mut after, mut leftovers): (Option<String>, Vec<String>) = (None, Vec::new());
        loop {
            let page = match provider.list_files(after.as_deref()).await {
                Ok(page) => page,
                Err(Error::Unsupported(_)) => return Ok(0),
                Err(error) => return Err(error.into()),
            };
            for file in &page.files {
                if let Some(upload) = cleanup::upload(&file.name)
                    && self.is_leftover(&upload).await?
                {
                    leftovers.push(file.id.clone());
                }
            }
            // Deleted after the listing, so that no page is shifted by it.
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        let mut files = 0;
        for file in leftovers {
            files += delete(provider, &file, dry_run).await?;
        }
        Ok(files)
    }

    async fn is_leftover(&self, upload: &Upload) -> anyhow::Result<bool> {
        let store = &self.context.store;
        let log = self.log(&upload.job, upload.attempt).await?;
        if log.is_empty() {
            return Ok(false);
        }
        let facts = model::facts::JobFacts {
            end: store.get_json(&keys::end(&upload.job)).await?,
            results: store
                .get_json::<ResultFact>(&keys::result(&upload.job, upload.attempt))
                .await?
                .map(|result| (upload.attempt, result))
                .into_iter()
                .collect(),
            ..model::facts::JobFacts::default()
        };
        Ok(cleanup::is_leftover(upload, &facts, &log))
    }

    /// The whole submission log of an attempt.
    async fn log(&self, job: &JobId, attempt: BatchId) -> anyhow::Result<Vec<SubmissionStep>> {
        let mut steps = Vec::new();
        for listed in self.context.store.list(&keys::submission_log(job, attempt)).await? {
            let entry = self.context.store.get_json::<SubmissionEntry>(&listed.key).await?;
            steps.extend(entry.map(|entry| entry.step));
        }
        Ok(steps)
    }
}

/// Deletes a file; 1 if it was there. A dry run does not find out.
async fn delete(provider: &Arc<dyn Provider>, file: &str, dry_run: bool) -> anyhow::Result<u64> {
    if dry_run {
        return Ok(1);
    }
    Ok(u64::from(provider.delete_file(file).await? == Deleted::Deleted))
}
