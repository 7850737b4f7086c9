//! The probe at boot: does the store keep its word on "put if absent"?
//!
//! Everything rests on one of two writers losing. Some S3 servers accept the condition and ignore it, or let both win when
//! they meet. So before a service takes work, two writers race for fifty keys, and a store where any key has two winners, or
//! none, is refused.

use futures::{StreamExt, TryStreamExt, future, stream};
use model::Nonce;
use object_store::{PutMode, PutOptions, PutPayload};

use crate::clock::Clock;
use crate::store::{Error, Store};

/// Keys that the two writers race for.
const KEYS: usize = 50;
/// Races that run side by side.
const RACES_AT_ONCE: usize = 10;

/// Why a store can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// It does not keep its word.
    #[error(
        "the store lets several writers win one key ({wins} wins on {KEYS} keys in a race of two): it ignores or breaks \
         conditional puts (If-None-Match: *). Jobs would be paid twice. Use a server that keeps them: AWS S3, SeaweedFS from \
         4.30, Ceph, RustFS"
    )]
    SeveralWinners {
        /// Puts that won, over all keys.
        wins: usize,
    },
    /// It refuses all conditional puts.
    #[error("the store refuses conditional puts (If-None-Match: *): {reason}")]
    NotSupported {
        /// What it said.
        reason: String,
    },
    /// It could not be asked.
    #[error("the store can't be probed: {0}")]
    Store(#[from] Error),
}

/// Races two writers for fifty keys, and cleans up.
///
/// # Errors
/// If the store does not keep its word, or can't be reached.
pub async fn probe(store: &Store, clock: &Clock) -> Result<(), ProbeError> {
    let folder = format!("probe/{}", clock.nonce());
    let keys: Vec<String> = (0..KEYS).map(|key| format!("{folder}/{key:02}")).collect();
    let races = keys.iter().map(|key| race(store, clock, key));
    let wins: Result<Vec<usize>, ProbeError> = stream::iter(races).buffered(RACES_AT_ONCE).try_collect().await;
    let deletes = keys.iter().map(|key| store.delete(key));
    let deleted: Vec<Result<(), Error>> = stream::iter(deletes).buffered(RACES_AT_ONCE).collect().await;
    if let Some(error) = deleted.into_iter().find_map(Result::err) {
        tracing::debug!(folder, %error, "an object of the probe could not be removed");
    }
    let wins = wins?;
    if wins.iter().any(|wins| *wins > 1) {
        return Err(ProbeError::SeveralWinners { wins: wins.iter().sum() });
    }
    Ok(())
}

/// Races for one key, and counts how many won it.
async fn race(store: &Store, clock: &Clock, key: &str) -> Result<usize, ProbeError> {
    let (one, two, three) = (clock.nonce(), clock.nonce(), clock.nonce());
    let (first, second) = future::join(put(store, key, &one), put(store, key, &two)).await;
    let Some(there) = store.get_bytes(key).await? else {
        let reason = first.err().or(second.err()).map_or_else(String::new, |error| error.to_string());
        return Err(ProbeError::NotSupported { reason });
    };
    // A third writer, after the race, is refused too, and changes nothing.
    let third = put(store, key, &three).await;
    let overwritten = store.get_bytes(key).await? != Some(there);
    let wins = [first, second, third].iter().filter(|put| put.is_ok()).count();
    // A put that is answered with an error and changes the object all the same has won, too.
    Ok(wins.max(1 + usize::from(overwritten)))
}

async fn put(store: &Store, key: &str, nonce: &Nonce) -> object_store::Result<()> {
    let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    let path =
        store.path(key).map_err(|error| object_store::Error::Generic { store: "probe", source: error.into() })?;
    let body = PutPayload::from(nonce.as_str().as_bytes().to_vec());
    store.backend().put_opts(&path, body, options).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Fate, Lying};

    async fn probed(store: &Store) -> Result<(), ProbeError> {
        probe(store, &Clock::seeded(1)).await
    }

    #[tokio::test]
    async fn honest_stores_pass_and_nothing_is_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        for store in [Store::in_memory(), Store::local(dir.path()).unwrap()] {
            probed(&store).await.unwrap();
            assert_eq!(store.list("").await.unwrap(), []);
        }
    }

    #[tokio::test]
    async fn a_store_that_ignores_the_condition_is_refused_even_if_only_once() {
        let once = [vec![Fate::Honest; 30], vec![Fate::Overwrites; 3]].concat();
        for fates in [vec![Fate::Overwrites; 1_000], once] {
            let store = Store::new(Lying::new(fates), "");
            let error = probed(&store).await.unwrap_err();
            assert!(matches!(error, ProbeError::SeveralWinners { .. }), "{error}");
            assert_eq!(store.list("").await.unwrap(), []);
        }
    }

    #[tokio::test]
    async fn a_store_that_refuses_the_condition_is_refused() {
        let error = probed(&Store::new(Lying::new(vec![Fate::NotSupported; 1_000]), "")).await.unwrap_err();
        assert!(matches!(error, ProbeError::NotSupported { .. }), "{error}");
    }
}
