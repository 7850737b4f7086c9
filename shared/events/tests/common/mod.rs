//! Strategies for arbitrary events, and a few fixed values.

use std::collections::BTreeMap;

use events::{
    BatchCollected, BatchDispatched, BatchReady, Envelope, Event, JobCancelRequested, JobEnded, JobPlanned,
    JobSubmitted, PlanSummary, SpanId, Submission, TraceContext, TraceId, TraceParent,
};
use jiff::Timestamp;
use model::digest::Checksum;
use model::price::{Cost, JobCost, Usd};
use model::retry::{RetryLimit, Until};
use model::spec::{BatchLimits, FileFormat, Input, OnBadRow, Output, Request};
use model::{
    BatchId, BatchRef, Counts, DataRef, FailureKind, JobId, JobSpec, Nonce, Refusal, RefusalCode, Team, Tokens,
};
use proptest::prelude::*;
use proptest::{collection, option, sample};

pub fn job() -> impl Strategy<Value = JobId> {
    "[a-z0-9][a-z0-9_-]{0,63}".prop_map(|text| text.parse().unwrap())
}

fn params() -> impl Strategy<Value = serde_json::Map<String, serde_json::Value>> {
    // Any fraction must come back to the bit: the digest of a spec is over its JSON.
    let number = any::<f64>().prop_filter_map("JSON has finite numbers alone", serde_json::Number::from_f64);
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        number.prop_map(Into::into),
        ".{0,20}".prop_map(Into::into),
    ];
    let value = leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::Array),
            collection::btree_map(".{0,8}", inner, 0..4)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    });
    collection::btree_map("[a-z_]{1,10}", value, 0..4).prop_map(|map| map.into_iter().collect())
}

prop_compose! {
    fn request()(model in ".{0,30}", system in option::of(".{0,40}"), template in ".{0,60}", params in params()) -> Request {
        Request { model, system, template, params }
    }
}

fn retry() -> impl Strategy<Value = BTreeMap<FailureKind, RetryLimit>> {
    let limit = prop_oneof![any::<u32>().prop_map(RetryLimit::Times), Just(RetryLimit::Until(Until::Deadline))];
    collection::btree_map(sample::select(FailureKind::ALL), limit, 0..4)
}

prop_compose! {
    pub fn spec()(
        id in job(),
        uris in (".{0,40}", ".{0,40}"),
        format in option::of(sample::select(vec![FileFormat::Csv, FileFormat::Tsv, FileFormat::CsvGz, FileFormat::Parquet])),
        delimiter in option::of(any::<char>()),
        request in request(),
        limits in (any::<u32>(), any::<u64>()),
        response_column in ".{0,20}",
        flags in (any::<bool>(), any::<bool>(), any::<bool>()),
        retry in retry(),
        deadline_seconds in option::of(1..=model::spec::MAX_DEADLINE_SECONDS),
    ) -> JobSpec {
        JobSpec {
            id,
            input: Input { uri: uris.0, format, delimiter },
            output: Output { uri: uris.1, overwrite: flags.0 },
            request,
            batch: BatchLimits { max_rows: limits.0, max_bytes: limits.1 },
            response_column,
            details: flags.1,
            on_bad_row: if flags.2 { OnBadRow::FailRow } else { OnBadRow::FailJob },
            retry,
            deadline_seconds,
        }
    }
}

prop_compose! {
    fn batch()(number in 1u32.., attempt in prop_oneof![Just(1u32), 1u32..], nonce: u64, n: [u64; 5], key in ".{0,60}", old: bool, digest in "[0-9a-f]{64}") -> BatchRef {
        BatchRef {
            id: BatchId { number, attempt },
            nonce: Nonce::from_bits(nonce),
            first_row: n[0],
            data: DataRef { key, checksum: if old { Checksum::Sha256(digest) } else { Checksum::Blake3(digest) }, bytes: n[1], rows: n[2] },
            send_rows: n[3],
            send_bytes: n[4],
        }
    }
}

