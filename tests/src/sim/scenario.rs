//! Worlds in which a broken rule shows soon: for each mutation, the faults that the rule stands against, often.
//!
//! Random worlds find most of them too, but some rules stand against rare meetings, such as a create that lands between
//! two lists.

use std::time::Duration;

use faults::Mutation;

use super::faults::Rates;
use super::plan::Plan;
use super::table::RowKind;

/// A world of this seed in which this rule counts.
#[must_use]
pub fn plan(mutation: Mutation, seed: u64) -> Plan {
    use Mutation as M;
    let mut plan = Plan { rates: Rates::default(), lossy: false, wiped_at: None, ..Plan::new(seed) };
    plan.faults_until = Duration::from_secs(3_600);
    for job in &mut plan.jobs {
        (job.cancel_at, job.replace_at) = (None, None);
        job.table.rows.resize(job.table.rows.len().clamp(4, 12), RowKind::Plain);
        job.spec.batch.max_rows = job.spec.batch.max_rows.min(4);
        job.open_first = true;
    }
    let rates = &mut plan.rates;
    match mutation {
        M::CommitBeforeWork | M::CommitPastGap => {
            (rates.life, rates.batch, rates.row) = (1_000, 300, 200);
            plan.set("loop.commit_interval_ms", 1_000);
        }
        M::OverwriteFact => {
            (rates.store, rates.life) = (150, 500);
            plan.everywhere();
        }
        M::SkipFence | M::TrustFailedDelete => {
            (rates.late, rates.provider) = (700, 400);
        }
        // The create must land between the first list and the deletion.
        M::SkipSecondList => (rates.late, rates.slow) = (700, 700),
        M::ListOnePage => {
            rates.create = 500;
            plan.page = 1;
            plan.jobs.iter_mut().for_each(|job| job.spec.batch.max_rows = 1);
        }
        M::RetryCreate => rates.create = 500,
        M::CreateUnrecorded => {
            rates.life = 1_000;
            plan.step = Some("create>");
        }
        M::IgnoreErrorFile => rates.row = 500,
        M::TrustStatus => rates.batch = 600,
        M::NoIfMatch => {
            rates.lake = 700;
            plan.jobs.iter_mut().for_each(|job| job.replace_at = Some(Duration::from_millis(1 + seed % 20_000)));
        }
        M::MergeUncovered => rates.slow = 300,
        _ => {
            (rates.life, rates.create, rates.bus, rates.store, rates.batch) = (700, 300, 100, 50, 100);
            plan.everywhere();
        }
    }
    plan
}

impl Plan {
    /// Changes a setting of all processes.
    fn set(&mut self, name: &str, value: u64) {
        self.settings.retain(|(other, _)| other != name);
        self.settings.push((name.to_owned(), value.to_string()));
    }

    /// Two processes at least, with every room in each: owners come and go.
    fn everywhere(&mut self) {
        let all: Vec<usize> = (0..super::plan::ROOMS.len()).collect();
        self.processes = vec![all; self.processes.len().max(2)];
    }
}
