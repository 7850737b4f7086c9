use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;

use arrow::array::types::{ArrowDictionaryKeyType, Int8Type};
use arrow::array::*;
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Fields, Int32Type, IntervalDayTime, Schema, TimeUnit, i256};
use arrow::record_batch::RecordBatch;
use model::retry::Tries;
use model::{BatchId, FailureKind, Nonce};
use proptest::prelude::*;

use super::*;
use crate::{Position, RowFault};

/// A table with a column of every Arrow type that a Parquet file can give, nested ones too, with nulls, in `rows` rows.
pub(crate) fn every_type(rows: usize) -> RecordBatch {
    let n = rows as i64;
    let some = |i: &i64| i % 5 != 3;
    let ints = || (0..n).map(|i| some(&i).then_some(i - 7));
    let texts: Vec<Option<String>> = (0..n)
        .map(|i| some(&i).then(|| if i % 4 == 0 { String::new() } else { format!("über-{i}\n\u{2028}") }))
        .collect();
    let text = || texts.iter().map(Option::as_deref);
    let bytes = || (0..n).map(|i| some(&i).then(|| i.to_le_bytes().to_vec()));
    let i64s = Int64Array::from_iter(ints());
    let i32s = Int32Array::from_iter(ints().map(|v| v.map(|v| v as i32)));
    let mut columns: Vec<(&str, ArrayRef)> = vec![
        ("null", Arc::new(NullArray::new(rows))),
        ("bool", Arc::new(BooleanArray::from_iter(ints().map(|v| v.map(|v| v % 2 == 0))))),
        ("i8", Arc::new(Int8Array::from_iter(ints().map(|v| v.map(|v| v as i8))))),
        ("i16", Arc::new(Int16Array::from_iter(ints().map(|v| v.map(|v| v as i16))))),
        ("i32", Arc::new(i32s.clone())),
        ("i64", Arc::new(i64s.clone())),
        ("u8", Arc::new(UInt8Array::from_iter(ints().map(|v| v.map(|v| v as u8))))),
        ("u16", Arc::new(UInt16Array::from_iter(ints().map(|v| v.map(|v| v as u16))))),
        ("u32", Arc::new(UInt32Array::from_iter(ints().map(|v| v.map(|v| v as u32))))),
        ("u64", Arc::new(UInt64Array::from_iter(ints().map(|v| v.map(|v| v as u64))))),
        ("f32", Arc::new(Float32Array::from_iter(ints().map(|v| v.map(|v| v as f32 / 3.0))))),
        ("f64", Arc::new(Float64Array::from_iter(ints().map(|v| v.map(|v| v as f64 / 3.0))))),
        (
            "f16",
            arrow::compute::cast(&Float32Array::from_iter(ints().map(|v| v.map(|v| v as f32))), &DataType::Float16)
                .unwrap(),
        ),
        ("utf8", Arc::new(StringArray::from_iter(text()))),
        ("large utf8", Arc::new(LargeStringArray::from_iter(text()))),
        ("utf8 view", Arc::new(StringViewArray::from_iter(text()))),
        ("binary", Arc::new(BinaryArray::from_iter(bytes()))),
        ("large binary", Arc::new(LargeBinaryArray::from_iter(bytes()))),
        ("binary view", Arc::new(BinaryViewArray::from_iter(bytes()))),
        ("fixed", Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(bytes(), 8).unwrap())),
        ("date32", Arc::new(i32s.reinterpret_cast::<arrow::datatypes::Date32Type>())),
        ("date64", Arc::new(Date64Array::from_iter(ints().map(|v| v.map(|v| v * 86_400_000))))),
        ("time s", Arc::new(Time32SecondArray::from_iter(ints().map(|v| v.map(|v| v.rem_euclid(86_400) as i32))))),
        ("time ms", Arc::new(Time32MillisecondArray::from_iter(ints().map(|v| v.map(|v| v.rem_euclid(1_000) as i32))))),
        ("time us", Arc::new(Time64MicrosecondArray::from_iter(ints().map(|v| v.map(|v| v.rem_euclid(1_000)))))),
        ("time ns", Arc::new(Time64NanosecondArray::from_iter(ints().map(|v| v.map(|v| v.rem_euclid(1_000)))))),
        (
            "dec32",
            Arc::new(
                i32s.reinterpret_cast::<arrow::datatypes::Decimal32Type>().with_precision_and_scale(9, 2).unwrap(),
            ),
        ),
        (
            "dec64",
            Arc::new(
                i64s.reinterpret_cast::<arrow::datatypes::Decimal64Type>().with_precision_and_scale(18, 2).unwrap(),
            ),
        ),
        (
            "dec128",
            Arc::new(
                Decimal128Array::from_iter(ints().map(|v| v.map(i128::from))).with_precision_and_scale(38, 10).unwrap(),
            ),
        ),
        (
            "dec256",
            Arc::new(
                Decimal256Array::from_iter(ints().map(|v| v.map(|v| i256::from_i128(v.into()))))
                    .with_precision_and_scale(76, 2)
                    .unwrap(),
            ),
        ),
        ("interval ym", Arc::new(IntervalYearMonthArray::from_iter(ints().map(|v| v.map(|v| v as i32))))),
        (
            "interval dt",
            Arc::new(IntervalDayTimeArray::from_iter(ints().map(|v| v.map(|v| IntervalDayTime::new(v as i32, 5))))),
        ),
        ("dict", Arc::new(dictionary::<Int32Type>(&texts))),
        ("dict i8", Arc::new(dictionary::<Int8Type>(&texts))),
    ];
    for unit in [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond] {
        for (name, zone) in
            [("local", None), ("utc", Some("UTC")), ("fixed", Some("+02:00")), ("named", Some("Europe/Berlin"))]
        {
            let kind = DataType::Timestamp(unit, zone.map(Into::into));
            columns.push((format!("ts {unit:?} {name}").leak(), arrow::compute::cast(&i64s, &kind).unwrap()));
        }
        columns.push((
            format!("duration {unit:?}").leak(),
            arrow::compute::cast(&i64s, &DataType::Duration(unit)).unwrap(),
        ));
    }
    columns.extend(nested(rows, &texts));
    let fields: Vec<Field> =
        columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), true)).collect();
    let mut fields = fields;
    fields.push(Field::new("required", DataType::Int64, false).with_metadata([("unit".to_owned(), "m".to_owned())]));
    let mut arrays: Vec<ArrayRef> = columns.into_iter().map(|(_, column)| column).collect();
    arrays.push(Arc::new(Int64Array::from_iter_values(0..n)));
    let schema =
        Schema::new_with_metadata(fields, [("pandas".to_owned(), "{}".to_owned()), ("zoo".to_owned(), "z".to_owned())]);
    RecordBatch::try_new(Arc::new(schema), arrays).unwrap()
}

