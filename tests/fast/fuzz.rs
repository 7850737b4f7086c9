//! What comes from outside, changed in every way: nothing panics, and what is taken is taken soundly.
//!
//! Each target begins with sound inputs (the corpus, or ones made here) and a mutator (`tests/src/mutate.rs`). The cases are
//! numbered, and a number gives the same bytes everywhere. `BATCHMILL_FUZZ_CASES` sets how many each target gets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // the helpers of tests are tests, too

use std::io::Read as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use bus::window::{self, Window};
use bytes::Bytes;
use events::Topic;
use model::spec::Request;
use model::{JobSpec, TableInfo, Team, keys};
use object_store::memory::InMemory;
use providers::ProviderSettings;
use runtime::Locations;
use runtime::settings::{LocationRules, TeamLocations};
use tables::batch::BatchMeta;
use tables::{Caps, Decoder, OpenStep, Opener, Position, Step};
use tests::mutate::Mutator;

/// So many cases of each target, unless the environment says otherwise.
const CASES: u64 = 20_000;

fn cases() -> u64 {
    std::env::var("BATCHMILL_FUZZ_CASES")
        .ok()
        .map_or(CASES, |text| text.parse().expect("BATCHMILL_FUZZ_CASES is a number"))
}

/// Runs a target over its cases; a failure is told with its number and its bytes.
fn fuzz(sound: Vec<Vec<u8>>, target: impl Fn(&[u8])) {
    let mutator = Mutator::new(sound);
    for case in 0..cases() {
        let bytes = mutator.bytes(case);
        if catch_unwind(AssertUnwindSafe(|| target(&bytes))).is_err() {
            panic!("case {case} failed: {:?}", String::from_utf8_lossy(&bytes));
        }
    }
}

fn files(folder: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(folder);
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).filter(|bytes| bytes.len() < 10_000).collect()
}

/// What reading a file came to: its table, its rows as text, its faults and where each chunk ended, or the refusal.
type Reading = Result<(TableInfo, Vec<String>, Vec<Position>), String>;

fn caps(read_bytes: u64) -> Caps {
    Caps { max_record_bytes: 4_096, max_columns: 500, chunk_bytes: 64, chunk_rows: 3, read_bytes, ..Caps::default() }
}

fn describe(name: &str, file: &[u8], caps: Caps) -> Result<TableInfo, tables::Error> {
    let mut opener = Opener::new(name, file.len() as u64, None, None, caps);
    loop {
        match opener.step()? {
            OpenStep::Done(table) => return Ok(table),
            OpenStep::Need(ranges) => {
                ranges.into_iter().for_each(|range| opener.push(range.clone(), part(file, range)))
            }
        }
    }
}

/// A reader may ask for no byte that the file does not have.
fn part(file: &[u8], range: std::ops::Range<u64>) -> Bytes {
    assert!(range.start < range.end && range.end <= file.len() as u64, "{range:?} of {}", file.len());
    Bytes::copy_from_slice(&file[range.start as usize..range.end as usize])
}

fn rows_from(
    file: &[u8],
    table: &TableInfo,
    caps: Caps,
    resume: Option<Position>,
) -> Result<(Vec<String>, Vec<Position>), tables::Error> {
    let mut decoder = Decoder::open(table, file.len() as u64, caps, resume)?;
    let (mut rows, mut ends) = (Vec::new(), Vec::new());
    loop {
        match decoder.step()? {
            Step::Need(ranges) => ranges.into_iter().for_each(|range| decoder.push(range.clone(), part(file, range))),
            Step::End(ended) => {
                let before = resume.map_or(0, |position| position.row);
                assert_eq!(ended.rows, before + rows.len() as u64);
                return Ok((rows, ends));
            }
            Step::Rows(chunk) => {
                assert_eq!(chunk.first_row, resume.map_or(0, |position| position.row) + rows.len() as u64);
                let faults: Vec<_> = chunk.faults.iter().map(|fault| (fault.row, &fault.message)).collect();
                rows.extend((0..chunk.rows.num_rows()).map(|row| {
                    let fault = faults.iter().find(|(at, _)| *at == row).map(|(_, message)| *message);
                    format!("{:?} {fault:?}", chunk.rows.slice(row, 1).columns())
                }));
                ends.push(chunk.end);
            }
        }
    }
}

