use std::collections::BTreeMap;

use bus::Polled;
use model::facts::SCHEMA;
use model::{
    BatchId, BatchRef, CancelFact, Counts, DataRef, EndFact, FailureKind, JobSpec, Nonce, OpenJob, PlanFact,
    ResultFact, SubmissionEntry, Tokens,
};

use super::*;
use crate::facts::load_facts;
use crate::settings::Settings;
use crate::store::Fact;

fn job() -> JobId {
    "spring-catalog".parse().unwrap()
}

fn spec() -> JobSpec {
    let text = r#"{"id":"spring-catalog","input":{"uri":"s3://lake/in.csv"},"output":{"uri":"s3://lake/out.csv"},
        "request":{"model":"sim/echo","template":"{{ title }}"}}"#;
    serde_json::from_str(text).unwrap()
}

fn batch(number: u32, attempt: u32) -> BatchRef {
    let data =
        DataRef { key: format!("d{number}-{attempt}"), checksum: model::digest::Checksum::of(b""), bytes: 1, rows: 1 };
    BatchRef {
        id: BatchId { number, attempt },
        nonce: Nonce::from_bits(5),
        first_row: 0,
        data,
        send_rows: 1,
        send_bytes: 1,
    }
}

/// Facts of one job, and what reconciling emits after each.
struct Story {
    context: Context,
    consumer: bus::Consumer,
}

impl Story {
    fn new() -> Self {
        let context = Context::in_memory(1, Settings::default()).unwrap();
        let mut topics: Vec<String> = events::Topic::ALL.iter().map(|topic| context.topics.name(*topic)).collect();
        topics.push("batchmill.jobs.search.v1".to_owned());
        let consumer = context.bus.consumer("reader", &topics).unwrap();
        Self { context, consumer }
    }

    fn nonce(&self) -> Nonce {
        self.context.clock.nonce()
    }

    async fn put<T: Fact + PartialEq + std::fmt::Debug>(&self, key: String, fact: T) {
        assert_eq!(self.context.store.put_once(&key, &fact).await.unwrap(), crate::store::PutOnce::Won);
    }

    async fn open(&self) {
        let team = "search".parse().unwrap();
        let fact =
            OpenJob { schema: SCHEMA, nonce: self.nonce(), team, spec: spec(), opened_at: self.context.clock.now() };
        self.put(keys::open(&job()), fact).await;
    }

    async fn plan(&self, batches: Vec<BatchRef>) {
        let now = self.context.clock.now();
        let outcome = PlanOutcome::Planned { rows: 2, deadline: now, retry: BTreeMap::new(), pricing: None, batches };
        self.put(keys::plan(&job()), PlanFact { schema: SCHEMA, nonce: self.nonce(), planned_at: now, outcome }).await;
    }

    async fn submission(&self, batch: &BatchRef, seq: u32, step: SubmissionStep) {
        let entry = SubmissionEntry { schema: SCHEMA, nonce: self.nonce(), at: self.context.clock.now(), step };
        self.put(keys::submission(&job(), batch.id, seq), entry).await;
    }

    async fn result(&self, batch: &BatchRef, next: Option<BatchRef>) {
        let fact = ResultFact {
            schema: SCHEMA,
            nonce: self.nonce(),
            collected_at: self.context.clock.now(),
            id: batch.id,
            data: batch.data.clone(),
            counts: Counts::default(),
            tokens: Tokens::default(),
            cost: None,
            provider_tokens: None,
            provider_batch: None,
            provider_status: None,
            unknown_ids: 0,
            duplicates: 0,
            next,
        };
        self.put(keys::result(&job(), batch.id), fact).await;
    }

    async fn end(&self) {
        let now = self.context.clock.now();
        let fact = EndFact {
            schema: SCHEMA,
            nonce: self.nonce(),
            job: job(),
            team: Team::shared(),
            accepted_at: now,
            ended_at: now,
            batches: 2,
            attempts: 3,
            counts: Counts::default(),
            tokens: Tokens::default(),
            cost: None,
            output: None,
            failed_rows: None,
            refusal: None,
        };
        self.put(keys::end(&job()), fact).await;
    }

    /// Reconciles, and reads topic and key of what that emitted.
    async fn emitted(&mut self) -> Vec<(String, String)> {
        let count = reconcile(&self.context, Duration::ZERO, None).await.unwrap();
        let mut found = Vec::new();
        while let Ok(polled) = tokio::time::timeout(Duration::from_secs(1), self.consumer.next()).await {
            if let Polled::Record(record, delivery) = polled.unwrap() {
                let topic = record.topic.trim_start_matches("batchmill.").trim_end_matches(".v1").to_owned();
                found.push((topic, String::from_utf8(record.key.unwrap().to_vec()).unwrap()));
                self.consumer.finish(&delivery);
            }
        }
        assert_eq!(found.len(), count);
        found.sort();
        found
    }
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(topic, key)| ((*topic).to_owned(), (*key).to_owned())).collect()
}

