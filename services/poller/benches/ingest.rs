//! What it costs to take in a batch's result file: 50,000 lines in another order into [`Answers`], and from there into result
//! data.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)] // a bench is a test, too

use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use model::{BatchId, CustomId, Nonce, RowStatus};
use poller::Config;
use poller::answers::{Answers, Said};
use providers::{Outcome, Provider, ProviderSettings};
use runtime::Scratch;
use tables::batch::Codec;
use tables::result::{ResultRow, ResultWriter, Usage};

const ROWS: usize = 50_000;
/// What a download gives at a time.
const PIECE_BYTES: usize = 64 << 10;

/// The file, shuffled.
fn file(nonce: &Nonce) -> Vec<u8> {
    let mut file = Vec::new();
    for at in 0..ROWS {
        let row = at * 7_919 % ROWS;
        let id = CustomId { nonce: nonce.as_str(), row: u32::try_from(row).unwrap() };
        let words = "award-winning yeast, trout \\\\\\\"must-have\\\\\\\" crème brûlée ".repeat(1 + row % 9);
        file.extend_from_slice(format!(r#"{{"id":"batch_req_{row:013}","custom_id":"{id}","response":{{"status_code":200,"request_id":"req_{row:016x}","body":{{"id":"chatcmpl-{row:016x}","object":"chat.completion","created":1764000000,"model":"gpt-4o-mini-2024-07-18","choices":[{{"index":0,"message":{{"role":"assistant","content":"{{\"category\":\"Snacks\",\"summary\":\"{words}\"}}","refusal":null}},"logprobs":null,"finish_reason":"stop"}}],"usage":{{"prompt_tokens":243,"completion_tokens":64,"total_tokens":307,"prompt_tokens_details":{{"cached_tokens":0,"audio_tokens":0}}}},"service_tier":"default"}}}},"error":null}}"#).as_bytes());
        file.push(b'\n');
    }
    file
}

fn answers<'p>(provider: &'p dyn Provider, nonce: &Nonce, file: &[u8], max_decoded_bytes: usize) -> Answers<'p> {
    let config = Config { max_decoded_bytes, ..Config::default() };
    let scratch = Scratch::new(None, 1 << 30).unwrap();
    let mut answers = Answers::new(provider, nonce.clone(), ROWS, &config, scratch);
    file.chunks(PIECE_BYTES).for_each(|piece| answers.push(piece).unwrap());
    answers.end_file().unwrap();
    answers.finish().unwrap();
    answers
}

fn write(answers: &Answers<'_>) -> usize {
    let mut writer =
        ResultWriter::new(&"bench".parse().unwrap(), BatchId { number: 1, attempt: 1 }, Codec::Snappy).unwrap();
    let mut line = Vec::new();
    for row in 0..ROWS {
        let said = answers.of(row, &mut line).unwrap();
        let Said::Ended(Outcome::Answered { response, finish_reason, model, tokens }) = said else {
            panic!("{said:?}")
        };
        let result = ResultRow {
            row: row as u64,
            status: RowStatus::Answered,
            response: Some(response.as_ref()),
            error_kind: None,
            error: None,
            finish_reason: finish_reason.as_deref(),
            model: model.as_deref(),
            usage: Usage::from(tokens.unwrap()),
            tries: 0,
        };
        writer.push(&result).unwrap();
    }
    writer.take().len() + writer.finish().unwrap().len()
}

fn ingest(criterion: &mut Criterion) {
    let nonce = Nonce::from_bits(7);
    let file = file(&nonce);
    let provider: Arc<dyn Provider> =
        providers::open("p", &ProviderSettings::simulator("http://127.0.0.1:1/v1")).unwrap();
    let mut group = criterion.benchmark_group("ingest");
    group.sample_size(10).throughput(Throughput::Elements(ROWS as u64));
    for (name, bound) in [("answers, kept", 32 << 20), ("answers, put aside", 0)] {
        group.bench_function(name, |bench| {
            bench.iter(|| answers(provider.as_ref(), &nonce, &file, bound));
        });
    }
    let kept = answers(provider.as_ref(), &nonce, &file, 32 << 20);
    group.bench_function("results", |bench| bench.iter(|| write(&kept)));
    group.finish();
}

criterion_group!(benches, ingest);
criterion_main!(benches);
