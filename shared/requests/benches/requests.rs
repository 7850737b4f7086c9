//! What it costs to make a row's request: its exact size, as the splitter asks for it, and its bytes, as the dispatcher does.
//! With a template of plain columns, which is rendered by hand, and with one that minijinja renders.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)] // a bench is a test, too

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use model::table::{CsvDialect, FileKind};
use model::{CustomId, JobSpec, TableInfo};
use providers::ProviderSettings;
use requests::Requests;

const ROWS: usize = 10_000;
const PLAIN: &str = "Title: {{ title }}\nDescription: {{ description }}\nPrice: {{ price }}";
const WITH_LOGIC: &str =
    "Title: {{ title|upper }}{% if price %}\nPrice: {{ price }}{% endif %}\n{{ description|trim }}";

fn table() -> TableInfo {
    let header = "id,title,description,price\n";
    let csv = CsvDialect {
        delimiter: ',',
        bom: false,
        header: header.to_owned(),
        quote_all: false,
        line_ending: "\n".to_owned(),
        gzip: false,
    };
    let columns = header.trim().split(',').map(str::to_owned).collect();
    TableInfo { kind: FileKind::Csv, columns, csv: Some(csv), arrow_schema: None, codec: None }
}

/// Records of which one in four is quoted.
fn rows() -> RecordBatch {
    let records = (0..ROWS).map(|row| {
        let words = "crisp, salted and gluten-free ".repeat(5 + row % 10);
        if row % 4 == 0 {
            format!("{row},Product {row},\"{words}\"\"must-have\"\"\",{}.99\n", row % 50)
        } else {
            format!("{row},Produit {row},{},{}.99\n", words.replace(',', "\u{e9}"), row % 50)
        }
    });
    let records: ArrayRef = Arc::new(BinaryArray::from_iter_values(records));
    let schema = Schema::new(vec![Field::new("record", DataType::Binary, false)]);
    RecordBatch::try_new(Arc::new(schema), vec![records]).unwrap()
}

fn requests_with(template: &str) -> Requests {
    let spec = serde_json::json!({
        "id": "bench", "input": { "uri": "s3://b/in.csv" }, "output": { "uri": "s3://b/out.csv" },
        "request": {
            "model": "p/gpt-4o-mini", "template": template, "params": { "max_tokens": 256 },
            "system": "You are a catalogue assistant for a grocery marketplace. Answer with one JSON object.",
        },
    });
    let spec: JobSpec = serde_json::from_value(spec).unwrap();
    let provider = providers::open("p", &ProviderSettings::simulator("http://127.0.0.1:1/v1")).unwrap();
    Requests::new(&spec, &table(), provider.as_ref(), 1 << 20).unwrap()
}

fn made(criterion: &mut Criterion) {
    let rows = rows();
    let id = |row: usize| CustomId { nonce: "00000000000000aa", row: row as u32 };
    let mut group = criterion.benchmark_group("requests");
    group.sample_size(20).throughput(Throughput::Elements(ROWS as u64));
    for (name, template) in [("plain", PLAIN), ("with logic", WITH_LOGIC)] {
        let requests = requests_with(template);
        group.bench_function(format!("size, {name}"), |bench| {
            bench.iter(|| {
                let mut of = requests.of(&rows);
                (0..ROWS).map(|row| of.size(row, &id(row)).unwrap()).sum::<u64>()
            });
        });
        group.bench_function(format!("encode, {name}"), |bench| {
            bench.iter(|| {
                let (mut of, mut out) = (requests.of(&rows), Vec::new());
                (0..ROWS).for_each(|row| of.encode(row, &id(row), &mut out).unwrap());
                out
            });
        });
    }
    group.finish();
}

criterion_group!(benches, made);
criterion_main!(benches);
