//! By example, and by chance: single decisions, and dispatchers that read at any time and act late.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn cap(model: Option<&str>, limit: u64) -> Cap {
    Cap { provider: "p".to_owned(), model: model.map(str::to_owned), limit }
}

fn job(model: &str, held: u64, waiting: u64) -> Standing {
    Standing { provider: "p".to_owned(), model: model.to_owned(), held, waiting }
}

fn id(name: impl std::fmt::Display) -> JobId {
    format!("job-{name}").parse().unwrap()
}

/// The order of grants among jobs `job-a`, `job-b`, …, all of which ask for all that waits, the first one first.
fn order(caps: &[Cap], jobs: &[Standing]) -> String {
    let named = || jobs.iter().zip('a'..).map(|(job, name)| (id(name), job));
    let mut standings = named().map(|(id, job)| (id, job.clone())).collect();
    let asking = named().enumerate().map(|(n, (id, job))| (id, (0..job.waiting).map(|_| n as u64).collect())).collect();
    let granted = grants(caps, &mut standings, asking, usize::MAX);
    granted.iter().filter_map(|id| id.as_str().chars().last()).collect()
}

#[test]
fn a_job_alone_may_have_all_of_a_cap_and_no_more() {
    assert_eq!(order(&[cap(None, 3)], &[job("m", 0, 9)]), "aaa");
    assert_eq!(order(&[cap(None, 3)], &[job("m", 3, 9)]), "");
    assert_eq!(order(&[cap(None, 1)], &[job("m", 0, 1)]), "a");
}

#[test]
fn while_another_waits_a_job_that_holds_half_gets_no_more() {
    // The other one asks in another process.
    let caps = [cap(None, 4)];
    let elsewhere = |held: u64| {
        let mut jobs = [(id("a"), job("m", held, 9)), (id("b"), job("m", 0, 1))].into();
        grants(&caps, &mut jobs, [(id("a"), (0..9).collect())].into(), usize::MAX).len()
    };
    assert_eq!((elsewhere(0), elsewhere(1), elsewhere(2), elsewhere(3)), (2, 1, 0, 0));
    // Of an odd cap half is rounded up, or a place would stay empty.
    assert_eq!(order(&[cap(None, 3)], &[job("m", 0, 9), job("m", 0, 9)]), "aba");
}

#[test]
fn who_holds_least_is_next_and_then_who_came_first() {
    assert_eq!(order(&[cap(None, 9)], &[job("m", 2, 2), job("m", 0, 2), job("m", 1, 2)]), "bbcaca");
    assert_eq!(order(&[cap(None, 9)], &[job("m", 0, 2), job("m", 0, 2)]), "abab");
}

#[test]
fn a_batch_needs_a_place_under_the_account_and_under_its_model() {
    let caps = [cap(None, 4), cap(Some("x"), 1)];
    assert_eq!(order(&caps, &[job("x", 0, 5), job("y", 0, 2)]), "abb");
    assert_eq!(order(&caps, &[job("x", 1, 5), job("y", 0, 9)]), "bbb", "who could not use it keeps nothing free");
    assert_eq!(order(&[cap(Some("x"), 1)], &[job("y", 5, 3)]), "aaa", "another model's cap is none of its business");
}

fn standings() -> impl Strategy<Value = Vec<Standing>> {
    let one = (prop::sample::select(vec!["x", "y", "z"]), 0_u64..6, 0_u64..4);
    prop::collection::vec(one.prop_map(|(model, held, waiting)| job(model, held, waiting)), 1..6)
}

fn caps() -> impl Strategy<Value = Vec<Cap>> {
    (prop::option::of(1_u64..12), prop::option::of(1_u64..6), prop::option::of(1_u64..6)).prop_map(|(all, x, y)| {
        let limits = [(None, all), (Some("x"), x), (Some("y"), y)];
        limits.into_iter().filter_map(|(model, limit)| Some(cap(model, limit?))).collect()
    })
}

/// Dispatchers over the same facts. Each reads, later lets in by what it read, later still puts the log entry.
struct World {
    caps: Vec<Cap>,
    most: usize,
    jobs: Vec<Batches>,
    dispatchers: Vec<Dispatcher>,
}

/// A job's batches.
struct Batches {
    model: String,
    all: u64,
    /// Those with a log.
    logged: BTreeSet<u64>,
    collected: BTreeSet<u64>,
}

impl Batches {
    fn held(&self) -> u64 {
        self.logged.difference(&self.collected).count() as u64
    }
}

/// What a dispatcher read.
struct Seen {
    jobs: BTreeMap<JobId, Standing>,
    logged: Vec<BTreeSet<u64>>,
}

#[derive(Default)]
struct Dispatcher {
    /// What it read, until it acts on it.
    read: Option<Seen>,
    /// Its places that are not submitted: job, batch.
    ours: BTreeSet<(usize, u64)>,
}

impl World {
    fn read(&mut self, dispatcher: usize) {
        let standing = |of: &Batches| job(&of.model, of.held(), of.all - of.logged.len() as u64);
        let jobs = self.jobs.iter().enumerate().map(|(n, of)| (id(n), standing(of))).collect();
        let logged = self.jobs.iter().map(|of| of.logged.clone()).collect();
        self.dispatchers[dispatcher].read = Some(Seen { jobs, logged });
    }

