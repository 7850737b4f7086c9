//! Emits that wait for the stage after this.

use super::*;

fn gated() -> Context {
    context(&[("backpressure.batches", "{ high = 3, low = 1 }"), ("loop.max_running", "1")])
}

/// Finishes so many events as the dispatcher would, or as many as there are.
async fn dispatch(context: &Context, consumer: &mut bus::Consumer, count: usize) -> Vec<String> {
    let mut keys = Vec::new();
    while keys.len() < count {
        let Ok(polled) = tokio::time::timeout(Duration::from_secs(1), consumer.next()).await else { break };
        if let Polled::Record(record, delivery) = polled.unwrap() {
            keys.push(String::from_utf8(record.key.unwrap().to_vec()).unwrap());
            consumer.finish(&delivery);
        }
    }
    consumer.commit().await.unwrap();
    assert!(context.bus.probe().await.is_ok());
    keys
}

#[tokio::test(start_paused = true)]
async fn emits_wait_at_the_high_mark_and_go_on_at_the_low_one() {
    let context = gated();
    let mut dispatcher = context.bus.consumer("batchmill-dispatcher", &[BATCHES.to_owned()]).unwrap();
    let emitted = Arc::new(AtomicUsize::new(0));
    let (count, emitter) = (Arc::clone(&emitted), context.clone());
    let emitting = tokio::spawn(async move {
        for number in 1..=10 {
            emit(&emitter, [ready("a", number, 1)]).await;
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    pass(10).await;
    assert_eq!(emitted.load(Ordering::SeqCst), 3);
    // Retries are never held back.
    emit(&context, [ready("a", 1, 2)]).await;
    // Above the low mark it stays closed.
    dispatch(&context, &mut dispatcher, 1).await;
    pass(10).await;
    assert_eq!(emitted.load(Ordering::SeqCst), 3);
    dispatch(&context, &mut dispatcher, 1).await;
    pass(10).await;
    assert_eq!(emitted.load(Ordering::SeqCst), 5);
    while dispatch(&context, &mut dispatcher, 10).await != [""; 0] {
        pass(1).await;
    }
    emitting.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_emit_that_waits_gives_its_place_back_and_jobs_are_granted_in_turn() {
    let context = gated();
    let emitted = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&emitted);
    let room = Arc::new(Scripted::new(&context, &[Topic::Jobs], move |event, out| {
        let log = Arc::clone(&log);
        Box::pin(async move {
            let name = event.event.job().clone();
            for number in (1..=4).filter(|_| name.as_str() != "quick") {
                out.emit(ready(name.as_str(), number, 1)).await?;
                log.lock().unwrap().push(format!("{name}{number}"));
            }
            Ok(Verdict::Done)
        })
    }));
    let mut dispatcher = context.bus.consumer("batchmill-dispatcher", &[BATCHES.to_owned()]).unwrap();
    let running = start(&room);
    for name in ["a", "b", "c", "quick"] {
        emit(&context, [cancel(name)]).await;
        pass(2).await;
    }
    assert_eq!(room.keys(), ["a", "b", "c", "quick"], "one place, and all have begun");
    assert_eq!(unfinished(&context, JOBS).await, 3);
    assert_eq!(*emitted.lock().unwrap(), ["a1", "a2", "a3"]);
    let mut dispatched = 0;
    for _ in 0..20 {
        dispatched += dispatch(&context, &mut dispatcher, 10).await.len();
        pass(1).await;
    }
    assert_eq!(dispatched, 12);
    let order = emitted.lock().unwrap().clone();
    assert_eq!(order[..6], ["a1", "a2", "a3", "a4", "b1", "c1"]);
    // Neither gets far ahead of the other.
    for end in 6..=order.len() {
        let of = |job: char| order[..end].iter().filter(|key| key.starts_with(job)).count();
        assert!(of('b').abs_diff(of('c')) <= 2, "{order:?}");
    }
    assert_eq!(unfinished(&context, JOBS).await, 0);
    stop(&context, running).await;
}

#[tokio::test(start_paused = true)]
async fn an_admission_counts_until_it_is_dropped() {
    let context = context(&[("backpressure.submissions", "{ high = 2, low = 1 }")]);
    let out = Outbox::new(&context, "test");
    let (a, b) = (job("a"), job("b"));
    let first = out.admit(Edge::Submissions, &a).await.unwrap();
    let _second = out.admit(Edge::Submissions, &a).await.unwrap();
    let third = tokio::time::timeout(Duration::from_secs(10), out.admit(Edge::Submissions, &b)).await;
    assert!(third.is_err());
    drop(first);
    tokio::time::timeout(Duration::from_secs(10), out.admit(Edge::Submissions, &b)).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_at_a_gate_hears_that_the_process_stops() {
    let context = gated();
    let room = Arc::new(Scripted::new(&context, &[Topic::Jobs], |event, out| {
        Box::pin(async move {
            for number in 1..=9 {
                out.emit(ready(event.event.job().as_str(), number, 1)).await?;
            }
            Ok(Verdict::Done)
        })
    }));
    let running = start(&room);
    emit(&context, [cancel("a")]).await;
    pass(5).await;
    let began = context.clock.monotonic();
    stop(&context, running).await;
    assert!(context.clock.monotonic() - began < Duration::from_secs(1));
    assert_eq!(unfinished(&context, JOBS).await, 1);
}
