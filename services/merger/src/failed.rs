//! The failed rows, as a file of the input's format beside the output, ready to be run again.
//!
//! What it promises: the caller's own columns or records, exactly and nothing else (same dialect, header, byte order mark,
//! quoting), only the rows that failed, in their order; a malformed row comes back as it was. No row failed, no file.
//! The bytes are a function of the facts. It lies in the output's folder, under a name that the splitter claimed together
//! with the output, so no other job's file is ever written over.

use model::table::FileKind;
use model::{JobFact, OutputRef, TableInfo};
use runtime::Locations;
use runtime::locations::{Location, ReadError};
use runtime::store::ObjectWriter;
use tables::Error;
use tables::batch::Codec;
use tables::csv::CsvOutput;
use tables::parquet_out::{BatchGroup, RowsOutput};

use crate::groups::is_gzipped;

/// The failed rows of one job.
pub(crate) struct FailedRows<'a> {
    job: &'a JobFact,
    table: &'a TableInfo,
    codec: Codec,
    location: Location,
    /// Begun with the first row.
    file: Option<Writer>,
    object: Option<ObjectWriter>,
    rows: u64,
}

enum Writer {
    Csv(Box<CsvOutput>),
    Parquet(Box<RowsOutput>),
}

impl<'a> FailedRows<'a> {
    pub(crate) fn new(
        job: &'a JobFact,
        table: &'a TableInfo,
        codec: Codec,
        locations: &Locations,
    ) -> anyhow::Result<Self> {
        let location = locations.resolve(&job.spec.failed_rows_uri(), &job.team)?;
        Ok(Self { job, table, codec, location, file: None, object: None, rows: 0 })
    }

    /// How many rows were added.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// Adds a record of a CSV file.
    pub(crate) fn push_record(&mut self, record: &[u8]) -> Result<(), Error> {
        let Writer::Csv(output) = self.begun()? else {
            return Err(Error::data("a record is not of the input's format"));
        };
        output.row(record, &[])?;
        self.rows += 1;
        Ok(())
    }

    /// Adds rows of a row group, by their places in it.
    pub(crate) fn push_rows(&mut self, group: &BatchGroup, rows: &[u32]) -> Result<(), Error> {
        if rows.is_empty() {
            return Ok(());
        }
        let Writer::Parquet(output) = self.begun()? else {
            return Err(Error::data("a row group is not of the input's format"));
        };
        output.push(&group.select(rows)?)?;
        self.rows += rows.len() as u64;
        Ok(())
    }

    fn begun(&mut self) -> Result<&mut Writer, Error> {
        let begun = match self.file.take() {
            Some(writer) => writer,
            None => self.begin()?,
        };
        Ok(self.file.insert(begun))
    }

    fn begin(&self) -> Result<Writer, Error> {
        Ok(match self.table.kind {
            FileKind::Parquet => Writer::Parquet(Box::new(RowsOutput::new(self.table, self.codec)?)),
            FileKind::Csv => {
                let gzip = is_gzipped(&self.job.spec.output.uri, self.table);
                let mut output = CsvOutput::new(self.table, &[], gzip)?;
                output.header()?;
                Writer::Csv(Box::new(output))
            }
        })
    }

    /// Hands on what is encoded so far.
    pub(crate) async fn write(&mut self) -> anyhow::Result<()> {
        let encoded = match &mut self.file {
            None => return Ok(()),
            Some(Writer::Csv(output)) => output.take(),
            Some(Writer::Parquet(output)) => output.take(),
        };
        if !encoded.is_empty() {
            self.object.get_or_insert_with(|| self.location.writer()).write(encoded).await?;
        }
        Ok(())
    }

    /// Makes the file visible, whole; none if no row failed. What an earlier job left in its place, and this one may
    /// overwrite, is removed then: it would be taken for this job's.
    pub(crate) async fn finish(mut self) -> anyhow::Result<Option<OutputRef>> {
        let last = match self.file.take() {
            None => {
                remove_what_was_there(self.job, &self.location).await?;
                return Ok(None);
            }
            Some(Writer::Csv(output)) => output.finish()?,
            Some(Writer::Parquet(output)) => output.finish()?,
        };
        let mut object = self.object.take().unwrap_or_else(|| self.location.writer());
        object.write(last).await?;
        let written = object.finish().await?;
        let uri = self.location.uri().to_owned();
        Ok(Some(OutputRef { uri, bytes: written.bytes, checksum: written.checksum }))
    }

    /// Gives the file up.
    pub(crate) async fn abort(self) {
        if let Some(object) = self.object {
            object.abort().await;
        }
    }
}

/// Removes what an earlier job left, if this one may replace its files.
async fn remove_what_was_there(job: &JobFact, location: &Location) -> Result<(), ReadError> {
    if !job.spec.output.overwrite {
        return Ok(());
    }
    match location.remove().await {
        Err(error @ ReadError::Denied { .. }) => {
            tracing::warn!(job = %job.spec.id, %error, "failed rows of an earlier job stay beside the output");
            Ok(())
        }
        removed => removed,
    }
}
