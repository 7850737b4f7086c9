use std::sync::Arc;

use arrow::array::types::Int8Type as Key;
use arrow::array::*;
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::compute::cast;
use arrow::datatypes::{Field, Fields, IntervalDayTime, IntervalMonthDayNano, UnionFields, i256};
use proptest::prelude::*;

use super::*;

fn said(expected: &str) -> Value<'static> {
    owned(expected.to_owned())
}

/// `number` as a column of another type.
fn of(number: i64, kind: DataType) -> ArrayRef {
    cast(&Int64Array::from(vec![number]), &kind).unwrap()
}

#[test]
fn numbers_keep_their_kind_and_booleans_theirs() {
    for kind in [DataType::Int8, DataType::Int16, DataType::Int32, DataType::Int64] {
        assert_eq!(value(&of(-7, kind.clone()), 0), Value::Int(-7), "{kind}");
    }
    for kind in [DataType::UInt8, DataType::UInt16, DataType::UInt32, DataType::UInt64] {
        assert_eq!(value(&of(7, kind.clone()), 0), Value::UInt(7), "{kind}");
    }
    assert_eq!(value(&UInt64Array::from(vec![u64::MAX]), 0), Value::UInt(u64::MAX));
    assert_eq!(value(&Float64Array::from(vec![0.1]), 0), Value::Float(0.1));
    assert_eq!(value(&Float32Array::from(vec![0.1]), 0), Value::Float(0.1));
    assert_eq!(value(&cast(&Float32Array::from(vec![1.5]), &DataType::Float16).unwrap(), 0), Value::Float(1.5));
    assert_eq!(value(&BooleanArray::from(vec![true]), 0), Value::Bool(true));
}

#[test]
fn floats_that_are_no_numbers_stay_so() {
    let Value::Float(nan) = value(&Float32Array::from(vec![f32::NAN]), 0) else { panic!("not a float") };
    assert!(nan.is_nan());
    assert_eq!(value(&Float32Array::from(vec![f32::NEG_INFINITY]), 0), Value::Float(f64::NEG_INFINITY));
}

#[test]
fn text_is_borrowed_and_bytes_are_base64() {
    let text = StringArray::from(vec![" spaced "]);
    assert!(matches!(value(&text, 0), Value::Text(Cow::Borrowed(" spaced "))));
    assert!(matches!(value(&LargeStringArray::from(vec!["ä"]), 0), Value::Text(Cow::Borrowed("ä"))));
    assert!(matches!(
        value(&StringViewArray::from(vec!["a text beyond twelve bytes"]), 0),
        Value::Text(Cow::Borrowed(_))
    ));
    let bytes: &[u8] = &[0xff, 0x00, 0x10, 0x80];
    let columns: [ArrayRef; 4] = [
        Arc::new(BinaryArray::from(vec![bytes])),
        Arc::new(LargeBinaryArray::from(vec![bytes])),
        Arc::new(BinaryViewArray::from(vec![bytes])),
        Arc::new(FixedSizeBinaryArray::try_from_iter(std::iter::once(bytes)).unwrap()),
    ];
    for column in columns {
        assert_eq!(value(&column, 0), said("/wAQgA=="), "{}", column.data_type());
    }
}

#[test]
fn a_null_of_any_type_is_null_and_so_is_a_row_beyond_the_column() {
    for column in crate::batch::tests::every_type(10).columns() {
        if column.is_null(3) {
            assert_eq!(value(column, 3), Value::Null, "{}", column.data_type());
        }
        assert_eq!(value(column, 10), Value::Null);
    }
    assert_eq!(value(&NullArray::new(1), 0), Value::Null);
}