fn read(name: &str, file: &[u8], caps: Caps) -> Reading {
    let said = |error: tables::Error| match error.refusal() {
        Some(refusal) => refusal.to_string(),
        // Anything else would be tried again for ever.
        None => panic!("{error} is no refusal"),
    };
    let table = describe(name, file, caps).map_err(said)?;
    let (rows, ends) = rows_from(file, &table, caps, None).map_err(said)?;
    Ok((table, rows, ends))
}

/// Whatever the pieces in which it comes, a file reads alike; and a reader that goes on behind a chunk gives what the first
/// would have given.
fn check_file(name: &str, file: &[u8]) {
    let whole = read(name, file, caps(1 << 20));
    assert_eq!(whole, read(name, file, caps(5)), "in pieces of five bytes");
    if let Ok((table, rows, ends)) = whole
        && let Some(middle) = ends.get(ends.len() / 2)
    {
        let (rest, _) = rows_from(file, &table, caps(7), Some(*middle)).unwrap();
        assert_eq!(rest, rows[usize::try_from(middle.row).unwrap()..], "resumed at {middle:?}");
    }
}

#[test]
fn csv_reads_alike_in_any_pieces_and_from_any_chunk_on() {
    fuzz(files("csv"), |file| check_file("x.csv", file));
}

#[test]
fn gzipped_csv_reads_as_its_text_does() {
    fuzz(files("gz"), |file| {
        check_file("x.csv.gz", file);
        let mut text = Vec::new();
        if let Ok((table, rows, _)) = read("x.csv.gz", file, caps(64)) {
            flate2::bufread::MultiGzDecoder::new(file).read_to_end(&mut text).unwrap();
            let (plain, rows_of_text, _) = read("x.csv", &text, caps(64)).unwrap();
            assert_eq!((table.columns, rows), (plain.columns, rows_of_text));
        }
    });
}

#[test]
fn a_parquet_file_is_read_or_refused_and_its_panics_are_refusals() {
    // A panic of the Parquet library is caught and becomes a refusal; its words need not be seen.
    let seen = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.location().is_none_or(|place| place.file().contains("batchmill") || place.file().starts_with("tests"))
        {
            seen(panic);
        }
    }));
    let sound = files("parquet").into_iter().filter(|file| file.len() < 3_000).collect();
    fuzz(sound, |file| check_file("x.parquet", file));
}

#[test]
fn batch_metadata_is_read_or_refused() {
    fuzz(files("parquet"), |file| drop(BatchMeta::from_tail(file)));
}

#[test]
fn a_result_line_is_decoded_or_bad_and_its_id_is_the_same_either_way() {
    let provider = providers::open("p", &ProviderSettings::simulator("http://127.0.0.1:1/v1")).unwrap();
    let sound = [
        r#"{"id":"r","custom_id":"0000000000000007-12","response":{"status_code":200,"request_id":"q","body":{"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"caf\u00e9 \ud83d\ude00"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}},"error":null}"#,
        r#"{"id":"r","custom_id":"0000000000000007-1","response":null,"error":{"code":"batch_expired","message":"late"}}"#,
        r#"{"custom_id":"0000000000000007-2","response":{"status_code":400,"body":{"error":{"message":"m","type":"t","code":null}}},"error":null}"#,
        r#"{"custom_id":"0000000000000007-3","response":{"status_code":"200","body":{"choices":[{"message":{"content":[{"type":"text","text":"a"},{"text":"b"}],"refusal":null,"tool_calls":[{"id":1}]},"finish_reason":"length"}]}}}"#,
        r#"{"custom_id":"0000000000000007-4","response":{"status_code":200,"body":{"choices":[{"message":{"refusal":"no"},"finish_reason":"content_filter"}]}}}"#,
        r#"{"id":"r","custom_id":"0000000000000007-5","response":{"status_code":200,"request_id":"q","body":{"id":"c","created":1764000000,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"{\"a\": \"\\n\u00e9\"}","refusal":null,"annotations":[]},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":22,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":3,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":2}},"service_tier":"default"}},"error":null}"#,
    ];
    fuzz(sound.iter().map(|line| line.as_bytes().to_vec()).collect(), |line| {
        let id = provider.line_id(line);
        // Usual lines have a decoder of their own.
        assert_eq!(providers::openai::decode_line(line), providers::openai::decode_odd_line(line));
        match provider.decode_line(line) {
            // A broken character may be mended in the decoding, so only ids of the form that we send are compared.
            Ok(answer) => {
                if let Some(id) = id.as_deref().filter(|id| model::CustomId::parse(id).is_some()) {
                    assert_eq!(answer.custom_id, id);
                }
            }
            Err(bad) => assert!(!bad.message.is_empty() && bad.message.len() < 500),
        }
    });
}

