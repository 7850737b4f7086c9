//! The property that makes topics expendable: after every prefix of fact writes, whatever was written and in whatever
//! order, the function names work, and doing any of it, one write at a time, brings the job to its end.

use std::collections::BTreeMap;

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::facts::{DataRef, OpenJob, PlanFact, ResultFact};
use crate::ids::Nonce;
use crate::outcome::{Counts, Tokens};
use crate::refusal::{Refusal, RefusalCode};

fn spec() -> JobSpec {
    serde_json::from_str(
        r#"{"id":"j","input":{"uri":"s3://b/in.csv"},"output":{"uri":"s3://b/out.csv"},
            "request":{"model":"sim/echo","template":"{{ a }}"}}"#,
    )
    .unwrap()
}

fn nonce() -> Nonce {
    Nonce::from_bits(7)
}

fn batch(number: u32, attempt: u32) -> BatchRef {
    let data = DataRef { key: "k".to_owned(), checksum: crate::digest::Checksum::of(b""), bytes: 1, rows: 1 };
    BatchRef { id: BatchId { number, attempt }, nonce: nonce(), first_row: 0, data, send_rows: 1, send_bytes: 1 }
}

fn result(id: BatchId, next: Option<BatchRef>) -> ResultFact {
    ResultFact {
        schema: 1,
        nonce: nonce(),
        collected_at: Timestamp::UNIX_EPOCH,
        id,
        data: batch(1, 1).data,
        counts: Counts::default(),
        tokens: Tokens::default(),
        cost: None,
        provider_tokens: None,
        provider_batch: None,
        provider_status: None,
        unknown_ids: 0,
        duplicates: 0,
        next,
    }
}

fn end() -> EndFact {
    EndFact {
        schema: 1,
        nonce: nonce(),
        job: "j".parse().unwrap(),
        team: Team::shared(),
        accepted_at: Timestamp::UNIX_EPOCH,
        ended_at: Timestamp::UNIX_EPOCH,
        batches: 0,
        attempts: 0,
        counts: Counts::default(),
        tokens: Tokens::default(),
        cost: None,
        output: None,
        failed_rows: None,
        refusal: None,
    }
}

/// How the world answers, so that a run is a function of these.
#[derive(Debug, Clone)]
struct World {
    batches: u32,
    refused: bool,
    attempts: u32,
    unsent: bool,
}

fn any_world() -> impl Strategy<Value = World> {
    (0u32..5, any::<bool>(), 1u32..4, any::<bool>()).prop_map(|(batches, refused, attempts, unsent)| World {
        batches,
        refused,
        attempts,
        unsent,
    })
}

/// Does one durable write of an action, as the room that gets its event would.
fn write_one(facts: &mut JobFacts, action: &Action, world: &World) {
    match action {
        Action::Split { spec, team } if facts.job.is_none() => {
            let (spec, team) = (spec.as_ref().clone(), team.clone());
            let fact = JobFact {
                schema: 1,
                nonce: nonce(),
                team,
                spec,
                accepted_at: Timestamp::UNIX_EPOCH,
                input: None,
                table: None,
                refusal: None,
            };
            facts.job = Some(fact);
        }
        Action::Split { .. } => {
            let refusal = Refusal::new(RefusalCode::InputEmpty, "empty");
            let batches = (1..=world.batches).map(|number| batch(number, 1)).collect();
            let planned = PlanOutcome::Planned {
                rows: 1,
                deadline: Timestamp::UNIX_EPOCH,
                retry: BTreeMap::new(),
                pricing: None,
                batches,
            };
            let outcome = if world.refused { PlanOutcome::Refused { refusal } } else { planned };
            facts.plan = Some(PlanFact { schema: 1, nonce: nonce(), planned_at: Timestamp::UNIX_EPOCH, outcome });
        }
        Action::Dispatch(batch) => {
            let (seq, step) = match facts.submissions.get(&batch.id) {
                None => (1, SubmissionStep::Claim { epoch: nonce() }),
                Some((seq, _)) if world.unsent => {
                    (seq + 1, SubmissionStep::Unsent { kind: None, message: String::new() })
                }
                Some((seq, SubmissionStep::Claim { epoch })) => {
                    (seq + 1, SubmissionStep::File { epoch: epoch.clone(), file_id: "f".to_owned(), created_at: 0 })
                }
                Some((seq, _)) => {
                    (seq + 1, SubmissionStep::Submitted { provider_batch: "b".to_owned(), adopted: false })
                }
            };
            facts.submissions.insert(batch.id, (seq, step));
        }
        Action::Collect(batch, _) => {
            let next = (batch.id.attempt < world.attempts).then(|| self::batch(batch.id.number, batch.id.attempt + 1));
            facts.results.insert(batch.id, result(batch.id, next));
        }
        Action::Merge => facts.end = Some(end()),
        Action::Close(_) => facts.open = None,
    }
}