#[test]
fn decimals_show_all_their_digits() {
    let columns: [ArrayRef; 4] = [
        Arc::new(Decimal32Array::from(vec![150]).with_precision_and_scale(9, 2).unwrap()),
        Arc::new(Decimal64Array::from(vec![150]).with_precision_and_scale(18, 2).unwrap()),
        Arc::new(Decimal128Array::from(vec![150]).with_precision_and_scale(38, 2).unwrap()),
        Arc::new(Decimal256Array::from(vec![i256::from(150)]).with_precision_and_scale(76, 2).unwrap()),
    ];
    for column in columns {
        assert_eq!(value(&column, 0), said("1.50"), "{}", column.data_type());
    }
    let tiny = Decimal128Array::from(vec![-5]).with_precision_and_scale(38, 3).unwrap();
    assert_eq!(value(&tiny, 0), said("-0.005"));
}

#[test]
fn dates_are_iso_8601_over_the_whole_range() {
    for (days, text) in [
        (0, "1970-01-01"),
        (20_779, "2026-11-22"),
        (-719_528, "0000-01-01"),
        (-719_529, "-0001-12-31"),
        (2_932_897, "+10000-01-01"),
    ] {
        assert_eq!(value(&Date32Array::from(vec![days]), 0), said(text));
        assert_eq!(value(&Date64Array::from(vec![i64::from(days) * 86_400_000]), 0), said(text));
    }
    assert_eq!(value(&Date64Array::from(vec![3_600_500]), 0), said("1970-01-01T01:00:00.5"));
    assert_eq!(value(&Date32Array::from(vec![i32::MAX]), 0), said("+5881580-07-11"));
}

#[test]
fn time_stamps_are_iso_8601_with_as_many_digits_as_needed() {
    let at = 1_795_341_600; // 2026-11-22T10:00:00Z
    for (unit, per) in [
        (TimeUnit::Second, 1),
        (TimeUnit::Millisecond, 1_000),
        (TimeUnit::Microsecond, 1_000_000),
        (TimeUnit::Nanosecond, 1_000_000_000),
    ] {
        let shown = |count: i64, zone: Option<&str>| match value(
            &of(count, DataType::Timestamp(unit, zone.map(Into::into))),
            0,
        ) {
            Value::Text(text) => text.into_owned(),
            other => panic!("{other:?}"),
        };
        assert_eq!(shown(at * per, None), "2026-11-22T10:00:00");
        assert_eq!(shown(at * per, Some("UTC")), "2026-11-22T10:00:00Z");
        assert_eq!(shown(at * per, Some("+02:00")), "2026-11-22T12:00:00+02:00");
        assert_eq!(shown(at * per, Some("-0330")), "2026-11-22T06:30:00-03:30");
        assert_eq!(shown(at * per, Some("Europe/Berlin")), "2026-11-22T11:00:00+01:00");
        assert_eq!(shown((at - 120 * 86_400) * per, Some("Europe/Berlin")), "2026-07-25T12:00:00+02:00");
        assert_eq!(shown(at * per, Some("Nowhere/Else")), "2026-11-22T10:00:00Z");
        assert_eq!(shown(-per, None), "1969-12-31T23:59:59");
        if per > 1 {
            assert_eq!(shown(at * per + per / 10, None), "2026-11-22T10:00:00.1");
            assert_eq!(shown(-1, None), format!("1969-12-31T23:59:59.{}", "9".repeat(per.to_string().len() - 1)));
        }
    }
}

#[test]
fn times_and_durations_and_intervals_are_iso_8601() {
    assert_eq!(value(&Time32SecondArray::from(vec![36_000]), 0), said("10:00:00"));
    assert_eq!(value(&Time32MillisecondArray::from(vec![1_500]), 0), said("00:00:01.5"));
    assert_eq!(value(&Time64MicrosecondArray::from(vec![1]), 0), said("00:00:00.000001"));
    assert_eq!(value(&Time64NanosecondArray::from(vec![86_399_000_000_001]), 0), said("23:59:59.000000001"));
    assert_eq!(value(&Time32SecondArray::from(vec![-1]), 0), said("PT-1S"));
    assert_eq!(value(&DurationSecondArray::from(vec![3_600]), 0), said("PT3600S"));
    assert_eq!(value(&DurationMillisecondArray::from(vec![-500]), 0), said("-PT0.5S"));
    assert_eq!(value(&DurationMicrosecondArray::from(vec![i64::MIN]), 0), said("-PT9223372036854.775808S"));
    assert_eq!(value(&DurationNanosecondArray::from(vec![1]), 0), said("PT0.000000001S"));
    assert_eq!(value(&IntervalYearMonthArray::from(vec![14]), 0), said("P14M"));
    assert_eq!(value(&IntervalDayTimeArray::from(vec![IntervalDayTime::new(2, -1_500)]), 0), said("P2DT-1.5S"));
    assert_eq!(
        value(&IntervalMonthDayNanoArray::from(vec![IntervalMonthDayNano::new(1, 2, 3_500_000_000)]), 0),
        said("P1M2DT3.5S")
    );
    assert_eq!(value(&IntervalYearMonthArray::from(vec![0]), 0), said("PT0S"));
}

