//! What it costs to decode a result line: as usual, with serde, and its custom id alone.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)] // a bench is a test, too

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use providers::openai::{decode_line, decode_odd_line, line_id};

const WORDS: [&str; 8] =
    ["almond", "crème brûlée", "\"must-have\"", "gluten-free", "of", "12 oz", "jalapeño", "pickle"];

/// Lines as providers write them: the content is itself JSON text, so it is escaped twice.
fn lines() -> Vec<String> {
    let line = |row: usize| {
        let words: Vec<&str> = (0..10 + row % 40).map(|word| WORDS[(row * 7 + word * word) % WORDS.len()]).collect();
        let content = serde_json::json!({"category": "Snacks/Family", "summary": words.join(" "), "confidence": 0.97});
        serde_json::json!({
            "id": format!("batch_req_{row:013}"), "custom_id": format!("00000000000000aa-{row}"),
            "response": {"status_code": 200, "request_id": format!("req_{row:016x}"), "body": {
                "id": format!("chatcmpl-{row:016x}"), "object": "chat.completion", "created": 1_764_000_000 + row,
                "model": "gpt-4o-mini-2024-07-18",
                "choices": [{"index": 0, "message": {"role": "assistant", "content": content.to_string(), "refusal": null},
                             "logprobs": null, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 243, "completion_tokens": 64, "total_tokens": 307,
                          "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0}},
                "service_tier": "default", "system_fingerprint": "fp_44added55e"}},
            "error": null})
        .to_string()
    };
    (0..1_000).map(line).collect()
}

fn decode(criterion: &mut Criterion) {
    let lines = lines();
    let mut group = criterion.benchmark_group("decode_line");
    group.throughput(Throughput::Bytes(lines.iter().map(|line| line.len() as u64).sum()));
    group.bench_function("usual", |bench| {
        bench.iter(|| lines.iter().for_each(|line| drop(black_box(decode_line(line.as_bytes())))));
    });
    group.bench_function("odd", |bench| {
        bench.iter(|| lines.iter().for_each(|line| drop(black_box(decode_odd_line(line.as_bytes())))));
    });
    group.bench_function("id", |bench| {
        bench.iter(|| lines.iter().for_each(|line| drop(black_box(line_id(line.as_bytes())))));
    });
    group.finish();
}

criterion_group!(benches, decode);
criterion_main!(benches);
