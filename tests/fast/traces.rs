//! Traces of whole jobs: what a collector gets, what the events' headers say, and which event each line of the log is about.

#[path = "traces/collector.rs"]
mod collector;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::{Arc, Mutex};

use bus::{Outgoing, Polled, Record};
use bytes::Bytes;
use collector::{Came, Collector};
use events::TraceParent;
use model::{EndFact, JobId};
use runtime::settings::Log;
use serde_json::Value;
use tests::provider::{Reply, ScriptedProvider};
use tests::world::{World, header};

const JOB: &str = "spring-catalog";
const TOPICS: [&str; 6] = ["jobs", "batches", "retries", "submissions", "results", "status"];
/// The producer's own trace.
const FRONT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Lines {
    /// Keeps what this thread logs, as long as the guard lives. All tasks of a test run on its thread.
    fn start(filter: &str) -> (Self, (tracing::subscriber::DefaultGuard, tracing::Dispatch)) {
        // With a single subscriber in the process, whichever thread comes to a call site first decides alone whether it is on
        // at all: a test beside this one would switch it off. With two, all of them are asked.
        let second = tracing::Dispatch::new(tracing_subscriber::registry());
        let lines = Self::default();
        let writer = lines.clone();
        let log = Log { filter: filter.to_owned(), ..Log::default() };
        let guard = tracing::subscriber::set_default(runtime::log::json(&log, move || writer.clone()).unwrap());
        (lines, (guard, second))
    }

    fn all(&self) -> Vec<Value> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// A job of two batches, one of which is tried twice; its provider logs as it is asked.
async fn job(settings: &[(&str, &str)]) -> (World, EndFact) {
    let failed = Mutex::new(BTreeSet::new());
    let rows = move |_: usize, prompt: &str| {
        tracing::info!(target: "deep", "a line of a library");
        match prompt.starts_with("again") && failed.lock().unwrap().insert(prompt.to_owned()) {
            true => Reply::Status(500),
            false => Reply::Answer(prompt.to_owned()),
        }
    };
    let world = World::with(ScriptedProvider::new(Box::new(rows)), settings).await;
    // A group that has joined keeps the memory bus from dropping what the rooms have finished.
    for word in TOPICS {
        drop(world.context.bus.consumer("reader", &[format!("batchmill.{word}.v1")]).unwrap());
    }
    world.put("s3://lake/in/a.csv", b"a\none\nagain\nthree\nfour\n".to_vec()).await;
    let spec = serde_json::json!({
        "id": JOB, "input": {"uri": "s3://lake/in/a.csv"}, "output": {"uri": "s3://lake/out/a.csv"},
        "request": {"model": "sim/echo", "template": "{{ a }}"}, "batch": {"max_rows": 2},
    });
    let headers = vec![("traceparent".to_owned(), Bytes::from(FRONT)), ("tracestate".to_owned(), Bytes::from("a=1"))];
    let value = Some(Bytes::from(spec.to_string()));
    world.send(Outgoing { topic: "batchmill.jobs.v1".to_owned(), headers, value, ..Outgoing::default() }).await;
    let end = world.end(&JOB.parse::<JobId>().unwrap()).await;
    world.idle().await;
    (world, end)
}

/// Every record of every topic but the first, which has the job itself.
async fn records(world: &World) -> Vec<Record> {
    let mut found = Vec::new();
    for word in &TOPICS[1..] {
        let topic = format!("batchmill.{word}.v1");
        let left = world.context.bus.lag("reader", &topic).await.unwrap().exact;
        let mut consumer = world.context.bus.consumer("reader", &[topic]).unwrap();
        let mut count = 0;
        while count < left {
            if let Polled::Record(record, _) = consumer.next().await.unwrap() {
                found.push(record);
                count += 1;
            }
        }
    }
    found
}

/// Stops the world, so that every span has ended and was sent.
async fn stop(world: World) {
    let context = world.context.clone();
    world.stop().await;
    context.finish().await;
}

fn is_process(came: &Came) -> bool {
    came.span.name.ends_with(" process")
}

#[tokio::test(start_paused = true)]
async fn a_collector_gets_one_trace_for_each_room_and_event_linked_to_its_sender() {
    let (collector, url) = Collector::start();
    let (world, end) = job(&[("tracing.otlp_endpoint", &url)]).await;
    assert_eq!((end.counts.answered, end.attempts), (4, 3));
    let records = records(&world).await;
    stop(world).await;
    let spans = collector.spans();
    let services: BTreeSet<&str> = spans.iter().map(|came| came.service.as_str()).collect();
    assert_eq!(services, ["batchmill-dispatcher", "batchmill-merger", "batchmill-poller", "batchmill-splitter"].into());
    let ids: BTreeMap<(String, String), &Came> = spans.iter().map(|came| ((came.trace(), came.id()), came)).collect();
    assert_eq!(ids.len(), spans.len(), "no id is used twice");
    let mut traces: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
    for came in &spans {
        assert_eq!(came.get("batchmill.job"), JOB, "{came:?}");
        // A merger that waits for more batches reads no fact that says whose the job is.
        let team = came.get("batchmill.team");
        assert!(team == "default" || (team.is_empty() && came.service == "batchmill-merger"), "{came:?}");
        let works_on_one = ["batchmill-dispatcher", "batchmill-poller"].contains(&came.service.as_str());
        assert!(
            !works_on_one || came.get("batchmill.batch").ends_with(&format!("-a{}", came.get("batchmill.attempt")))
        );
        assert!(!works_on_one || !came.get("batchmill.attempt").is_empty(), "{came:?}");
        assert!(came.span.start_time_unix_nano <= came.span.end_time_unix_nano);
        if !is_process(came) {
            // A call of the provider, within a handling.
            let parent =
                (came.trace(), came.span.parent_span_id.iter().map(|b| format!("{b:02x}")).collect::<String>());
            assert!(ids.get(&parent).is_some_and(|parent| is_process(parent)), "{came:?}");
            assert_eq!(came.get("batchmill.provider"), "sim");
            continue;
        }
        let topic = came.get("messaging.destination.name");
        assert_eq!(came.span.name, format!("{topic} process"));
        assert_eq!(came.get("messaging.consumer.group.name"), came.service);
        let place = (topic, came.get("messaging.destination.partition.id"), came.get("messaging.kafka.offset"));
        traces.entry(place).or_default().insert(came.trace());
        let link = came.link().expect("each event has a sender");
        let sender = ids.get(&link).map(|sender| sender.service.as_str());
        let senders: &[Option<&str>] = match came.service.as_str() {
            "batchmill-splitter" => &[None],
            "batchmill-dispatcher" => &[Some("batchmill-splitter"), Some("batchmill-poller")],
            "batchmill-poller" => &[Some("batchmill-dispatcher")],
            _ => &[Some("batchmill-splitter"), Some("batchmill-poller")],
        };
        assert!(senders.contains(&sender), "{sender:?} sent what is {came:?}");
        if sender.is_none() {
            assert_eq!(format!("00-{}-{}-01", link.0, link.1), FRONT);
            assert_eq!(came.span.links[0].trace_state, "a=1");
        }
    }
    // The job; two first attempts and one more; three at the provider; the plan and three collected.
    assert_eq!(traces.len(), 1 + 3 + 3 + 4, "{traces:#?}");
    assert!(traces.values().all(|of_one| of_one.len() == 1), "{traces:#?}");
    let distinct: BTreeSet<&String> = traces.values().flatten().collect();
    assert_eq!(distinct.len(), traces.len());
    for operation in ["upload", "create", "get", "download"] {
        assert!(spans.iter().any(|came| came.span.name == format!("{operation} sim")), "{operation}");
    }
    // What the headers say is what the collector has.
    assert_eq!(records.len(), 3 + 3 + 4 + 1);
    for record in &records {
        let parent = TraceParent::parse(&header(record, "traceparent")).unwrap();
        assert!(parent.is_sampled() && ids.contains_key(&(parent.trace.to_string(), parent.span.to_string())));
        assert_eq!(
            (header(record, "ce_traceparent").as_str(), header(record, "ce_tracestate").as_str()),
            (FRONT, "a=1")
        );
        assert_eq!(header(record, "tracestate"), "", "it belongs to the other trace");
    }
}

#[tokio::test(start_paused = true)]
async fn headers_for_the_collector_are_a_secret_and_a_ratio_of_zero_sends_nothing() {
    for (ratio, some) in [("1", true), ("0", false)] {
        let (collector, url) = Collector::start();
        let env = [("BATCHMILL__TRACING__OTLP_HEADERS".to_owned(), "x-key=hunter2".to_owned())];
        let flags = [("tracing.otlp_endpoint".to_owned(), url), ("tracing.sample_ratio".to_owned(), ratio.to_owned())];
        let settings = runtime::settings::Settings::load(None, env.into_iter(), &flags).unwrap();
        let context = runtime::Context::in_memory(1, settings).unwrap();
        assert!(context.settings.show().iter().any(|it| it.key == "tracing.otlp_headers" && it.value == "***"));
        let out = runtime::Outbox::new(&context, "submit");
        out.emit(events::JobCancelRequested { job: JOB.parse().unwrap() }).await.unwrap();
        context.finish().await;
        let spans = collector.spans();
        let named: Vec<(&str, &str)> = spans.iter().map(|it| (it.service.as_str(), it.span.name.as_str())).collect();
        assert_eq!(named, [("batchmill", "batchmill.jobs.v1 send")][..usize::from(some)]);
        assert_eq!(collector.heads().iter().any(|head| head.contains("x-key: hunter2")), some);
    }
}

#[tokio::test(start_paused = true)]
async fn a_collector_that_is_away_or_never_answers_changes_nothing() {
    let (_, plain) = job(&[]).await;
    let hangs = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let hangs = format!("http://{}", hangs.local_addr().unwrap());
    for url in ["http://127.0.0.1:1", hangs.as_str()] {
        let settings = [("tracing.otlp_endpoint", url), ("loop.drain_timeout_seconds", "1")];
        let (world, end) = job(&settings).await;
        stop(world).await;
        assert_eq!((&end.counts, &end.tokens, end.attempts), (&plain.counts, &plain.tokens, plain.attempts), "{url}");
        assert_eq!(
            end.output.map(|output| output.checksum),
            plain.output.as_ref().map(|output| output.checksum.clone())
        );
    }
}

#[tokio::test(start_paused = true)]
async fn every_line_under_a_handler_says_which_job_batch_and_attempt_it_is_about() {
    let (lines, guard) = Lines::start("debug");
    let (world, _) = job(&[]).await;
    let records = records(&world).await;
    stop(world).await;
    drop(guard);
    let lines = lines.all();
    let rooms = ["splitter", "dispatcher", "poller", "merger"];
    let is_of = |line: &Value, target: &str| {
        let found = line["target"].as_str().unwrap();
        found == target || found.starts_with(&format!("{target}::"))
    };
    let mut seen = BTreeSet::new();
    let mut with_attempts = BTreeSet::new();
    for line in &lines {
        let room = rooms.into_iter().find(|room| is_of(line, room));
        let deep = is_of(line, "deep") || is_of(line, "runtime::work_loop::outbox");
        if room.is_none() && !deep {
            continue;
        }
        assert_eq!(line["job"], JOB, "{line}");
        assert!(line["trace_id"].as_str().is_some_and(|id| id.len() == 32), "{line}");
        assert!(line["span_id"].as_str().is_some_and(|id| id.len() == 16), "{line}");
        assert_eq!(line["team"], "default", "{line}");
        let of = line["room"].as_str().unwrap_or_default();
        assert!(room.is_none_or(|room| room == of), "{line}");
        if ["dispatcher", "poller"].contains(&of) {
            let attempt = line["attempt"].as_u64().unwrap();
            assert!(line["batch"].as_str().unwrap().ends_with(&format!("-a{attempt}")), "{line}");
            with_attempts.insert(attempt);
        }
        seen.insert((of.to_owned(), if deep { "deep" } else { "own" }));
    }
    for room in rooms {
        assert!(seen.contains(&(room.to_owned(), "deep")), "nothing of {room}: {seen:?}");
    }
    assert_eq!(with_attempts, BTreeSet::from([1, 2]));
    // Without a collector the headers say who sent an event all the same, and the log knows the sender.
    let logged: BTreeSet<(&str, &str)> =
        lines.iter().filter_map(|line| Some((line["trace_id"].as_str()?, line["span_id"].as_str()?))).collect();
    for record in &records {
        let parent = TraceParent::parse(&header(record, "traceparent")).unwrap();
        assert!(!parent.is_sampled());
        assert!(logged.contains(&(parent.trace.to_string().as_str(), parent.span.to_string().as_str())));
    }
}
