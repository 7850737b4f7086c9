//! The dispatcher: takes `batch.ready`, encodes the batch in the provider's format, uploads it, and creates the
//! provider's batch, once.
//!
//! What it promises: no row is paid for twice, whatever dies or is answered falsely, as long as the provider's list
//! shows what was created and a deleted file can't be used any more. The protocol is in [`decide`]; it rests on the
//! submission log and on the uploaded file as a fence, never on time.
//!
//! - [`decide`]: what the log says is next. Pure.
//! - [`caps`]: whose batch is sent next where the settings have a cap.
//! - `submit`: the steps. `fence`: looking for a batch whose create has no recorded outcome. `encode`: the upload's
//!   bytes.

pub mod caps;
pub mod config;
pub mod decide;
mod encode;
mod fence;
pub mod metrics;
mod submit;

use std::sync::Arc;

use events::{Event, Topic};
use model::Nonce;
use providers::{Operation, Providers};
use requests::{Job, Jobs, Unknown};
use runtime::{Context, Outbox, Reason, Received, Room, Verdict};

use caps::Caps;
pub use config::Config;
use metrics::{CapMetrics, Metrics};

/// The calls that it makes of a provider.
const CALLS: &[Operation] = &[Operation::Upload, Operation::Create, Operation::ListBatches, Operation::DeleteFile];

/// The room.
pub struct Dispatcher {
    context: Context,
    config: Config,
    metrics: Metrics,
    jobs: Jobs,
    caps: Caps,
    /// Marks this process's claims.
    epoch: Nonce,
}

impl Dispatcher {
    /// The room, with its settings from the context.
    ///
    /// # Errors
    /// When a setting is wrong.
    pub fn new(context: &Context, providers: &Providers) -> anyhow::Result<Self> {
        let providers = requests::measured(context, providers, CALLS);
        Ok(Self {
            config: context.settings.section("dispatcher")?,
            metrics: Metrics::new(&context.registry, &providers)?,
            caps: Caps::new(context, &providers, CapMetrics::new(&context.registry)?),
            jobs: Jobs::new(&context.store, providers),
            epoch: context.clock.nonce(),
            context: context.clone(),
        })
    }
}

#[async_trait::async_trait]
impl Room for Dispatcher {
    fn name(&self) -> &'static str {
        "dispatcher"
    }

    fn topics(&self) -> Vec<Topic> {
        vec![Topic::Batches, Topic::Retries]
    }

    fn reasons(&self) -> &'static [&'static str] {
        Unknown::CODES
    }

    async fn handle(&self, received: &Received, out: &Outbox) -> anyhow::Result<Verdict> {
        let Event::BatchReady(ready) = &received.event else {
            return Ok(Verdict::Reject(Reason::unexpected(&received.event)));
        };
        let job: Arc<Job> = match self.jobs.get(&ready.job).await? {
            Ok(job) => job,
            Err(unknown) => return Ok(Verdict::Reject(Reason { code: unknown.code(), message: unknown.to_string() })),
        };
        match self.jobs.batch(&job, ready.batch.id).await? {
            Ok(batch) => self.submit(&job, &batch, received.tries, out).await,
            Err(unknown) => Ok(Verdict::Reject(Reason { code: unknown.code(), message: unknown.to_string() })),
        }
    }
}
