use model::{CustomId, Nonce};
use proptest::prelude::*;

use super::*;

fn spec() -> JobSpec {
    serde_json::from_str(
        r#"{"id":"j","input":{"uri":"s3://b/in.csv"},"output":{"uri":"s3://b/out.csv"},
            "request":{"model":"sim/echo","template":"{{ a }}"}}"#,
    )
    .unwrap()
}

fn table(kind: FileKind, columns: &[&str]) -> TableInfo {
    let columns = columns.iter().map(|c| (*c).to_owned()).collect();
    TableInfo { kind, columns, csv: None, arrow_schema: None, codec: None }
}

fn any_row() -> impl Strategy<Value = RowSize> {
    (proptest::option::of(1u64..400), 0u64..300).prop_map(|(encoded, source)| RowSize { encoded, source })
}

proptest! {
    #[test]
    fn no_batch_exceeds_a_limit_and_no_row_is_lost(rows in proptest::collection::vec(any_row(), 0..300), max_rows in 1u32..40) {
        let limits = Limits { max_rows, max_bytes: 1_000, max_source_bytes: 900, max_line_bytes: 400 };
        let mut cutter = Cutter::new(limits);
        let mut batches: Vec<Filled> = rows.iter().filter_map(|row| cutter.place(*row)).collect();
        batches.push(cutter.filled());
        for batch in &batches {
            prop_assert!(batch.rows <= max_rows && batch.send_bytes <= 1_000 && batch.source_bytes <= 900, "{batch:?}");
        }
        prop_assert_eq!(batches.iter().map(|b| b.rows as usize).sum::<usize>(), rows.len());
    }

    #[test]
    fn a_rows_size_grows_with_the_digits_of_its_place(count in 1u32..1_200) {
        let limits = Limits { max_rows: 50_000, max_bytes: u64::MAX, max_source_bytes: u64::MAX, max_line_bytes: u64::MAX };
        let mut cutter = Cutter::new(limits);
        let nonce = Nonce::from_bits(1);
        let id_bytes = |row| CustomId { nonce: nonce.as_str(), row }.to_string().len() as u64;
        (0..count).for_each(|_| assert!(cutter.place(RowSize { encoded: Some(id_bytes(0)), source: 0 }).is_none()));
        prop_assert_eq!(cutter.filled().send_bytes, (0..count).map(id_bytes).sum::<u64>());
    }
}

#[test]
fn an_added_column_that_the_input_has_is_refused_by_name() {
    let refusal = check_table(&spec(), &table(FileKind::Csv, &["a", "response"])).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::ColumnClash);
    assert!(refusal.message.contains("\"response\""), "{refusal}");
    assert_eq!(check_table(&spec(), &table(FileKind::Csv, &["a", "status"])), Ok(()), "details are off");
}

#[test]
fn an_output_name_of_the_other_format_is_refused() {
    let refusal = check_table(&spec(), &table(FileKind::Parquet, &["a"])).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::OutputFormat);
}

fn left(number: u32, first_row: u64, rows: u64, object: char) -> Left<char> {
    Left { number, first_row, rows, object }
}

#[test]
fn a_split_goes_on_behind_its_unbroken_chain() {
    let objects = vec![left(1, 0, 10, 'a'), left(2, 10, 10, 'b'), left(4, 30, 10, 'd')];
    let chain: String = durable_chain(objects).iter().map(|l| l.object).collect();
    assert_eq!(chain, "ab");
}

#[test]
fn of_two_splitters_batches_only_those_that_continue_the_chain_count() {
    let objects = vec![left(1, 0, 8, 'a'), left(1, 0, 10, 'x'), left(2, 10, 10, 'y'), left(2, 8, 8, 'b')];
    let chain: String = durable_chain(objects).iter().map(|l| l.object).collect();
    assert_eq!(chain, "ab");
}

#[test]
fn the_order_in_which_batches_were_found_does_not_matter_but_among_those_of_one_number() {
    let objects = vec![left(3, 15, 5, 'c'), left(2, 10, 5, 'b'), left(1, 0, 10, 'a'), left(2, 10, 7, 'x')];
    let chain: String = durable_chain(objects).iter().map(|l| l.object).collect();
    assert_eq!(chain, "abc");
}

fn claim(job: &str) -> OutputClaim {
    OutputClaim { schema: 1, nonce: Nonce::from_bits(1), job: job.parse().unwrap(), uri: "s3://b/out.csv".to_owned() }
}

#[test]
fn an_output_belongs_to_one_living_job() {
    let job: JobId = "j".parse().unwrap();
    let (ours, theirs) = (claim("j"), claim("k"));
    let mut spec = spec();
    let is_refused = |ownership| matches!(ownership, Ownership::Refuse(_));
    let [output, failed] = written(&spec);
    let ownership = |job: &JobId, spec: &JobSpec, latest: Option<(u32, &OutputClaim, bool)>, exists: bool| {
        let whose = super::ownership(job, spec, &output, latest, exists);
        // The failed rows' place is claimed by the same rules; only the message says which of them it is.
        match (super::ownership(job, spec, &failed, latest, exists), &whose) {
            (Ownership::Refuse(refusal), Ownership::Refuse(_)) => {
                assert!(refusal.message.starts_with("s3://b/out.failed.csv, where this job's failed rows would go, "))
            }
            (other, whose) => assert_eq!(other, *whose),
        }
        whose
    };
    assert_eq!(ownership(&job, &spec, None, false), Ownership::Claim(1));
    assert_eq!(ownership(&job, &spec, Some((1, &ours, false)), true), Ownership::Ours);
    assert_eq!(
        ownership(&job, &spec, Some((1, &theirs, true)), false),
        Ownership::Claim(2),
        "it ended and left nothing"
    );
    assert!(is_refused(ownership(&job, &spec, None, true)));
    assert!(is_refused(ownership(&job, &spec, Some((1, &theirs, true)), true)));
    spec.output.overwrite = true;
    assert!(is_refused(ownership(&job, &spec, Some((1, &theirs, false)), true)), "its job is alive");
    assert_eq!(ownership(&job, &spec, Some((1, &theirs, true)), true), Ownership::Claim(2));
    assert_eq!(ownership(&job, &spec, None, true), Ownership::Claim(1));
}