/// A record of the corpus as the bytes that the mutator changes: content type, key, value, headers, divided by lines of 0x1e.
fn record_seeds() -> Vec<Vec<u8>> {
    let of = |file: Vec<u8>| {
        let record: serde_json::Value = serde_json::from_slice(&file).unwrap();
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let mut parts = vec![text(&record["key"]), text(&record["value"])];
        for (name, value) in record["headers"].as_object().unwrap() {
            parts.extend([name.clone(), text(value)]);
        }
        parts.join("\u{1e}").into_bytes()
    };
    let specs = files("specs").into_iter().map(|spec| [b"job\x1e", &spec[..]].concat());
    files("events").into_iter().map(of).chain(specs).collect()
}

#[test]
fn an_event_is_poison_with_a_code_or_reads_back_as_itself() {
    fuzz(record_seeds(), |bytes| {
        let parts: Vec<&[u8]> = bytes.split(|byte| *byte == 0x1e).collect();
        let value = parts.get(1).copied();
        let headers: Vec<(String, &[u8])> = parts[2.min(parts.len())..]
            .chunks_exact(2)
            .map(|pair| (String::from_utf8_lossy(pair[0]).into_owned(), pair[1]))
            .collect();
        for topic in Topic::ALL {
            match events::decode(*topic, Some(parts[0]), &headers, value) {
                Err(poison) => assert!(!poison.code().is_empty() && poison.to_string().len() < 1_200),
                Ok(decoded) => {
                    assert_eq!(decoded.event.topic(), *topic);
                    let envelope = events::Envelope::new("1", "/fuzz", jiff::Timestamp::UNIX_EPOCH);
                    // What came in structured mode may be too large for our own form with its headers.
                    let Ok(encoded) = events::encode(&decoded.event, &envelope) else { continue };
                    let again =
                        events::decode(*topic, Some(&encoded.key), &encoded.headers, Some(&encoded.value)).unwrap();
                    assert_eq!(again.event, decoded.event);
                }
            }
        }
    });
}

#[test]
fn a_spec_is_refused_or_keeps_its_digest() {
    fuzz(files("specs"), |bytes| {
        let Ok(spec) = serde_json::from_slice::<JobSpec>(bytes) else { return };
        let again: JobSpec = serde_json::from_slice(&serde_json::to_vec(&spec).unwrap()).unwrap();
        assert_eq!(again.digest(), spec.digest());
        if spec.validate().is_ok() {
            assert!(!spec.provider().is_empty() && keys::parse(&keys::job(&spec.id)).is_some());
        }
    });
}

#[test]
fn a_template_is_refused_or_fails_a_row_alone() {
    let specs = files("specs").into_iter().filter_map(|bytes| serde_json::from_slice::<JobSpec>(&bytes).ok());
    // Those that take their time are in the corpus.
    let short = specs.map(|spec| spec.request.template).filter(|text| text.len() < 200 && !text.contains("range"));
    let seeds = short
        .map(String::into_bytes)
        .chain([b"{% for x in row|items %}{{ x[0] }}={{ x[1]|upper }};{% endfor %}".to_vec()]);
    fuzz(seeds.collect(), |bytes| {
        let template = String::from_utf8_lossy(bytes).into_owned();
        let request = Request { model: "sim/echo".to_owned(), system: None, template, params: serde_json::Map::new() };
        let Ok(template) = prompts::Template::compile(&request, &["a".to_owned(), "b".to_owned()]) else { return };
        let cells = ["x", "y"].map(|text| model::Value::Text(text.into()));
        let used: Vec<_> = template.columns_used().iter().map(|column| cells[*column].clone()).collect();
        if let Ok(prompt) = template.render(&used) {
            assert_eq!(template.render(&used).unwrap().user, prompt.user);
        }
    });
}

