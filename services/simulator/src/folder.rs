//! Descriptions on disk: replaced as a whole, loaded at the start, and cleared of what a crash left half done.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::ErrorKind,
    path::Path,
};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Error, clock,
    ledger::Entry,
    records::{FileMeta, Record},
};

/// Removes a file; one that is already gone is fine.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}

pub(crate) fn sync(path: &Path) -> Result<(), Error> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(Error::io("sync", path))
}

pub(crate) fn write(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    let text = serde_json::to_vec(value).map_err(|source| Error::Damaged { path: path.to_owned(), source })?;
    let fresh = path.with_extension("tmp");
    fs::write(&fresh, text).map_err(Error::io("write", &fresh))?;
    fs::rename(&fresh, path).map_err(Error::io("write", path))
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let text = fs::read(path).map_err(Error::io("read", path))?;
    serde_json::from_slice(&text).map_err(|source| Error::Damaged { path: path.to_owned(), source })
}

/// The names in a folder, each split into id and extension.
fn names(folder: &Path) -> Result<Vec<(String, String)>, Error> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let name = entry.map_err(Error::io("list", folder))?.file_name();
        if let Some((id, part)) = name.to_string_lossy().split_once('.') {
            names.push((id.to_owned(), part.to_owned()));
        }
    }
    Ok(names)
}

/// The files that exist. What is left of others is removed.
pub(crate) fn load_files(folder: &Path) -> Result<Vec<FileMeta>, Error> {
    let names = names(folder)?;
    let mut metas = HashMap::new();
    for (id, _) in names.iter().filter(|(_, part)| part == "json") {
        let meta: FileMeta = read(&folder.join(format!("{id}.json")))?;
        if !meta.expired(clock::seconds()) {
            metas.insert(id.clone(), meta);
        }
    }
    for (id, part) in names {
        if !metas.contains_key(&id) || !["json", "data"].contains(&part.as_str()) {
            remove(&folder.join(format!("{id}.{part}")))?;
        }
    }
    Ok(metas.into_values().collect())
}

/// The batches that exist: those of the ledger, and those that failed validation. What is left of others is removed.
pub(crate) fn load_batches(folder: &Path, accepted: Vec<Entry>) -> Result<Vec<Record>, Error> {
    let names = names(folder)?;
    let mut records: HashMap<String, Record> = HashMap::new();
    for (id, _) in names.iter().filter(|(_, part)| part == "json") {
        records.insert(id.clone(), read(&folder.join(format!("{id}.json")))?);
    }
    let mut kept: HashMap<String, Record> = HashMap::new();
    for (position, entry) in accepted.into_iter().enumerate() {
        let (rows, head) = (entry.rows(), entry.head);
        let record = records.remove(&head.batch).unwrap_or_else(|| {
            let mut record = Record::new(head.batch.clone(), position as u64, head.file, head.at);
            record.metadata = Some(head.metadata);
            record.rows = rows;
            record
        });
        kept.insert(head.batch, record);
    }
    kept.extend(records.into_iter().filter(|(_, record)| !record.errors.is_empty()));
    for (id, part) in names {
        let running = kept.get(&id).is_some_and(|record| !record.status.ended());
        let wanted = match part.as_str() {
            "json" => kept.contains_key(&id),
            "input" => running,
            _ => false,
        };
        if !wanted {
            remove(&folder.join(format!("{id}.{part}")))?;
        }
    }
    Ok(kept.into_values().collect())
}
