//! All state: what is on disk, and the indexes over it in memory.
//!
//! ```text
//! <data>/lock                      held by the one process
//! <data>/ledger.jsonl              see `ledger`
//! <data>/files/<id>.data           a file's bytes
//! <data>/files/<id>.json           its description: the file exists if this does
//! <data>/batches/<id>.json         a batch's record: the batch exists if the ledger has its line, or if it has errors
//! <data>/batches/<id>.input        its input, a second name of the upload, so that deleting the upload can't stop it
//! ```
//!
//! Each description is replaced as a whole by a rename, so a crash leaves the old one or the new one. Whatever a crash
//! leaves half done (bytes without a description, a record without its ledger line) was never answered, and is removed
//! at the next start.
//!
//! **The gate.** Each file has a read-write lock. A create holds it shared from the moment it finds the file until its
//! batch can be listed; a delete holds it alone. So a create is either finished before the delete begins, or it comes
//! after and finds the file gone: there is nothing in between for a client to fall into.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::watch;

use crate::{
    Error, clock, folder,
    index::Index,
    ledger::Ledger,
    models::sha256_hex,
    records::{Batch, Counts, FileMeta, Record, StoredFile, Usage},
};

/// A lock whose holder panicked is used on: every change under these locks is a single assignment.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The open data folder.
#[derive(Debug)]
pub(crate) struct Store {
    folder: PathBuf,
    lock: File,
    seed: u64,
    last_seq: AtomicU64,
    pub(crate) ledger: Mutex<Ledger>,
    files: RwLock<Index<StoredFile>>,
    batches: RwLock<Index<Batch>>,
    changes: watch::Sender<u64>,
}

impl Store {
    /// Opens the folder, or makes it, and loads what is there.
    pub(crate) fn open(folder: &Path, seed: u64) -> Result<Self, Error> {
        for path in [folder.to_owned(), folder.join("files"), folder.join("batches")] {
            fs::create_dir_all(&path).map_err(Error::io("create", &path))?;
        }
        let path = folder.join("lock");
        let lock = File::create(&path).map_err(Error::io("open", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(Error::Locked(folder.to_owned())),
            Err(fs::TryLockError::Error(source)) => return Err(Error::io("lock", &path)(source)),
        }
        let mut accepted = Vec::new();
        let ledger = Ledger::open(&folder.join("ledger.jsonl"), |entry| accepted.push(entry))?;
        folder::sync(folder)?;
        let mut files = Index::default();
        let mut batches = Index::default();
        let mut last_seq = 0;
        for meta in folder::load_files(&folder.join("files"))? {
            last_seq = last_seq.max(meta.seq);
            let id = meta.id.clone();
            files.insert(&id, meta.seq, StoredFile { meta, gate: Arc::default() });
        }
        for record in folder::load_batches(&folder.join("batches"), accepted)? {
            last_seq = last_seq.max(record.seq);
            let id = record.id.clone();
            batches.insert(&id, record.seq, Batch::new(record));
        }
        Ok(Self {
            folder: folder.to_owned(),
            lock,
            seed,
            last_seq: AtomicU64::new(last_seq),
            ledger: Mutex::new(ledger),
            files: RwLock::new(files),
            batches: RwLock::new(batches),
            changes: watch::Sender::new(0),
        })
    }

    /// Lets another process open the folder.
    pub(crate) fn release(&self) {
        if let Err(error) = self.lock.unlock() {
            tracing::warn!("cannot unlock {}: {error}", self.folder.display());
        }
    }

    /// A number larger than all given before, by the clock where that suffices.
    pub(crate) fn next_seq(&self) -> u64 {
        let now = u64::try_from(clock::now().as_nanos()).unwrap_or(u64::MAX);
        let next = |last: u64| Some(now.max(last + 1));
        match self.last_seq.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next) {
            Ok(last) | Err(last) => now.max(last + 1),
        }
    }

    /// An id for something of this name. The same name always gives the same id.
    pub(crate) fn id(&self, prefix: &str, name: &str) -> String {
        let digest = sha256_hex(format!("{}/{prefix}/{name}", self.seed).as_bytes());
        format!("{prefix}{}", &digest[..24])
    }

    /// A number from the seed and a name.
    pub(crate) fn seed_for(&self, name: &str) -> u64 {
        let digest = sha256_hex(format!("{}/shuffle/{name}", self.seed).as_bytes());
        u64::from_str_radix(&digest[..16], 16).unwrap_or_default()
    }

    /// Counts up whenever anything about a batch changes.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Where a file's bytes are.
    pub(crate) fn data_path(&self, id: &str) -> PathBuf {
        self.folder.join("files").join(format!("{id}.data"))
    }

    /// Where something of a batch is: its `input`, or scratch that a restart removes.
    pub(crate) fn batch_path(&self, id: &str, part: &str) -> PathBuf {
        self.folder.join("batches").join(format!("{id}.{part}"))
    }

    /// Makes a file exist whose bytes are at its `data_path`.
    pub(crate) fn add_file(&self, meta: FileMeta) -> Result<(), Error> {
        folder::write(&self.folder.join("files").join(format!("{}.json", meta.id)), &meta)?;
        let (id, seq) = (meta.id.clone(), meta.seq);
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        files.insert(&id, seq, StoredFile { meta, gate: Arc::default() });
        Ok(())
    }

    /// The file of that id, unless it is deleted or expired.
    pub(crate) fn file(&self, id: &str) -> Option<Arc<StoredFile>> {
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        files.get(id).filter(|file| !file.meta.expired(clock::seconds()))
    }

