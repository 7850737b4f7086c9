//! What a provider says of many batches at once.
//!
//! A provider that can list its batches is asked once for a hundred of them instead of a hundred times: with a thousand
//! batches at the provider, ten questions a round. Few batches are asked for one by one. What a list does not show (it is
//! bounded, and may lag) is asked for by itself, so a list can only save questions, never hide a batch.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::JobSpec;
use providers::{Error, Provider, ProviderBatch};
use runtime::Clock;
use tokio::sync::Mutex as AsyncMutex;

use crate::decide::pages_to_list;

/// The last list of one provider.
#[derive(Default)]
struct View {
    /// When it was taken, on the process's monotonic clock; none before the first.
    taken: Option<Duration>,
    batches: HashMap<String, ProviderBatch>,
}

/// The last lists, by the provider's name in the settings.
#[derive(Default)]
pub(crate) struct Views {
    by_provider: Mutex<BTreeMap<String, Arc<AsyncMutex<View>>>>,
}

impl Views {
    /// How a batch stands, while so many are waited for in all.
    ///
    /// # Errors
    /// The provider's.
    pub(crate) async fn look(
        &self,
        clock: &Clock,
        spec: &JobSpec,
        provider: &dyn Provider,
        id: &str,
        waiting: usize,
    ) -> Result<ProviderBatch, Error> {
        let pages = pages_to_list(waiting);
        if pages == 0 {
            return provider.get(id).await;
        }
        let view = self.of(spec.provider());
        // One at a time: whoever comes meanwhile finds the new list.
        let mut view = view.lock().await;
        let fresh = provider.poll_schedule().after(1);
        if view.taken.is_none_or(|taken| clock.monotonic().saturating_sub(taken) >= fresh) {
            view.batches = list(provider, pages).await?;
            view.taken = Some(clock.monotonic());
        }
        match view.batches.get(id).cloned() {
            Some(batch) => Ok(batch),
            None => {
                drop(view);
                provider.get(id).await
            }
        }
    }

    fn of(&self, provider: &str) -> Arc<AsyncMutex<View>> {
        let mut all = self.by_provider.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(provider.to_owned()).or_default())
    }
}

async fn list(provider: &dyn Provider, pages: u32) -> Result<HashMap<String, ProviderBatch>, Error> {
    let (mut batches, mut after) = (HashMap::new(), None);
    for _ in 0..pages {
        let page = provider.list_batches(after.as_deref()).await?;
        batches.extend(page.batches.into_iter().map(|batch| (batch.id.clone(), batch)));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    Ok(batches)
}
