//! A carried row as the values that a template sees.
//!
//! Only the columns that the template names are looked at: the others of a wide row cost nothing.

use arrow::array::{BinaryArray, BinaryViewArray};
use arrow::record_batch::RecordBatch;
use model::table::{CsvDialect, FileKind};
use model::{TableInfo, Value};

use crate::arrow_value;
use crate::csv::{self, Cells};
use crate::input::Error;

/// Makes values of the wanted columns of carried rows.
#[derive(Debug, Clone)]
pub struct RowValues {
    /// For CSV, how records are written.
    dialect: Option<CsvDialect>,
    /// The wanted columns as they were asked for.
    wanted: Vec<usize>,
    /// The wanted columns, ascending, each once.
    ascending: Vec<usize>,
    /// For each wanted column, where it is in `ascending`.
    places: Vec<usize>,
    /// Whether `wanted` is `ascending`.
    in_order: bool,
}

impl RowValues {
    /// A view of the columns `wanted` (indices into `info.columns`, in any order) of rows that are carried as `info`
    /// says.
    ///
    /// # Errors
    /// When an index is none of the table's, or `info` lacks its dialect.
    pub fn new(info: &TableInfo, wanted: &[usize]) -> Result<Self, Error> {
        if let Some(index) = wanted.iter().find(|&&index| index >= info.columns.len()) {
            return Err(Error::data(format!("the table has no column {index}, only {}", info.columns.len())));
        }
        let dialect = match info.kind {
            FileKind::Csv => Some(info.csv.clone().ok_or_else(|| Error::data("the table has no CSV dialect"))?),
            FileKind::Parquet => None,
        };
        let mut ascending = wanted.to_vec();
        ascending.sort_unstable();
        ascending.dedup();
        let places = wanted.iter().map(|index| ascending.partition_point(|other| other < index)).collect();
        let in_order = ascending == wanted;
        Ok(Self { dialect, wanted: wanted.to_vec(), ascending, places, in_order })
    }

    /// Puts the wanted values of row `row` of `rows` (the carried columns, and in their order) into `out`, which is
    /// emptied first.
    ///
    /// # Errors
    /// When `rows` are not carried columns of this table, or the row is one that the reader reported as a fault.
    pub fn values<'a>(&self, rows: &'a RecordBatch, row: usize, out: &mut Vec<Value<'a>>) -> Result<(), Error> {
        out.clear();
        if row >= rows.num_rows() {
            return Err(Error::data(format!("row {row} of {}", rows.num_rows())));
        }
        match &self.dialect {
            Some(dialect) => self.text(dialect, record(rows, row)?, out),
            None => {
                for &index in &self.wanted {
                    let column =
                        rows.columns().get(index).ok_or_else(|| Error::data(format!("no carried column {index}")))?;
                    out.push(arrow_value::value(column.as_ref(), row));
                }
                Ok(())
            }
        }
    }

    /// The same of a chunk whose cells are known.
    ///
    /// # Errors
    /// When the row has too few cells.
    pub fn values_of<'a>(&self, cells: &'a Cells, row: usize, out: &mut Vec<Value<'a>>) -> Result<(), Error> {
        out.clear();
        for &column in &self.wanted {
            let cell = cells.get(row, column);
            let cell = cell.ok_or_else(|| Error::data(format!("row {row} has no cell {}", column + 1)))?;
            out.push(Value::Text(cell));
        }
        Ok(())
    }

    fn text<'a>(&self, dialect: &CsvDialect, record: &'a [u8], out: &mut Vec<Value<'a>>) -> Result<(), Error> {
        csv::cells(record, dialect, &self.ascending, |cell| out.push(Value::Text(cell)))?;
        if !self.in_order {
            let cells = std::mem::take(out);
            out.extend(self.places.iter().map(|&place| cells[place].clone()));
        }
        Ok(())
    }
}

/// The record of row `row` of carried CSV rows.
///
/// # Errors
/// When `rows` has no Binary or BinaryView column in front, or no such row.
pub fn record(rows: &RecordBatch, row: usize) -> Result<&[u8], Error> {
    if row >= rows.num_rows() {
        return Err(Error::data(format!("row {row} of {}", rows.num_rows())));
    }
    let records = rows.columns().first().map(|column| column.as_any());
    if let Some(records) = records.and_then(|records| records.downcast_ref::<BinaryArray>()) {
        return Ok(records.value(row));
    }
    let views = records.and_then(|records| records.downcast_ref::<BinaryViewArray>());
    views.map(|views| views.value(row)).ok_or_else(|| Error::data("the rows do not carry CSV records"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::ArrayRef;

    use super::*;

    #[test]
    fn wanted_columns_come_in_the_order_in_which_they_were_asked_for() {
        let info = TableInfo {
            kind: FileKind::Csv,
            columns: vec!["a".into(), "b".into(), "c".into()],
            csv: Some(CsvDialect {
                delimiter: ';',
                bom: false,
                header: "a;b;c\n".into(),
                quote_all: false,
                line_ending: "\n".into(),
                gzip: false,
            }),
            arrow_schema: None,
            codec: None,
        };
        let records: ArrayRef = Arc::new(BinaryArray::from_vec(vec![b"1;2;3\n", b"x;\"\";\n"]));
        let rows = RecordBatch::try_from_iter([(csv::RECORD, records)]).unwrap();
        let view = RowValues::new(&info, &[2, 0, 2]).unwrap();
        let mut out = Vec::new();
        view.values(&rows, 0, &mut out).unwrap();
        assert_eq!(out, [Value::Text("3".into()), Value::Text("1".into()), Value::Text("3".into())]);
        view.values(&rows, 1, &mut out).unwrap();
        assert_eq!(out, [Value::Text("".into()), Value::Text("x".into()), Value::Text("".into())]);
        assert!(view.values(&rows, 2, &mut out).is_err());
        assert!(RowValues::new(&info, &[3]).is_err());
    }
}
