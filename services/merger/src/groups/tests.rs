use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::compute::concat_batches;
use arrow::record_batch::RecordBatch;
use model::price::{ListedPrice, TokenPrices};
use model::spec::COST_COLUMN;
use model::{BatchId, Counts, FailureKind, Nonce};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::prelude::*;
use tables::Position;
use tables::batch::{BatchHead, BatchWriter};
use tables::parquet_in::schema;
use tables::result::{ResultRow, ResultWriter, Usage};

use super::*;

const ADDED: [&str; 12] = [
    "answer",
    "why",
    "status",
    "error_kind",
    "finish_reason",
    "model",
    "input_tokens",
    "cached_tokens",
    "output_tokens",
    "reasoning_tokens",
    "attempts",
    COST_COLUMN,
];

/// How a row ends in one attempt.
#[derive(Debug, Clone)]
struct Word {
    answer: String,
    failed: Option<(FailureKind, Option<String>)>,
    usage: [Option<u64>; 4],
    model: Option<String>,
}

/// A batch: its rows' words, which of them needed a second attempt, and after which rows its results' row groups end.
#[derive(Debug, Clone)]
struct Drawn {
    words: Vec<Word>,
    again: Vec<usize>,
    ends: Vec<usize>,
}

fn file_of(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn id(attempt: u32) -> BatchId {
    BatchId { number: 1, attempt }
}

fn rows(first: u64, count: usize) -> RecordBatch {
    let numbers = (first..).take(count).map(|row| i64::try_from(row).unwrap());
    let texts = (first..).take(count).map(|row| (row % 7 != 3).then(|| format!("row {row}, ü")));
    let columns: [(&str, ArrayRef); 2] =
        [("n", Arc::new(Int64Array::from_iter_values(numbers))), ("t", Arc::new(StringArray::from_iter(texts)))];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
}

fn batch_data(first: u64, count: usize) -> File {
    let (rows, start) = (rows(first, count), Position { row: first, ..Position::default() });
    let head = BatchHead { job: "spring".parse().unwrap(), id: id(1), nonce: Nonce::from_bits(7), first: start };
    let mut writer = BatchWriter::new(&rows.schema(), head, Codec::Snappy).unwrap();
    writer.push(&rows, first, &[]).unwrap();
    file_of(&writer.finish(Position::default(), 1, 1).unwrap().0)
}

fn result_row<'a>(row: u64, word: &'a Word, retried: bool) -> ResultRow<'a> {
    let [input, cached, output, reasoning] = word.usage;
    let failed = word.failed.as_ref();
    let kind = failed.map(|(kind, _)| *kind);
    ResultRow {
        row,
        status: match (retried, kind) {
            (true, _) => RowStatus::Retried,
            (false, None) => RowStatus::Answered,
            (false, Some(_)) => RowStatus::Failed,
        },
        response: Some(&word.answer),
        error_kind: if retried { Some(FailureKind::Timeout) } else { kind },
        error: failed.and_then(|(_, message)| message.as_deref()),
        finish_reason: failed.is_none().then_some("stop"),
        model: word.model.as_deref(),
        usage: Usage { input, cached, output, reasoning },
        tries: 0,
    }
}

/// The results of both attempts.
fn results(first: u64, drawn: &Drawn) -> Vec<Box<dyn Source>> {
    let mut writers =
        [1, 2].map(|attempt| ResultWriter::new(&"spring".parse().unwrap(), id(attempt), Codec::Snappy).unwrap());
    for (place, word) in drawn.words.iter().enumerate() {
        let (row, retried) = (first + place as u64, drawn.again.contains(&place));
        writers[0].push(&result_row(row, word, retried)).unwrap();
        if retried {
            writers[1].push(&result_row(row, word, false)).unwrap();
        }
        if drawn.ends.contains(&place) {
            writers[0].end_group().unwrap();
        }
    }
    let needed = if drawn.again.is_empty() { 1 } else { 2 };
    let files = writers.into_iter().take(needed).map(|writer| file_of(&writer.finish().unwrap()));
    files.map(|file| Box::new(file) as Box<dyn Source>).collect()
}

/// What a merge of all batches gives: the table, the failed rows of each row group, the counts, and how many row groups'
/// answers could be copied.
type Merged = (RecordBatch, Vec<Vec<u32>>, Vec<Counts>, usize);

fn merged(all: &[Drawn], price: Option<&ListedPrice>, copy: bool) -> Merged {
    let info = TableInfo {
        kind: FileKind::Parquet,
        columns: vec!["n".into(), "t".into()],
        csv: None,
        arrow_schema: Some(schema::encode(&rows(0, 1).schema())),
        codec: None,
    };
    let mut output = ParquetOutput::new(&info, &ADDED, Codec::Snappy).unwrap();
    let (mut bytes, mut failed, mut counts, mut copied, mut first) = (Vec::new(), Vec::new(), Vec::new(), 0, 5);
    for drawn in all {
        let mut chunks = BatchChunks::open(batch_data(first, drawn.words.len())).unwrap();
        let mut zip = Zip::open((1, Some(first)), results(first, drawn), None, price).unwrap();
        while let Some(group) = chunks.next_group().unwrap() {
            copied += usize::from(zip.lines_up(group.rows().unwrap()));
            failed.push(if copy {
                append(&mut output, &group, &mut zip).unwrap()
            } else {
                let mut answers = Noting::new(&mut zip);
                output.append_group(&group, &mut answers).unwrap();
                answers.failed
            });
            bytes.extend(output.take().concat());
        }
        counts.push(zip.finish().unwrap());
        first += drawn.words.len() as u64;
    }
    bytes.extend(output.finish().unwrap().concat());
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes)).unwrap();
    let schema = Arc::clone(builder.schema());
    let read = builder.build().unwrap().collect::<Result<Vec<_>, _>>().unwrap();
    (concat_batches(&schema, &read).unwrap(), failed, counts, copied)
}

