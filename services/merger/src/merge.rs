//! Writing the output: batch after batch, each fetched with its results, zipped, and written on; and beside it the file
//! of failed rows, in the same walk.

use std::io::{Seek, Write};

use model::price::{ListedPrice, Pricing};
use model::{BatchRef, Counts, JobFact, OutputRef, ResultFact};
use runtime::cpu;
use runtime::scratch::ScratchFile;
use runtime::store::{Ahead, ObjectWriter, Passing};
use tables::Source;
use tables::batch::Codec;
use tables::result::ResultWriter;

use crate::decide::{Contradiction, agrees, is_conserved, tokens};
use crate::failed::FailedRows;
use crate::groups::{Groups, Output};
use crate::source::Data;
use crate::zip::{Words, Zip};
use crate::{End, Merger};

/// So many attempts of a batch are open at a time: each is two files and a row group of results.
const SIDE_BY_SIDE: usize = 16;
/// Rows of last words that are written between two looks at other tasks.
const WORDS_AT_A_TIME: u64 = 4_096;

/// All that a merge writes.
struct Files<'a> {
    output: Output,
    object: ObjectWriter,
    failed: FailedRows<'a>,
    /// What tokens cost.
    price: Option<&'a ListedPrice>,
}

/// The last words of attempts, on scratch disk, and what each row cost.
struct Folded {
    rows: ScratchFile,
    costs: ScratchFile,
}

/// A batch with the facts of its attempts.
type Attempted<'a> = (&'a BatchRef, &'a Vec<&'a ResultFact>);

impl Merger {
    /// Writes the output of a covered plan.
    pub(crate) async fn merge(
        &self,
        job: &JobFact,
        (rows, pricing): (u64, Option<&Pricing>),
        batches: &[BatchRef],
        attempts: &[Vec<&ResultFact>],
    ) -> anyhow::Result<End> {
        let table =
            job.table.as_ref().ok_or_else(|| anyhow::anyhow!("job {} has a plan and no layout", job.spec.id))?;
        let (locations, codec) = (&self.context.locations, Codec::for_table(table, self.codec));
        let mut files = Files {
            output: Output::new(job, pricing, table, codec)?,
            object: locations.resolve(&job.spec.output.uri, &job.team)?.writer(),
            failed: FailedRows::new(job, table, codec, locations)?,
            price: pricing.and_then(Pricing::listed),
        };
        let began = self.context.clock.monotonic();
        let counts = match self.merge_batches(job, rows, batches, attempts, &mut files).await {
            Ok(counts) => counts,
            Err(error) => {
                files.object.abort().await;
                files.failed.abort().await;
                return Err(error);
            }
        };
        let Files { output, mut object, failed, price } = files;
        let failed_rows = failed.finish().await?;
        for piece in output.finish()? {
            object.write(piece).await?;
        }
        faults::crash_point!(MergerWritten);
        let written = object.finish().await?;
        self.metrics.record_merge(self.context.clock.monotonic().saturating_sub(began));
        let output = OutputRef { uri: job.spec.output.uri.clone(), bytes: written.bytes, checksum: written.checksum };
        Ok(End {
            batches: u32::try_from(batches.len())?,
            attempts: u32::try_from(attempts.iter().map(Vec::len).sum::<usize>())?,
            counts,
            planned_rows: rows,
            tokens: tokens(attempts.iter().flatten().copied()),
            cost: price.map(|price| price.job(attempts.iter().flatten().copied())),
            output: Some(output),
            failed_rows,
            refusal: None,
        })
    }

    /// Merges all batches; each row must have come out once, and each failed one in both files.
    async fn merge_batches(
        &self,
        job: &JobFact,
        rows: u64,
        batches: &[BatchRef],
        attempts: &[Vec<&ResultFact>],
        files: &mut Files<'_>,
    ) -> anyhow::Result<Counts> {
        let mut counts = Counts::default();
        let mut ahead = None;
        for (index, (batch, attempts_of)) in batches.iter().zip(attempts).enumerate() {
            let fetched = match Option::take(&mut ahead).map(Ahead::files) {
                Some(fetched) => fetched.await,
                None => None,
            };
            let next = batches.get(index + 1).zip(attempts.get(index + 1));
            let fetched = fetched.unwrap_or_default();
            let merged = self.merge_batch(job, batch, (attempts_of, fetched, next), files).await;
            let (merged, begun) = match merged {
                Ok(merged) => merged,
                Err(error) => return Err(self.explain(error, batch, attempts_of).await),
            };
            counts += &merged;
            ahead = begun;
        }
        let failed = files.failed.rows();
        if !is_conserved(&counts, rows) || failed != counts.failed_rows() {
            self.metrics.record_mismatch();
            let id = &job.spec.id;
            anyhow::bail!(
                "invariant_violation: job {id} planned {rows} rows and merged {counts:?}, {failed} of them as failed rows"
            );
        }
        Ok(counts)
    }

    /// Begins to fetch a batch with its results while the one before it is merged: if it is two files, as most are.
    fn fetch_ahead(&self, (batch, attempts): Attempted<'_>) -> Option<Ahead> {
        let [only] = &attempts[..] else { return None };
        self.context.store.fetch_ahead(vec![batch.data.clone(), only.data.clone()], &self.context.scratch)
    }

