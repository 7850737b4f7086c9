//! Writing the output: batch after batch, each fetched with its results, zipped, and written on.

use std::fs::File;

use arrow::array::{Array, BinaryArray};
use model::spec::FileFormat;
use model::table::FileKind;
use model::{BatchRef, Counts, JobFact, OutputRef, ResultFact, TableInfo};
use runtime::cpu;
use runtime::store::ObjectWriter;
use tables::Error;
use tables::batch::{BatchReader, Codec};
use tables::csv::CsvOutput;
use tables::parquet_out::{BatchChunks, ParquetOutput};
use tables::result::Answers;

use crate::decide::{Contradiction, is_conserved, tokens};
use crate::zip::Zip;
use crate::{End, Merger};

/// The output in the making.
enum Output {
    Csv(CsvOutput),
    Parquet(Box<ParquetOutput>),
}

impl Merger {
    /// Writes the output of a covered plan.
    pub(crate) async fn merge(
        &self,
        job: &JobFact,
        rows: u64,
        batches: &[BatchRef],
        attempts: &[Vec<&ResultFact>],
    ) -> anyhow::Result<End> {
        let table =
            job.table.as_ref().ok_or_else(|| anyhow::anyhow!("job {} has a plan and no layout", job.spec.id))?;
        let mut object = self.context.locations.resolve(&job.spec.output.uri, &job.team)?.writer();
        let mut output = Output::new(job, table, Codec::for_table(table, self.codec))?;
        let mut counts = Counts::default();
        for (batch, attempts) in batches.iter().zip(attempts) {
            match self.merge_batch(job, batch, attempts, &mut output, &mut object).await {
                Ok(merged) => counts += &merged,
                Err(error) => {
                    object.abort().await;
                    return Err(error);
                }
            }
        }
        if !is_conserved(&counts, rows) {
            self.metrics.record_contradiction();
            object.abort().await;
            anyhow::bail!("invariant_violation: job {} planned {rows} rows and merged {counts:?}", job.spec.id);
        }
        object.write(output.finish()?).await?;
        let written = object.finish().await?;
        let output = OutputRef { uri: job.spec.output.uri.clone(), bytes: written.bytes, sha256: written.sha256 };
        Ok(End {
            batches: u32::try_from(batches.len())?,
            attempts: u32::try_from(attempts.iter().map(Vec::len).sum::<usize>())?,
            counts,
            tokens: tokens(attempts.iter().flatten().copied()),
            output: Some(output),
            refusal: None,
        })
    }

    async fn merge_batch(
        &self,
        job: &JobFact,
        batch: &BatchRef,
        attempts: &[&ResultFact],
        output: &mut Output,
        object: &mut ObjectWriter,
    ) -> anyhow::Result<Counts> {
        let (store, scratch) = (&self.context.store, &self.context.scratch);
        let data = store.fetch_verified(&batch.data, scratch).await?;
        let mut spooled = Vec::with_capacity(attempts.len());
        for attempt in attempts {
            spooled.push(store.fetch_verified(&attempt.data, scratch).await?);
        }
        let results = spooled.iter().map(|file| file.try_clone()).collect::<Result<Vec<_>, _>>()?;
        let mut zip = Zip::open(batch.id.number, results)?;
        let mut groups = Groups::open(output, data.try_clone()?, job.spec.details)?;
        loop {
            let merged = cpu::run_blocking_section(|| groups.next(output, &mut zip));
            let Some(encoded) = merged.inspect_err(|_| self.metrics.record_contradiction())? else { break };
            object.write(encoded).await?;
        }
        let counts = zip.finish()?;
        if counts.rows != batch.data.rows {
            self.metrics.record_contradiction();
            let what = format!("{} rows were merged of {}", counts.rows, batch.data.rows);
            return Err(Contradiction { batch: batch.id.number, what }.into());
        }
        tracing::debug!(job = %job.spec.id, batch = %batch.id, "merged");
        Ok(counts)
    }
}

impl Output {
    fn new(job: &JobFact, table: &TableInfo, codec: Codec) -> Result<Self, Error> {
        let added = job.spec.added_columns();
        Ok(match table.kind {
            FileKind::Parquet => Self::Parquet(Box::new(ParquetOutput::new(table, &added, codec)?)),
            FileKind::Csv => {
                let by_name = FileFormat::from_name(&job.spec.output.uri).map(|format| format == FileFormat::CsvGz);
                let as_input = table.csv.as_ref().is_some_and(|dialect| dialect.gzip);
                let mut output = CsvOutput::new(table, &added, by_name.unwrap_or(as_input))?;
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

    /// Merges the next row group and gives what is encoded; none behind the last.
    fn next(&mut self, output: &mut Output, zip: &mut Zip) -> Result<Option<Vec<u8>>, Error> {
        match (self, output) {
            (Self::Records { reader, details }, Output::Csv(output)) => {
                let Some(rows) = reader.next().transpose()? else { return Ok(None) };
                let records = rows.carried.column(0).as_any().downcast_ref::<BinaryArray>();
                let records = records.ok_or_else(|| Error::data("the batch data has no records"))?;
                for record in records.iter() {
                    let cells = zip.next_row()?.cells(*details);
                    let cells: Vec<Option<&str>> = cells.iter().map(Option::as_deref).collect();
                    output.row(record.unwrap_or_default(), &cells)?;
                }
                Ok(Some(output.take()))
            }
            (Self::Chunks { chunks, next }, Output::Parquet(output)) => {
                if *next >= chunks.groups() {
                    return Ok(None);
                }
                output.append_group(chunks, *next, zip)?;
                *next += 1;
                Ok(Some(output.take()))
            }
            _ => Err(Error::data("the batch is not of the output's format")),
        }
    }
}
