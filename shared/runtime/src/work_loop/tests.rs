//! The loop on the memory bus, with rooms that follow a script, under tokio's paused clock: waits cost no time and every run
//! is the same.

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bus::{Outgoing, Polled, Record};
use bytes::Bytes;
use events::{BatchCollected, BatchReady, Event, JobCancelRequested, Topic};
use futures::future::BoxFuture;
use model::{BatchId, BatchRef, Counts, DataRef, JobId, Nonce};
use tokio::task::JoinHandle;

use super::*;
use crate::context::{Context, Reconcile};
use crate::room::{Reason, Received, Room, Verdict};
use crate::service::run_rooms;
use crate::settings::Settings;

mod backpressure;
mod handling;
mod spans;

type Handled<'a> = BoxFuture<'a, anyhow::Result<Verdict>>;
type Script = Box<dyn for<'a> Fn(&'a Received, &'a Outbox) -> Handled<'a> + Send + Sync>;

/// A room that does what a closure says, and remembers what it was given and when.
struct Scripted {
    context: Context,
    topics: Vec<Topic>,
    serial: bool,
    script: Script,
    seen: Mutex<Vec<(String, u64)>>,
    running: AtomicUsize,
    most: AtomicUsize,
    reassigned: AtomicUsize,
}

impl Scripted {
    fn new(
        context: &Context,
        topics: &[Topic],
        script: impl for<'a> Fn(&'a Received, &'a Outbox) -> Handled<'a> + Send + Sync + 'static,
    ) -> Self {
        Self {
            context: context.clone(),
            topics: topics.to_vec(),
            serial: false,
            script: Box::new(script),
            seen: Mutex::default(),
            running: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            reassigned: AtomicUsize::new(0),
        }
    }

    /// What was handled: the record key, and the second at which.
    fn seen(&self) -> Vec<(String, u64)> {
        self.seen.lock().unwrap().clone()
    }

    fn keys(&self) -> Vec<String> {
        self.seen().into_iter().map(|(key, _)| key).collect()
    }
}

#[async_trait]
impl Room for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn topics(&self) -> Vec<Topic> {
        self.topics.clone()
    }

    fn serial_by_job(&self) -> bool {
        self.serial
    }

    fn reassigned(&self) {
        self.reassigned.fetch_add(1, Ordering::SeqCst);
    }

    async fn handle(&self, event: &Received, out: &Outbox) -> anyhow::Result<Verdict> {
        self.seen.lock().unwrap().push((event.event.key(), self.context.clock.monotonic().as_secs()));
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(running, Ordering::SeqCst);
        let _done = Count(&self.running);
        (self.script)(event, out).await
    }
}

struct Count<'a>(&'a AtomicUsize);

impl Drop for Count<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn context(set: &[(&str, &str)]) -> Context {
    let set: Vec<(String, String)> = set.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let settings = Settings::load(None, std::iter::empty(), &set).unwrap();
    let context = Context::in_memory(1, settings).unwrap();
    Context { reconcile: Reconcile::Off, ..context }
}

fn start(room: &Arc<Scripted>) -> JoinHandle<anyhow::Result<()>> {
    tokio::spawn(run_rooms(room.context.clone(), vec![Arc::clone(room) as Arc<dyn Room>]))
}

/// Lets everything happen that happens within so many seconds.
async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

async fn stop(context: &Context, running: JoinHandle<anyhow::Result<()>>) {
    context.shutdown.cancel();
    running.await.unwrap().unwrap();
}

fn job(name: &str) -> JobId {
    name.parse().unwrap()
}

fn cancel(name: &str) -> Event {
    JobCancelRequested { job: job(name) }.into()
}

fn collected(name: &str, number: u32) -> Event {
    BatchCollected { job: job(name), id: BatchId { number, attempt: 1 }, last: true, counts: Counts::default() }.into()
}

fn ready(name: &str, number: u32, attempt: u32) -> Event {
    let nonce = Nonce::from_bits(7);
    let data = DataRef { key: "k".to_owned(), checksum: model::digest::Checksum::of(b""), bytes: 1, rows: 1 };
    let id = BatchId { number, attempt };
    let batch = BatchRef { id, nonce, first_row: 0, data, send_rows: 1, send_bytes: 1 };
    BatchReady { job: job(name), batch }.into()
}

async fn emit(context: &Context, events: impl IntoIterator<Item = Event>) {
    let out = Outbox::new(context, "test");
    for event in events {
        out.emit(event).await.unwrap();
    }
}

async fn unfinished(context: &Context, topic: &str) -> u64 {
    context.bus.lag("batchmill-scripted", topic).await.unwrap().exact
}

const JOBS: &str = "batchmill.jobs.v1";
const BATCHES: &str = "batchmill.batches.v1";

async fn dead_letters(context: &Context, topic: &str) -> Vec<Record> {
    let mut consumer = context.bus.consumer("reader", &[format!("dlq.batchmill-scripted.{topic}")]).unwrap();
    let mut letters = Vec::new();
    while let Ok(polled) = tokio::time::timeout(Duration::from_secs(1), consumer.next()).await {
        if let Polled::Record(record, _) = polled.unwrap() {
            letters.push(record);
        }
    }
    letters
}

fn header<'a>(record: &'a Record, name: &str) -> &'a str {
    let value = &record.headers.iter().find(|(found, _)| found == name).unwrap_or_else(|| panic!("no {name}")).1;
    std::str::from_utf8(value).unwrap()
}
