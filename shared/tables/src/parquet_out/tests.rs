use arrow::array::{Array, AsArray};
use arrow::compute::concat_batches;
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use model::price::Usd;
use model::table::FileKind;
use model::{FailureKind, RowStatus};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Compression;

use super::*;
use crate::batch::read_footer;
use crate::batch::tests::{batch_file, every_type, file_of, with_damage};
use crate::result::{FinalRow, Usage};

const SHORT: [&str; 2] = ["answer", "error"];
const LONG: [&str; 12] = [
    "answer",
    "error",
    "status",
    "error_kind",
    "finish_reason",
    "model",
    "input_tokens",
    "cached_tokens",
    "output_tokens",
    "reasoning_tokens",
    "attempts",
    "cost_usd",
];

/// Answers that say which row they belong to; every third row failed.
struct Numbered {
    next: u64,
    end: u64,
    text: String,
}

impl Numbered {
    fn up_to(end: usize) -> Self {
        Self { next: 0, end: end as u64, text: String::new() }
    }
}

impl Answers for Numbered {
    fn next_row(&mut self) -> Result<FinalRow<'_>, Error> {
        if self.next == self.end {
            return Err(Error::data("no more results"));
        }
        self.text = format!("answer {}", self.next);
        let failed = self.next % 3 == 2;
        self.next += 1;
        Ok(FinalRow {
            status: if failed { RowStatus::Failed } else { RowStatus::Answered },
            response: (!failed).then_some(&self.text),
            error_kind: failed.then_some(FailureKind::Refused),
            error: failed.then_some("no"),
            finish_reason: Some("stop"),
            model: None,
            usage: Usage { input: Some(self.next), ..Usage::default() },
            attempts: 2,
            cost: (!failed).then(|| Usd::from_pico(u128::from(self.next))),
        })
    }
}

fn info_of(rows: &RecordBatch) -> TableInfo {
    TableInfo {
        kind: FileKind::Parquet,
        columns: rows.schema().fields().iter().map(|field| field.name().clone()).collect(),
        csv: None,
        arrow_schema: Some(schema::encode(&rows.schema())),
        codec: None,
    }
}

fn append(output: &mut ParquetOutput, batch: &[u8], answers: &mut Numbered, bytes: &mut Vec<u8>) -> Result<(), Error> {
    let mut batch = BatchChunks::open(file_of(batch))?;
    while let Some(group) = batch.next_group()? {
        output.append_group(&group, answers)?;
        bytes.extend(output.take().concat());
    }
    Ok(())
}

fn output(rows: &RecordBatch, batches: &[Vec<u8>], added: &[&str]) -> Vec<u8> {
    let mut output = ParquetOutput::new(&info_of(rows), added, Codec::Snappy).unwrap();
    let (mut answers, mut bytes) = (Numbered::up_to(rows.num_rows()), Vec::new());
    for batch in batches {
        append(&mut output, batch, &mut answers, &mut bytes).unwrap();
    }
    assert_eq!(output.rows(), rows.num_rows() as u64);
    bytes.extend(output.finish().unwrap().concat());
    bytes
}

fn read(bytes: Vec<u8>) -> RecordBatch {
    let builder = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes)).unwrap();
    let schema = SchemaRef::clone(builder.schema());
    let batches = builder.build().unwrap().collect::<Result<Vec<_>, _>>().unwrap();
    concat_batches(&schema, &batches).unwrap()
}

/// `rows` as the batch data of two batches.
fn in_two(rows: &RecordBatch, at: usize, codec: Codec) -> Vec<Vec<u8>> {
    vec![batch_file(&rows.slice(0, at), 100, codec), batch_file(&rows.slice(at, rows.num_rows() - at), 100, codec)]
}

#[test]
fn the_callers_columns_are_equal_and_the_answers_stand_beside_their_rows() {
    let rows = every_type(700);
    let read = read(output(&rows, &in_two(&rows, 250, Codec::Zstd), &LONG));
    let theirs = rows.num_columns();
    assert_eq!(read.schema().fields()[..theirs], rows.schema().fields()[..]);
    assert_eq!(read.schema().metadata(), rows.schema().metadata());
    assert_eq!(&read.columns()[..theirs], rows.columns());
    let text = |place: usize| read.column(theirs + place).as_string::<i32>().clone();
    for row in 0..700 {
        let failed = row % 3 == 2;
        assert_eq!(text(0).is_null(row), failed);
        assert!(failed || text(0).value(row) == format!("answer {row}"));
        assert!(if failed { text(1).value(row) == "refused: no" } else { text(1).is_null(row) });
        assert_eq!(text(2).value(row), if failed { "failed" } else { "answered" });
    }
    assert_eq!(read.column(theirs + 6).as_primitive::<Int64Type>().value(699), 700);
    assert_eq!(read.column(theirs + 10).as_primitive::<Int64Type>().value(0), 2);
}