#[test]
fn a_key_that_is_taken_is_written_again_as_it_was() {
    let nonce = "00000000000000aa";
    let sound = [
        "open/job".to_owned(),
        "jobs/job/0-job.json".to_owned(),
        format!("jobs/job/1-batches/00000007-a1-{nonce}.parquet"),
        "jobs/job/2-plan.json".to_owned(),
        "jobs/job/3-submissions/00000007-a1/0001.json".to_owned(),
        format!("jobs/job/4-results/00000007-a1-{nonce}.parquet"),
        "jobs/job/4-results/00000007-a1.json".to_owned(),
        "jobs/job/cancel.json".to_owned(),
        format!("outputs/{}/1", model::digest::sha256_hex(b"s3://lake/out.csv")),
    ];
    fuzz(sound.map(String::into_bytes).into(), |bytes| {
        let text = String::from_utf8_lossy(bytes);
        if let Some(key) = keys::parse(&text) {
            assert_eq!(keys::format(&key), text);
            assert!(!text.contains("..") && !text.contains("//"));
        }
    });
}

#[test]
fn window_metadata_is_ignored_or_says_runs_in_order_behind_the_offset() {
    let sound = (0..8).map(|gap| {
        let mut window = Window::starting_at(100, "");
        for offset in 100..400 {
            window.deliver(offset);
        }
        for offset in (100..400).filter(|offset| offset % (gap + 2) != 0) {
            window.finish(offset);
        }
        let (mark, metadata) = window.position().unwrap();
        format!("{mark:08}{metadata}").into_bytes()
    });
    fuzz(sound.collect(), |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let Some((mark, metadata)) = text.split_at_checked(8) else { return };
        let Ok(mark) = mark.parse::<i64>() else { return };
        let runs = window::decode(metadata, mark);
        let mut at = mark;
        for run in &runs {
            assert!(at < run.start && run.start < run.end, "{runs:?}");
            at = run.end;
        }
        // A window that starts there delivers what no run says is finished, and says the same of itself again.
        let mut window = Window::starting_at(mark, metadata);
        if let Some((again, metadata)) = window.position() {
            assert!(again >= 0 || again == mark);
            assert!(window::decode(&metadata, again).len() <= runs.len());
        }
        for offset in mark..mark.saturating_add(50) {
            let finished = runs.iter().any(|run| run.contains(&offset));
            assert_eq!(window.deliver(offset), !finished, "{offset} of {runs:?}");
        }
    });
}

#[test]
fn a_location_lies_below_what_the_team_may_use_or_is_refused() {
    let (team, rules) =
        (|name: &str| name.parse::<Team>().unwrap(), |allow: &str| TeamLocations { allow: vec![allow.to_owned()] });
    let teams = [(team("a"), rules("s3://lake/a/")), (team("b"), rules("s3://lake/b"))].into();
    let rules = LocationRules { teams, allow_file: true, ..LocationRules::default() };
    let locations = Locations::in_memory(rules, Arc::new(InMemory::new()));
    let specs = files("specs").into_iter().filter_map(|bytes| serde_json::from_slice::<JobSpec>(&bytes).ok());
    let uris = specs.flat_map(|spec| [spec.input.uri, spec.output.uri]);
    let sound = uris.chain(
        ["s3://lake/a/x.csv", "s3://lake/b/y/z.csv", "s3://lake/a/../b/x.csv", "file:///lake/a/x"].map(str::to_owned),
    );
    fuzz(sound.map(String::into_bytes).collect(), |bytes| {
        let text = String::from_utf8_lossy(bytes);
        for (name, below) in [("a", "s3://lake/a"), ("b", "s3://lake/b")] {
            if locations.resolve(&text, &team(name)).is_ok() {
                let rest = text.strip_prefix(below).unwrap();
                assert!(rest.is_empty() || rest.starts_with('/'), "{text}");
                assert!(rest.split('/').skip(1).all(|segment| !matches!(segment, "" | "." | "..")), "{text}");
            }
        }
    });
}
