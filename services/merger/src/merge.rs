//! Writing the output: batch after batch, each fetched with its results, zipped, and written on; and beside it the file
//! of failed rows, in the same walk.

use std::fs::File;
use std::io::{Seek, Write};

use arrow::array::{Array, BinaryArray};
use model::price::{ListedPrice, Pricing};
use model::spec::{COST_COLUMN, FileFormat};
use model::table::FileKind;
use model::{BatchRef, Counts, JobFact, OutputRef, ResultFact, RowStatus, TableInfo};
use runtime::cpu;
use runtime::scratch::ScratchFile;
use runtime::store::ObjectWriter;
use tables::Error;
use tables::batch::{BatchReader, Codec};
use tables::csv::CsvOutput;
use tables::parquet_out::{BatchChunks, ParquetOutput};
use tables::result::{Answers, ResultWriter};

use crate::decide::{Contradiction, is_conserved, tokens};
use crate::failed::FailedRows;
use crate::zip::{Noting, Words, Zip};
use crate::{End, Merger};

/// So many attempts of a batch are open at a time: each is two files and a row group of results.
const SIDE_BY_SIDE: usize = 16;
/// Rows of last words that are written between two looks at other tasks.
const WORDS_AT_A_TIME: u64 = 4_096;

/// The output in the making.
enum Output {
    Csv(CsvOutput),
    Parquet(Box<ParquetOutput>),
}

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
        object.write(output.finish()?).await?;
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
        for (batch, attempts) in batches.iter().zip(attempts) {
            counts += &self.merge_batch(job, batch, attempts, files).await?;
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

    async fn merge_batch(
        &self,
        job: &JobFact,
        batch: &BatchRef,
        attempts: &[&ResultFact],
        files: &mut Files<'_>,
    ) -> anyhow::Result<Counts> {
        let data = self.context.store.fetch_verified(&batch.data, &self.context.scratch).await?;
        let mut spooled = None;
        let mut unfolded = attempts;
        while unfolded.len() > SIDE_BY_SIDE {
            let (earlier, latest) = unfolded.split_at(unfolded.len() - SIDE_BY_SIDE);
            spooled = Some(self.fold(job, batch, latest, (spooled, files.price)).await?);
            unfolded = earlier;
        }
        let (mut zip, _spooled) = self.side_by_side(batch, unfolded, (spooled, files.price)).await?;
        let mut groups = Groups::open(&files.output, data.try_clone()?, job.spec.details)?;
        loop {
            let Files { output, failed, .. } = files;
            let merged = cpu::run_blocking_section(|| groups.next(output, failed, &mut zip));
            let Some(encoded) = merged.inspect_err(|_| self.metrics.record_mismatch())? else { break };
            files.object.write(encoded).await?;
            files.failed.write().await?;
        }
        let counts = zip.finish().inspect_err(|_| self.metrics.record_mismatch())?;
        if counts.rows != batch.data.rows {
            self.metrics.record_mismatch();
            let what = format!("{} rows were merged of {}", counts.rows, batch.data.rows);
            return Err(Contradiction { batch: batch.id.number, what }.into());
        }
        tracing::debug!(job = %job.spec.id, batch = %batch.id, "merged");
        Ok(counts)
    }
}