fn dictionary<K: ArrowDictionaryKeyType>(texts: &[Option<String>]) -> DictionaryArray<K> {
    texts.iter().map(|text| text.as_deref().map(|text| if text.len() % 2 == 0 { "even" } else { "odd" })).collect()
}

fn nested(rows: usize, texts: &[Option<String>]) -> Vec<(&'static str, ArrayRef)> {
    let valid = NullBuffer::from_iter((0..rows).map(|i| i % 7 != 2));
    let offsets = OffsetBuffer::<i32>::from_lengths((0..rows).map(|i| if i % 7 == 2 { 0 } else { i % 3 }));
    let total = offsets.last() as usize;
    let items: ArrayRef = Arc::new(Int64Array::from_iter((0..total as i64).map(|i| (i % 4 != 1).then_some(i))));
    let item = Arc::new(Field::new("item", DataType::Int64, true));
    let list = ListArray::new(Arc::clone(&item), offsets.clone(), Arc::clone(&items), Some(valid.clone()));
    let wide = OffsetBuffer::new(ScalarBuffer::from(offsets.iter().map(|o| i64::from(*o)).collect::<Vec<_>>()));
    let large = LargeListArray::new(Arc::clone(&item), wide, Arc::clone(&items), Some(valid.clone()));
    let twos: ArrayRef = Arc::new(Int64Array::from_iter_values(0..2 * rows as i64));
    let fixed = FixedSizeListArray::new(item, 2, twos, Some(valid.clone()));
    let a: ArrayRef = Arc::new(StringArray::from_iter(texts.iter().map(Option::as_deref)));
    let fields =
        Fields::from(vec![Field::new("a", DataType::Utf8, true), Field::new("l", list.data_type().clone(), true)]);
    let structs = StructArray::new(fields, vec![a, Arc::new(list.clone())], Some(valid.clone()));
    let keys: ArrayRef = Arc::new(StringArray::from_iter_values((0..total).map(|i| format!("k{i}"))));
    let entry =
        Fields::from(vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Int64, true)]);
    let entries = StructArray::new(entry.clone(), vec![keys, items], None);
    let map = MapArray::new(
        Arc::new(Field::new("entries", DataType::Struct(entry), false)),
        offsets,
        entries,
        Some(valid),
        false,
    );
    let pairs = OffsetBuffer::<i32>::from_lengths(std::iter::repeat_n(1, rows));
    let of_structs = ListArray::new(
        Arc::new(Field::new("item", structs.data_type().clone(), true)),
        pairs,
        Arc::new(structs.clone()),
        None,
    );
    vec![
        ("list", Arc::new(list)),
        ("large list", Arc::new(large)),
        ("fixed list", Arc::new(fixed)),
        ("struct", Arc::new(structs)),
        ("map", Arc::new(map)),
        ("list of structs", Arc::new(of_structs)),
    ]
}

