//! What becomes of an event.

use super::*;

#[tokio::test(start_paused = true)]
async fn later_gives_the_place_back_and_comes_again_after_its_time() {
    let context = context(&[("loop.max_running", "1")]);
    let room = Arc::new(Scripted::new(&context, &[Topic::Jobs], |event, _| {
        let wait = event.event.job().as_str() == "slow" && event.tries < 2;
        Box::pin(async move { Ok(if wait { Verdict::Later(Duration::from_secs(3_600)) } else { Verdict::Done }) })
    }));
    let running = start(&room);
    emit(&context, [cancel("slow"), cancel("quick")]).await;
    pass(10_000).await;
    let mut seen = room.seen();
    seen.sort_by_key(|(key, at)| (*at, key.clone()));
    let expected = [("quick", 0), ("slow", 0), ("slow", 3_600), ("slow", 7_200)];
    assert_eq!(seen, expected.map(|(key, at)| (key.to_owned(), at)));
    assert_eq!(unfinished(&context, JOBS).await, 0);
    stop(&context, running).await;
}

#[tokio::test(start_paused = true)]
async fn an_event_that_equals_an_open_one_is_finished_at_once() {
    let context = context(&[]);
    let room = Arc::new(Scripted::new(&context, &[Topic::Jobs], |event, _| {
        let wait = event.tries == 0;
        Box::pin(async move { Ok(if wait { Verdict::Later(Duration::from_secs(100)) } else { Verdict::Done }) })
    }));
    let running = start(&room);
    emit(&context, [cancel("a")]).await;
    pass(10).await;
    emit(&context, [cancel("a"), cancel("a")]).await;
    pass(10).await;
    assert_eq!(unfinished(&context, JOBS).await, 1);
    pass(100).await;
    assert_eq!(room.keys(), ["a", "a"]);
    assert_eq!(unfinished(&context, JOBS).await, 0);
    // Once it is finished, the same event is new work.
    emit(&context, [cancel("a")]).await;
    pass(10).await;
    assert_eq!(room.keys().len(), 3);
    stop(&context, running).await;
}

#[tokio::test(start_paused = true)]
async fn a_room_that_is_serial_by_job_has_one_event_of_a_job_at_a_time() {
    let context = context(&[("loop.max_running", "8")]);
    let mut room = Scripted::new(&context, &[Topic::Results], |_, _| {
        Box::pin(async {
            tokio::time::sleep(Duration::from_secs(10)).await;
            Ok(Verdict::Done)
        })
    });
    room.serial = true;
    let room = Arc::new(room);
    let running = start(&room);
    emit(&context, [collected("a", 1), collected("a", 2), collected("a", 1), collected("b", 1)]).await;
    pass(5).await;
    assert_eq!(room.most.load(Ordering::SeqCst), 2);
    pass(100).await;
    let mut seen = room.seen();
    seen.sort();
    assert_eq!(seen, [("a", 0), ("a", 10), ("b", 0)].map(|(key, at)| (key.to_owned(), at)));
    assert_eq!(unfinished(&context, "batchmill.results.v1").await, 0);
    stop(&context, running).await;
}

