//! The spans of handlers.

use super::*;
use crate::trace::{FinishedSpan, SpanSink, Value, client_call};

#[derive(Debug, Default)]
struct Kept(Mutex<Vec<FinishedSpan>>);

impl SpanSink for Kept {
    fn take(&self, span: FinishedSpan) {
        self.0.lock().unwrap().push(span);
    }

    fn finish(&self, _within: Duration) {}
}

fn kept(set: &[(&str, &str)]) -> (Context, Arc<Kept>) {
    let kept = Arc::new(Kept::default());
    (context(set).with_spans(Arc::clone(&kept) as _), kept)
}

fn outcome(span: &FinishedSpan) -> &str {
    match span.attribute("batchmill.outcome") {
        Some(Value::Text(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_handled_again_stays_in_its_trace_and_a_failed_handling_says_why() {
    let (context, kept) = kept(&[]);
    let room = Arc::new(Scripted::new(&context, &[Topic::Jobs], |event, _| {
        let tries = event.tries;
        Box::pin(async move {
            client_call("sim", "get")(if tries == 0 { "ok" } else { "limited" });
            match tries {
                0 => Ok(Verdict::Later(Duration::from_secs(60))),
                1 => Err(anyhow::anyhow!("no room")),
                2 => panic!("a bug"),
                _ => Ok(Verdict::Done),
            }
        })
    }));
    let running = start(&room);
    emit(&context, [cancel("a")]).await;
    pass(1_000).await;
    stop(&context, running).await;
    let spans = kept.0.lock().unwrap().clone();
    let sent = spans.iter().find(|span| span.name.ends_with(" send")).unwrap();
    let handled: Vec<&FinishedSpan> = spans.iter().filter(|span| span.name.ends_with(" process")).collect();
    let words: Vec<(&str, Option<&str>)> = handled.iter().map(|span| (outcome(span), span.error.as_deref())).collect();
    assert_eq!(words, [("later", None), ("failed", Some("no room")), ("panicked", Some("a bug")), ("done", None)]);
    for (tries, span) in handled.iter().enumerate() {
        assert_eq!(span.context.trace, handled[0].context.trace);
        assert_eq!(span.parent, (tries > 0).then_some(handled[0].context.span));
        assert_eq!(span.link.as_ref().map(|link| link.parent), Some(sent.context));
        assert_eq!(span.attribute("batchmill.tries"), Some(&Value::Number(tries as i64)));
        assert_eq!(span.attribute("error.type").is_some(), span.error.is_some());
        // What it called is a part of it.
        let calls: Vec<_> =
            spans.iter().filter(|call| call.parent == Some(span.context.span) && call.name == "get sim").collect();
        assert_eq!(calls.len(), 1, "{spans:#?}");
        assert_eq!(calls[0].error.as_deref(), (tries > 0).then_some("limited"));
    }
    assert_ne!(handled[0].context.trace, sent.context.trace);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_is_cancelled_ends_its_span() {
    let (context, kept) = kept(&[("loop.drain_timeout_seconds", "1")]);
    let room = Arc::new(Scripted::new(&context, &[Topic::Jobs], |_, _| Box::pin(std::future::pending())));
    let running = start(&room);
    emit(&context, [cancel("a")]).await;
    pass(10).await;
    stop(&context, running).await;
    let spans = kept.0.lock().unwrap().clone();
    let handled: Vec<&str> = spans.iter().filter(|span| span.name.ends_with(" process")).map(outcome).collect();
    assert_eq!(handled, ["cancelled"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_emitted_says_who_sent_it_and_with_whom_it_began() {
    let (context, kept) = kept(&[]);
    let room = Arc::new(Scripted::new(&context, &[Topic::Jobs], |event, out| {
        let job = event.event.job().clone();
        Box::pin(async move {
            out.emit(collected(job.as_str(), 1)).await?;
            Ok(Verdict::Done)
        })
    }));
    let mut results = context.bus.consumer("reader", &["batchmill.results.v1".to_owned()]).unwrap();
    let running = start(&room);
    emit(&context, [cancel("a")]).await;
    let record = loop {
        if let Polled::Record(record, _) = results.next().await.unwrap() {
            break record;
        }
    };
    stop(&context, running).await;
    let spans = kept.0.lock().unwrap().clone();
    let of = |end: &str| spans.iter().find(|span| span.name.ends_with(end)).unwrap().context.to_string();
    assert_eq!(header(&record, "traceparent"), of(" process"));
    assert_eq!(header(&record, "ce_traceparent"), of(" send"));
}