proptest! {
    #[test]
    fn after_every_prefix_of_fact_writes_the_named_work_leads_to_the_end(world in any_world(), picks in proptest::collection::vec(any::<prop::sample::Index>(), 200)) {
        let opened = OpenJob { schema: 1, nonce: nonce(), team: Team::shared(), spec: spec(), opened_at: Timestamp::UNIX_EPOCH };
        let mut facts = JobFacts { open: Some(opened), ..JobFacts::default() };
        let mut picks = picks.into_iter();
        loop {
            let actions = next_actions(&facts);
            if facts.open.is_some() {
                let data = crate::keys::batch_data(&"j".parse().unwrap(), batch(1, 1).id, &nonce());
                let removable = crate::cleanup::removable(&facts, [data.as_str()], Timestamp::MAX, jiff::SignedDuration::ZERO);
                prop_assert!(removable.is_empty(), "a living job needs its data");
            }
            if facts.open.is_none() {
                prop_assert!(actions.is_empty() && facts.end.is_some());
                break;
            }
            prop_assert!(!actions.is_empty(), "stuck at {facts:?}");
            if actions.contains(&Action::Merge) {
                let PlanOutcome::Planned { batches, .. } = &facts.plan.as_ref().unwrap().outcome else { break };
                prop_assert!(is_covered(&facts, batches), "merges before the plan is covered");
            }
            let pick = picks.next().expect("a job of this size ends in fewer writes");
            let action = actions[pick.index(actions.len())].clone();
            write_one(&mut facts, &action, &world);
        }
    }
}

#[test]
fn a_refused_plan_goes_to_the_merger_alone() {
    let refusal = Refusal::new(RefusalCode::InputMissing, "no such object");
    let plan = PlanFact {
        schema: 1,
        nonce: nonce(),
        planned_at: Timestamp::UNIX_EPOCH,
        outcome: PlanOutcome::Refused { refusal },
    };
    let facts = JobFacts { plan: Some(plan), ..JobFacts::default() };
    assert_eq!(next_actions(&facts), vec![Action::Merge]);
}

#[test]
fn an_ended_and_closed_job_leaves_nothing_to_do() {
    let facts = JobFacts { end: Some(end()), ..JobFacts::default() };
    assert_eq!(next_actions(&facts), Vec::new());
}

#[test]
fn a_batch_whose_create_is_unknown_is_dispatched_again_not_collected() {
    let file = SubmissionStep::File { epoch: nonce(), file_id: "f".to_owned(), created_at: 0 };
    let planned = PlanOutcome::Planned {
        rows: 1,
        deadline: Timestamp::UNIX_EPOCH,
        retry: BTreeMap::new(),
        pricing: None,
        batches: vec![batch(1, 1)],
    };
    let facts = JobFacts {
        plan: Some(PlanFact { schema: 1, nonce: nonce(), planned_at: Timestamp::UNIX_EPOCH, outcome: planned }),
        submissions: BTreeMap::from([(batch(1, 1).id, (2, file))]),
        ..JobFacts::default()
    };
    assert_eq!(next_actions(&facts), vec![Action::Dispatch(batch(1, 1))]);
    assert!(!is_dispatched(&facts, batch(1, 1).id));
}