    /// A page of the files; none if `after` is unknown.
    pub(crate) fn files_page(&self, page: &crate::wire::Page) -> Option<(Vec<Arc<StoredFile>>, bool)> {
        let now = clock::seconds();
        let wanted = |file: &StoredFile| {
            !file.meta.expired(now) && page.purpose.as_ref().is_none_or(|purpose| *purpose == file.meta.purpose)
        };
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        files.page(page.after.as_deref(), page.ascending, page.limit, wanted)
    }

    /// Deletes a file. The caller holds its gate alone. After this returns `Ok`, no restart brings the file back.
    pub(crate) fn remove_file(&self, id: &str) -> Result<(), Error> {
        let folder = self.folder.join("files");
        folder::remove(&folder.join(format!("{id}.json")))?;
        folder::sync(&folder)?;
        self.files.write().unwrap_or_else(PoisonError::into_inner).remove(id);
        folder::remove(&self.data_path(id))
    }

    /// Writes a record that no batch in memory has yet.
    pub(crate) fn save(&self, record: &Record) -> Result<(), Error> {
        folder::write(&self.batch_path(&record.id, "json"), record)
    }

    /// Puts the folder of batches on disk: names made in it before survive a power cut.
    pub(crate) fn sync_batches(&self) -> Result<(), Error> {
        folder::sync(&self.folder.join("batches"))
    }

    /// Makes a batch listable.
    pub(crate) fn add_batch(&self, record: Record) -> Arc<Batch> {
        let (id, seq) = (record.id.clone(), record.seq);
        let mut batches = self.batches.write().unwrap_or_else(PoisonError::into_inner);
        let batch = batches.insert(&id, seq, Batch::new(record));
        drop(batches);
        self.changed();
        batch
    }

    /// The batch of that id.
    pub(crate) fn batch(&self, id: &str) -> Option<Arc<Batch>> {
        self.batches.read().unwrap_or_else(PoisonError::into_inner).get(id)
    }

    /// A page of the batches, newest first; none if `after` is unknown.
    pub(crate) fn batches_page(&self, page: &crate::wire::Page) -> Option<(Vec<Arc<Batch>>, bool)> {
        let batches = self.batches.read().unwrap_or_else(PoisonError::into_inner);
        batches.page(page.after.as_deref(), false, page.limit, |_| true)
    }

    /// The batches that haven't ended, oldest first.
    pub(crate) fn open_batches(&self) -> Vec<Arc<Batch>> {
        let batches = self.batches.read().unwrap_or_else(PoisonError::into_inner);
        batches.all().filter(|batch| !lock(&batch.record).status.ended()).map(Arc::clone).collect()
    }

    /// Changes a batch's record and saves it. `change` says no by giving an error; then nothing is changed.
    pub(crate) fn change<E: From<Error>>(
        &self,
        batch: &Batch,
        change: impl FnOnce(&mut Record) -> Result<(), E>,
    ) -> Result<Record, E> {
        let mut record = lock(&batch.record);
        let mut next = record.clone();
        change(&mut next)?;
        self.save(&next)?;
        *record = next.clone();
        drop(record);
        self.changed();
        Ok(next)
    }

    /// Shows how far a batch is, without saving it: a restart counts again.
    pub(crate) fn progress(&self, batch: &Batch, counts: Counts, usage: Usage) {
        let mut record = lock(&batch.record);
        (record.counts, record.usage) = (counts, usage);
        drop(record);
        self.changed();
    }
}
#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{records::Status, wire::BatchError};

    #[test]
    fn sequence_numbers_only_grow() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), 0).unwrap();
        let first = store.next_seq();
        store.last_seq.store(u64::MAX - 10, Ordering::Relaxed);
        assert!(store.next_seq() > first);
        assert!(store.next_seq() > u64::MAX - 10);
    }

    #[test]
    fn a_second_process_is_told_that_the_folder_is_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let first = Store::open(folder.path(), 0).unwrap();
        let error = Store::open(folder.path(), 0).unwrap_err();
        assert!(error.to_string().contains("in use by another process"), "{error}");
        first.release();
        assert!(Store::open(folder.path(), 0).is_ok());
    }

    #[test]
    fn what_a_crash_left_half_done_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let store = Store::open(folder.path(), 0).unwrap();
        store.save(&Record::new("batch_never".into(), 1, "file-x".into(), 0)).unwrap();
        let mut failed = Record::new("batch_failed".into(), 2, "file-x".into(), 0);
        failed.errors = vec![BatchError { code: "empty_file".into(), message: String::new(), param: None, line: None }];
        store.save(&failed).unwrap();
        drop(store);
        for name in ["files/file-y.data", "files/file-y.tmp", "batches/batch_never.input", "batches/batch_failed.rows"]
        {
            fs::write(at(name), "x").unwrap();
        }
        let store = Store::open(folder.path(), 0).unwrap();
        assert!(store.batch("batch_never").is_none());
        assert_eq!(store.batch("batch_failed").unwrap().record(), failed);
        assert_eq!(fs::read_dir(at("files")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(at("batches")).unwrap().count(), 1);
    }

    #[test]
    fn a_ledger_line_alone_is_a_batch() {
        let folder = tempfile::tempdir().unwrap();
        let line = r#"{"batch":"batch_1","file":"file-1","at":7,"metadata":{"k":"v"},"rows":[{},{}]}"#;
        fs::write(folder.path().join("ledger.jsonl"), format!("{line}\n")).unwrap();
        let record = Store::open(folder.path(), 0).unwrap().batch("batch_1").unwrap().record();
        assert_eq!((record.created_at, record.rows, record.status), (7, 2, Status::Validating));
        assert_eq!(record.metadata, Some(BTreeMap::from([("k".into(), "v".into())])));
    }
}