    /// Lets in what the last reading allows, of the batches that are this dispatcher's.
    fn act(&mut self, dispatcher: usize) {
        let count = self.dispatchers.len();
        let Dispatcher { read, ours } = &mut self.dispatchers[dispatcher];
        let Some(Seen { jobs: mut standings, logged }) = read.take() else { return };
        for (job, _) in ours.iter().filter(|(job, batch)| !logged[*job].contains(batch)) {
            let standing = standings.get_mut(&id(job)).unwrap();
            standing.held += 1;
            standing.waiting -= 1;
        }
        let mine = |batch: &u64| (*batch as usize) % count == dispatcher;
        let mut asking: BTreeMap<JobId, VecDeque<u64>> = BTreeMap::new();
        for (n, of) in self.jobs.iter().enumerate() {
            let new = |batch: &u64| !of.logged.contains(batch) && !ours.contains(&(n, *batch));
            asking.insert(id(n), (0..of.all).filter(mine).filter(new).collect());
        }
        let most = self.most - ours.len();
        for job in grants(&self.caps, &mut standings, asking.clone(), most) {
            let batch = asking.get_mut(&job).unwrap().pop_front().unwrap();
            ours.insert((job.as_str()[4..].parse().unwrap(), batch));
        }
    }

    /// A place becomes a log entry, and a little later is no more counted as our own.
    fn submit(&mut self, dispatcher: usize) {
        if let Some((job, batch)) = self.dispatchers[dispatcher].ours.pop_first() {
            self.jobs[job].logged.insert(batch);
            // What was read before that is of no use any more: the real one takes its own places from before along.
            self.dispatchers[dispatcher].read = None;
        }
    }

    fn collect(&mut self, job: usize) {
        let of = &mut self.jobs[job];
        let next = of.logged.difference(&of.collected).next().copied();
        of.collected.extend(next);
    }

    fn is_over(&self) -> bool {
        self.jobs.iter().all(|of| of.all == of.collected.len() as u64)
    }

    fn held(&self, cap: &Cap) -> u64 {
        let counts = |of: &&Batches| cap.model.as_ref().is_none_or(|model| *model == of.model);
        self.jobs.iter().filter(counts).map(Batches::held).sum()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nobody_is_let_in_beyond_a_cap_or_beyond_half_of_it_while_another_waits(caps in caps(), jobs in standings()) {
        let before: BTreeMap<JobId, Standing> = jobs.into_iter().enumerate().map(|(n, job)| (id(n), job)).collect();
        let asking: BTreeMap<JobId, VecDeque<u64>> =
            before.iter().map(|(id, job)| (id.clone(), (0..job.waiting).collect())).collect();
        let mut after = before.clone();
        let granted = grants(&caps, &mut after, asking.clone(), 1);
        for cap in &caps {
            let room = cap.held(&before) < cap.limit;
            prop_assert!(cap.held(&after) == cap.held(&before) || room);
        }
        if let Some(job) = granted.first() {
            let others = before.iter().filter(|(other, standing)| *other != job && standing.waiting > 0);
            let full = |cap: &Cap| cap.held(&before) >= cap.limit;
            for cap in caps.iter().filter(|cap| cap.covers(&before[job]) && before[job].held * 2 >= cap.limit) {
                // Whoever else waits for this cap is kept out by another one, which is full.
                for (_, other) in others.clone().filter(|(_, other)| cap.covers(other)) {
                    prop_assert!(caps.iter().any(|elsewhere| elsewhere != cap && elsewhere.covers(other) && full(elsewhere)));
                }
            }
        } else {
            // Nothing stays empty: each that asks is under a cap that is full.
            for (asks, _) in asking.iter().filter(|(_, arrivals)| !arrivals.is_empty()) {
                let is_full = |cap: &&Cap| cap.covers(&before[asks]) && cap.held(&before) >= cap.limit;
                prop_assert!(caps.iter().any(|cap| is_full(&cap)), "{asks} could have a place");
            }
        }
    }

    #[test]
    fn dispatchers_that_act_late_overshoot_a_cap_by_no_more_than_what_the_others_may_have_on_the_way(
        caps in caps(),
        most in 1_usize..4,
        count in 1_usize..4,
        models in prop::collection::vec((prop::sample::select(vec!["x", "y"]), 1_u64..30), 1..4),
        steps in prop::collection::vec((0_usize..8, 0_usize..4), 1..300),
    ) {
        let new = |(model, all): (&str, u64)| Batches {
            model: model.to_owned(), all, logged: BTreeSet::new(), collected: BTreeSet::new(),
        };
        let jobs = models.into_iter().map(new);
        let dispatchers = (0..count).map(|_| Dispatcher::default()).collect();
        let mut world = World { caps, most, jobs: jobs.collect(), dispatchers };
        for (step, who) in steps {
            let dispatcher = who % count;
            match step {
                0 | 1 => world.read(dispatcher),
                2 | 3 => world.act(dispatcher),
                4..=6 => world.submit(dispatcher),
                _ => world.collect(who % world.jobs.len()),
            }
            for cap in &world.caps {
                let bound = cap.limit + ((count - 1) * most) as u64;
                prop_assert!(world.held(cap) <= bound, "{} of {cap:?} with {count} dispatchers of {most}", world.held(cap));
            }
        }
        // And all comes to an end, whoever begins: nobody starves.
        for _ in 0..400 {
            if world.is_over() {
                break;
            }
            for dispatcher in 0..count {
                world.read(dispatcher);
                world.act(dispatcher);
                for _ in 0..most {
                    world.submit(dispatcher);
                }
            }
            for job in 0..world.jobs.len() {
                world.collect(job);
            }
        }
        prop_assert!(world.is_over());
    }
}