#[tokio::test(start_paused = true)]
async fn an_error_is_tried_again_ever_later_and_for_ever() {
    let context = context(&[("loop.retry_min_ms", "1000"), ("loop.retry_max_ms", "60000")]);
    let room = Arc::new(Scripted::new(&context, &[Topic::Jobs], |event, _| {
        let fails = event.tries < 12;
        Box::pin(async move { if fails { Err(anyhow::anyhow!("the store is down")) } else { Ok(Verdict::Done) } })
    }));
    let running = start(&room);
    emit(&context, [cancel("a")]).await;
    pass(1_000).await;
    let times: Vec<u64> = room.seen().into_iter().map(|(_, at)| at).collect();
    let waits: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(waits.len(), 12, "{waits:?}");
    for (wait, doubled) in waits.iter().zip([1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60, 60]) {
        assert!((doubled * 3 / 4..=doubled * 5 / 4 + 1).contains(wait), "{waits:?}");
    }
    assert_eq!(unfinished(&context, JOBS).await, 0);
    stop(&context, running).await;
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_panics_again_and_again_ends_in_the_dead_letters_and_disturbs_nobody() {
    let context = context(&[("loop.max_panics", "3")]);
    let room = Arc::new(Scripted::new(&context, &[Topic::Jobs], |event, _| {
        let bad = event.event.job().as_str() == "bad";
        Box::pin(async move { if bad { panic!("index out of bounds") } else { Ok(Verdict::Done) } })
    }));
    let running = start(&room);
    emit(&context, [cancel("bad"), cancel("good")]).await;
    pass(100).await;
    assert_eq!(room.keys().iter().filter(|key| *key == "bad").count(), 3);
    assert_eq!(unfinished(&context, JOBS).await, 0);
    let letters = dead_letters(&context, JOBS).await;
    assert_eq!(letters.len(), 1);
    assert_eq!(header(&letters[0], "__batchmill.errors.code"), "handler_panicked");
    assert_eq!(header(&letters[0], "__batchmill.errors.attempts"), "3");
    assert!(header(&letters[0], "__batchmill.errors.message").contains("index out of bounds"));
    stop(&context, running).await;
}

#[tokio::test(start_paused = true)]
async fn a_record_that_cannot_be_read_goes_to_the_dead_letters_byte_for_byte() {
    let context = context(&[]);
    let room = Arc::new(Scripted::new(&context, &[Topic::Jobs], |_, _| Box::pin(async { Ok(Verdict::Done) })));
    let running = start(&room);
    let poison = Outgoing {
        topic: JOBS.to_owned(),
        key: Some(Bytes::from_static(b"\xff\x00key")),
        headers: vec![("x".to_owned(), Bytes::from_static(b"\xfe")), ("x".to_owned(), Bytes::new())],
        value: Some(Bytes::from_static(b"{\"not\": \xff a job")),
        timestamp_ms: Some(12_345),
    };
    context.bus.send(poison.clone()).await.unwrap();
    emit(&context, [cancel("good")]).await;
    pass(10).await;
    assert_eq!(room.keys(), ["good"]);
    assert_eq!(unfinished(&context, JOBS).await, 0);
    let letters = dead_letters(&context, JOBS).await;
    assert_eq!(letters.len(), 1);
    let letter = &letters[0];
    assert_eq!((&letter.key, &letter.value, letter.timestamp_ms), (&poison.key, &poison.value, poison.timestamp_ms));
    assert_eq!(letter.headers[..2], poison.headers[..]);
    assert_eq!(header(letter, "__batchmill.errors.topic"), JOBS);
    assert_eq!(header(letter, "__batchmill.errors.offset"), "0");
    assert_eq!(header(letter, "__batchmill.errors.group"), "batchmill-scripted");
    assert_eq!(header(letter, "__batchmill.errors.timestamp"), "12345");
    assert!(!header(letter, "__batchmill.errors.code").is_empty());
    stop(&context, running).await;
}

#[tokio::test(start_paused = true)]
async fn what_the_room_refuses_goes_to_the_dead_letters_with_its_code() {
    let context = context(&[]);
    let room = Arc::new(Scripted::new(&context, &[Topic::Jobs], |_, _| {
        Box::pin(async { Ok(Verdict::Reject(Reason::new("job_unknown", "there is no such job"))) })
    }));
    let running = start(&room);
    emit(&context, [cancel("a")]).await;
    pass(10).await;
    let letters = dead_letters(&context, JOBS).await;
    assert_eq!(header(&letters[0], "__batchmill.errors.code"), "job_unknown");
    assert_eq!(header(&letters[0], "__batchmill.errors.message"), "there is no such job");
    assert_eq!(unfinished(&context, JOBS).await, 0);
    stop(&context, running).await;
    let text = prometheus::TextEncoder::new().encode_to_string(&context.registry.gather()).unwrap();
    assert!(
        text.contains(
            r#"batchmill_loop_dead_letters_total{reason="job_unknown",room="scripted",topic="batchmill.jobs.v1"} 1"#
        ),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_only_what_was_not_finished_comes_again() {
    let context = context(&[]);
    let stuck = |event: &Received| event.event.job().as_str() == "stuck";
    let room = Arc::new(Scripted::new(&context, &[Topic::Jobs], move |event, _| {
        let stuck = stuck(event);
        Box::pin(async move { if stuck { pending().await } else { Ok(Verdict::Done) } })
    }));
    let running = start(&room);
    emit(&context, [cancel("stuck")]).await;
    emit(&context, (0..20).map(|n| cancel(&format!("job-{n}")))).await;
    pass(10).await;
    assert_eq!(room.keys().len(), 21);
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    let next = Arc::new(Scripted::new(&context, &[Topic::Jobs], |_, _| Box::pin(async { Ok(Verdict::Done) })));
    let running = start(&next);
    pass(10).await;
    assert_eq!(next.keys(), ["stuck"]);
    stop(&context, running).await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_lets_running_handlers_end_and_leaves_what_waits() {
    let context = context(&[("loop.drain_timeout_seconds", "100"), ("loop.max_running", "2")]);
    let room = Arc::new(Scripted::new(&context, &[Topic::Jobs], |event, _| {
        let name = event.event.job().to_string();
        Box::pin(async move {
            match name.as_str() {
                "later" => return Ok(Verdict::Later(Duration::from_secs(10_000))),
                "slow" => tokio::time::sleep(Duration::from_secs(50)).await,
                _ => pending().await,
            }
            Ok(Verdict::Done)
        })
    }));
    let running = start(&room);
    emit(&context, [cancel("later")]).await;
    pass(1).await;
    emit(&context, [cancel("slow"), cancel("stuck")]).await;
    pass(1).await;
    emit(&context, [cancel("unstarted")]).await;
    pass(1).await;
    let began = context.clock.monotonic();
    stop(&context, running).await;
    assert_eq!((context.clock.monotonic() - began).as_secs(), 100);
    let keys: BTreeSet<String> = room.keys().into_iter().collect();
    assert_eq!(keys, ["later", "slow", "stuck"].map(str::to_owned).into());
    assert_eq!(room.running.load(Ordering::SeqCst), 0);
    assert_eq!(unfinished(&context, JOBS).await, 3);
    assert!(context.health.is_draining());
}

#[tokio::test(start_paused = true)]
async fn no_more_handlers_run_than_the_settings_say_and_jobs_take_turns() {
    let context = context(&[("loop.max_running", "3")]);
    let room = Arc::new(Scripted::new(&context, &[Topic::Batches], |_, _| {
        Box::pin(async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(Verdict::Done)
        })
    }));
    let running = start(&room);
    emit(&context, (1..=60).map(|n| ready("large", n, 1))).await;
    emit(&context, [ready("small", 1, 1)]).await;
    pass(100).await;
    assert_eq!(room.most.load(Ordering::SeqCst), 3);
    let place = room.keys().iter().position(|key| key == "small/00000001").unwrap();
    assert!(place <= 6, "the small job came {place}th");
    assert_eq!((room.keys().len(), unfinished(&context, BATCHES).await), (61, 0));
    stop(&context, running).await;
}

#[tokio::test(start_paused = true)]
async fn retries_have_places_of_their_own() {
    let context = context(&[("loop.max_running", "1")]);
    let room = Arc::new(Scripted::new(&context, &[Topic::Batches, Topic::Retries], |event, _| {
        let stuck = event.topic == Topic::Batches;
        Box::pin(async move { if stuck { pending().await } else { Ok(Verdict::Done) } })
    }));
    let running = start(&room);
    emit(&context, [ready("a", 1, 1), ready("b", 1, 1)]).await;
    pass(5).await;
    emit(&context, [ready("c", 1, 2)]).await;
    pass(5).await;
    assert!(room.keys().contains(&"c/00000001".to_owned()));
    assert_eq!(unfinished(&context, "batchmill.retries.v1").await, 0);
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn too_many_open_events_pause_the_topic_until_some_are_finished() {
    let context = context(&[("loop.max_waiting", "10")]);
    let room = Arc::new(Scripted::new(&context, &[Topic::Jobs], |event, _| {
        let wait = event.tries == 0;
        Box::pin(async move { Ok(if wait { Verdict::Later(Duration::from_secs(100)) } else { Verdict::Done }) })
    }));
    let running = start(&room);
    emit(&context, (0..25).map(|n| cancel(&format!("job-{n}")))).await;
    pass(50).await;
    assert_eq!(room.keys().len(), 10);
    pass(100).await;
    assert_eq!(room.keys().len(), 30);
    pass(200).await;
    assert_eq!((room.keys().len(), unfinished(&context, JOBS).await), (50, 0));
    stop(&context, running).await;
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_goes_to_another_member_takes_its_handlers_along() {
    let context = context(&[("loop.max_running", "100")]);
    let stuck = |context: &Context| {
        Arc::new(Scripted::new(context, &[Topic::Jobs], |_, _| Box::pin(async { pending().await })))
    };
    let first = stuck(&context);
    let running_first = start(&first);
    emit(&context, (0..40).map(|n| cancel(&format!("job-{n}")))).await;
    pass(5).await;
    assert_eq!(first.running.load(Ordering::SeqCst), 40);
    let told = first.reassigned.load(Ordering::SeqCst);
    let second = stuck(&Context { shutdown: tokio_util::sync::CancellationToken::new(), ..context.clone() });
    let running_second = start(&second);
    pass(5).await;
    let (left, moved) = (first.running.load(Ordering::SeqCst), second.running.load(Ordering::SeqCst));
    assert_eq!(left + moved, 40);
    assert!(left > 0 && moved > 0, "{left} and {moved}");
    assert!(second.reassigned.load(Ordering::SeqCst) > 0);
    let told_of_the_loss = first.reassigned.load(Ordering::SeqCst);
    assert!(told_of_the_loss > told);
    running_second.abort();
    assert!(running_second.await.is_err());
    pass(5).await;
    assert_eq!(first.running.load(Ordering::SeqCst), 40);
    assert!(first.reassigned.load(Ordering::SeqCst) > told_of_the_loss);
    running_first.abort();
}
