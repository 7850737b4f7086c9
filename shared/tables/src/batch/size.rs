//! How much data an array's rows hold, in bytes: what bounds row groups, chunks and batches.
//!
//! It counts what the rows of a slice would take in a file, uncompressed, not what the memory behind them does: a slice
//! of a large array counts its own rows only, and a row of a dictionary counts the average entry. It is cheap (a few
//! operations a column) except for views and for lists of lists, which are walked.

use arrow::array::{Array, AsArray, OffsetSizeTrait};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;

/// The bytes of all columns' rows.
#[must_use]
pub fn batch_bytes(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(|column| array_bytes(column)).sum()
}

/// The bytes of an array's rows.
#[must_use]
pub fn array_bytes(array: &dyn Array) -> usize {
    let rows = array.len();
    if rows == 0 {
        return 0;
    }
    let values = match array.data_type() {
        DataType::Null => 0,
        DataType::Boolean => rows.div_ceil(8),
        DataType::Utf8 => spread(array.as_string::<i32>().value_offsets()),
        DataType::LargeUtf8 => spread(array.as_string::<i64>().value_offsets()),
        DataType::Binary => spread(array.as_binary::<i32>().value_offsets()),
        DataType::LargeBinary => spread(array.as_binary::<i64>().value_offsets()),
        DataType::Utf8View => array.as_string_view().lengths().map(|length| length as usize + 4).sum(),
        DataType::BinaryView => array.as_binary_view().lengths().map(|length| length as usize + 4).sum(),
        DataType::FixedSizeBinary(width) => rows * usize::try_from(*width).unwrap_or(0),
        DataType::List(_) => list(array.as_list::<i32>().values(), array.as_list::<i32>().value_offsets()),
        DataType::LargeList(_) => list(array.as_list::<i64>().values(), array.as_list::<i64>().value_offsets()),
        DataType::Map(..) => {
            let map = array.as_map();
            let (start, end) = ends(map.value_offsets());
            array_bytes(&map.entries().slice(start, end - start)) + 4 * rows
        }
        DataType::FixedSizeList(..) => array_bytes(array.as_fixed_size_list().values()),
        DataType::Struct(_) => array.as_struct().columns().iter().map(|column| array_bytes(column)).sum(),
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            let entries = dictionary.values();
            let all = array_bytes(entries);
            array_bytes(dictionary.keys()) + all.min(all.div_ceil(entries.len().max(1)) * rows)
        }
        other => match other.primitive_width() {
            Some(width) => rows * width,
            None => array.to_data().get_slice_memory_size().unwrap_or_else(|_| array.get_array_memory_size()),
        },
    };
    values + if array.nulls().is_some() { rows.div_ceil(8) } else { 0 }
}

/// How many of the first rows fit into `budget` bytes; 0 when not even one does.
#[must_use]
pub fn rows_within(batch: &RecordBatch, budget: usize) -> usize {
    if batch_bytes(batch) <= budget {
        return batch.num_rows();
    }
    let (mut fits, mut beyond) = (0, batch.num_rows());
    while beyond - fits > 1 {
        let middle = fits + (beyond - fits) / 2;
        if batch_bytes(&batch.slice(0, middle)) <= budget { fits = middle } else { beyond = middle }
    }
    fits
}

fn ends<O: OffsetSizeTrait>(offsets: &[O]) -> (usize, usize) {
    let at = |offset: Option<&O>| offset.map_or(0, |offset| offset.as_usize());
    (at(offsets.first()), at(offsets.last()))
}

/// Variable-width values: their bytes, and a length for each.
fn spread<O: OffsetSizeTrait>(offsets: &[O]) -> usize {
    let (start, end) = ends(offsets);
    end - start + 4 * offsets.len().saturating_sub(1)
}

fn list<O: OffsetSizeTrait>(values: &dyn Array, offsets: &[O]) -> usize {
    let (start, end) = ends(offsets);
    array_bytes(&values.slice(start, end - start)) + 4 * offsets.len().saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, DictionaryArray, Int64Array, ListArray, StringArray, StringViewArray};
    use arrow::datatypes::Int32Type;

    #[test]
    fn a_slice_counts_its_own_rows_only() {
        let texts = StringArray::from(vec!["x".repeat(1_000); 100]);
        assert_eq!(array_bytes(&texts), 100 * 1_004);
        assert_eq!(array_bytes(&texts.slice(10, 5)), 5 * 1_004);
        let views = StringViewArray::from_iter_values(vec!["x".repeat(1_000); 100]);
        assert_eq!(array_bytes(&views.slice(10, 5)), 5 * 1_004);
        let lists = ListArray::from_iter_primitive::<arrow::datatypes::Int64Type, _, _>(
            (0..10).map(|i| Some(vec![Some(i); 8])),
        );
        assert!((8 * 8..8 * 8 + 10).contains(&array_bytes(&lists.slice(3, 1))), "{}", array_bytes(&lists.slice(3, 1)));
    }

    #[test]
    fn a_dictionary_with_large_entries_does_not_count_them_all_for_each_row() {
        let dictionary: DictionaryArray<Int32Type> =
            (0..100).map(|i| i.to_string().repeat(1_000)).collect::<Vec<_>>().iter().map(String::as_str).collect();
        assert!(array_bytes(&dictionary.slice(0, 1)) < 2_100);
    }

    #[test]
    fn rows_within_a_budget_are_as_many_as_fit() {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![1; 100]));
        let batch = RecordBatch::try_from_iter([("a", column)]).unwrap();
        assert_eq!(rows_within(&batch, 800), 100);
        assert_eq!(rows_within(&batch, 799), 99);
        assert_eq!(rows_within(&batch, 8), 1);
        assert_eq!(rows_within(&batch, 7), 0);
    }
}
