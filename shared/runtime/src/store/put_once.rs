//! Putting a fact once, and knowing the truth about it.
//!
//! A store's reply to "put if absent" is not the truth. With the client's own retries, `AlreadyExists` may be our own
//! first try, which landed and was answered by an error. A time-out may have landed or not. A 409 says that two writes met, and
//! neither may have landed. So each fact carries the nonce of its writer, and anything but a plain success is followed by
//! reading the key back: our nonce, we won; another, we lost, and have the winner's fact; nothing there, we try again.
//!
//! A put that timed out may still land after we read nothing. That does no harm: our next try then finds our own nonce.

use std::time::Duration;

use model::Nonce;
use object_store::{ObjectStore, PutMode, PutOptions, PutPayload};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Error, Result, Store};
use crate::metrics::Request;

/// The first wait after a try that left nothing there.
const FIRST_WAIT: Duration = Duration::from_millis(50);
/// The longest of these waits.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// After so long without an answer the caller hears of it and decides.
const GIVE_UP_AFTER: Duration = Duration::from_secs(60);

/// A small immutable object that carries its writer's mark.
pub trait Fact: Serialize + DeserializeOwned + Clone + Send + Sync {
    /// The writer's mark.
    fn nonce(&self) -> &Nonce;
}

macro_rules! facts {
    ($($name:ident),*) => {
        $(impl Fact for model::$name {
            fn nonce(&self) -> &Nonce {
                &self.nonce
            }
        })*
    };
}

facts!(OpenJob, JobFact, PlanFact, SubmissionEntry, ResultFact, CancelFact, EndFact, OutputClaim);

/// Who put the fact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PutOnce<T> {
    /// What lies there says what ours says.
    Won,
    /// Another writer's fact lies there: this one. It rules.
    Lost(T),
}

impl Store {
    /// Puts a fact at a key that may be written once, and says who won.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if no answer could be had within a minute: the fact may or may not be there, and the same call
    /// may be made again. [`Error::Corrupt`] if something else lies there.
    pub async fn put_once<T: Fact>(&self, key: &str, fact: &T) -> Result<PutOnce<T>> {
        let ended = self.try_put_once(key, fact).await;
        let ended = self.counted("put_once", ended);
        self.count_put(match &ended {
            Ok(PutOnce::Won) => "won",
            Ok(PutOnce::Lost(_)) => "lost",
            Err(_) => "failed",
        });
        ended
    }

    async fn try_put_once<T: Fact>(&self, key: &str, fact: &T) -> Result<PutOnce<T>> {
        let path = self.path(key)?;
        let body = serde_json::to_vec_pretty(fact).map_err(|error| Error::InvalidKey {
            key: key.to_owned(),
            reason: format!("the fact has no JSON: {error}"),
        })?;
        let started = tokio::time::Instant::now();
        let mut wait = first_wait(fact.nonce());
        loop {
            let overwrite = faults::is_broken(faults::Mutation::OverwriteFact);
            let mode = if overwrite { PutMode::Overwrite } else { PutMode::Create };
            let options = PutOptions { mode, ..PutOptions::default() };
            faults::crash_point!(PutOncePutting);
            self.count_requests(Request::Put, 1);
            let Err(put_error) = self.inner.put_opts(&path, PutPayload::from(body.clone()), options).await else {
                faults::crash_point!(PutOncePut);
                self.count_written(body.len() as u64);
                return Ok(PutOnce::Won);
            };
            let reason = match self.get_json::<T>(key).await {
                Ok(Some(found)) if says_the_same(&found, fact) => return Ok(PutOnce::Won),
                Ok(Some(found)) => return Ok(PutOnce::Lost(found)),
                Ok(None) => put_error,
                Err(error @ Error::Corrupt { .. }) => return Err(error),
                Err(_) => put_error,
            };
            self.count_put("unsure");
            let error = Error::reading(key)(reason);
            if matches!(error, Error::Refused { .. }) || started.elapsed() >= GIVE_UP_AFTER {
                return Err(error);
            }
            tracing::debug!(key, %error, "a fact could not be put yet");
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }
}

/// Differs by writer without a source of randomness, so that two of them do not meet again and again.
fn first_wait(nonce: &Nonce) -> Duration {
    let spread = nonce.as_str().bytes().fold(0u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
    FIRST_WAIT + Duration::from_millis(u64::from(spread % 50))
}

/// Our own fact, or one that differs from it by the nonce alone.
fn says_the_same<T: Fact>(found: &T, ours: &T) -> bool {
    found.nonce() == ours.nonce() || without_nonce(found).is_some_and(|found| Some(found) == without_nonce(ours))
}

fn without_nonce<T: Fact>(fact: &T) -> Option<serde_json::Value> {
    let mut value = serde_json::to_value(fact).ok()?;
    value.as_object_mut()?.remove("nonce")?;
    Some(value)
}