prop_compose! {
    fn counts()(n: [u64; 3], failed in collection::btree_map(sample::select(FailureKind::ALL), any::<u64>(), 0..5)) -> Counts {
        Counts { rows: n[0], answered: n[1], failed, retried: n[2] }
    }
}

pub fn time() -> impl Strategy<Value = Timestamp> {
    (0i64..4_000_000_000, 0i32..1_000_000_000).prop_map(|(seconds, nanos)| Timestamp::new(seconds, nanos).unwrap())
}

prop_compose! {
    fn cost()(
        sums: [u64; 3],
        realtime in option::of(any::<u64>()),
        unmetered: u64,
        entry in "[a-z]{1,8}/[a-z0-9.-]{1,20}",
        as_of in option::of((1i16..=9_999, 1i8..=12, 1i8..=28)),
        simulated: bool,
    ) -> JobCost {
        let [input, cached_input, output] = sums.map(|pico| Usd::from_pico(pico.into()));
        let (total, realtime) = (input + cached_input + output, realtime.map(|pico| Usd::from_pico(pico.into())));
        let as_of = as_of.map(|(year, month, day)| jiff::civil::date(year, month, day));
        JobCost { cost: Cost { total, input, cached_input, output, realtime, unmetered }, entry, as_of, simulated }
    }
}

prop_compose! {
    fn ended()(
        job in job(),
        ended_at in time(),
        counts in counts(),
        t: [u64; 4],
        cost in option::of(cost()),
        output in option::of(".{0,40}"),
        failed_rows in option::of(".{0,40}"),
        refusal in option::of((sample::select(RefusalCode::ALL), ".{0,60}")),
    ) -> JobEnded {
        JobEnded {
            job,
            team: Team::shared(),
            ended_at,
            counts,
            tokens: Tokens { input: t[0], cached: t[1], output: t[2], reasoning: t[3] },
            cost,
            output,
            failed_rows,
            refusal: refusal.map(|(code, message)| Refusal::new(code, message)),
        }
    }
}

pub fn event() -> impl Strategy<Value = Event> {
    let plan = prop_oneof![
        (any::<u64>(), any::<u32>()).prop_map(|(rows, batches)| PlanSummary::Planned { rows, batches }),
        sample::select(RefusalCode::ALL).prop_map(|code| PlanSummary::Refused { code }),
    ];
    let submission = option::of(".{0,40}")
        .prop_map(|id| id.map_or(Submission::Unsent, |provider_batch| Submission::Submitted { provider_batch }));
    prop_oneof![
        spec().prop_map(|spec| JobSubmitted { spec }.into()),
        job().prop_map(|job| JobCancelRequested { job }.into()),
        (job(), plan).prop_map(|(job, outcome)| JobPlanned { job, outcome }.into()),
        (job(), batch()).prop_map(|(job, batch)| BatchReady { job, batch }.into()),
        (job(), batch(), submission)
            .prop_map(|(job, batch, submission)| BatchDispatched { job, batch, submission }.into()),
        (job(), batch(), any::<bool>(), counts()).prop_map(|(job, batch, last, counts)| BatchCollected {
            job,
            id: batch.id,
            last,
            counts
        }
        .into()),
        ended().prop_map(Into::into),
    ]
}

prop_compose! {
    pub fn envelope()(
        id in ".{1,36}",
        source in "/batchmill/[a-z]{1,12}",
        time in option::of(time()),
        traces in option::of((trace(), trace())),
    ) -> Envelope {
        // Read back, one of them stands for both.
        let (trace, origin) = traces.unzip();
        Envelope { id, source, time, trace, origin }
    }
}

prop_compose! {
    pub fn trace()(
        (trace, span, sampled) in any::<(u128, u64, bool)>(),
        state in option::of("[a-z]{1,8}=[ -~]{1,20}"),
    ) -> TraceContext {
        let parent = TraceParent::new(TraceId::from_bits(trace), SpanId::from_bits(span), sampled);
        TraceContext { parent, state }
    }
}
