//! From a row of the caller's table to one encoded request: cells, template, encoder.
//!
//! The splitter asks only for the size, the dispatcher for the bytes, and the poller for the size again when rows are
//! tried once more. All three must come to the same result for the same row, or a batch would exceed its limits or lose
//! its place in the file: so there is one piece of code for it.
//!
//! [`Jobs`] keeps these, and what else the rooms behind the splitter need of a job, by its facts.
//!
//! A row that can't become a request is a [`LocalFailure`]: it is carried through the pipeline, never sent, and fails
//! alone.

mod calls;
mod first;
mod job;

use arrow::record_batch::RecordBatch;
use model::{CustomId, FailureKind, JobSpec, Refusal, RefusalCode, TableInfo, Value};
use prompts::{Part, Template};
use providers::{Encode, Provider};
use tables::csv::Cells;
use tables::{Chunk, RowValues};

pub use calls::measured;
pub use job::{Job, Jobs, Unknown};

/// Why a row can't be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalFailure {
    /// The kind that the row fails with.
    pub kind: FailureKind,
    /// What is wrong, for people.
    pub message: String,
}

/// Makes the requests of one job.
pub struct Requests {
    template: Template,
    encoder: Box<dyn Encode>,
    /// The template's own text, encoded.
    literals: Vec<Vec<u8>>,
    values: RowValues,
    max_line_bytes: u64,
}

impl Requests {
    /// Prepares a job's requests over its table. `max_line_bytes` bounds one encoded request.
    ///
    /// # Errors
    /// The refusal when the template does not parse or names a column that the table lacks, or when the parameters
    /// can't be sent.
    pub fn new(
        spec: &JobSpec,
        table: &TableInfo,
        provider: &dyn Provider,
        max_line_bytes: u64,
    ) -> Result<Self, Refusal> {
        let template = Template::compile(&spec.request, &table.columns).map_err(|error| error.refusal())?;
        let invalid = |error: providers::EncodeError| Refusal::new(RefusalCode::SpecInvalid, error.to_string());
        let encoder = provider.encoder(&spec.request).map_err(invalid)?;
        let values = RowValues::new(table, template.columns_used())
            .map_err(|error| Refusal::new(RefusalCode::InputCorrupt, error.to_string()))?;
        let encoded = |literal: &str| {
            let mut encoded = Vec::new();
            encoder.text(literal, &mut encoded);
            encoded
        };
        let literals = template.literals().map(encoded).collect();
        Ok(Self { template, encoder, literals, values, max_line_bytes })
    }

    /// The requests of some carried rows. What it needs for one row is used again for the next.
    #[must_use]
    pub fn of<'a>(&'a self, rows: &'a RecordBatch) -> RowRequests<'a> {
        RowRequests { requests: self, rows, cells: None, values: Vec::new(), scratch: String::new() }
    }

    /// The requests of a chunk that was just read.
    #[must_use]
    pub fn of_chunk<'a>(&'a self, chunk: &'a Chunk) -> RowRequests<'a> {
        RowRequests { cells: chunk.cells.as_deref(), ..self.of(&chunk.rows) }
    }

    /// The exact size of a row's encoded request, in bytes, if it was sent before: no limit can stop it any more.
    ///
    /// # Errors
    /// When the row can't be rendered, which it could before.
    pub fn sent_size(&self, rows: &RecordBatch, row: usize, id: &CustomId<'_>) -> Result<u64, LocalFailure> {
        self.of(rows).encoded_len(row, id)
    }
}

/// The requests of some carried rows.
pub struct RowRequests<'a> {
    requests: &'a Requests,
    rows: &'a RecordBatch,
    /// Where the cells are, if that is known.
    cells: Option<&'a Cells>,
    values: Vec<Value<'a>>,
    scratch: String,
}

impl RowRequests<'_> {
    /// The exact size of a row's encoded request under this custom id, in bytes.
    ///
    /// # Errors
    /// The reason why the row can't be sent.
    pub fn size(&mut self, row: usize, id: &CustomId<'_>) -> Result<u64, LocalFailure> {
        let (bytes, most) = (self.encoded_len(row, id)?, self.requests.max_line_bytes);
        // Room for the longest row number, so that a row that fits here fits at any place of a batch.
        if bytes + 10 > most {
            let message = format!("the encoded request is {bytes} bytes: at most {most} can be sent");
            return Err(LocalFailure { kind: FailureKind::TooLarge, message });
        }
        Ok(bytes)
    }

    /// Appends a row's encoded request, with its line feed, to `out`.
    ///
    /// # Errors
    /// The reason why the row can't be sent; `out` is as it was.
    pub fn encode(&mut self, row: usize, id: &CustomId<'_>, out: &mut Vec<u8>) -> Result<(), LocalFailure> {
        let (before, Requests { encoder, literals, .. }) = (out.len(), self.requests);
        encoder.begin(id, out);
        let fed = self.feed(row, |part| match part {
            Part::Literal(number) => out.extend_from_slice(&literals[number]),
            Part::Text(text) => encoder.text(text, out),
        });
        match fed {
            Ok(()) => encoder.end(out),
            Err(_) => out.truncate(before),
        }
        fed
    }

    fn encoded_len(&mut self, row: usize, id: &CustomId<'_>) -> Result<u64, LocalFailure> {
        let Requests { encoder, literals, .. } = self.requests;
        let mut bytes = encoder.frame_len(id);
        self.feed(row, |part| {
            bytes += match part {
                Part::Literal(number) => literals[number].len() as u64,
                Part::Text(text) => encoder.text_len(text),
            };
        })?;
        Ok(bytes)
    }

    /// Gives the row's prompt in pieces.
    fn feed(&mut self, row: usize, take: impl FnMut(Part<'_>)) -> Result<(), LocalFailure> {
        let requests = self.requests;
        let found = match self.cells {
            Some(cells) => requests.values.values_of(cells, row, &mut self.values),
            None => requests.values.values(self.rows, row, &mut self.values),
        };
        found.map_err(|error| LocalFailure { kind: FailureKind::BadRow, message: error.to_string() })?;
        let fed = requests
            .template
            .feed(&self.values, &mut self.scratch, take)
            .map_err(|error| LocalFailure { kind: error.kind(), message: error.to_string() })?;
        if fed.blank {
            let message = "the rendered prompt is empty".to_owned();
            return Err(LocalFailure { kind: FailureKind::EmptyPrompt, message });
        }
        Ok(())
    }
}