impl Merger {
    /// Opens attempts side by side, with the last words of those behind them. The files last as long as what is returned.
    async fn side_by_side(
        &self,
        batch: &BatchRef,
        attempts: &[&ResultFact],
        (words, price): (Option<Folded>, Option<&ListedPrice>),
    ) -> anyhow::Result<(Zip, Vec<ScratchFile>)> {
        let mut spooled = Vec::with_capacity(attempts.len() + 1);
        for attempt in attempts {
            spooled.push(self.context.store.fetch_verified(&attempt.data, &self.context.scratch).await?);
        }
        let results = spooled.iter().map(ScratchFile::try_clone).collect::<Result<Vec<_>, _>>()?;
        let folded = match words {
            None => None,
            Some(Folded { rows, costs }) => {
                let words = Words { rows: rows.try_clone()?, costs: costs.try_clone()? };
                spooled.extend([rows, costs]);
                Some(words)
            }
        };
        Ok((Zip::open(batch.id.number, results, folded, price)?, spooled))
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
        let (mut zip, _spooled) = self.side_by_side(batch, latest, (behind, price)).await?;
        let reserve = || self.context.scratch.reserve(0)?.ok_or_else(|| anyhow::anyhow!("scratch is full"));
        let (mut file, mut costs) = (reserve()?, reserve()?);
        let mut writer = ResultWriter::new(&job.spec.id, first.id, self.codec)?;
        let mut left = first.data.rows;
        while left > 0 {
            let now = left.min(WORDS_AT_A_TIME);
            cpu::run_blocking_section(|| {
                let cost = zip.words(now, &mut writer).inspect_err(|_| self.metrics.record_mismatch())?;
                spool(&mut costs, &cost)?;
                spool(&mut file, &writer.take())
            })?;
            left -= now;
        }
        zip.finish().inspect_err(|_| self.metrics.record_mismatch())?;
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

/// Whether a CSV file of this job is gzipped: as the output's name says, else as the input is.
pub(crate) fn is_gzipped(output: &str, table: &TableInfo) -> bool {
    let by_name = FileFormat::from_name(output).map(|format| format == FileFormat::CsvGz);
    by_name.unwrap_or_else(|| table.csv.as_ref().is_some_and(|dialect| dialect.gzip))
}

impl Output {
    fn new(job: &JobFact, pricing: Option<&Pricing>, table: &TableInfo, codec: Codec) -> Result<Self, Error> {
        let mut added = job.spec.added_columns();
        if pricing.is_none() {
            // Planned before there were prices: a column of the caller's may have the name.
            added.retain(|column| *column != COST_COLUMN);
        }
        Ok(match table.kind {
            FileKind::Parquet => Self::Parquet(Box::new(ParquetOutput::new(table, &added, codec)?)),
            FileKind::Csv => {
                let mut output = CsvOutput::new(table, &added, is_gzipped(&job.spec.output.uri, table))?;
                output.header()?;
                Self::Csv(output)
            }
        })
    }

    fn finish(self) -> Result<Vec<u8>, Error> {
        match self {
            Self::Csv(output) => output.finish(),
            Self::Parquet(output) => output.finish(),
        }
    }
}

/// A batch's row groups, as the output wants them: records for CSV, column chunks for Parquet.
enum Groups {
    Records { reader: BatchReader, details: bool },
    Chunks { chunks: BatchChunks, next: usize },
}

impl Groups {
    fn open(output: &Output, data: File, details: bool) -> Result<Self, Error> {
        Ok(match output {
            Output::Csv(_) => Self::Records { reader: BatchReader::open(data)?, details },
            Output::Parquet(_) => Self::Chunks { chunks: BatchChunks::open(data)?, next: 0 },
        })
    }

    /// Merges the next row group and gives what is encoded; none behind the last. Failed rows go to their own file too.
    fn next(
        &mut self,
        output: &mut Output,
        failed: &mut FailedRows<'_>,
        zip: &mut Zip,
    ) -> Result<Option<Vec<u8>>, Error> {
        match (self, output) {
            (Self::Records { reader, details }, Output::Csv(output)) => {
                let Some(rows) = reader.next().transpose()? else { return Ok(None) };
                let records = rows.carried.column(0).as_any().downcast_ref::<BinaryArray>();
                let records = records.ok_or_else(|| Error::data("the batch data has no records"))?;
                for record in records.iter() {
                    let record = record.unwrap_or_default();
                    let row = zip.next_row()?;
                    let cells = row.cells(*details);
                    let cells: Vec<Option<&str>> = cells.iter().take(output.added()).map(Option::as_deref).collect();
                    output.row(record, &cells)?;
                    if row.status != RowStatus::Answered {
                        failed.push_record(record)?;
                    }
                }
                Ok(Some(output.take()))
            }
            (Self::Chunks { chunks, next }, Output::Parquet(output)) => {
                if *next >= chunks.groups() {
                    return Ok(None);
                }
                let mut answers = Noting::new(zip);
                output.append_group(chunks, *next, &mut answers)?;
                failed.push_rows(chunks, *next, &answers.failed)?;
                *next += 1;
                Ok(Some(output.take()))
            }
            _ => Err(Error::data("the batch is not of the output's format")),
        }
    }
}
