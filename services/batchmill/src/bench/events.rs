//! What one event costs on its way through a room that does next to nothing: `bench events`.
//!
//! The room takes `batch.dispatched`, puts one fact, emits one event and is done, so the figure is that of the loop: consume,
//! decode, hand over, put once, emit and await the acknowledgement, finish, commit. What is taken was sent by this process too, so
//! each event is produced twice. The bus is that of the settings; the store is memory unless the settings say otherwise.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use events::{BatchDispatched, Event, JobEnded, Submission, Topic};
use futures::{StreamExt, TryStreamExt, stream};
use model::digest::Checksum;
use model::facts::SCHEMA;
use model::{BatchId, BatchRef, CancelFact, Counts, DataRef, JobId, Nonce, Team, Tokens, keys};
use runtime::{Context, Outbox, Received, Room, Verdict};
use tokio::sync::Notify;

use super::process::Stretch;

/// How many events are on their way to the bus at a time.
const SENDING: usize = 256;

/// A room that does the least that a room does.
struct Relay {
    context: Context,
    handled: AtomicU32,
    count: u32,
    all: Arc<Notify>,
}

#[async_trait::async_trait]
impl Room for Relay {
    fn name(&self) -> &'static str {
        "bench"
    }

    fn topics(&self) -> Vec<Topic> {
        vec![Topic::Submissions]
    }

    async fn handle(&self, received: &Received, out: &Outbox) -> anyhow::Result<Verdict> {
        let (clock, job) = (&self.context.clock, received.event.job());
        let fact = CancelFact { schema: SCHEMA, nonce: clock.nonce(), requested_at: clock.now() };
        self.context.store.put_once(&keys::cancel(job), &fact).await?;
        let (team, ended_at, counts, tokens) = (Team::shared(), clock.now(), Counts::default(), Tokens::default());
        let (cost, output, failed_rows, refusal) = (None, None, None, None);
        let job = job.clone();
        let ended = JobEnded { job, team, ended_at, counts, tokens, cost, output, failed_rows, refusal };
        out.emit(Event::JobEnded(ended)).await?;
        if self.handled.fetch_add(1, Ordering::Relaxed) + 1 == self.count {
            self.all.notify_one();
        }
        Ok(Verdict::Done)
    }
}

/// Sends so many events through the loop, and prints what that took as JSON.
pub(super) async fn events(context: &Context, count: u32) -> anyhow::Result<()> {
    let all = Arc::new(Notify::new());
    let room = Relay { context: context.clone(), handled: AtomicU32::new(0), count, all: Arc::clone(&all) };
    let mut running = tokio::spawn(runtime::run_rooms(context.clone(), vec![Arc::new(room) as Arc<dyn Room>]));
    let stretch = Stretch::begin(&context.clock);
    let out = &Outbox::new(context, "bench");
    let work = async {
        let sent = stream::iter(0..count)
            .map(|number| async move { out.emit(dispatched(number)?).await })
            .buffer_unordered(SENDING);
        sent.try_collect::<()>().await?;
        all.notified().await;
        anyhow::Ok(())
    };
    tokio::select! {
        done = work => done?,
        stopped = &mut running => anyhow::bail!("the room stopped: {stopped:?}"),
    }
    // The last commits are a part of it.
    context.shutdown.cancel();
    running.await??;
    report(context, count, stretch)
}

fn report(context: &Context, count: u32, stretch: Stretch) -> anyhow::Result<()> {
    let (seconds, cpu) = (stretch.seconds(&context.clock), stretch.cpu_seconds());
    let bus = if context.common.kafka.brokers.trim().is_empty() { "memory" } else { "kafka" };
    let count = f64::from(count);
    let figures = serde_json::json!({
        "bus": bus, "events": count, "seconds": seconds, "events_per_second": count / seconds,
        "cpu_microseconds_per_event": cpu.map(|cpu| cpu * 1e6 / count),
    });
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}

fn job(number: u32) -> anyhow::Result<JobId> {
    Ok(format!("bench-{number}").parse()?)
}

fn dispatched(number: u32) -> anyhow::Result<Event> {
    let id = BatchId { number: 1, attempt: 1 };
    let data = DataRef { key: String::new(), checksum: Checksum::of(b""), bytes: 0, rows: 0 };
    let nonce = Nonce::from_bits(number.into());
    let batch = BatchRef { id, nonce, first_row: 0, data, send_rows: 0, send_bytes: 0 };
    Ok(Event::BatchDispatched(BatchDispatched { job: job(number)?, batch, submission: Submission::Unsent }))
}
