//! A job of any size through all four rooms in this process: `bench scale`.
//!
//! The rooms are those of a service, over the memory bus and a store in a local folder; what the job reads is made up
//! ([`input`]), and who answers it keeps nothing ([`provider`]). So a hundred million rows need the disk for the input, the data
//! objects and the output, and none for a provider. It tells what the job took as one line of JSON ([`report`]).
//!
//! The plan is put before anything is sent, and nothing is merged before all is collected: so the work falls into three
//! stretches, and the processor time of the first is the splitter's, of the last the merger's. Dispatcher and poller share the
//! one between; their handlers' times say how.

mod input;
mod provider;
mod report;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use events::{Event, JobSubmitted};
use model::{JobSpec, Team};
use providers::{Provider, Providers};
use runtime::{Context, Outbox};
use serde_json::{Map, Value, json};

use super::process::{self, Stretch};
use super::{PROVIDER, local_uri, on_disk, path};
use crate::rooms::all_with;
use provider::Instant;
use report::Metrics;

/// How often it is looked how far the job is.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A stretch of the job: its name, and what has been emitted when it is over.
type Until = (&'static str, fn(&Metrics, u64) -> bool);

/// The stretches, in order; the number is that of the batches.
const STRETCHES: [Until; 3] = [
    ("split", |seen, _| seen.emitted("batch.ready.v1") > 0 || seen.emitted("job.ended.v1") > 0),
    ("dispatch and collect", |seen, batches| {
        seen.emitted("batch.collected.v1") >= batches || seen.emitted("job.ended.v1") > 0
    }),
    ("merge", |seen, _| seen.emitted("job.ended.v1") > 0),
];

/// A job to be made up.
pub(super) struct Scale<'a> {
    pub(super) folder: &'a Path,
    pub(super) rows: u64,
    pub(super) batch_rows: u32,
}

impl Scale<'_> {
    /// The settings that it needs.
    pub(super) fn settings(&self) -> anyhow::Result<[(&'static str, String); 5]> {
        on_disk(&self.folder.join("store"), &self.folder.join("scratch"))
    }

    /// Makes the folder, which must hold nothing.
    pub(super) fn make_folder(&self) -> anyhow::Result<()> {
        let shown = self.folder.display();
        std::fs::create_dir_all(self.folder).with_context(|| format!("{shown}: can't be made"))?;
        let mut there = self.folder.read_dir().with_context(|| format!("{shown}: can't be read"))?;
        anyhow::ensure!(there.next().is_none(), "{shown} is not empty: give a folder of its own");
        Ok(())
    }

    fn batches(&self) -> u64 {
        self.rows.div_ceil(u64::from(self.batch_rows))
    }

    fn spec(&self, input: &Path) -> anyhow::Result<JobSpec> {
        let job = json!({
            "id": "scale",
            "input": { "uri": local_uri(path(input)?)? },
            "output": { "uri": local_uri(path(&self.folder.join("output.csv"))?)? },
            "request": { "model": "openai/gpt-4o-mini", "template": input::TEMPLATE },
            "batch": { "max_rows": self.batch_rows },
        });
        serde_json::from_value(job).context("the job is not as schemas/job.v1.json has it")
    }

    /// Runs the job and tells what it took.
    pub(super) async fn run(&self, context: &Context) -> anyhow::Result<()> {
        let input = self.folder.join("input.csv");
        let input_bytes = input::write(&input, self.rows).with_context(|| format!("{}", input.display()))?;
        let spec = self.spec(&input)?;
        let job = spec.id.clone();
        let providers =
            Providers::of_map([(PROVIDER.to_owned(), Arc::new(Instant::new()?) as Arc<dyn Provider>)].into());
        let rooms = all_with(context, &providers)?;
        let whole = Stretch::begin(&context.clock);
        let mut running = tokio::spawn(runtime::run_rooms(context.clone(), rooms));
        let work = async {
            let submitted = Event::JobSubmitted(JobSubmitted { spec });
            Outbox::new(context, "bench").emit_for(submitted, &Team::shared()).await?;
            self.follow(context).await
        };
        let stretches = tokio::select! {
            done = work => done?,
            stopped = &mut running => anyhow::bail!("the rooms stopped: {stopped:?}"),
        };
        context.shutdown.cancel();
        running.await.context("a room panicked")??;
        let mut told = json!({
            "rows": self.rows, "batches": self.batches(), "input_bytes": input_bytes,
            "seconds": whole.seconds(&context.clock), "cpu_seconds": whole.cpu_seconds(),
            "peak_bytes": process::peak(), "stretches": stretches,
        });
        // Before the questions that follow count, too.
        let counted = Metrics::read(context).figures();
        let end = report::end(context, &job, self.rows).await?;
        let (objects, plan_bytes) = report::objects(context, &job).await?;
        if let (Value::Object(told), Value::Object(counted)) = (&mut told, counted) {
            told.extend(counted);
            told.insert("objects".to_owned(), json!(objects));
            told.insert("plan_bytes".to_owned(), json!(plan_bytes));
            told.insert("output_bytes".to_owned(), json!(end.output.map(|output| output.bytes)));
        }
        println!("{}", serde_json::to_string(&told)?);
        Ok(())
    }

    /// Waits for the end; what each stretch took.
    async fn follow(&self, context: &Context) -> anyhow::Result<Map<String, Value>> {
        let mut told = Map::new();
        for (name, is_over) in STRETCHES {
            let stretch = Stretch::begin(&context.clock);
            loop {
                let seen = Metrics::read(context);
                anyhow::ensure!(seen.dead_letters() == 0, "a room gave an event up; the warning above says why");
                if is_over(&seen, self.batches()) {
                    break;
                }
                context.clock.sleep(LOOK_EVERY).await;
            }
            let (seconds, cpu, peak) = (stretch.seconds(&context.clock), stretch.cpu_seconds(), process::peak());
            told.insert(name.to_owned(), json!({ "seconds": seconds, "cpu_seconds": cpu, "peak_bytes": peak }));
        }
        Ok(told)
    }
}