#[test]
fn some_rows_alone_are_a_file_like_the_input() {
    let rows = every_type(300);
    let batch = batch_file(&rows, 120, Codec::Zstd);
    let run = |drained: bool| {
        let mut batch = BatchChunks::open(file_of(&batch)).unwrap();
        let (mut output, mut bytes) = (RowsOutput::new(&info_of(&rows), Codec::Zstd).unwrap(), Vec::new());
        while let Some(group) = batch.next_group().unwrap() {
            let every_third: Vec<u32> = (0..group.rows().unwrap() as u32).step_by(3).collect();
            output.push(&group.select(&every_third).unwrap()).unwrap();
            if drained {
                bytes.extend(output.take());
            }
        }
        bytes.extend(output.finish().unwrap());
        bytes
    };
    let bytes = run(true);
    assert_eq!(bytes, run(false), "the same rows, the same bytes");
    let read = read(bytes);
    // Row groups are of 120 rows, a multiple of three: every third row of the whole.
    let chosen = arrow::array::UInt32Array::from_iter_values((0..300).step_by(3));
    assert_eq!(read, arrow::compute::take_record_batch(&rows, &chosen).unwrap());
    assert_eq!(read.schema().metadata(), rows.schema().metadata());
    let group = BatchChunks::open(file_of(&batch)).unwrap().next_group().unwrap().unwrap();
    assert!(group.select(&[300]).is_err());
}

#[test]
fn a_chunk_is_copied_with_its_bytes_and_its_compression() {
    let rows = every_type(300);
    let batch = batch_file(&rows, 300, Codec::Gzip);
    let bytes = output(&rows, std::slice::from_ref(&batch), &SHORT);
    let (from, to) = (read_footer(&file_of(&batch)).unwrap(), read_footer(&file_of(&bytes)).unwrap());
    let (from, to) = (from.arrow.metadata().row_group(0), to.arrow.metadata().row_group(0));
    assert_eq!(from.num_columns() - OWN_COLUMNS, to.num_columns() - SHORT.len());
    for (source, copy) in from.columns().iter().skip(OWN_COLUMNS).zip(to.columns()) {
        let cut = |bytes: &[u8], (start, length): (u64, u64)| bytes[start as usize..(start + length) as usize].to_vec();
        assert_eq!(cut(&batch, source.byte_range()), cut(&bytes, copy.byte_range()));
        assert!(matches!(copy.compression(), Compression::GZIP(_)));
    }
    assert_eq!(to.columns()[to.num_columns() - 1].compression(), Compression::SNAPPY);
}

#[test]
fn the_same_facts_give_the_same_bytes() {
    let rows = every_type(300);
    let batches = in_two(&rows, 120, Codec::Snappy);
    assert_eq!(output(&rows, &batches, &LONG), output(&rows, &batches, &LONG));
}

#[test]
fn a_table_without_rows_is_a_valid_file() {
    let rows = every_type(0);
    for batches in [vec![], vec![batch_file(&rows, 1, Codec::Snappy)]] {
        let read = read(output(&rows, &batches, &SHORT));
        assert_eq!((read.num_rows(), read.num_columns()), (0, rows.num_columns() + 2));
    }
}

#[test]
fn what_the_schema_says_of_itself_is_file_metadata_too() {
    let rows = every_type(5);
    let footer = read_footer(&file_of(&output(&rows, &[batch_file(&rows, 5, Codec::Snappy)], &SHORT))).unwrap();
    assert_eq!(crate::batch::metadata_entry(footer.arrow.metadata(), "pandas"), Some("{}"));
}

#[test]
fn large_answers_are_encoded_on_the_way() {
    struct Large(String);
    impl Answers for Large {
        fn next_row(&mut self) -> Result<FinalRow<'_>, Error> {
            Ok(FinalRow { response: Some(&self.0), ..FinalRow::new(&crate::result::tests::row(0), 1, None) })
        }
    }
    let rows = every_type(40);
    let mut output = ParquetOutput::new(&info_of(&rows), &SHORT, Codec::Snappy).unwrap();
    let mut batch = BatchChunks::open(file_of(&batch_file(&rows, 40, Codec::Snappy))).unwrap();
    output.append_group(&batch.next_group().unwrap().unwrap(), &mut Large("x".repeat(700_000))).unwrap();
    let mut bytes = output.take().concat();
    bytes.extend(output.finish().unwrap().concat());
    let read = read(bytes);
    let answers = read.column(rows.num_columns()).as_string::<i32>();
    assert!((0..40).all(|row| answers.value(row).len() == 700_000));
}

#[test]
fn what_does_not_fit_together_is_an_error() {
    let rows = every_type(20);
    let batch = batch_file(&rows, 20, Codec::Snappy);
    let other = rows.project(&[0, 1]).unwrap();
    let mut of_other = ParquetOutput::new(&info_of(&other), &SHORT, Codec::Snappy).unwrap();
    assert!(append(&mut of_other, &batch, &mut Numbered::up_to(20), &mut Vec::new()).is_err());
    let mut too_few = ParquetOutput::new(&info_of(&rows), &SHORT, Codec::Snappy).unwrap();
    assert!(append(&mut too_few, &batch, &mut Numbered::up_to(19), &mut Vec::new()).is_err());
    assert!(ParquetOutput::new(&info_of(&rows), &["i64", "error"], Codec::Snappy).is_err());
    assert!(ParquetOutput::new(&info_of(&rows), &["answer"], Codec::Snappy).is_err());
}

#[test]
fn broken_batch_data_never_panics_the_output() {
    let rows = every_type(20);
    with_damage(&batch_file(&rows, 20, Codec::Snappy), |broken| {
        let mut output = ParquetOutput::new(&info_of(&rows), &SHORT, Codec::Snappy).unwrap();
        let _ = append(&mut output, broken, &mut Numbered::up_to(1 << 40), &mut Vec::new());
    });
}