#[tokio::test(start_paused = true)]
async fn after_each_fact_the_event_that_moves_the_job_on_is_emitted() {
    let mut story = Story::new();
    assert_eq!(story.emitted().await, []);
    story.open().await;
    assert_eq!(story.emitted().await, pairs(&[("jobs.search", "spring-catalog")]));
    let (one, two, again) = (batch(1, 1), batch(2, 1), batch(2, 2));
    story.plan(vec![one.clone(), two.clone()]).await;
    let both = [("batches", "spring-catalog/00000001"), ("batches", "spring-catalog/00000002")];
    assert_eq!(story.emitted().await, pairs(&both));
    story.submission(&one, 1, SubmissionStep::Claim { epoch: Nonce::from_bits(1) }).await;
    assert_eq!(story.emitted().await, pairs(&both));
    story.submission(&one, 2, SubmissionStep::Submitted { provider_batch: "b".to_owned(), adopted: false }).await;
    let unsent = SubmissionStep::Unsent { kind: Some(FailureKind::Cancelled), message: String::new() };
    story.submission(&two, 1, unsent).await;
    let sent = [("submissions", "spring-catalog/00000001"), ("submissions", "spring-catalog/00000002")];
    assert_eq!(story.emitted().await, pairs(&sent));
    story.result(&one, None).await;
    story.result(&two, Some(again.clone())).await;
    assert_eq!(story.emitted().await, pairs(&[("retries", "spring-catalog/00000002")]));
    story.result(&again, None).await;
    assert_eq!(story.emitted().await, pairs(&[("results", "spring-catalog")]));
    story.end().await;
    assert_eq!(story.emitted().await, pairs(&[("status", "spring-catalog")]));
    assert!(!story.context.store.exists(&keys::open(&job())).await.unwrap());
    assert_eq!(story.emitted().await, []);
}

#[tokio::test(start_paused = true)]
async fn facts_hold_the_latest_entry_of_each_log() {
    let story = Story::new();
    assert_eq!(load_facts(&story.context.store, &job()).await.unwrap(), JobFacts::default());
    story.open().await;
    let one = batch(1, 1);
    for seq in 1..=12 {
        story.submission(&one, seq, SubmissionStep::Claim { epoch: Nonce::from_bits(u64::from(seq)) }).await;
    }
    let nonce = story.nonce();
    let requested_at = story.context.clock.now();
    story.put(keys::cancel(&job()), CancelFact { schema: SCHEMA, nonce, requested_at }).await;
    let facts = load_facts(&story.context.store, &job()).await.unwrap();
    assert_eq!(facts.submissions[&one.id], (12, SubmissionStep::Claim { epoch: Nonce::from_bits(12) }));
    assert!(facts.cancelled && facts.open.is_some() && facts.plan.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_task_whose_facts_are_young_is_left_alone() {
    let story = Story::new();
    story.open().await;
    // The store in memory has the machine's time, which is later than that of a seeded clock.
    assert_eq!(reconcile(&story.context, Duration::from_secs(3_600), None).await.unwrap(), 0);
    assert_eq!(reconcile(&story.context, Duration::ZERO, Some(&job())).await.unwrap(), 1);
    assert_eq!(reconcile(&story.context, Duration::ZERO, Some(&"other".parse().unwrap())).await.unwrap(), 0);
}

#[test]
fn age_counts_from_the_newest_fact_about_the_task() {
    let at = |second| Timestamp::from_second(second).unwrap();
    assert_eq!(age(at(5_000), Some(at(1_000))), Duration::from_secs(4_000));
    assert_eq!(age(at(1_000), Some(at(5_000))), Duration::ZERO);
    assert!(age(at(1_000), None) > Duration::from_secs(1_000_000));
    let listed = |key: String, second| Listed { key, bytes: 1, modified: at(second) };
    let (one, two) = (batch(1, 1), batch(2, 1));
    let all = [
        listed(keys::plan(&job()), 10),
        listed(keys::submission(&job(), one.id, 1), 20),
        listed(keys::submission(&job(), two.id, 1), 30),
        listed("jobs/spring-catalog/notes.txt".to_owned(), 99),
    ];
    let newest = Newest::of(&all);
    assert_eq!(newest.to(&Action::Dispatch(one)), Some(at(20)));
    assert_eq!(newest.to(&Action::Merge), Some(at(30)));
    assert_eq!(newest.to(&Action::Dispatch(batch(3, 1))), None);
}

#[tokio::test(start_paused = true)]
async fn a_job_with_corrupt_facts_does_not_hold_up_the_others() {
    let story = Story::new();
    story.open().await;
    let mut writer = story.context.store.upload("open/aaa");
    writer.write(b"no json".to_vec()).await.unwrap();
    writer.finish().await.unwrap();
    assert_eq!(reconcile(&story.context, Duration::ZERO, None).await.unwrap(), 1);
    assert!(reconcile(&story.context, Duration::ZERO, Some(&"aaa".parse().unwrap())).await.is_err());
}
