//! What must hold of a world, from what it left: outputs, facts, and the provider's own books.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Seek, Write};

use model::retry::{RetryTable, Tries};
use model::{
    BatchId, BatchRef, EndFact, FailureKind, JobFact, PlanFact, PlanOutcome, RefusalCode, ResultFact, RowStatus,
    SubmissionEntry, SubmissionStep, keys,
};
use serde::de::DeserializeOwned;
use tables::result::ResultReader;

use super::cost::Told;
use super::plan::JobPlan;
use super::provider::batch::{Batch, Expected};
use super::provider::hub::MARK;
use super::table::{Answered, RowKind, Table};
use super::world::{World, lake_path};

type Wrong = String;

/// Kinds of failure after which the provider has billed the row, or may have.
const BILLED: &[FailureKind] = &[
    FailureKind::ServerError,
    FailureKind::Timeout,
    FailureKind::Missing,
    FailureKind::Malformed,
    FailureKind::Refused,
    FailureKind::Truncated,
    FailureKind::SchemaInvalid,
];

/// Checks a world that has ended; what is wrong goes to its journal.
pub async fn check(world: &World) {
    let batches = world.hub.batches();
    let mut known = BTreeSet::new();
    for job in &world.plan.jobs {
        let mut judge =
            Judge { world, job, batches: &batches, known: &mut known, rows: BTreeMap::new(), told: Told::default() };
        if let Err(wrong) = judge.job() {
            world.journal.violation(format!("job {}: {wrong}", job.spec.id));
        }
    }
    // Of a job that was not judged to its end not every attempt is known.
    let judged = world.journal.violations().is_empty();
    for batch in batches.iter().filter(|batch| judged && runs(batch)) {
        let mark = mark_of(batch);
        if !known.contains(&mark) {
            world.journal.violation(format!("the provider runs {} for {mark:?}, which no fact orders", batch.id));
        }
    }
    if !world.plan.lossy {
        for (topic, lag) in world.lag().await {
            world.journal.violation(format!("{lag} events of {topic} are not finished, though all jobs have ended"));
        }
    }
}

fn mark_of(batch: &Batch) -> String {
    batch.metadata.get(MARK).cloned().unwrap_or_default()
}

/// Whether a batch costs, or could have cost, anything.
fn runs(batch: &Batch) -> bool {
    batch.rows.iter().any(|row| batch.bills(row))
}

struct Judge<'w> {
    world: &'w World,
    job: &'w JobPlan,
    batches: &'w [Batch],
    /// Marks of batch attempts that facts order.
    known: &'w mut BTreeSet<String>,
    /// Each row's story so far.
    rows: BTreeMap<u64, Story>,
    told: Told,
}

#[derive(Default)]
struct Story {
    tries: Tries,
    /// Retries after kinds that are billed.
    billed_retries: usize,
    /// The last attempt's word.
    last: Option<(RowStatus, Option<FailureKind>, Option<String>)>,
}