fn ints(items: &[i64]) -> Value<'static> {
    Value::List(items.iter().map(|item| Value::Int(*item)).collect())
}

#[test]
fn lists_of_every_kind_give_their_items_also_from_a_slice() {
    let item = Arc::new(Field::new("item", DataType::Int64, true));
    let items: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3, 4, 5, 6]));
    let three = || OffsetBuffer::<i32>::from_lengths([2, 2, 2]);
    let starts = || vec![4_i32, 2, 0];
    let columns: [(ArrayRef, [i64; 2]); 5] = [
        (Arc::new(ListArray::new(Arc::clone(&item), three(), Arc::clone(&items), None)), [3, 4]),
        (
            Arc::new(LargeListArray::new(
                Arc::clone(&item),
                OffsetBuffer::from_lengths([2, 2, 2]),
                Arc::clone(&items),
                None,
            )),
            [3, 4],
        ),
        (Arc::new(FixedSizeListArray::new(Arc::clone(&item), 2, Arc::clone(&items), None)), [3, 4]),
        (
            Arc::new(ListViewArray::new(
                Arc::clone(&item),
                ScalarBuffer::from(starts()),
                ScalarBuffer::from(vec![2; 3]),
                Arc::clone(&items),
                None,
            )),
            [3, 4],
        ),
        (
            Arc::new(LargeListViewArray::new(
                Arc::clone(&item),
                ScalarBuffer::from(starts().into_iter().map(i64::from).collect::<Vec<_>>()),
                ScalarBuffer::from(vec![2_i64; 3]),
                items,
                None,
            )),
            [3, 4],
        ),
    ];
    for (column, expected) in columns {
        assert_eq!(value(&column, 1), ints(&expected), "{}", column.data_type());
        assert_eq!(value(&column.slice(1, 2), 0), ints(&expected), "{}", column.data_type());
    }
}

#[test]
fn a_struct_and_a_map_keep_their_order() {
    let a: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    let b: ArrayRef = Arc::new(StringArray::from(vec![Some("x"), None]));
    let fields = Fields::from(vec![Field::new("z", DataType::Int64, true), Field::new("b", DataType::Utf8, true)]);
    let structs = StructArray::new(fields, vec![Arc::clone(&a), Arc::clone(&b)], None);
    let expected = Value::Struct(vec![("z".to_owned(), Value::Int(2)), ("b".to_owned(), Value::Null)]);
    assert_eq!(value(&structs, 1), expected);
    assert_eq!(value(&structs.slice(1, 1), 0), expected);

    let entry =
        Fields::from(vec![Field::new("key", DataType::Int64, false), Field::new("value", DataType::Utf8, true)]);
    let entries = StructArray::new(entry.clone(), vec![a, b], None);
    let map = MapArray::new(
        Arc::new(Field::new("entries", DataType::Struct(entry), false)),
        OffsetBuffer::from_lengths([0, 2]),
        entries,
        None,
        false,
    );
    assert_eq!(value(&map, 0), Value::Struct(vec![]));
    let expected = Value::Struct(vec![("1".to_owned(), said("x")), ("2".to_owned(), Value::Null)]);
    assert_eq!(value(&map, 1), expected);
    assert_eq!(value(&map.slice(1, 1), 0), expected);
}

