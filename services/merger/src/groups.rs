//! The output in the making, and how a row group of a batch gets into it.

use arrow::array::{Array, BinaryViewArray};
use bytes::Bytes;
use model::price::Pricing;
use model::spec::{COST_COLUMN, FileFormat};
use model::table::FileKind;
use model::{JobFact, RowStatus, TableInfo};
use tables::batch::{Codec, RecordReader};
use tables::csv::CsvOutput;
use tables::parquet_out::{BatchChunks, BatchGroup, ParquetOutput};
use tables::result::Answers;
use tables::{Error, Source};

use crate::failed::FailedRows;
use crate::zip::{Noting, Vouched, Zip};

/// So much of a CSV output is handed on at a time: a row group of short records may have long answers.
const PIECE_BYTES: usize = 2 << 20;

/// The output in the making.
pub(crate) enum Output {
    Csv(CsvOutput),
    Parquet(Box<ParquetOutput>),
}

/// Whether a CSV file of this job is gzipped: as the output's name says, else as the input is.
pub(crate) fn is_gzipped(output: &str, table: &TableInfo) -> bool {
    let by_name = FileFormat::from_name(output).map(|format| format == FileFormat::CsvGz);
    by_name.unwrap_or_else(|| table.csv.as_ref().is_some_and(|dialect| dialect.gzip))
}

impl Output {
    pub(crate) fn new(
        job: &JobFact,
        pricing: Option<&Pricing>,
        table: &TableInfo,
        codec: Codec,
    ) -> Result<Self, Error> {
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

    pub(crate) fn finish(self) -> Result<Vec<Bytes>, Error> {
        match self {
            Self::Csv(output) => Ok(vec![output.finish()?.into()]),
            Self::Parquet(output) => output.finish(),
        }
    }
}

/// A batch's row groups, as the output wants them: records for CSV, column chunks for Parquet.
pub(crate) enum Groups {
    Records {
        reader: RecordReader,
        /// The records at hand, and the next of them.
        group: Option<(BinaryViewArray, usize)>,
    },
    Chunks(BatchChunks),
}

impl Groups {
    pub(crate) fn open(output: &Output, data: impl Source + 'static) -> Result<Self, Error> {
        Ok(match output {
            Output::Csv(_) => Self::Records { reader: RecordReader::open(data)?, group: None },
            Output::Parquet(_) => Self::Chunks(BatchChunks::open(data)?),
        })
    }

    /// Merges the next row group, or of one whose answers are long a part, and gives what is encoded; none behind the last.
    /// Failed rows go to their own file too.
    pub(crate) fn next(
        &mut self,
        output: &mut Output,
        failed: &mut FailedRows<'_>,
        zip: &mut Zip,
    ) -> Result<Option<Vec<Bytes>>, Error> {
        match (self, output) {
            (Self::Records { reader, group }, Output::Csv(output)) => {
                let (records, mut next) = match group.take() {
                    Some(group) => group,
                    None => match reader.next().transpose()? {
                        Some(records) => (records, 0),
                        None => return Ok(None),
                    },
                };
                while next < records.len() && output.pending() < PIECE_BYTES {
                    let record = records.value(next);
                    let row = zip.next_row()?;
                    output.answered(record, &row)?;
                    if row.status != RowStatus::Answered {
                        failed.push_record(record)?;
                    }
                    next += 1;
                }
                if next < records.len() {
                    *group = Some((records, next));
                }
                Ok(Some(vec![output.take().into()]))
            }
            (Self::Chunks(chunks), Output::Parquet(output)) => {
                let Some(group) = chunks.next_group()? else { return Ok(None) };
                let rows = append(output, &group, zip)?;
                failed.push_rows(&group, &rows)?;
                Ok(Some(output.take()))
            }
            _ => Err(Error::data("the batch is not of the output's format")),
        }
    }

    /// To be called behind the last row group. An error if the batch data was not what its fact names.
    pub(crate) fn finish(&mut self) -> Result<(), Error> {
        match self {
            Self::Records { reader, .. } => reader.finish(),
            Self::Chunks(chunks) => chunks.finish(),
        }
    }
}

/// Appends a row group to a Parquet output and gives the places of the rows that failed. The answers are copied undecoded
/// where they can be.
fn append(output: &mut ParquetOutput, group: &BatchGroup, zip: &mut Zip) -> Result<Vec<u32>, Error> {
    if !zip.lines_up(group.rows()?) {
        let mut answers = Noting::new(zip);
        output.append_group(group, &mut answers)?;
        return Ok(answers.failed);
    }
    let Vouched { ends, failed, costs } = zip.vouch()?;
    output.append_copied(group, &ends, &costs)?;
    Ok(failed)
}

#[cfg(test)]
mod tests;
