//! Metrics of the loop. Rooms register their own in the same registry.
//!
//! Labels are few and known (room, topic, outcome, edge, reason), never a job's id; each series of a room is there at zero from
//! its start, so that a rate is right from the first event on.

use std::time::Duration;

use prometheus::{
    HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, register_histogram_vec_with_registry,
    register_int_counter_vec_with_registry, register_int_gauge_vec_with_registry,
};

/// Bounds of the handlers' histogram, in seconds.
const SECONDS: &[f64] = &[0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 3600.0];

/// How the handling of an event ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is finished.
    Done,
    /// It comes again later.
    Later,
    /// The room refused it: dead letter.
    Rejected,
    /// A transient error; it comes again.
    Failed,
    /// The handler panicked.
    Panicked,
    /// An equal event is open already; this one is finished.
    Duplicate,
    /// It can't be read: dead letter.
    Poison,
}

impl Outcome {
    const ALL: [Self; 7] =
        [Self::Done, Self::Later, Self::Rejected, Self::Failed, Self::Panicked, Self::Duplicate, Self::Poison];

    fn label(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Later => "later",
            Self::Rejected => "rejected",
            Self::Failed => "failed",
            Self::Panicked => "panicked",
            Self::Duplicate => "duplicate",
            Self::Poison => "poison",
        }
    }
}

/// The metrics of all loops of a process.
#[derive(Debug, Clone)]
pub(crate) struct LoopMetrics {
    events: IntCounterVec,
    seconds: HistogramVec,
    running: IntGaugeVec,
    unfinished: IntGaugeVec,
    paused: IntGaugeVec,
    dead_letters: IntCounterVec,
    emitted: IntCounterVec,
    emits_waiting: IntGaugeVec,
    lag: IntGaugeVec,
    commits_failed: IntCounterVec,
    puts: IntCounterVec,
}

impl LoopMetrics {
    pub(crate) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            register_int_counter_vec_with_registry!(Opts::new(name, help), labels, registry)
        };
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            register_int_gauge_vec_with_registry!(Opts::new(name, help), labels, registry)
        };
        let seconds = HistogramOpts::new(
            "batchmill_loop_handler_seconds",
            "Time in a handler, waits for the stage after it included.",
        )
        .buckets(SECONDS.to_vec());
        let puts = counter(
            "batchmill_store_put_once_total",
            "Facts put, by how that ended; unsure counts tries that said nothing.",
            &["outcome"],
        )?;
        for outcome in ["won", "lost", "unsure", "failed"] {
            puts.with_label_values(&[outcome]);
        }
        Ok(Self {
            puts,
            events: counter(
                "batchmill_loop_events_total",
                "Events handled, by how that ended.",
                &["room", "topic", "outcome"],
            )?,
            seconds: register_histogram_vec_with_registry!(seconds, &["room", "topic"], registry)?,
            running: gauge("batchmill_loop_running", "Handlers that run now.", &["room", "topic"])?,
            unfinished: gauge("batchmill_loop_unfinished", "Events taken and not finished.", &["room", "topic"])?,
            paused: gauge(
                "batchmill_loop_paused",
                "1 while the room takes no more from the topic.",
                &["room", "topic"],
            )?,
            dead_letters: counter(
                "batchmill_loop_dead_letters_total",
                "Records sent to the dead letters.",
                &["room", "topic", "reason"],
            )?,
            emitted: counter("batchmill_loop_emitted_total", "Events emitted and acknowledged.", &["kind"])?,
            emits_waiting: gauge(
                "batchmill_loop_emits_waiting",
                "Emits that wait for the stage after this.",
                &["edge"],
            )?,
            lag: gauge(
                "batchmill_loop_lag_events",
                "Events that the stage after the edge has not finished; raw counts as other tools do.",
                &["edge", "kind"],
            )?,
            commits_failed: counter(
                "batchmill_loop_commits_failed_total",
                "Commits that failed; the next one takes them along.",
                &["room"],
            )?,
        })
    }

    /// How puts of facts end.
    pub(crate) fn puts(&self) -> IntCounterVec {
        self.puts.clone()
    }

    /// All series of a room, at zero.
    pub(crate) fn born(&self, room: &str, topics: &[String]) {
        self.commits_failed.with_label_values(&[room]);
        for topic in topics {
            for outcome in Outcome::ALL {
                self.events.with_label_values(&[room, topic, outcome.label()]);
            }
            self.seconds.with_label_values(&[room, topic]);
            for gauge in [&self.running, &self.unfinished, &self.paused] {
                gauge.with_label_values(&[room, topic]).set(0);
            }
        }
        for kind in events::Kind::ALL {
            self.emitted.with_label_values(&[kind.name()]);
        }
    }

    pub(crate) fn handled(&self, room: &str, topic: &str, outcome: Outcome) {
        self.events.with_label_values(&[room, topic, outcome.label()]).inc();
    }

    pub(crate) fn took(&self, room: &str, topic: &str, time: Duration) {
        self.seconds.with_label_values(&[room, topic]).observe(time.as_secs_f64());
    }

    pub(crate) fn state(&self, room: &str, topic: &str, running: usize, unfinished: usize, paused: bool) {
        self.running.with_label_values(&[room, topic]).set(small(running as u64));
        self.unfinished.with_label_values(&[room, topic]).set(small(unfinished as u64));
        self.paused.with_label_values(&[room, topic]).set(i64::from(paused));
    }

    pub(crate) fn dead_letter(&self, room: &str, topic: &str, reason: &str) {
        self.dead_letters.with_label_values(&[room, topic, reason]).inc();
    }

    pub(crate) fn emitted(&self, kind: events::Kind) {
        self.emitted.with_label_values(&[kind.name()]).inc();
    }

    pub(crate) fn waiting_emits(&self, edge: &str, waiting: usize) {
        self.emits_waiting.with_label_values(&[edge]).set(small(waiting as u64));
    }

    pub(crate) fn lag(&self, edge: &str, lag: bus::Lag) {
        self.lag.with_label_values(&[edge, "exact"]).set(small(lag.exact));
        self.lag.with_label_values(&[edge, "raw"]).set(small(lag.raw));
    }

    pub(crate) fn commit_failed(&self, room: &str) {
        self.commits_failed.with_label_values(&[room]).inc();
    }
}

fn small(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