#[test]
fn dictionaries_runs_and_unions_give_the_value_that_they_stand_for() {
    let dictionary: DictionaryArray<Key> = vec![Some("a"), None, Some("b"), Some("a")].into_iter().collect();
    assert_eq!([0, 1, 2, 3].map(|row| value(&dictionary, row)), [said("a"), Value::Null, said("b"), said("a")]);
    let unsigned = DictionaryArray::<arrow::array::types::UInt16Type>::from_iter(["a", "b"]);
    assert_eq!(value(&unsigned.slice(1, 1), 0), said("b"));

    let values = Int64Array::from(vec![Some(7), None, Some(9)]);
    let run = RunArray::<Int32Type>::try_new(&Int32Array::from(vec![2, 3, 5]), &values).unwrap();
    assert_eq!(
        [0, 1, 2, 3, 4].map(|row| value(&run, row)),
        [Value::Int(7), Value::Int(7), Value::Null, Value::Int(9), Value::Int(9)]
    );
    assert_eq!(value(&run.slice(2, 3), 1), Value::Int(9));
    let short = RunArray::<Int16Type>::try_new(&Int16Array::from(vec![1]), &Int64Array::from(vec![1])).unwrap();
    let long = RunArray::<Int64Type>::try_new(&Int64Array::from(vec![1]), &Int64Array::from(vec![1])).unwrap();
    assert_eq!((value(&short, 0), value(&long, 0)), (Value::Int(1), Value::Int(1)));

    let fields =
        UnionFields::try_new([0, 5], [Field::new("i", DataType::Int64, true), Field::new("t", DataType::Utf8, true)])
            .unwrap();
    let children: Vec<ArrayRef> =
        vec![Arc::new(Int64Array::from(vec![1, 2])), Arc::new(StringArray::from(vec!["x", "y"]))];
    let sparse = UnionArray::try_new(fields.clone(), vec![0, 5].into(), None, children.clone()).unwrap();
    assert_eq!((value(&sparse, 0), value(&sparse, 1)), (Value::Int(1), said("y")));
    let dense = UnionArray::try_new(fields, vec![5, 0].into(), Some(vec![1, 1].into()), children).unwrap();
    assert_eq!((value(&dense, 0), value(&dense, 1)), (said("y"), Value::Int(2)));
}

proptest! {
    #[test]
    fn a_time_stamp_says_what_another_library_says(seconds in -62_000_000_000_i64..250_000_000_000, nanos in 0_i64..1_000_000_000) {
        let shown = timestamp(seconds, TimeUnit::Second, Some("UTC"));
        prop_assert_eq!(shown.parse::<jiff::Timestamp>().unwrap(), jiff::Timestamp::from_second(seconds).unwrap());
        let near = seconds % 9_000_000_000;
        let shown = timestamp(near * NANOS_A_SECOND + nanos, TimeUnit::Nanosecond, Some("America/New_York"));
        let expected = jiff::Timestamp::from_nanosecond(i128::from(near * NANOS_A_SECOND + nanos)).unwrap();
        prop_assert_eq!(shown.parse::<jiff::Timestamp>().unwrap(), expected);
    }

    #[test]
    fn no_count_of_any_unit_panics(count: i64, days: i32) {
        let counts = Int64Array::from(vec![count]);
        for unit in [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond] {
            for zone in [None, Some("+14:00"), Some("Europe/Berlin")] {
                let column = cast(&counts, &DataType::Timestamp(unit, zone.map(Into::into))).unwrap();
                prop_assert!(matches!(value(&column, 0), Value::Text(_)));
            }
            let column = cast(&counts, &DataType::Duration(unit)).unwrap();
            prop_assert!(matches!(value(&column, 0), Value::Text(_)));
        }
        prop_assert!(matches!(value(&Date64Array::from(vec![count]), 0), Value::Text(_)));
        prop_assert!(matches!(value(&Time64NanosecondArray::from(vec![count]), 0), Value::Text(_)));
        prop_assert!(matches!(value(&Date32Array::from(vec![days]), 0), Value::Text(_)));
    }
}
