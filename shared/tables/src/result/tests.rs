use model::{BatchId, FailureKind, RowStatus};
use proptest::prelude::*;

use super::*;

use crate::batch::tests::{file_of, with_damage};
use crate::batch::{Codec, MAX_GROUP_BYTES, MAX_GROUP_ROWS};

/// The cells of a row, `-` where there is none.
fn texts(end: &FinalRow<'_>, details: bool) -> Vec<String> {
    let cells = end.cells().into_iter().map(|cell| match cell {
        Cell::None => "-".to_owned(),
        Cell::Text(text) | Cell::Word(text) => text.to_owned(),
        Cell::Error(kind, message) => {
            let mut text = String::new();
            write_error(kind, message, &mut text).unwrap();
            text
        }
        Cell::Count(count) => count.to_string(),
        Cell::Cost(cost) => cost.to_string(),
    });
    cells.take(if details { 12 } else { 2 }).collect()
}

pub(crate) fn row(row: u64) -> ResultRow<'static> {
    ResultRow {
        row,
        status: RowStatus::Answered,
        response: Some("fine"),
        error_kind: None,
        error: None,
        finish_reason: Some("stop"),
        model: Some("echo-1"),
        usage: Usage { input: Some(5), cached: None, output: Some(2), reasoning: Some(0) },
        tries: 1,
    }
}

fn write(rows: &[ResultRow<'_>]) -> Vec<u8> {
    let mut writer =
        ResultWriter::new(&"spring".parse().unwrap(), BatchId { number: 7, attempt: 1 }, Codec::Snappy).unwrap();
    let mut bytes = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        writer.push(row).unwrap();
        assert_eq!(writer.rows(), index as u64 + 1);
        bytes.extend(writer.take());
    }
    bytes.extend(writer.finish().unwrap());
    bytes
}

/// How many rows the row groups have.
fn lengths_of(bytes: &[u8]) -> Vec<usize> {
    let mut reader = ResultReader::open(file_of(bytes)).unwrap();
    std::iter::from_fn(|| reader.next_ends(false).unwrap()).map(|ends| ends.len()).collect()
}

#[test]
fn long_results_lie_in_row_groups_of_bounded_size() {
    let response = "x".repeat(100_000);
    let rows: Vec<_> = (0..400).map(|id| ResultRow { response: Some(&response), ..row(id) }).collect();
    let bytes = write(&rows);
    assert_eq!(ResultReader::open(file_of(&bytes)).unwrap().rows(), 400);
    let lengths = lengths_of(&bytes);
    assert!(lengths.len() >= 3 && lengths.iter().all(|rows| rows * 100_000 <= MAX_GROUP_BYTES), "{lengths:?}");
    let many: Vec<_> = (0..40_000).map(row).collect();
    let lengths = lengths_of(&write(&many));
    assert_eq!(lengths, [MAX_GROUP_ROWS, MAX_GROUP_ROWS, 40_000 - 2 * MAX_GROUP_ROWS]);
}

#[test]
fn a_file_of_another_kind_is_no_result_data() {
    let batch = crate::batch::tests::batch_file(&crate::batch::tests::every_type(3), 3, Codec::Snappy);
    assert!(ResultReader::open(file_of(&batch)).is_err());
}

#[test]
fn broken_result_data_is_an_error_or_other_rows_but_never_a_panic() {
    let bytes = write(&(0..200).map(row).collect::<Vec<_>>());
    let mut refused = 0;
    with_damage(&bytes, |broken| {
        let read = ResultReader::open(file_of(broken)).and_then(|mut reader| {
            while reader.next_row()?.is_some() {}
            Ok(())
        });
        refused += usize::from(read.is_err());
    });
    assert!(refused > 100, "{refused}");
}

#[test]
fn a_failed_row_shows_its_kind_and_message_and_no_answer() {
    let last = ResultRow {
        status: RowStatus::Failed,
        response: Some("half an ans"),
        error_kind: Some(FailureKind::Truncated),
        error: Some("cut at 60 tokens"),
        ..row(1)
    };
    let end = FinalRow::new(&last, 3, None);
    assert_eq!(texts(&end, false), ["-", "truncated: cut at 60 tokens"]);
    let details =
        ["-", "truncated: cut at 60 tokens", "failed", "truncated", "stop", "echo-1", "5", "-", "2", "0", "3", "-"];
    assert_eq!(texts(&end, true), details);
    assert_eq!(FinalRow { error: None, ..end }.error_cell().as_deref(), Some("truncated"));
}