pub(crate) fn file_of(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

pub(crate) fn head() -> BatchHead {
    let first = Position { row: 3, byte: 99, line: 4 };
    BatchHead {
        job: "spring".parse().unwrap(),
        id: BatchId { number: 7, attempt: 1 },
        nonce: Nonce::from_bits(5),
        first,
    }
}

/// The file of these rows, pushed in slices of `step` rows and drained on the way.
pub(crate) fn batch_file(rows: &RecordBatch, step: usize, codec: Codec) -> Vec<u8> {
    let mut writer = BatchWriter::new(&rows.schema(), head(), codec).unwrap();
    let mut bytes = Vec::new();
    for start in (0..rows.num_rows()).step_by(step) {
        let slice = rows.slice(start, step.min(rows.num_rows() - start));
        writer.push(&slice, 3 + start as u64, &[]).unwrap();
        bytes.extend(writer.take());
    }
    let end = Position { row: 3 + rows.num_rows() as u64, byte: 1_000, line: 50 };
    bytes.extend(writer.finish(end, 10, 1_234).unwrap().0);
    bytes
}

fn read_all(bytes: &[u8]) -> Vec<BatchRows> {
    BatchReader::open(file_of(bytes)).unwrap().collect::<Result<_, _>>().unwrap()
}

fn carried(rows: &[BatchRows]) -> RecordBatch {
    concat_batches(&rows[0].carried.schema(), rows.iter().map(|rows| &rows.carried)).unwrap()
}

#[test]
fn every_type_comes_back_with_its_type_its_metadata_and_its_nulls() {
    let rows = every_type(1_000);
    for codec in [Codec::None, Codec::Snappy, Codec::Zstd, Codec::Lz4, Codec::Gzip, Codec::Brotli] {
        let read = carried(&read_all(&batch_file(&rows, 300, codec)));
        assert_eq!(read.schema().fields(), rows.schema().fields());
        for (place, field) in rows.schema().fields().iter().enumerate() {
            assert_eq!(read.column(place), rows.column(place), "{field}");
        }
    }
}

#[test]
fn the_metadata_is_read_from_the_tail_alone_and_from_the_file() {
    let bytes = batch_file(&every_type(10), 10, Codec::Snappy);
    let MetaStep::Need(first) = BatchMeta::from_tail(&[]).unwrap() else { panic!("the end of nothing has metadata") };
    let MetaStep::Need(whole) = BatchMeta::from_tail(&bytes[bytes.len() - first..]).unwrap() else {
        panic!("8 bytes have metadata")
    };
    let MetaStep::Meta(meta) = BatchMeta::from_tail(&bytes[bytes.len() - whole..]).unwrap() else {
        panic!("the whole footer has none")
    };
    assert_eq!(meta.id, BatchId { number: 7, attempt: 1 });
    assert_eq!((meta.first, meta.end), (head().first, Position { row: 13, byte: 1_000, line: 50 }));
    assert_eq!((meta.rows, meta.send_rows, meta.send_bytes), (10, 10, 1_234));
    assert_eq!(BatchReader::open(file_of(&bytes)).unwrap().meta(), &meta);
}

#[test]
fn a_batch_without_rows_is_a_file_without_rows() {
    let rows = every_type(0);
    let reader = BatchReader::open(file_of(&batch_file(&rows, 1, Codec::Snappy))).unwrap();
    assert_eq!(reader.schema().fields(), rows.schema().fields());
    assert_eq!(reader.count(), 0);
}

#[test]
fn local_failures_stand_beside_their_rows() {
    let rows = records(5, 3);
    let mut writer = BatchWriter::new(&rows.schema(), head(), Codec::Snappy).unwrap();
    let fault = |row, message: &str| RowFault { row, kind: FailureKind::TooLarge, message: message.to_owned() };
    writer.push(&rows, 40, &[fault(1, "one"), fault(4, "four")]).unwrap();
    assert!(writer.push(&rows, 45, &[fault(3, "a"), fault(2, "b")]).is_err());
    let read = read_all(&writer.finish(Position::default(), 3, 1).unwrap().0);
    assert_eq!(read[0].row_ids.values().to_vec(), vec![40, 41, 42, 43, 44]);
    let failures: Vec<_> = (0..5).map(|row| read[0].local_failure(row)).collect();
    let kind = FailureKind::TooLarge;
    assert_eq!(failures, vec![None, Some((kind, "one")), None, None, Some((kind, "four"))]);
}

/// `rows` records of `size` bytes each.
fn records(rows: usize, size: usize) -> RecordBatch {
    let records = BinaryArray::from_iter_values(
        (0..rows).map(|row| format!("{}{row}", "x".repeat(size - row.to_string().len()))),
    );
    RecordBatch::try_from_iter([("record", Arc::new(records) as ArrayRef)]).unwrap()
}

#[test]
fn row_groups_end_at_sixteen_megabytes_and_at_their_rows() {
    let rows = records(5_000, 10_000);
    let read = read_all(&batch_file(&rows, 1_700, Codec::Snappy));
    assert!(read.len() >= 4, "{}", read.len());
    for group in &read {
        assert!(size::batch_bytes(&group.carried) <= MAX_GROUP_BYTES);
    }
    assert_eq!(carried(&read), rows.clone());
    assert_eq!(read[1].first_in_batch, read[0].len());
    let many = read_all(&batch_file(&records(40_000, 5), 40_000, Codec::Snappy));
    assert_eq!(
        many.iter().map(BatchRows::len).collect::<Vec<_>>(),
        vec![MAX_GROUP_ROWS, MAX_GROUP_ROWS, 40_000 - 2 * MAX_GROUP_ROWS]
    );
    let huge = read_all(&batch_file(&records(3, MAX_GROUP_BYTES + 1), 3, Codec::Snappy));
    assert_eq!(huge.iter().map(BatchRows::len).collect::<Vec<_>>(), vec![1, 1, 1]);
}

#[test]
fn only_the_wanted_columns_are_read_in_the_files_order() {
    let rows = every_type(20);
    let bytes = batch_file(&rows, 20, Codec::Snappy);
    let read: Vec<_> =
        BatchReader::open_projected(file_of(&bytes), Some(&[14, 5])).unwrap().collect::<Result<_, _>>().unwrap();
    assert_eq!(read[0].carried.columns(), rows.project(&[5, 14]).unwrap().columns());
    assert_eq!(read[0].row_ids.len(), 20);
    let none: Vec<_> =
        BatchReader::open_projected(file_of(&bytes), Some(&[])).unwrap().collect::<Result<_, _>>().unwrap();
    assert_eq!((none[0].len(), none[0].carried.num_columns(), none[0].carried.num_rows()), (20, 0, 20));
    assert!(BatchReader::open_projected(file_of(&bytes), Some(&[999])).is_err());
}

#[test]
fn chunks_have_the_rows_of_the_groups_in_their_order() {
    let rows = records(40, 1_000_000);
    let bytes = batch_file(&rows, 7, Codec::Snappy);
    let groups = read_all(&bytes);
    assert!(groups.len() > 2);
    for size in [0, 1, 3, 15, 16, 1_000] {
        let chunks = BatchReader::open(file_of(&bytes)).unwrap().into_chunks(size);
        assert_eq!(chunks.meta().rows, 40);
        let chunks: Vec<BatchRows> = chunks.collect::<Result<_, _>>().unwrap();
        assert!(chunks.iter().all(|chunk| chunk.len() <= size.max(1)));
        let places = chunks.iter().flat_map(|chunk| chunk.first_in_batch..chunk.first_in_batch + chunk.len());
        assert_eq!(places.collect::<Vec<_>>(), (0..40).collect::<Vec<_>>());
        let ids = |rows: &[BatchRows]| rows.iter().flat_map(|rows| rows.row_ids.values().to_vec()).collect::<Vec<_>>();
        assert_eq!(ids(&chunks), ids(&groups));
        assert_eq!(carried(&chunks), carried(&groups));
    }
}

#[test]
fn views_have_the_same_values_in_every_type() {
    let rows = every_type(500);
    let bytes = batch_file(&rows, 120, Codec::Snappy);
    let views = BatchReader::open(file_of(&bytes)).unwrap().with_views().unwrap();
    let read: Vec<BatchRows> = views.collect::<Result<_, _>>().unwrap();
    let read = carried(&read);
    for (place, field) in rows.schema().fields().iter().enumerate() {
        let viewed = read.column(place);
        for row in 0..rows.num_rows() {
            // As text, because NaN is not NaN.
            let [value, other] = [viewed, rows.column(place)].map(|column| crate::arrow_value::value(column, row));
            assert_eq!(format!("{value:?}"), format!("{other:?}"), "{field}");
        }
    }
    assert_eq!(read.column(13).data_type(), &DataType::Utf8View);
}

#[test]
fn a_callers_columns_may_have_our_names_and_our_metadata_key() {
    let column = || Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef;
    let fields: Vec<Field> = ["_row", "_row_", "_error", "_tries"]
        .into_iter()
        .map(|name| Field::new(name, DataType::Int64, false))
        .collect();
    let schema = Schema::new_with_metadata(fields, [(META_KEY.to_owned(), "theirs".to_owned())]);
    let rows = RecordBatch::try_new(Arc::new(schema), vec![column(), column(), column(), column()]).unwrap();
    let read = read_all(&batch_file(&rows, 2, Codec::Snappy));
    assert_eq!(read[0].carried.columns(), rows.columns());
    assert_eq!(read[0].row_ids.values().to_vec(), vec![3, 4]);
}

#[test]
fn rows_that_are_tried_again_keep_their_cells_and_their_row() {
    let rows = every_type(50);
    let first = read_all(&batch_file(&rows, 50, Codec::Snappy));
    let mut tries = Tries::default();
    tries.record(FailureKind::Expired);
    let id = BatchId { number: 7, attempt: 2 };
    let mut writer = BatchWriter::new(&first[0].carried.schema(), BatchHead { id, ..head() }, Codec::Snappy).unwrap();
    writer.push_selected(&first[0], &[3, 17, 49], &[tries.clone(), Tries::default(), tries.clone()]).unwrap();
    assert!(writer.push_selected(&first[0], &[50], std::slice::from_ref(&tries)).is_err());
    assert!(writer.push_selected(&first[0], &[1], &[]).is_err());
    let again = read_all(&writer.finish(Position::default(), 3, 5).unwrap().0);
    assert_eq!(again[0].row_ids.values().to_vec(), vec![6, 20, 52]);
    assert_eq!(
        again[0].carried.columns(),
        take_record_batch(&rows, &UInt32Array::from(vec![3, 17, 49])).unwrap().columns()
    );
    assert_eq!((again[0].tries(0), again[0].tries(1), again[0].tries(2)), (tries.clone(), Tries::default(), tries));
    assert_eq!(again[0].local_failure(0), None);
}

#[test]
fn the_same_calls_give_the_same_bytes() {
    assert_eq!(batch_file(&every_type(200), 70, Codec::Zstd), batch_file(&every_type(200), 70, Codec::Zstd));
}

/// Calls `read` with broken forms of `bytes`: cut off at many places, and with bytes changed at many places.
pub(crate) fn with_damage(bytes: &[u8], mut read: impl FnMut(&[u8])) {
    for cut in (0..bytes.len()).step_by((bytes.len() / 60).max(1)) {
        read(&bytes[..cut]);
        read(&bytes[cut..]);
    }
    // The footer, where structure is, gets most of the changes.
    let body = (0..bytes.len()).step_by((bytes.len() / 100).max(1));
    let footer = bytes.len().saturating_sub(6_000)..bytes.len();
    for place in body.chain(footer.step_by(11)) {
        for flip in [0x01, 0x80, 0xff] {
            let mut broken = bytes.to_vec();
            broken[place] ^= flip;
            read(&broken);
        }
    }
}

#[test]
fn broken_batch_data_is_an_error_or_other_rows_but_never_a_panic() {
    let bytes = batch_file(&every_type(40), 40, Codec::Snappy);
    let mut refused = 0;
    with_damage(&bytes, |broken| {
        let read = BatchReader::open(file_of(broken)).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        refused += usize::from(read.is_err());
        let views = BatchReader::open(file_of(broken)).and_then(BatchReader::with_views);
        let _ = views.map(|views| views.into_chunks(7).count());
        let _ = BatchMeta::from_tail(broken);
    });
    assert!(refused > 100, "{refused}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn whatever_is_written_in_whatever_slices_is_read(
        cells in proptest::collection::vec((any::<Option<i64>>(), proptest::option::of(".{0,40}"), any::<Vec<u8>>()), 0..300),
        step in 1_usize..100,
    ) {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter(cells.iter().map(|cell| cell.0)));
        let texts: ArrayRef = Arc::new(StringArray::from_iter(cells.iter().map(|cell| cell.1.as_deref())));
        let bytes: ArrayRef = Arc::new(BinaryArray::from_iter_values(cells.iter().map(|cell| &cell.2)));
        let rows = RecordBatch::try_from_iter_with_nullable([("n", numbers, true), ("t", texts, true), ("b", bytes, false)]).unwrap();
        let read = read_all(&batch_file(&rows, step, Codec::Snappy));
        if cells.is_empty() {
            prop_assert!(read.is_empty());
        } else {
            prop_assert_eq!(carried(&read), rows);
            let ids: Vec<u64> = read.iter().flat_map(|rows| rows.row_ids.values().to_vec()).collect();
            prop_assert_eq!(ids, (3..3 + cells.len() as u64).collect::<Vec<_>>());
        }
    }
}
