//! What the tables cost: cutting a CSV file into records and cells, batch data and result data written and read, and the
//! answered file.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)] // a bench is a test, too

use std::fs::File;
use std::hint::black_box;
use std::io::{Seek as _, Write as _};

use arrow::array::Array;
use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use model::{BatchId, Nonce, RowStatus, TableInfo};
use tables::batch::{BatchHead, BatchReader, BatchWriter, Codec, RecordReader};
use tables::csv::{CsvOutput, cells};
use tables::result::{FinalRow, ResultReader, ResultRow, ResultWriter, Usage};
use tables::{Caps, Chunk, Decoder, OpenStep, Opener, Position, Step};

const ROWS: usize = 20_000;
const WORDS: [&str; 8] =
    ["almond", "crème brûlée", "\"\"must-have\"\"", "gluten-free", "of", "12 oz,", "jalapeño", "pickle"];

/// A catalogue: one description in four is quoted.
fn text() -> Bytes {
    let mut text = String::from("product_id,title,description,price\r\n");
    for row in 0..ROWS {
        let words: Vec<&str> = (0..20 + row % 30).map(|word| WORDS[(row * 7 + word * word) % WORDS.len()]).collect();
        let description = words.join(" ");
        let quote = if description.contains(['"', ',']) { "\"" } else { "" };
        text.push_str(&format!("{row:09},Product {row},{quote}{description}{quote},{}.99\r\n", row % 50));
    }
    Bytes::from(text)
}

fn layout(text: &Bytes) -> TableInfo {
    let mut opener = Opener::new("x.csv", text.len() as u64, None, None, Caps::default());
    loop {
        match opener.step().unwrap() {
            OpenStep::Done(info) => return info,
            OpenStep::Need(ranges) => ranges
                .into_iter()
                .for_each(|range| opener.push(range.clone(), text.slice(range.start as usize..range.end as usize))),
        }
    }
}

fn chunks(text: &Bytes, info: &TableInfo) -> Vec<Chunk> {
    let mut decoder = Decoder::open(info, text.len() as u64, Caps::default(), None).unwrap();
    let mut chunks = Vec::new();
    loop {
        match decoder.step().unwrap() {
            Step::Need(ranges) => ranges
                .into_iter()
                .for_each(|range| decoder.push(range.clone(), text.slice(range.start as usize..range.end as usize))),
            Step::Rows(chunk) => chunks.push(chunk),
            Step::End(_) => return chunks,
        }
    }
}

fn records(chunks: &[Chunk]) -> Vec<&[u8]> {
    chunks
        .iter()
        .flat_map(|chunk| (0..chunk.rows.num_rows()).map(|row| tables::row_view::record(&chunk.rows, row).unwrap()))
        .collect()
}

fn batch(chunks: &[Chunk]) -> Vec<u8> {
    let id = BatchId { number: 1, attempt: 1 };
    let head = BatchHead { job: "bench".parse().unwrap(), id, nonce: Nonce::from_bits(7), first: Position::default() };
    let mut writer = BatchWriter::new(&chunks[0].rows.schema(), head, Codec::Snappy).unwrap();
    let mut file = Vec::new();
    for chunk in chunks {
        writer.push(&chunk.rows, chunk.first_row, &chunk.faults).unwrap();
        file.extend(writer.take());
    }
    file.extend(writer.finish(chunks.last().unwrap().end, ROWS as u64, 0).unwrap().0);
    file
}

fn answers() -> Vec<String> {
    (0..ROWS)
        .map(|row| format!("{{\"category\":\"Snacks\",\"summary\":\"{}\"}}", "a fine thing ".repeat(1 + row % 9)))
        .collect()
}

fn result<'a>(row: usize, answers: &'a [String]) -> ResultRow<'a> {
    ResultRow {
        row: row as u64,
        status: RowStatus::Answered,
        response: Some(&answers[row]),
        error_kind: None,
        error: None,
        finish_reason: Some("stop"),
        model: Some("gpt-4o-mini-2024-07-18"),
        usage: Usage { input: Some(243), cached: Some(0), output: Some(64), reasoning: None },
        tries: 0,
    }
}

fn results(answers: &[String]) -> Vec<u8> {
    let id = BatchId { number: 1, attempt: 1 };
    let mut writer = ResultWriter::new(&"bench".parse().unwrap(), id, Codec::Snappy).unwrap();
    (0..ROWS).for_each(|row| writer.push(&result(row, answers)).unwrap());
    let mut file = writer.take();
    file.extend(writer.finish().unwrap());
    file
}

fn on_disk(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

fn csv(criterion: &mut Criterion) {
    let text = text();
    let info = layout(&text);
    let chunks = chunks(&text, &info);
    let (records, answers) = (records(&chunks), answers());
    let mut group = criterion.benchmark_group("csv");
    group.sample_size(20).throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function("records", |bench| bench.iter(|| crate::chunks(&text, &info)));
    let dialect = info.csv.as_ref().unwrap();
    group.bench_function("cells", |bench| {
        bench.iter(|| {
            records.iter().for_each(|record| cells(record, dialect, &[1, 2], |cell| drop(black_box(cell))).unwrap())
        });
    });
    group.bench_function("answered file", |bench| {
        bench.iter(|| {
            let mut output = CsvOutput::new(&info, &["response", "error"], false).unwrap();
            output.header().unwrap();
            for (row, record) in records.iter().enumerate() {
                output.answered(record, &FinalRow::new(&result(row, &answers), 1, None)).unwrap();
            }
            output.finish().unwrap()
        });
    });
    group.finish();
}

fn data(criterion: &mut Criterion) {
    let text = text();
    let info = layout(&text);
    let (chunks, answers) = (chunks(&text, &info), answers());
    let (batch_file, result_file) = (on_disk(&batch(&chunks)), on_disk(&results(&answers)));
    let mut group = criterion.benchmark_group("data");
    group.sample_size(20).throughput(Throughput::Elements(ROWS as u64));
    group.bench_function("batch, written", |bench| bench.iter(|| batch(&chunks)));
    group.bench_function("batch, read", |bench| {
        bench.iter(|| {
            let reader = BatchReader::open(batch_file.try_clone().unwrap()).unwrap();
            reader.map(|rows| rows.unwrap().len()).sum::<usize>()
        });
    });
    group.bench_function("batch, records as views", |bench| {
        bench.iter(|| {
            let reader = RecordReader::open(batch_file.try_clone().unwrap()).unwrap();
            reader.map(|records| records.unwrap().len()).sum::<usize>()
        });
    });
    group.bench_function("results, written", |bench| bench.iter(|| results(&answers)));
    group.bench_function("results, read", |bench| {
        bench.iter(|| {
            let mut reader = ResultReader::open(result_file.try_clone().unwrap()).unwrap();
            let mut bytes = 0;
            while let Some(row) = reader.next_row().unwrap() {
                bytes += row.response.map_or(0, str::len);
            }
            bytes
        });
    });
    group.finish();
}

criterion_group!(benches, csv, data);
criterion_main!(benches);
