use std::sync::Mutex;

use super::*;
use crate::settings::Settings;
use crate::{Context, Outbox};

#[derive(Debug, Default)]
struct Kept(Mutex<Vec<FinishedSpan>>);

impl SpanSink for Kept {
    fn take(&self, span: FinishedSpan) {
        self.0.lock().unwrap().push(span);
    }

    fn finish(&self, _within: Duration) {}
}

fn tracer(ratio: f64) -> anyhow::Result<Tracer> {
    let settings = Tracing { sample_ratio: ratio, ..Tracing::default() };
    Ok(Tracer::open(&settings, &Clock::seeded(1), "kafka")?.into_sink(Arc::new(Kept::default())))
}

#[test]
fn traces_are_sampled_by_their_id_and_only_where_they_go_somewhere() {
    for (ratio, expected) in [(0.0, 0..=0), (0.25, 200..=300), (1.0, 1_000..=1_000)] {
        let tracer = tracer(ratio).unwrap();
        let sampled = (0..1_000).filter(|_| tracer.new_trace().is_sampled()).count();
        assert!(expected.contains(&sampled), "{ratio}: {sampled}");
    }
    for wrong in [-0.1, 1.1, f64::NAN] {
        assert!(tracer(wrong).unwrap_err().to_string().contains("tracing.sample_ratio"), "{wrong}");
    }
    let nowhere = Tracer::open(&Tracing::default(), &Clock::seeded(1), "kafka").unwrap();
    assert!(!nowhere.new_trace().is_sampled());
}

#[tokio::test(start_paused = true)]
async fn outside_a_handler_each_event_begins_a_trace_of_its_own() {
    let kept = Arc::new(Kept::default());
    let context = Context::in_memory(1, Settings::default()).unwrap().with_spans(Arc::clone(&kept) as _);
    for job in ["a", "b"] {
        let job = job.parse().unwrap();
        Outbox::new(&context, "reconciler").emit(events::JobCancelRequested { job }).await.unwrap();
    }
    let spans = kept.0.lock().unwrap().clone();
    let [one, two] = spans.as_slice() else { panic!("{spans:?}") };
    assert_ne!(one.context.trace, two.context.trace);
    assert_eq!((one.name.as_str(), one.kind, one.parent), ("batchmill.jobs.v1 send", SpanKind::Producer, None));
    assert_eq!((one.attribute("batchmill.job"), one.link.as_ref()), (Some(&"a".into()), None));
    // Outside a handler there is nothing that a call would be a part of.
    client_call("sim", "get")("ok");
    assert_eq!(kept.0.lock().unwrap().len(), 2);
}

#[cfg(not(feature = "otlp"))]
#[test]
fn a_build_without_otlp_refuses_an_endpoint_and_names_the_build_that_has_it() {
    let settings = Tracing { otlp_endpoint: "http://collector:4318".to_owned(), ..Tracing::default() };
    let said = Tracer::open(&settings, &Clock::seeded(1), "kafka").unwrap_err().to_string();
    assert!(said.contains("tracing.otlp_endpoint") && said.contains("cargo build --features otlp"), "{said}");
}