fn price() -> ListedPrice {
    let prices = TokenPrices { input: "0.3".parse().unwrap(), cached_input: None, output: "1.25".parse().unwrap() };
    let (as_of, source, realtime) = (None, None, None);
    ListedPrice { entry: "sim/echo".to_owned(), as_of, source, simulated: false, batch: prices, realtime }
}

fn word() -> impl Strategy<Value = Word> {
    let answer = prop_oneof![".{0,30}", "[a-c]{0,2}", Just("ab \"c\",\r\n".repeat(700))];
    let kind = proptest::sample::select(FailureKind::ALL);
    let failed = proptest::option::weighted(0.2, (kind, proptest::option::of(".{0,12}")));
    let usage = proptest::array::uniform4(proptest::option::of(0_u64..100_000));
    (answer, failed, usage, proptest::option::of("m[12]")).prop_map(|(answer, failed, usage, model)| Word {
        answer,
        failed,
        usage,
        model,
    })
}

fn drawn() -> impl Strategy<Value = Drawn> {
    (proptest::collection::vec(word(), 1..40), any::<(bool, bool)>(), any::<[u8; 3]>()).prop_map(
        |(words, (retried, lined_up), places)| {
            let places = || places.iter().map(|place| usize::from(*place) % words.len());
            let (again, ends) = (places().filter(|_| retried).collect(), places().filter(|_| !lined_up).collect());
            Drawn { words, again, ends }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn copied_answers_are_those_that_are_decoded_and_encoded_anew(
        all in proptest::collection::vec(drawn(), 1..5),
        priced in any::<bool>(),
    ) {
        let price = priced.then(price);
        prop_assert_eq!(merged(&all, price.as_ref(), true), merged(&all, price.as_ref(), false));
        let lined_up = |drawn: &Drawn| {
            drawn.again.is_empty() && drawn.ends.iter().all(|end| end + 1 == drawn.words.len())
        };
        prop_assert_eq!(merged(&all, None, true).3, all.iter().filter(|drawn| lined_up(drawn)).count());
    }
}

fn plain(count: usize) -> Drawn {
    let word = |row: usize| Word {
        answer: format!("answer {row}"),
        failed: (row % 900 == 7).then(|| (FailureKind::Refused, Some("no".to_owned()))),
        usage: [Some(row as u64), None, Some(3), Some(0)],
        model: Some("m".to_owned()),
    };
    Drawn { words: (0..count).map(word).collect(), again: Vec::new(), ends: Vec::new() }
}

#[test]
fn several_row_groups_of_a_batch_are_copied_and_one_in_two_pieces_is_encoded_anew() {
    // Row groups end at 16,384 rows. The second lies in two pieces in the results.
    let all = [Drawn { ends: vec![16_384 + 99], ..plain(40_000) }, plain(20)];
    let (copied, anew) = (merged(&all, None, true), merged(&all, None, false));
    assert!(copied == anew, "the tables differ");
    assert_eq!(copied.0.num_rows(), 40_020);
    // The third row group and what follows end elsewhere than the batch data's.
    assert_eq!(copied.3, 2);
}

/// The error of a merge of these results, if its rows begin with `first`.
fn refused(first: u64, drawn: &Drawn, at: u64, copy: bool) -> Option<String> {
    let mut zip = Zip::open((1, Some(first)), results(at, drawn), None, None).unwrap();
    if copy {
        assert!(zip.lines_up(drawn.words.len()));
        return zip.vouch().err().map(|error| error.to_string());
    }
    drawn.words.iter().find_map(|_| zip.next_row().err().map(|error| error.to_string()))
}

#[test]
fn results_whose_rows_are_out_of_place_are_found() {
    for copy in [false, true] {
        assert_eq!(refused(5, &plain(10), 5, copy), None);
        let error = refused(5, &plain(10), 6, copy).unwrap();
        assert!(error.contains("row 6 in the place of row 5"), "{error}");
    }
}

#[test]
fn a_row_that_is_to_be_tried_again_in_the_last_attempt_is_found() {
    let all = Drawn { again: vec![3], ..plain(10) };
    let mut first = results(5, &all);
    first.truncate(1);
    let mut zip = Zip::open((1, Some(5)), first, None, None).unwrap();
    assert!(zip.lines_up(10));
    assert!(zip.vouch().err().unwrap().to_string().contains("row 8 is not ended exactly once"));
}
