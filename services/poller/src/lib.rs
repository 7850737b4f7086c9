//! The poller: takes `batch.dispatched`, waits for the provider, and accounts for each row of the batch.
//!
//! What it promises: every row of an attempt's batch data gets exactly one result row, in order; every answer that the
//! provider's files hold is kept, whatever the batch's status says; and the result fact commits the results and the next
//! attempt's batch at once. Waiting costs nothing: the event is put on a timer and its offset stays open.
//!
//! - [`decide`]: wait, collect or cancel; who is tried again. Pure.
//! - `watch`: looking at a batch. `views`: at many of them at once.
//! - `download`: its files, read once. `lines`: cut into lines. [`answers`]: what they say of each row, in an `arena`.
//! - `collect`: the end of an attempt. `walk`: from answers to result rows, and the next attempt's batch.

pub mod answers;
mod arena;
pub mod clean;
mod collect;
pub mod config;
pub mod decide;
mod download;
mod lines;
pub mod metrics;
mod views;
mod walk;
mod watch;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use events::{Event, Topic};
use model::{BatchId, JobId};
use providers::{Operation, Providers};
use requests::{Jobs, Unknown};
use runtime::{Context, Outbox, Reason, Received, Room, Verdict};
use tables::batch::Codec;

pub use config::Config;
use metrics::Metrics;
use views::Views;
use watch::Watched;

/// The calls that it makes of a provider, those of cleaning up among them.
const CALLS: &[Operation] = &[
    Operation::Get,
    Operation::ListBatches,
    Operation::Cancel,
    Operation::FileBytes,
    Operation::Download,
    Operation::ListFiles,
    Operation::DeleteFile,
];

/// The room.
pub struct Poller {
    context: Context,
    config: Config,
    metrics: Metrics,
    providers: Providers,
    jobs: Jobs,
    codec: Codec,
    /// What is known of the batches that are waited for, so that a look asks the provider and no one else. It may be
    /// lost at any time.
    watched: Mutex<HashMap<(JobId, BatchId), Arc<Watched>>>,
    views: Views,
}

impl Poller {
    /// The room, with its settings and providers from the context.
    ///
    /// # Errors
    /// When a setting is wrong.
    pub fn new(context: &Context, providers: &Providers) -> anyhow::Result<Self> {
        let providers = requests::measured(context, providers, CALLS);
        Ok(Self {
            config: context.settings.section("poller")?,
            metrics: Metrics::new(context, &providers)?,
            jobs: Jobs::new(&context.store, providers.clone()),
            providers,
            codec: context.common.store.codec.parse().map_err(anyhow::Error::msg)?,
            watched: Mutex::default(),
            views: Views::default(),
            context: context.clone(),
        })
    }
}

#[async_trait::async_trait]
impl Room for Poller {
    fn name(&self) -> &'static str {
        "poller"
    }

    fn topics(&self) -> Vec<Topic> {
        vec![Topic::Submissions]
    }

    fn reasons(&self) -> &'static [&'static str] {
        Unknown::CODES
    }

    async fn handle(&self, received: &Received, out: &Outbox) -> anyhow::Result<Verdict> {
        match &received.event {
            Event::BatchDispatched(dispatched) => self.watch(&dispatched.job, dispatched.batch.id, out).await,
            other => Ok(Verdict::Reject(Reason::unexpected(other))),
        }
    }

    async fn clean(&self) -> anyhow::Result<()> {
        let cleaned = self.clean_up(false).await?;
        if cleaned != clean::Cleaned::default() {
            let clean::Cleaned { jobs, objects, bytes, files } = cleaned;
            tracing::info!(jobs, objects, bytes, files, "removed what ended jobs need no more");
        }
        Ok(())
    }
}