impl Judge<'_> {
    fn fact<T: DeserializeOwned>(&self, key: &str) -> Result<T, Wrong> {
        let body = self.world.disk.body(key).ok_or_else(|| format!("there is no {key}"))?;
        serde_json::from_slice(&body).map_err(|error| format!("{key}: {error}"))
    }

    fn job(&mut self) -> Result<(), Wrong> {
        let id = &self.job.spec.id;
        let end: EndFact = self.fact(&keys::end(id))?;
        let plan: PlanFact = self.fact(&keys::plan(id))?;
        match plan.outcome {
            PlanOutcome::Refused { refusal } => self.refused(refusal.code, &end),
            PlanOutcome::Planned { rows, deadline, batches, .. } => {
                let table = self.table_as_read(rows)?;
                for first in &batches {
                    self.batch(&table, first, deadline)?;
                }
                self.paid(&table)?;
                self.told.check(&end)?;
                self.output(&table, &end)
            }
        }
    }

    /// A refusal needs a reason, and costs nothing.
    fn refused(&self, code: RefusalCode, end: &EndFact) -> Result<(), Wrong> {
        let ragged = self.job.table.rows.contains(&RowKind::Ragged);
        let cancelled = self.world.disk.body(&keys::cancel(&self.job.spec.id)).is_some();
        let justified = match code {
            RefusalCode::BadRow => ragged && self.job.spec.on_bad_row == model::spec::OnBadRow::FailJob,
            RefusalCode::InputChanged => self.job.replace_at.is_some(),
            RefusalCode::Cancelled => cancelled,
            _ => false,
        };
        if !justified {
            return Err(format!("it is refused for nothing: {code}"));
        }
        if end.refusal.as_ref().map(|refusal| refusal.code) != Some(code) || end.counts.rows != 0 {
            return Err(format!("it is refused ({code}), and its end says {end:?}"));
        }
        if self.world.lake.body(lake_path(&self.job.spec.output.uri)).is_some() {
            return Err("it is refused, and has an output".to_owned());
        }
        let prefix = format!("{}/", self.job.spec.id);
        match self.batches.iter().find(|batch| mark_of(batch).starts_with(&prefix)) {
            Some(batch) => Err(format!("it is refused, and the provider has {}", batch.id)),
            None => Ok(()),
        }
    }

    /// The input in the version that the job fact pins.
    fn table_as_read(&self, rows: u64) -> Result<Table, Wrong> {
        let fact: JobFact = self.fact(&keys::job(&self.job.spec.id))?;
        let etag = fact.input.ok_or("the job fact pins no input")?.etag;
        let version = self
            .world
            .input_version(&self.job.spec.input.uri, &etag)
            .ok_or("the job fact pins a version that never was")?;
        let table = Table { version, ..self.job.table.clone() };
        if table.rows.len() as u64 != rows {
            return Err(format!("the plan has {rows} rows, the input {}", table.rows.len()));
        }
        Ok(table)
    }

    /// One batch, attempt after attempt.
    fn batch(&mut self, table: &Table, first: &BatchRef, deadline: jiff::Timestamp) -> Result<(), Wrong> {
        let mut attempt = first.clone();
        loop {
            let fact: ResultFact = self.fact(&keys::result(&self.job.spec.id, attempt.id))?;
            self.attempt(table, &attempt, &fact, deadline).map_err(|wrong| format!("batch {}: {wrong}", attempt.id))?;
            match fact.next {
                Some(next) => attempt = next,
                None => return Ok(()),
            }
        }
    }

    fn last_step(&self, id: BatchId) -> Result<SubmissionStep, Wrong> {
        let job = &self.job.spec.id;
        let last = (1..).take_while(|seq| self.world.disk.body(&keys::submission(job, id, *seq)).is_some()).last();
        let entry: SubmissionEntry = self.fact(&keys::submission(job, id, last.ok_or("it has no submission log")?))?;
        Ok(entry.step)
    }

    fn attempt(
        &mut self,
        table: &Table,
        batch: &BatchRef,
        fact: &ResultFact,
        deadline: jiff::Timestamp,
    ) -> Result<(), Wrong> {
        let BatchId { number, attempt } = batch.id;
        let mark = format!("{}/{number}/{attempt}/{}", self.job.spec.id, batch.nonce);
        let cancelled = self.world.disk.body(&keys::cancel(&self.job.spec.id)).is_some();
        let past = fact.collected_at >= deadline;
        let step = self.last_step(batch.id)?;
        self.known.insert(mark.clone());
        let running: Vec<&Batch> = self.batches.iter().filter(|other| mark_of(other) == mark && runs(other)).collect();
        if running.len() > 1 {
            return Err(format!("the provider runs it {} times: {:?}", running.len(), ids(&running)));
        }
        let submitted = match &step {
            SubmissionStep::Submitted { provider_batch, .. } => {
                let batch = self.batches.iter().find(|other| other.id == *provider_batch);
                Some(batch.ok_or_else(|| format!("it is submitted as {provider_batch}, which the provider lacks"))?)
            }
            SubmissionStep::Unsent { kind, .. } => {
                let refusals = self.world.hub.refusals(&mark);
                let justified = match kind {
                    None => batch.send_rows == 0,
                    Some(FailureKind::Cancelled) => cancelled,
                    Some(FailureKind::Deadline) => past,
                    Some(FailureKind::BatchRejected) => refusals.iter().any(|status| ![401, 429].contains(status)),
                    _ => false,
                };
                if !justified {
                    return Err(format!("it is unsent for nothing: {kind:?}, refusals {refusals:?}"));
                }
                None
            }
            step => return Err(format!("it is collected, and its log ends with {step:?}")),
        };
        if let Some(other) = running.iter().find(|running| submitted.is_none_or(|submitted| submitted.id != running.id))
        {
            return Err(format!("the provider runs {}, and the log ends with {step:?}", other.id));
        }
        let lost = past && fact.provider_status.is_none();
        let judged = Judged { batch, submitted, step: &step, unwanted: cancelled || past, lost };
        self.results(table, fact, &judged)
    }

    fn results(&mut self, table: &Table, fact: &ResultFact, judged: &Judged<'_>) -> Result<(), Wrong> {
        let mut reader = ResultReader::open(self.file(&fact.data.key)?).map_err(|error| error.to_string())?;
        let retry = RetryTable::new(&self.job.spec.retry);
        let (mut place, mut retried) = (0, 0);
        while let Some(result) = reader.next_row().map_err(|error| error.to_string())? {
            let row = result.row;
            self.told.add(result.usage);
            let kind = result.error_kind;
            let at = usize::try_from(row).unwrap_or(usize::MAX);
            let local = match table.rows.get(at).ok_or_else(|| format!("there is no row {row}"))? {
                RowKind::Plain => None,
                RowKind::Empty => Some(FailureKind::EmptyPrompt),
                RowKind::Ragged => Some(FailureKind::BadRow),
            };
            let expected = match local {
                Some(kind) => Expected::Kinds(vec![kind]),
                None => judged.expected(place, &table.prompt(at))?,
            };
            place += 1;
            let fits = match &expected {
                Expected::Answer(text) => result.status == RowStatus::Answered && result.response == Some(text),
                Expected::Kinds(kinds) => kind.is_some_and(|kind| kinds.contains(&kind)),
            };
            if !fits {
                let got = (result.status, kind, result.response, result.error);
                return Err(format!("row {row} is {got:?}, and the provider's word is {expected:?}"));
            }
            let story = self.rows.entry(row).or_default();
            if story.last.as_ref().is_some_and(|(status, ..)| *status != RowStatus::Retried) {
                return Err(format!("row {row} is tried again after {:?}", story.last));
            }
            if let Some(kind) = kind {
                let may = retry.tries_again(kind, story.tries.of(kind), false) && local.is_none();
                match result.status {
                    RowStatus::Retried if !may => {
                        return Err(format!("row {row} is tried again after {kind} against the table"));
                    }
                    RowStatus::Failed if may && !judged.unwanted => {
                        return Err(format!("row {row} is given up after {kind}, and the table orders another try"));
                    }
                    _ => {}
                }
                story.tries.record(kind);
                if result.status == RowStatus::Retried {
                    retried += 1;
                    story.billed_retries += usize::from(BILLED.contains(&kind));
                }
            }
            // A row that the deadline took from its next try keeps the word of its last failure.
            let spoken = match (&story.last, kind) {
                (Some((_, before, _)), Some(FailureKind::Deadline)) => *before,
                _ => kind,
            };
            story.last = Some((result.status, spoken, result.response.map(str::to_owned)));
        }
        if place as u64 != judged.batch.data.rows || retried != fact.counts.retried || fact.counts.rows != place as u64
        {
            return Err(format!(
                "{place} rows came out of {}, {retried} are tried again: {:?}",
                judged.batch.data.rows, fact.counts
            ));
        }
        match &fact.next {
            Some(next) if next.data.rows == retried && retried > 0 => Ok(()),
            None if retried == 0 => Ok(()),
            next => Err(format!("{retried} rows are to be tried again, and the next attempt is {next:?}")),
        }
    }

    fn file(&self, key: &str) -> Result<std::fs::File, Wrong> {
        let body = self.world.disk.body(key).ok_or_else(|| format!("there is no {key}"))?;
        let said = |error: std::io::Error| error.to_string();
        let mut file = tempfile::tempfile().map_err(said)?;
        file.write_all(&body).map_err(said)?;
        file.rewind().map_err(said)?;
        Ok(file)
    }

    /// Each row is billed once, and once more for each retry that the table orders after a billed failure.
    fn paid(&self, table: &Table) -> Result<(), Wrong> {
        for row in 0..table.rows.len() {
            let prompt = table.prompt(row);
            let bills: Vec<&str> = self
                .batches
                .iter()
                .flat_map(|batch| {
                    let of_it = batch.rows.iter().filter(|other| other.prompt == prompt && batch.bills(other));
                    of_it.map(|_| batch.id.as_str())
                })
                .collect();
            let allowed = match table.rows[row] {
                RowKind::Plain => 1 + self.rows.get(&(row as u64)).map_or(0, |story| story.billed_retries),
                _ => 0,
            };
            if bills.len() > allowed {
                return Err(format!("row {row} is billed {} times, and {allowed} are ordered: {bills:?}", bills.len()));
            }
        }
        Ok(())
    }

    /// The output says what the last attempts say, and the end counts it.
    fn output(&self, table: &Table, end: &EndFact) -> Result<(), Wrong> {
        let path = lake_path(&self.job.spec.output.uri);
        let body = self.world.lake.body(path).ok_or("there is no output")?;
        let written = end.output.as_ref().ok_or("the end names no output")?;
        if (written.bytes, &written.checksum) != (body.len() as u64, &model::digest::Checksum::of(&body)) {
            return Err("the output is not the one that the end names".to_owned());
        }
        let mut failed: BTreeMap<FailureKind, u64> = BTreeMap::new();
        for (row, answered) in table.read(&body, self.job.spec.details)?.iter().enumerate() {
            let last = self.rows.get(&(row as u64)).and_then(|story| story.last.as_ref());
            let (status, kind, response) = last.ok_or_else(|| format!("no attempt has row {row}"))?;
            let Answered { response: shown, error } = answered;
            let fits = match (status, kind) {
                (RowStatus::Answered, _) => shown == response && error.is_none(),
                (RowStatus::Failed, Some(kind)) => {
                    *failed.entry(*kind).or_default() += 1;
                    shown.is_none() && error.as_ref().is_some_and(|error| error.starts_with(&format!("{kind}: ")))
                }
                _ => false,
            };
            if !fits {
                return Err(format!("row {row} is {answered:?} in the output, and its last word is {last:?}"));
            }
        }
        let answered = table.rows.len() as u64 - failed.values().sum::<u64>();
        let counts = &end.counts;
        if (counts.rows, counts.answered, &counts.failed) != (table.rows.len() as u64, answered, &failed)
            || counts.retried > 0
        {
            return Err(format!("the end counts {counts:?}, the output has {answered} answers and {failed:?}"));
        }
        Ok(())
    }
}

