//! Callers' files: made from the plan, and read back row by row.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// How a row's request goes before it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowKind {
    /// It is sent.
    Plain,
    /// Its prompt is empty.
    Empty,
    /// It is malformed (CSV only).
    Ragged,
}

/// A file: which rows, of which version.
#[derive(Clone, Debug)]
pub struct Table {
    /// Whether it is Parquet.
    pub parquet: bool,
    /// The job, which is part of each cell.
    pub job: usize,
    /// The version, which is part of each cell. All have the same size.
    pub version: u8,
    /// The rows.
    pub rows: Vec<RowKind>,
}

/// A row of an answered file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The response, if there is one.
    pub response: Option<String>,
    /// The error, if there is one.
    pub error: Option<String>,
}

impl Table {
    /// A row's prompt: its title.
    #[must_use]
    pub fn prompt(&self, row: usize) -> String {
        match self.rows[row] {
            RowKind::Empty => String::new(),
            _ => format!("job {} \"row\" {row:03}, version {}", self.job, self.version),
        }
    }

    fn record(&self, row: usize) -> String {
        let quoted = self.prompt(row).replace('"', "\"\"");
        match self.rows[row] {
            RowKind::Plain => format!("{row},\"{quoted}\""),
            RowKind::Empty => format!("{row},"),
            RowKind::Ragged => format!("{row},\"{quoted}\",one too many"),
        }
    }

    /// The file's bytes.
    ///
    /// # Panics
    /// Never: the table is sound.
    #[must_use]
    #[allow(clippy::expect_used)] // a test's own set-up
    pub fn bytes(&self) -> Vec<u8> {
        if !self.parquet {
            let rows = (0..self.rows.len()).map(|row| self.record(row) + "\n");
            return std::iter::once("id,title\n".to_owned()).chain(rows).collect::<String>().into_bytes();
        }
        let fields = vec![Field::new("id", DataType::Int64, false), Field::new("title", DataType::Utf8, false)];
        let schema = Arc::new(Schema::new(fields));
        let ids = Int64Array::from_iter_values((0..self.rows.len()).map(|row| row as i64));
        let titles = StringArray::from_iter_values((0..self.rows.len()).map(|row| self.prompt(row)));
        let columns: Vec<ArrayRef> = vec![Arc::new(ids), Arc::new(titles)];
        let mut writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), None).expect("a writer in memory");
        writer.write(&RecordBatch::try_new(schema, columns).expect("two columns")).expect("written");
        writer.into_inner().expect("closed")
    }

    /// Reads an answered file and checks that every cell of the caller's is as it was.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(&self, output: &[u8], details: bool) -> Result<Vec<Answered>, String> {
        let rows = if self.parquet { self.read_parquet(output)? } else { self.read_csv(output, details)? };
        if rows.len() != self.rows.len() {
            return Err(format!("the output has {} rows, the input {}", rows.len(), self.rows.len()));
        }
        Ok(rows)
    }

    fn read_csv(&self, output: &[u8], details: bool) -> Result<Vec<Answered>, String> {
        let text = std::str::from_utf8(output).map_err(|error| error.to_string())?;
        let rest = text.strip_prefix("id,title,response,error").ok_or("the header is another")?;
        let (head, mut rest) = rest.split_once('\n').ok_or("the header has no end")?;
        if head.is_empty() == details {
            return Err(format!("the header goes on with {head:?}"));
        }
        let mut rows = Vec::new();
        while !rest.is_empty() {
            let row = rows.len();
            let own =
                if row < self.rows.len() { self.record(row) } else { return Err("there are rows too many".to_owned()) };
            rest = rest
                .strip_prefix(own.as_str())
                .ok_or_else(|| format!("row {row} is not {own:?}: {:?}", short(rest)))?;
            let mut cells = Vec::new();
            while let Some(after) = rest.strip_prefix(',') {
                let (cell, after) = cell(after)?;
                cells.push(cell);
                rest = after;
            }
            rest = rest.strip_prefix('\n').ok_or_else(|| format!("row {row} does not end: {:?}", short(rest)))?;
            if cells.len() != if details { 12 } else { 2 } {
                return Err(format!("row {row} has {} added cells", cells.len()));
            }
            let mut cells = cells.into_iter();
            rows.push(Answered { response: cells.next().flatten(), error: cells.next().flatten() });
        }
        Ok(rows)
    }

    fn read_parquet(&self, output: &[u8]) -> Result<Vec<Answered>, String> {
        let said = |error: &dyn std::fmt::Display| error.to_string();
        let bytes = bytes::Bytes::copy_from_slice(output);
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|error| said(&error))?;
        let mut rows: Vec<Answered> = Vec::new();
        for batch in reader.build().map_err(|error| said(&error))? {
            let batch = batch.map_err(|error| said(&error))?;
            let text = |name: &str| {
                let column =
                    batch.column_by_name(name).and_then(|column| column.as_any().downcast_ref::<StringArray>());
                column.cloned().ok_or_else(|| format!("there is no column {name}"))
            };
            let ids = batch.column(0).as_any().downcast_ref::<Int64Array>().ok_or("the ids are no numbers")?;
            let (titles, responses, errors) = (text("title")?, text("response")?, text("error")?);
            for at in 0..batch.num_rows() {
                let row = rows.len();
                if row >= self.rows.len() || ids.value(at) != row as i64 || titles.value(at) != self.prompt(row) {
                    return Err(format!("row {row} is {} {:?}", ids.value(at), titles.value(at)));
                }
                let cell = |of: &StringArray| of.is_valid(at).then(|| of.value(at).to_owned());
                rows.push(Answered { response: cell(&responses), error: cell(&errors) });
            }
        }
        Ok(rows)
    }
}

fn short(text: &str) -> String {
    text.chars().take(80).collect()
}

/// The next cell and what follows it. An empty cell without quotes is none.
fn cell(text: &str) -> Result<(Option<String>, &str), String> {
    let Some(mut rest) = text.strip_prefix('"') else {
        let end = text.find([',', '\n']).ok_or("a cell does not end")?;
        return Ok(((end > 0).then(|| text[..end].to_owned()), &text[end..]));
    };
    let mut value = String::new();
    loop {
        let (part, after) = rest.split_once('"').ok_or("a quote does not end")?;
        value.push_str(part);
        match after.strip_prefix('"') {
            Some(more) => {
                value.push('"');
                rest = more;
            }
            None => return Ok((Some(value), after)),
        }
    }
}
