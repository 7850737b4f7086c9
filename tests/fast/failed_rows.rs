//! The failed rows as a file of the input's format beside the output, ready to run again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{ArrayRef, Int64Array, ListArray, StringArray};
use arrow::datatypes::Int32Type;
use arrow::record_batch::RecordBatch;
use model::spec::OnBadRow;
use model::table::FileKind;
use model::{FailureKind, JobSpec, RefusalCode, TableInfo, keys};
use serde_json::json;
use tables::batch::Codec;
use tables::parquet_out::RowsOutput;
use tests::mill::{Life, Mill};
use tests::provider::{Reply, ScriptedProvider};

use crate::retries::{FAILED, IN, ONE_ROW, OUT, run, run_in, spec_with, text};

/// Fails what begins with `bad`, until it is mended.
fn mendable() -> (ScriptedProvider, Arc<AtomicBool>) {
    let mended = Arc::new(AtomicBool::new(false));
    let is_mended = Arc::clone(&mended);
    let script = move |_: usize, prompt: &str| match prompt.starts_with("bad") && !is_mended.load(Ordering::Relaxed) {
        true => Reply::Status(400),
        false => Reply::Answer(format!("<{prompt}>")),
    };
    (ScriptedProvider::new(Box::new(script)), mended)
}

/// A job over the failed rows of another.
fn again(spec: &JobSpec) -> JobSpec {
    let mut again = spec.clone();
    again.id = "again".parse().unwrap();
    again.input.uri = spec.failed_rows_uri();
    again.output.uri = model::spec::before_extension(&again.input.uri, "answers");
    again
}

#[tokio::test(start_paused = true)]
async fn failed_rows_come_back_as_they_were_and_are_answered_when_they_are_run_again() {
    let header = "\u{feff}\"id\";title;\"note\"\r\n";
    let rows = [
        "\"007\";bad one;\" x \"\r\n",
        "2;good;\r\n",
        "3;\"bad; \"\"two\"\"\";\"two\r\nlines\"\r\n",
        "4;good;ü\r\n",
        "5;bad three;last",
    ];
    let failed = [header, rows[0], rows[2], rows[4]].concat();
    let (provider, mended) = mendable();
    let mill = Mill::new(provider).unwrap();
    let spec = spec_with(json!({"batch": {"max_rows": 2}}));
    let end = run_in(&mill, &spec, [header, &rows.concat()].concat().as_bytes()).await;
    assert_eq!((end.counts.answered, end.counts.failed_rows()), (2, 3));
    assert_eq!(text(&mill, FAILED).await, failed);
    let named = end.failed_rows.unwrap();
    let (bytes, checksum) = (failed.len() as u64, model::digest::Checksum::of(failed.as_bytes()));
    assert_eq!((named.uri.as_str(), named.bytes, named.checksum), (FAILED, bytes, checksum));

    mended.store(true, Ordering::Relaxed);
    let again = again(&spec);
    mill.open(&again).await.unwrap();
    let end = mill.live(&again.id).await.unwrap();
    assert_eq!((end.counts.rows, end.counts.answered, end.failed_rows), (3, 3, None));
    let answered = text(&mill, &again.output.uri).await;
    assert!(answered.contains("3;\"bad; \"\"two\"\"\";\"two\r\nlines\";\"<bad; \"\"two\"\">\";"), "{answered}");
    assert!(mill.get(&again.failed_rows_uri()).await.is_err(), "no row failed, no file");
    let paid = mill.provider().paid();
    assert_eq!(paid.iter().filter(|prompt| !prompt.starts_with("bad")).count(), 2, "answered rows are not paid again");
}

