//! What the splitter decides: where one batch ends and the next begins, whether spec and table fit each other, which
//! batches of a split that died still count, and whose the output is. No IO.

use model::table::FileKind;
use model::{JobId, JobSpec, OutputClaim, Refusal, RefusalCode, TableInfo};

/// Where a batch must end at the latest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Rows of a batch, those that failed locally included.
    pub max_rows: u32,
    /// Encoded bytes of the rows that are sent.
    pub max_bytes: u64,
    /// Uncompressed bytes of the caller's columns.
    pub max_source_bytes: u64,
    /// Encoded bytes of one request.
    pub max_line_bytes: u64,
}

impl Limits {
    /// The tightest of the job's limits, the provider's and ours.
    #[must_use]
    pub fn tightest(spec: &JobSpec, provider_rows: u32, provider_bytes: u64, provider_line: u64, source: u64) -> Self {
        let max_bytes = spec.batch.max_bytes.min(provider_bytes);
        Self {
            max_rows: spec.batch.max_rows.min(provider_rows),
            max_bytes,
            max_source_bytes: source,
            max_line_bytes: provider_line.min(max_bytes),
        }
    }
}

/// One row's sizes, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowSize {
    /// Its encoded request with row number 0 in its custom id; none if it failed locally and isn't sent.
    pub encoded: Option<u64>,
    /// Its cells in the caller's columns.
    pub source: u64,
}

/// The batch that is being filled.
#[derive(Debug, Clone)]
pub struct Cutter {
    limits: Limits,
    filled: Filled,
}

/// How full a batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Filled {
    /// Rows.
    pub rows: u32,
    /// Rows that are sent.
    pub send_rows: u64,
    /// Exact encoded bytes of those.
    pub send_bytes: u64,
    /// Bytes of the caller's columns.
    pub source_bytes: u64,
}

impl Cutter {
    /// An empty batch.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, filled: Filled::default() }
    }

    /// Places the next row. `Some(filled)` means: the batch ended before this row, and the row begins the next one.
    pub fn place(&mut self, row: RowSize) -> Option<Filled> {
        let ended = if self.fits(row) { None } else { Some(std::mem::take(&mut self.filled)) };
        let encoded = self.encoded_here(row);
        self.filled.rows += 1;
        self.filled.send_rows += u64::from(encoded.is_some());
        self.filled.send_bytes += encoded.unwrap_or(0);
        self.filled.source_bytes += row.source;
        ended
    }

    /// The batch as it is filled now.
    #[must_use]
    pub fn filled(&self) -> Filled {
        self.filled
    }

    /// An empty batch takes any row: that a row is too large for any batch is decided before it gets here.
    fn fits(&self, row: RowSize) -> bool {
        self.filled.rows == 0
            || (self.filled.rows < self.limits.max_rows
                && self.filled.send_bytes + self.encoded_here(row).unwrap_or(0) <= self.limits.max_bytes
                && self.filled.source_bytes + row.source <= self.limits.max_source_bytes)
    }

    /// The row's encoded size at its place in this batch: its number stands in its custom id.
    fn encoded_here(&self, row: RowSize) -> Option<u64> {
        row.encoded.map(|bytes| bytes + u64::from(self.filled.rows.checked_ilog10().unwrap_or(0)))
    }
}

/// Checks what needs the input's columns: added columns must not clash with them, and the output's name must promise the
/// input's format.
///
/// # Errors
/// The refusal, which names the column or the ending.
pub fn check_table(spec: &JobSpec, table: &TableInfo) -> Result<(), Refusal> {
    if let Some(clash) = spec.added_columns().into_iter().find(|added| table.columns.iter().any(|c| c == added)) {
        return Err(Refusal::new(
            RefusalCode::ColumnClash,
            format!(
                "the input already has a column {clash:?}, which batchmill would add: rename it, or choose another \
                 response column"
            ),
        ));
    }
    let promised = model::spec::FileFormat::from_name(&spec.output.uri);
    let fits = promised.is_none_or(|format| format.is_csv() == (table.kind == FileKind::Csv));
    if fits {
        return Ok(());
    }
    let (input, ending) = match table.kind {
        FileKind::Csv => ("CSV", ".csv, .tsv or .csv.gz"),
        FileKind::Parquet => ("Parquet", ".parquet"),
    };
    Err(Refusal::new(
        RefusalCode::OutputFormat,
        format!(
            "the input is {input}, so the output {:?} must be too: give it a name that ends in {ending}",
            spec.output.uri
        ),
    ))
}

/// A batch data object that a split left, as its own metadata says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left<T> {
    /// Its batch number; only first attempts count here.
    pub number: u32,
    /// Its first input row.
    pub first_row: u64,
    /// Its rows.
    pub rows: u64,
    /// The object itself.
    pub object: T,
}

/// The unbroken chain of batches from row 0: what is durable of a split that died. Two splitters may both have left a
/// batch of one number; the first that continues the chain, in the order given, is taken, the rest is nobody's.
#[must_use]
pub fn durable_chain<T>(mut left: Vec<Left<T>>) -> Vec<Left<T>> {
    // By number, those of one number as they were given: then one pass finds the chain, however long it is.
    left.sort_by_key(|left| left.number);
    let mut chain: Vec<Left<T>> = Vec::new();
    let mut row = 0;
    let mut number = 1;
    for next in left {
        if next.number == number && next.first_row == row && next.rows > 0 {
            row += next.rows;
            number += 1;
            chain.push(next);
        }
    }
    chain
}

/// What to do about the output's ownership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ownership {
    /// It is this job's already.
    Ours,
    /// Win this claim, then look again if it was lost.
    Claim(u32),
    /// It is somebody else's.
    Refuse(Refusal),
}

/// The files that a job may write, each with what it is for: the output, and beside it its failed rows.
#[must_use]
pub fn written(spec: &JobSpec) -> [(String, Written); 2] {
    [(spec.output.uri.clone(), Written::Output), (spec.failed_rows_uri(), Written::FailedRows)]
}

/// What a file of a job is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// The answered file.
    Output,
    /// The rows that failed.
    FailedRows,
}

impl Written {
    /// The file as a refusal names it.
    fn describe(self, uri: &str) -> String {
        match self {
            Self::Output => uri.to_owned(),
            Self::FailedRows => format!("{uri}, where this job's failed rows would go,"),
        }
    }
}

/// Decides whose a file is that the job may write: from the latest claim on it (its number, its fact, and whether its job
/// has ended) and whether something lies there.
#[must_use]
pub fn ownership(
    job: &JobId,
    spec: &JobSpec,
    file: &(String, Written),
    latest: Option<(u32, &OutputClaim, bool)>,
    exists: bool,
) -> Ownership {
    let uri = file.1.describe(&file.0);
    let refuse = |message: String| Ownership::Refuse(Refusal::new(RefusalCode::OutputExists, message));
    let next = latest.map_or(1, |(n, ..)| n + 1);
    match latest {
        Some((_, claim, _)) if claim.job == *job => Ownership::Ours,
        Some((_, claim, false)) => refuse(format!(
            "{uri} is a file of job {}, which has not ended: let that job end first, end it with `batchmill \
             cancel`, or choose another place",
            claim.job
        )),
        _ if exists && !spec.output.overwrite => {
            refuse(format!("{uri} exists and is not this job's: move it away, choose another place, or say overwrite"))
        }
        _ => Ownership::Claim(next),
    }
}

#[cfg(test)]
mod tests;