#[test]
fn an_answered_row_shows_no_error_of_an_earlier_attempt() {
    let last = ResultRow { error_kind: Some(FailureKind::Expired), error: Some("late"), ..row(1) };
    let end = FinalRow::new(&last, 2, Some("0.0000125".parse().unwrap()));
    assert_eq!(
        texts(&end, true),
        ["fine", "-", "answered", "-", "stop", "echo-1", "5", "-", "2", "0", "2", "0.0000125"]
    );
    assert_eq!((end.error, end.error_cell()), (None, None));
}

#[test]
fn cells_are_as_many_as_the_columns_that_the_spec_adds() {
    let spec = r#"{"id":"a","input":{"uri":"s3://a/b.csv"},"output":{"uri":"s3://a/c.csv"},"request":{"model":"sim/echo","template":"x"}}"#;
    let mut spec: model::JobSpec = serde_json::from_str(spec).unwrap();
    spec.details = true;
    assert_eq!(FinalRow::new(&row(0), 1, None).cells().len(), spec.added_columns().len());
}

/// What of a row is kept.
fn kept<'a>(row: &ResultRow<'a>) -> ResultRow<'a> {
    let answered = row.status == RowStatus::Answered;
    let count = |count: Option<u64>| count.map(|count| count.min(i64::MAX as u64));
    let Usage { input, cached, output, reasoning } = row.usage;
    ResultRow {
        response: row.response.filter(|_| answered),
        error_kind: row.error_kind.filter(|_| !answered),
        error: row.error.filter(|text| !answered && !text.is_empty()),
        usage: Usage { input: count(input), cached: count(cached), output: count(output), reasoning: count(reasoning) },
        ..*row
    }
}

#[test]
fn a_row_group_ends_where_it_is_told_and_not_without_rows() {
    let mut writer =
        ResultWriter::new(&"spring".parse().unwrap(), BatchId { number: 7, attempt: 1 }, Codec::Snappy).unwrap();
    let mut bytes = Vec::new();
    for (id, end) in [(0, true), (1, false), (2, true), (3, false)] {
        writer.push(&row(id)).unwrap();
        for _ in 0..if end { 2 } else { 0 } {
            writer.end_group().unwrap();
            bytes.extend(writer.take());
        }
    }
    bytes.extend(writer.finish().unwrap());
    assert_eq!(lengths_of(&bytes), [1, 2, 1]);
}

type Drawn = (u64, u8, [Option<String>; 4], Option<FailureKind>, [Option<u64>; 4], u32);

fn drawn() -> impl Strategy<Value = Drawn> {
    let text = || proptest::option::of(".{0,30}");
    let kind = proptest::option::of(proptest::sample::select(FailureKind::ALL));
    (any::<u64>(), 0_u8..3, [text(), text(), text(), text()], kind, any::<[Option<u64>; 4]>(), any::<u32>())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn whatever_is_written_is_read(drawn in proptest::collection::vec(drawn(), 0..200)) {
        let rows: Vec<ResultRow<'_>> = drawn.iter().map(|(row, status, texts, kind, counts, tries)| ResultRow {
            row: *row,
            status: [RowStatus::Answered, RowStatus::Failed, RowStatus::Retried][usize::from(*status)],
            response: texts[0].as_deref(),
            error_kind: *kind,
            error: texts[1].as_deref(),
            finish_reason: texts[2].as_deref(),
            model: texts[3].as_deref(),
            usage: Usage { input: counts[0], cached: counts[1], output: counts[2], reasoning: counts[3] },
            tries: *tries,
        }).collect();
        let bytes = write(&rows);
        let mut reader = ResultReader::open(file_of(&bytes)).unwrap();
        for row in &rows {
            prop_assert_eq!(reader.next_row().unwrap(), Some(kept(row)));
        }
        prop_assert_eq!(reader.next_row().unwrap(), None);
        let mut reader = ResultReader::open(file_of(&bytes)).unwrap();
        let ends = reader.next_ends(true).unwrap();
        prop_assert_eq!(ends.as_ref().map_or(0, Ends::len), rows.len(), "so few rows are one row group");
        for (index, row) in rows.iter().map(kept).enumerate() {
            let end = End { row: row.row, status: row.status, error_kind: row.error_kind, usage: row.usage };
            prop_assert_eq!(ends.as_ref().unwrap().get(index).unwrap(), end);
        }
        prop_assert_eq!(bytes, write(&rows));
    }
}