#[tokio::test(start_paused = true)]
async fn gzipped_and_tab_separated_inputs_get_failed_rows_of_their_kind() {
    for (input, output, failed) in [
        ("s3://lake/in/p.tsv", "s3://lake/out/p.tsv", "s3://lake/out/p.failed.tsv"),
        ("s3://lake/in/p.tsv", "s3://lake/out/p.csv.gz", "s3://lake/out/p.failed.csv.gz"),
    ] {
        let (provider, mended) = mendable();
        let mill = Mill::new(provider).unwrap();
        let spec = spec_with(json!({"input": {"uri": input}, "output": {"uri": output}}));
        let end = run_in(&mill, &spec, b"id\ttitle\n1\tgood\n2\tbad\n").await;
        assert_eq!(end.failed_rows.unwrap().uri, failed);
        let content = mill.get(failed).await.unwrap();
        assert_eq!(content.starts_with(&[0x1f, 0x8b]), failed.ends_with(".gz"));
        assert!(failed.ends_with(".gz") || content == b"id\ttitle\n2\tbad\n");
        mended.store(true, Ordering::Relaxed);
        let again = again(&spec);
        mill.open(&again).await.unwrap();
        assert_eq!(mill.live(&again.id).await.unwrap().counts.answered, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_malformed_row_that_failed_alone_comes_back_as_it_was() {
    let spec = JobSpec { on_bad_row: OnBadRow::FailRow, ..spec_with(json!({})) };
    let (mill, end) = run(ScriptedProvider::echo(), &spec, b"id,title\n1,a\n2,b,\"c\"\"\"\n3\n4,d\n").await;
    assert_eq!(end.counts.failed, [(FailureKind::BadRow, 2)].into());
    assert_eq!(text(&mill, FAILED).await, "id,title\n2,b,\"c\"\"\"\n3\n");
}

/// A Parquet file with a column of text, one of numbers and one of lists.
pub(crate) fn parquet(rows: usize) -> Vec<u8> {
    let title = StringArray::from_iter((0..rows).map(|row| match row % 5 {
        0 => None,
        3 => Some(format!("bad {row}")),
        _ => Some(format!("good {row}")),
    }));
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>(
        (0..rows).map(|row| (row % 2 == 0).then(|| vec![Some(row as i32), None])),
    );
    let columns: [(&str, ArrayRef); 3] = [
        ("id", Arc::new(Int64Array::from_iter_values(0..rows as i64))),
        ("title", Arc::new(title)),
        ("list", Arc::new(list)),
    ];
    let batch = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap();
    let info = TableInfo {
        kind: FileKind::Parquet,
        columns: Vec::new(),
        csv: None,
        arrow_schema: Some(tables::parquet_in::schema::encode(&batch.schema())),
        codec: None,
    };
    let mut output = RowsOutput::new(&info, Codec::Zstd).unwrap();
    output.push(&batch).unwrap();
    output.finish().unwrap()
}

fn read_parquet(content: Vec<u8>) -> RecordBatch {
    let content = bytes::Bytes::from(content);
    let builder = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(content).unwrap();
    let schema = Arc::clone(builder.schema());
    let batches = builder.build().unwrap().collect::<Result<Vec<_>, _>>().unwrap();
    arrow::compute::concat_batches(&schema, &batches).unwrap()
}

#[tokio::test(start_paused = true)]
async fn failed_rows_of_a_parquet_file_are_a_parquet_file() {
    let spec = spec_with(json!({
        "input": {"uri": "s3://lake/in/t.parquet"}, "output": {"uri": "s3://lake/out/t.parquet"}, "batch": {"max_rows": 7},
    }));
    let (provider, mended) = mendable();
    let mill = Mill::new(provider).unwrap();
    let end = run_in(&mill, &spec, &parquet(20)).await;
    // Rows without a title have an empty prompt.
    assert_eq!(end.counts.failed, [(FailureKind::InvalidRequest, 4), (FailureKind::EmptyPrompt, 4)].into());
    assert_eq!(end.failed_rows.unwrap().uri, "s3://lake/out/t.failed.parquet");
    let failed = read_parquet(mill.get("s3://lake/out/t.failed.parquet").await.unwrap());
    let wanted = arrow::array::UInt32Array::from_iter_values((0..20).filter(|row| row % 5 == 0 || row % 5 == 3));
    assert_eq!(failed, arrow::compute::take_record_batch(&read_parquet(parquet(20)), &wanted).unwrap());
    mended.store(true, Ordering::Relaxed);
    let again = again(&spec);
    mill.open(&again).await.unwrap();
    let end = mill.live(&again.id).await.unwrap();
    assert_eq!((end.counts.answered, end.counts.failed_rows()), (4, 4), "what is empty stays empty");
}

#[tokio::test(start_paused = true)]
async fn the_place_of_the_failed_rows_is_looked_at_before_anything_is_spent() {
    let input = b"id,title\n1,good\n2,bad\n";
    let (provider, _) = mendable();
    let mill = Mill::new(provider).unwrap();
    mill.put(FAILED, b"somebody's work").await.unwrap();
    let end = run_in(&mill, &spec_with(json!({})), input).await;
    let refusal = end.refusal.unwrap();
    assert_eq!(refusal.code, RefusalCode::OutputExists);
    assert!(refusal.message.contains(FAILED) && refusal.message.contains("failed rows would go"), "{refusal}");
    assert_eq!((text(&mill, FAILED).await.as_str(), mill.provider().paid().len()), ("somebody's work", 0));
    assert!(mill.get(OUT).await.is_err());

    let replace = json!({"id": "replace", "output": {"uri": OUT, "overwrite": true}});
    let end = run_in(&mill, &spec_with(replace), input).await;
    assert_eq!((end.counts.answered, end.failed_rows.is_some()), (1, true));
    assert_eq!(text(&mill, FAILED).await, "id,title\n2,bad\n");

    // No row fails: what the job before left would be taken for this one's.
    let all_good = json!({"id": "good", "output": {"uri": OUT, "overwrite": true}});
    let end = run_in(&mill, &spec_with(all_good), b"id,title\n1,good\n").await;
    assert_eq!((end.counts.answered, end.failed_rows), (1, None));
    assert!(mill.get(FAILED).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn no_job_writes_where_the_failed_rows_of_a_living_job_would_go() {
    let mill = Mill::new(ScriptedProvider::echo()).unwrap();
    let first = spec_with(json!({}));
    mill.put(IN, ONE_ROW).await.unwrap();
    mill.open(&first).await.unwrap();
    let mut writes = 0;
    while !mill.store().exists(&keys::plan(&first.id)).await.unwrap() {
        mill.live_until(&first.id, writes, true).await.unwrap();
        writes += 1;
    }
    let second = spec_with(json!({"id": "second", "output": {"uri": FAILED, "overwrite": true}}));
    mill.open(&second).await.unwrap();
    let refusal = mill.live(&second.id).await.unwrap().refusal.unwrap();
    assert_eq!(refusal.code, RefusalCode::OutputExists);
    assert!(refusal.message.contains("job job, which has not ended"), "{refusal}");
    assert_eq!(mill.live(&first.id).await.unwrap().counts.answered, 1);
}

#[tokio::test(start_paused = true)]
async fn a_death_at_any_write_leaves_the_same_failed_rows() {
    let input = b"id,title\r\n1,good\r\n2,bad\r\n3,bad\r\n4,good\r\n5,good\r\n";
    let spec = spec_with(json!({"batch": {"max_rows": 2}}));
    for lands in [true, false] {
        let mut writes = 0;
        loop {
            let (provider, _) = mendable();
            let mill = Mill::new(provider).unwrap();
            mill.put(IN, input).await.unwrap();
            mill.open(&spec).await.unwrap();
            let Life::Died = mill.live_until(&spec.id, writes, lands).await.unwrap() else { break };
            let end = mill.live(&spec.id).await.unwrap();
            let what = format!("died at write {writes}, landed: {lands}");
            assert_eq!((end.counts.answered, end.counts.failed_rows()), (3, 2), "{what}");
            assert_eq!(text(&mill, FAILED).await, "id,title\r\n2,bad\r\n3,bad\r\n", "{what}");
            assert_eq!(mill.provider().paid().len(), 5, "{what}");
            writes += 1;
        }
        assert!(writes > 20, "a job of three batches has more than {writes} writes");
    }
}
