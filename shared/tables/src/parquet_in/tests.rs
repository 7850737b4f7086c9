use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray, StructArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use model::RefusalCode as Code;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::Int64Type;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use super::*;
use crate::batch::tests::{every_type, with_damage};

fn parquet(rows: &RecordBatch, group: usize) -> Vec<u8> {
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(group))
        .set_compression(Compression::ZSTD(ZstdLevel::default()));
    let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), Some(properties.build())).unwrap();
    writer.write(rows).unwrap();
    writer.into_inner().unwrap()
}

fn describe(bytes: &[u8], caps: Caps) -> Result<TableInfo, Error> {
    let mut opener = ParquetOpener::new(bytes.len() as u64, caps);
    loop {
        match opener.step()? {
            Described::Table(info) => return Ok(info),
            Described::Need(range) => opener.push(&range, part(bytes, &range)),
        }
    }
}

fn part(bytes: &[u8], range: &Range<u64>) -> Bytes {
    assert!(range.start < range.end && range.end <= bytes.len() as u64, "{range:?} of {}", bytes.len());
    Bytes::copy_from_slice(&bytes[range.start as usize..range.end as usize])
}

/// All chunks from a row on, and the bytes that they took.
fn read(bytes: &[u8], info: &TableInfo, caps: Caps, row: u64) -> Result<(Vec<Chunk>, u64), Error> {
    let resume = (row > 0).then_some(Position { row, ..Position::default() });
    let mut decoder = ParquetDecoder::open(info, bytes.len() as u64, caps, resume)?;
    let (mut chunks, mut fetched) = (Vec::new(), 0);
    loop {
        match decoder.step()? {
            Step::Rows(chunk) => chunks.push(chunk),
            Step::End(ended) => {
                assert_eq!(chunks.last().map_or(row, |chunk: &Chunk| chunk.end.row), ended.rows);
                return Ok((chunks, fetched));
            }
            Step::Need(ranges) => {
                assert!(!ranges.is_empty());
                for range in ranges.into_iter().rev() {
                    fetched += range.end - range.start;
                    decoder.push(range.clone(), part(bytes, &range));
                }
            }
        }
    }
}

fn all(schema: &SchemaRef, chunks: &[Chunk]) -> RecordBatch {
    let mut row = chunks.first().map_or(0, |chunk| chunk.first_row);
    for chunk in chunks {
        assert_eq!((chunk.first_row, chunk.end.row), (row, row + chunk.rows.num_rows() as u64));
        row = chunk.end.row;
    }
    concat_batches(schema, chunks.iter().map(|chunk| &chunk.rows)).unwrap()
}

fn code(error: &Error) -> Code {
    error.refusal().unwrap_or_else(|| panic!("{error:?} is no refusal")).code
}

#[test]
fn every_type_comes_back_as_it_was() {
    let rows = every_type(500);
    let bytes = parquet(&rows, 120);
    let info = describe(&bytes, Caps::default()).unwrap();
    assert_eq!(info.codec.as_deref(), Some("ZSTD"));
    assert_eq!(info.columns[..3], ["null", "bool", "i8"]);
    assert_eq!(schema::of_table(&info).unwrap(), rows.schema());
    let (chunks, _) = read(&bytes, &info, Caps::default(), 0).unwrap();
    assert_eq!(all(&rows.schema(), &chunks), rows);
}

#[test]
fn a_reader_resumed_at_any_row_gives_the_rest_and_skips_row_groups_unread() {
    let rows = every_type(100);
    let bytes = parquet(&rows, 30);
    let info = describe(&bytes, Caps::default()).unwrap();
    let (_, whole) = read(&bytes, &info, Caps::default(), 0).unwrap();
    for row in (0..100).step_by(7).chain([29, 30, 31, 60, 89, 90, 99, 100]) {
        let (chunks, fetched) = read(&bytes, &info, Caps::default(), row).unwrap();
        assert_eq!(all(&rows.schema(), &chunks), rows.slice(row as usize, 100 - row as usize), "{row}");
        assert!(row < 60 || fetched < whole, "{row}: {fetched} of {whole}");
    }
    assert!(read(&bytes, &info, Caps::default(), 101).is_err());
}

#[test]
fn chunks_keep_to_their_rows_and_bytes() {
    let texts: ArrayRef =
        Arc::new(StringArray::from_iter_values((0..2_000).map(|i| "x".repeat(if i % 500 == 0 { 50_000 } else { 10 }))));
    let rows = RecordBatch::try_from_iter([("t", texts)]).unwrap();
    let bytes = parquet(&rows, 1_000);
    let info = describe(&bytes, Caps::default()).unwrap();
    let caps = Caps { chunk_rows: 300, chunk_bytes: 20_000, ..Caps::default() };
    let (chunks, _) = read(&bytes, &info, caps, 0).unwrap();
    assert!(chunks.iter().all(|chunk| chunk.rows.num_rows() <= 300));
    assert!(chunks.iter().all(|chunk| chunk.rows.num_rows() == 1 || size::batch_bytes(&chunk.rows) <= 20_000));
    assert_eq!(all(&rows.schema(), &chunks), rows);
}

#[test]
fn a_file_without_rows_ends_at_once() {
    let rows = every_type(0);
    let bytes = parquet(&rows, 10);
    let info = describe(&bytes, Caps::default()).unwrap();
    assert_eq!(info.columns.len(), rows.num_columns());
    assert!(read(&bytes, &info, Caps::default(), 0).unwrap().0.is_empty());
}

