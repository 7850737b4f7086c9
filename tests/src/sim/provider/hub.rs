//! The provider itself: files, batches, and what it refused. It outlives every process.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use providers::{
    Deleted, Error, FileEntry, FilePage, Page, Provider, ProviderBatch, ProviderSettings, Result, UploadedFile,
};
use runtime::Clock;

use super::batch::Batch;
use crate::sim::faults::Faults;
use crate::sim::journal::Journal;

/// The metadata key of the mark that tells which batch attempt a create was for.
pub const MARK: &str = "batchmill";

/// Opened once: its client reads all of the system's certificates.
static FORMAT: LazyLock<Arc<dyn Provider>> = LazyLock::new(|| {
    let settings = ProviderSettings::simulator("http://127.0.0.1:1/v1");
    #[allow(clippy::expect_used)] // a test's own set-up
    providers::open("simulated", &settings).expect("the settings are sound")
});

/// The provider.
#[derive(Debug)]
pub struct Hub {
    /// The wire format.
    pub format: Arc<dyn Provider>,
    clock: Clock,
    journal: Journal,
    page: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<String, File>,
    uploads: usize,
    batches: Vec<Batch>,
    /// Refusals by mark.
    refusals: BTreeMap<String, Vec<u16>>,
}

#[derive(Debug)]
struct File {
    name: String,
    content: Vec<u8>,
    created_at: i64,
}

impl Hub {
    /// A provider whose lists have pages of so many batches.
    ///
    #[must_use]
    pub fn new(clock: &Clock, journal: &Journal, page: usize) -> Arc<Self> {
        let format = Arc::clone(&FORMAT);
        let (clock, journal, page) = (clock.clone(), journal.clone(), page.max(1));
        Arc::new(Self { format, clock, journal, page, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    /// The provider's own clock, which is not ours.
    fn seconds(&self) -> i64 {
        1_900_000_000 + i64::try_from(self.now().as_secs()).unwrap_or(0)
    }

    /// Every batch.
    #[must_use]
    pub fn batches(&self) -> Vec<Batch> {
        self.state().batches.clone()
    }

    /// The statuses with which creates of a mark were refused.
    #[must_use]
    pub fn refusals(&self, mark: &str) -> Vec<u16> {
        self.state().refusals.get(mark).cloned().unwrap_or_default()
    }

    /// Notes a refusal.
    pub fn refuse(&self, metadata: &BTreeMap<String, String>, status: u16) {
        let mark = metadata.get(MARK).cloned().unwrap_or_default();
        self.journal.note(format_args!("provider refuses {mark} {status}"));
        self.state().refusals.entry(mark).or_default().push(status);
    }

    /// Keeps a file.
    pub fn upload(&self, name: &str, content: Vec<u8>) -> UploadedFile {
        let created_at = self.seconds();
        let mut state = self.state();
        state.uploads += 1;
        let id = format!("file-{}", state.uploads);
        self.journal.note(format_args!("provider has {id} {name}, {} bytes", content.len()));
        state.files.insert(id.clone(), File { name: name.to_owned(), content, created_at });
        UploadedFile { id, created_at }
    }

    /// Removes a file.
    pub fn delete_file(&self, id: &str) -> Deleted {
        let known = self.state().files.remove(id).is_some();
        self.journal.note(format_args!("provider deletes {id} {known}"));
        if known { Deleted::Deleted } else { Deleted::NotFound }
    }

    /// Files, newest first.
    pub fn list_files(&self, after: Option<&str>) -> FilePage {
        let state = self.state();
        let all = state.files.iter().rev().skip_while(|(id, _)| after.is_some_and(|after| id.as_str() != after));
        let rest: Vec<FileEntry> = all
            .skip(usize::from(after.is_some()))
            .map(|(id, file)| FileEntry { id: id.clone(), name: file.name.clone(), created_at: file.created_at })
            .collect();
        let next = (rest.len() > self.page).then(|| rest[self.page - 1].id.clone());
        FilePage { files: rest.into_iter().take(self.page).collect(), next }
    }

    /// Makes a batch of a file; none if there is no such file.
    pub fn create(&self, file: &str, metadata: &BTreeMap<String, String>, faults: &Faults) -> Option<ProviderBatch> {
        let (now, seconds) = (self.now(), self.seconds());
        let mut state = self.state();
        let content = state.files.get(file)?.content.clone();
        let id = format!("batch-{:04}", state.batches.len());
        let mut batch = Batch::accept(id, file, &content, metadata, faults);
        batch.created_at = seconds;
        self.journal.note(format_args!("provider accepts {} of {file}: {metadata:?}", batch.id));
        let shown = batch.shown(now);
        state.batches.push(batch);
        Some(shown)
    }

    /// Makes a batch of a file that is gone: it fails, and costs nothing.
    pub fn accept_to_fail(&self, file: &str, metadata: &BTreeMap<String, String>) {
        let (now, seconds) = (self.now(), self.seconds());
        let mut state = self.state();
        let id = format!("batch-{:04}", state.batches.len());
        self.journal.note(format_args!("provider accepts {id} of {file}, which is gone"));
        let mut batch = Batch::of_no_file(id, file, metadata, now);
        batch.created_at = seconds;
        state.batches.push(batch);
    }

    /// Batches, newest first.
    pub fn list(&self, after: Option<&str>) -> Page {
        let (now, state) = (self.now(), self.state());
        let newest = state.batches.iter().rev();
        let rest =
            newest.skip_while(|batch| after.is_some_and(|after| batch.id != after)).skip(usize::from(after.is_some()));
        let mut batches: Vec<ProviderBatch> = rest.take(self.page + 1).map(|batch| batch.shown(now)).collect();
        let more = batches.len() > self.page;
        batches.truncate(self.page);
        let next = batches.last().filter(|_| more).map(|last| last.id.clone());
        Page { batches, next }
    }

    /// How a batch stands.
    ///
    /// # Errors
    /// Not found: there is none, or it does not show yet.
    pub fn get(&self, id: &str) -> Result<ProviderBatch> {
        let (now, state) = (self.now(), self.state());
        let found = state.batches.iter().find(|batch| batch.id == id && batch.is_visible(now));
        found.map(|batch| batch.shown(now)).ok_or_else(|| Error::NotFound { message: id.to_owned() })
    }

    /// Asks for a batch's end.
    ///
    /// # Errors
    /// It is over, or there is none.
    pub fn cancel(&self, id: &str) -> Result<ProviderBatch> {
        let now = self.now();
        let mut state = self.state();
        let found = state.batches.iter_mut().find(|batch| batch.id == id);
        let batch = found.ok_or_else(|| Error::NotFound { message: id.to_owned() })?;
        let running = batch.cancel(now, Duration::from_secs(20));
        self.journal.note(format_args!("provider cancels {id}: {running}"));
        if running {
            return Ok(batch.shown(now));
        }
        Err(Error::Rejected { status: 400, code: "over".to_owned(), message: "it is over".to_owned() })
    }

    /// A file's content: an upload's, or a batch's output or error file.
    pub fn content(&self, file: &str) -> Option<Vec<u8>> {
        let state = self.state();
        if let Some(file) = state.files.get(file) {
            return Some(file.content.clone());
        }
        let (batch, number) = file.rsplit_once('-')?;
        let batch = state.batches.iter().find(|other| other.id == batch)?;
        Some(batch.content(number.parse().ok()?))
    }
}