/// What is known of an attempt before its rows are looked at.
struct Judged<'w> {
    batch: &'w BatchRef,
    submitted: Option<&'w Batch>,
    step: &'w SubmissionStep,
    /// The job wanted no more, perhaps.
    unwanted: bool,
    /// The deadline passed while the provider did not know the batch.
    lost: bool,
}

impl Judged<'_> {
    /// How the row at this place must end.
    fn expected(&self, place: usize, prompt: &str) -> Result<Expected, Wrong> {
        if self.lost {
            return Ok(Expected::Kinds(vec![FailureKind::Missing, FailureKind::Deadline, FailureKind::Cancelled]));
        }
        let Some(batch) = self.submitted else {
            let SubmissionStep::Unsent { kind, .. } = self.step else { return Err("it is not unsent".to_owned()) };
            return Ok(Expected::Kinds(kind.iter().copied().collect()));
        };
        if let Some(expected) = batch.expected_of_all() {
            return Ok(expected);
        }
        let id = format!("{}-{place}", self.batch.nonce);
        let row = batch.rows.iter().find(|row| row.id == id).ok_or_else(|| format!("{} has no line {id}", batch.id))?;
        if row.prompt != prompt {
            return Err(format!("{id} was sent as {:?} instead of {prompt:?}", row.prompt));
        }
        Ok(batch.expected(row))
    }
}

fn ids<'b>(batches: &[&'b Batch]) -> Vec<&'b str> {
    batches.iter().map(|batch| batch.id.as_str()).collect()
}