#[test]
fn row_groups_without_rows_are_passed_over() {
    let message = Arc::new(parse_message_type("message m { required int64 a; }").unwrap());
    let mut writer = SerializedFileWriter::new(Vec::new(), message, Arc::default()).unwrap();
    for values in [&[][..], &[1, 2], &[], &[3], &[]] {
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(values, None, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    let bytes = writer.into_inner().unwrap();
    let info = describe(&bytes, Caps::default()).unwrap();
    for row in 0..=3 {
        let (chunks, _) = read(&bytes, &info, Caps::default(), row).unwrap();
        assert_eq!(chunks.iter().map(|chunk| chunk.rows.num_rows() as u64).sum::<u64>(), 3 - row);
    }
}

#[test]
fn two_columns_of_one_name_are_refused_by_name() {
    let schema = Schema::new(vec![Field::new("a", DataType::Int64, true), Field::new("a", DataType::Int64, true)]);
    let column = || Arc::new(Int64Array::from(vec![1])) as ArrayRef;
    let rows = RecordBatch::try_new(Arc::new(schema), vec![column(), column()]).unwrap();
    let error = describe(&parquet(&rows, 1), Caps::default()).unwrap_err();
    assert_eq!(code(&error), Code::DuplicateColumn);
    assert!(error.to_string().contains("\"a\""), "{error}");
}

#[test]
fn one_name_at_two_depths_is_fine() {
    let inner = StructArray::from(vec![(
        Arc::new(Field::new("a", DataType::Int64, true)),
        Arc::new(Int64Array::from(vec![1])) as ArrayRef,
    )]);
    let rows = RecordBatch::try_from_iter_with_nullable([
        ("a", Arc::new(inner) as ArrayRef, true),
        ("b", Arc::new(Int64Array::from(vec![2])), true),
    ])
    .unwrap();
    let bytes = parquet(&rows, 1);
    let info = describe(&bytes, Caps::default()).unwrap();
    assert_eq!(all(&rows.schema(), &read(&bytes, &info, Caps::default(), 0).unwrap().0), rows);
}

#[test]
fn a_file_without_columns_is_refused_as_empty() {
    let message = Arc::new(parse_message_type("message m { }").unwrap());
    let bytes = SerializedFileWriter::new(Vec::new(), message, Arc::default()).unwrap().into_inner().unwrap();
    assert_eq!(code(&describe(&bytes, Caps::default()).unwrap_err()), Code::InputEmpty);
}

#[test]
fn each_cap_is_a_refusal_that_says_its_number() {
    let bytes = parquet(&every_type(500), 500);
    for (caps, number) in [
        (Caps { max_footer_bytes: 100, ..Caps::default() }, "100"),
        (Caps { max_columns: 11, ..Caps::default() }, "11"),
        (Caps { max_row_group_bytes: 1_000, ..Caps::default() }, "1000"),
    ] {
        let error = describe(&bytes, caps).unwrap_err();
        assert_eq!(code(&error), Code::InputTooLarge);
        assert!(error.to_string().contains(number), "{error}");
    }
}

#[test]
fn a_file_with_other_columns_than_at_first_has_changed() {
    let info = describe(&parquet(&every_type(5), 5), Caps::default()).unwrap();
    let other = RecordBatch::try_from_iter([("a", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).unwrap();
    assert_eq!(code(&read(&parquet(&other, 1), &info, Caps::default(), 0).unwrap_err()), Code::InputChanged);
}

#[test]
fn short_data_is_an_error_and_not_the_files_fault() {
    let bytes = parquet(&every_type(50), 50);
    let info = describe(&bytes, Caps::default()).unwrap();
    let mut decoder = ParquetDecoder::open(&info, bytes.len() as u64, Caps::default(), None).unwrap();
    let Step::Need(footer) = decoder.step().unwrap() else { panic!("no footer was asked for") };
    decoder.push(footer[0].clone(), part(&bytes, &footer[0]));
    let Step::Need(ranges) = decoder.step().unwrap() else { panic!("no chunks were asked for") };
    let Step::Need(again) = decoder.step().unwrap() else { panic!("not asked again") };
    assert_eq!(ranges, again);
    for range in ranges {
        decoder.push(range.clone(), part(&bytes, &(range.start..range.end - 1)));
    }
    assert!(decoder.step().unwrap_err().refusal().is_none());
    assert!(decoder.step().is_err());
}

#[test]
fn a_file_that_is_not_parquet_or_is_cut_off_is_refused() {
    assert_eq!(code(&describe(b"a,b\n", Caps::default()).unwrap_err()), Code::InputFormat);
    assert_eq!(code(&describe(&[b'x'; 4_000], Caps::default()).unwrap_err()), Code::InputCorrupt);
    let bytes = parquet(&every_type(50), 50);
    assert_eq!(code(&describe(&bytes[..bytes.len() - 1], Caps::default()).unwrap_err()), Code::InputCorrupt);
    assert_eq!(code(&describe(&bytes[bytes.len() / 3..], Caps::default()).unwrap_err()), Code::InputCorrupt);
}

#[test]
fn a_broken_file_is_a_refusal_or_other_rows_but_never_a_panic() {
    let bytes = parquet(&every_type(40), 40);
    let good = describe(&bytes, Caps::default()).unwrap();
    let mut refused = 0;
    with_damage(&bytes, |broken| {
        let described = describe(broken, Caps::default());
        let outcome = read(broken, described.as_ref().unwrap_or(&good), Caps::default(), 0);
        if let Err(error) = &outcome {
            assert!(error.refusal().is_some(), "{error}");
            refused += 1;
        }
    });
    assert!(refused > 100, "{refused}");
}
