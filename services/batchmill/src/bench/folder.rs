//! A stage's folder: its files under plain names, and the store behind them in `.facts`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use model::keys::{self, Key};
use model::{BatchRef, JobId};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Where the store is.
const FACTS: &str = ".facts";

/// A stage's folder.
pub(super) struct Stage(PathBuf);

impl Stage {
    /// The folder, with an empty store and without files of an earlier run. It must not be one that the stage reads.
    pub(super) fn make(folder: &Path, reads: &[&Path]) -> anyhow::Result<Self> {
        let same = |other: &&Path| matches!((other.canonicalize(), folder.canonicalize()), (Ok(a), Ok(b)) if a == b);
        if let Some(other) = reads.iter().find(|other| same(other)) {
            anyhow::bail!("{} is read by this stage: give another folder for what it writes", other.display());
        }
        let facts = folder.join(FACTS);
        if facts.exists() {
            fs::remove_dir_all(&facts).with_context(|| format!("{}: can't be emptied", facts.display()))?;
        }
        fs::create_dir_all(&facts).with_context(|| format!("{}: can't be made", facts.display()))?;
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if ["batch-", "result-"].iter().any(|stem| name.to_string_lossy().starts_with(stem)) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(Self(folder.canonicalize()?))
    }

    pub(super) fn folder(&self) -> &Path {
        &self.0
    }

    pub(super) fn facts(&self) -> PathBuf {
        self.0.join(FACTS)
    }

    /// Links the objects of another stage's store into this one's.
    pub(super) fn take_over(&self, other: &Path) -> anyhow::Result<()> {
        link_all(&other.join(FACTS), &self.facts())
    }

    /// Shows an object of the store under a plain name.
    pub(super) fn show(&self, key: &str, name: &str) -> anyhow::Result<()> {
        link(&self.facts().join(key), &self.0.join(name))
    }

    /// Rewrites a fact of this stage alone.
    pub(super) fn change<T: Serialize + DeserializeOwned>(
        &self,
        key: &str,
        change: impl FnOnce(&mut T),
    ) -> anyhow::Result<()> {
        let path = self.facts().join(key);
        let mut fact: T = serde_json::from_slice(&fs::read(&path)?)?;
        change(&mut fact);
        // The file is another stage's too: it is not written to.
        fs::remove_file(&path)?;
        Ok(fs::write(&path, serde_json::to_vec(&fact)?)?)
    }

    /// The result data of each batch.
    pub(super) fn results(&self, job: &JobId, batches: &[BatchRef]) -> anyhow::Result<Vec<(BatchRef, String)>> {
        let folder = keys::results_folder(job);
        let mut found = Vec::new();
        for entry in fs::read_dir(self.facts().join(&folder))? {
            let key = format!("{}/{}", folder.trim_end_matches('/'), entry?.file_name().to_string_lossy());
            if let Some(Key::ResultData(_, id, _)) = keys::parse(&key) {
                found.extend(batches.iter().find(|batch| batch.id == id).map(|batch| (batch.clone(), key)));
            }
        }
        Ok(found)
    }

    /// Removes the folder.
    pub(super) fn remove(self) -> anyhow::Result<()> {
        Ok(fs::remove_dir_all(&self.0)?)
    }
}

fn link_all(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("{}: there is no store", from.display()))? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() { link_all(&from, &to)? } else { link(&from, &to)? }
    }
    Ok(())
}

/// Links a file; what is there already stays, since facts and data never change.
fn link(from: &Path, to: &Path) -> anyhow::Result<()> {
    if to.exists() {
        return Ok(());
    }
    fs::hard_link(from, to).with_context(|| format!("linking {} to {}", from.display(), to.display()))
}