    /// What to say of a batch that could not be merged. Where data is checked only as it passes, an error may come from data that
    /// is not what its fact names; if so, that is what to say. If not, facts and data contradict one another.
    async fn explain(&self, error: anyhow::Error, batch: &BatchRef, attempts: &[&ResultFact]) -> anyhow::Error {
        if !error.chain().any(|cause| cause.is::<tables::Error>() || cause.is::<Contradiction>()) {
            return error;
        }
        if self.context.store.checks_in_passing() {
            for data in attempts.iter().map(|attempt| &attempt.data).chain([&batch.data]) {
                if let Err(damage) = self.context.store.fetch_verified(data, &self.context.scratch).await {
                    return damage.into();
                }
            }
        }
        self.metrics.record_mismatch();
        error
    }

    /// Merges a batch; `fetched` are its data and its results, if they were fetched ahead. Those of the next are begun to be
    /// fetched only when this batch has all of its own: it must never wait for the scratch space that the next one took.
    async fn merge_batch(
        &self,
        job: &JobFact,
        batch: &BatchRef,
        (attempts, fetched, next): (&[&ResultFact], Vec<ScratchFile>, Option<Attempted<'_>>),
        files: &mut Files<'_>,
    ) -> anyhow::Result<(Counts, Option<Ahead>)> {
        let mut fetched = fetched.into_iter().map(Passing::checked);
        let data = match fetched.next() {
            Some(data) => data,
            None => self.context.store.open_data(&batch.data, &self.context.scratch).await?,
        };
        let mut spooled = None;
        let mut unfolded = attempts;
        while unfolded.len() > SIDE_BY_SIDE {
            let (earlier, latest) = unfolded.split_at(unfolded.len() - SIDE_BY_SIDE);
            spooled = Some(self.fold(job, batch, latest, (spooled, files.price)).await?);
            unfolded = earlier;
        }
        let first_row = Some(batch.first_row);
        let words = (spooled, files.price);
        let (mut zip, _spooled) = self.side_by_side(batch, first_row, (unfolded, fetched.collect()), words).await?;
        let ahead = next.and_then(|next| self.fetch_ahead(next));
        let mut groups = Groups::open(&files.output, Data::new(data))?;
        loop {
            let Files { output, failed, .. } = files;
            let merged = cpu::run_blocking_section(|| groups.next(output, failed, &mut zip));
            let Some(encoded) = merged? else { break };
            for piece in encoded {
                files.object.write(piece).await?;
            }
            files.failed.write().await?;
        }
        cpu::run_blocking_section(|| groups.finish())?;
        let counts = cpu::run_blocking_section(|| zip.finish())?;
        if counts.rows != batch.data.rows || !agrees(&counts, attempts) {
            let what = format!("{counts:?} were merged of {} rows, against what its facts say", batch.data.rows);
            return Err(Contradiction { batch: batch.id.number, what }.into());
        }
        tracing::debug!(job = %job.spec.id, batch = %batch.id, "merged");
        Ok((counts, ahead))
    }
}

impl Merger {
    /// Opens attempts side by side, with the last words of those behind them; with `first_row`, the first has all rows of
    /// the batch. The last words last as long as what is returned.
    async fn side_by_side(
        &self,
        batch: &BatchRef,
        first_row: Option<u64>,
        (attempts, mut fetched): (&[&ResultFact], Vec<Passing>),
        (words, price): (Option<Folded>, Option<&ListedPrice>),
    ) -> anyhow::Result<(Zip, Vec<ScratchFile>)> {
        for attempt in attempts.iter().skip(fetched.len()) {
            fetched.push(self.context.store.open_data(&attempt.data, &self.context.scratch).await?);
        }
        let results = fetched.into_iter().map(|data| Box::new(Data::new(data)) as Box<dyn Source>).collect();
        let (mut words_of, mut spooled) = (None, Vec::new());
        if let Some(Folded { rows, costs }) = words {
            words_of = Some(Words { rows: rows.try_clone()?, costs: costs.try_clone()? });
            spooled.extend([rows, costs]);
        }
        Ok((Zip::open((batch.id.number, first_row), results, words_of, price)?, spooled))
    }

    /// Merges a batch's latest attempts into one file of last words.
    async fn fold(
        &self,
        job: &JobFact,
        batch: &BatchRef,
        latest: &[&ResultFact],
        (behind, price): (Option<Folded>, Option<&ListedPrice>),
    ) -> anyhow::Result<Folded> {
        let Some(first) = latest.first() else { anyhow::bail!("there is nothing to fold") };
        let (mut zip, _spooled) = self.side_by_side(batch, None, (latest, Vec::new()), (behind, price)).await?;
        let reserve = || self.context.scratch.reserve(0)?.ok_or_else(|| anyhow::anyhow!("scratch is full"));
        let (mut file, mut costs) = (reserve()?, reserve()?);
        let mut writer = ResultWriter::new(&job.spec.id, first.id, self.codec)?;
        let mut left = first.data.rows;
        while left > 0 {
            let now = left.min(WORDS_AT_A_TIME);
            cpu::run_blocking_section(|| {
                let cost = zip.words(now, &mut writer)?;
                spool(&mut costs, &cost)?;
                spool(&mut file, &writer.take())
            })?;
            left -= now;
        }
        zip.finish()?;
        spool(&mut file, &writer.finish()?)?;
        file.file().rewind()?;
        costs.file().rewind()?;
        Ok(Folded { rows: file, costs })
    }
}

fn spool(file: &mut ScratchFile, bytes: &[u8]) -> anyhow::Result<()> {
    anyhow::ensure!(file.grow(bytes.len() as u64), "scratch is full");
    Ok(file.file().write_all(bytes)?)
}
