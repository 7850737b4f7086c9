//! What the loop and the gates count.

use std::time::Duration;

use prometheus::{HistogramVec, IntCounterVec, IntGaugeVec, Registry};

use super::{STAGE_SECONDS, Series, small};

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

/// A room in one of its topics, as labels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At<'a> {
    /// The room.
    pub(crate) room: &'a str,
    /// The topic's full name.
    pub(crate) topic: &'a str,
    /// The room's consumer group.
    pub(crate) group: &'a str,
}

impl<'a> At<'a> {
    fn labels(self) -> [&'a str; 3] {
        [self.room, self.topic, self.group]
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
    lag: IntGaugeVec,
    raw_lag: IntGaugeVec,
    dead_letters: IntCounterVec,
    emitted: IntCounterVec,
    gates: GateMetrics,
}

/// The metrics of all gates of a process.
#[derive(Debug, Clone)]
struct GateMetrics {
    waiting: IntGaugeVec,
    closed: IntGaugeVec,
    lag: IntGaugeVec,
    high: IntGaugeVec,
    low: IntGaugeVec,
}

impl LoopMetrics {
    pub(crate) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let series = Series::of(registry);
        let (place, of_group) = (["room", "topic"], ["room", "topic", "group"]);
        Ok(Self {
            events: series.counters(
                "batchmill_loop_events_total",
                "Events handled, by how that ended. One that comes again later counts each time.",
                &["room", "topic", "outcome"],
            )?,
            seconds: series.histograms(
                "batchmill_loop_handler_duration_seconds",
                "Time in a handler, waits for room at the stage after it included.",
                &place,
                STAGE_SECONDS,
            )?,
            running: series.gauges("batchmill_loop_running", "Handlers that run now.", &place)?,
            unfinished: series.gauges("batchmill_loop_unfinished", "Events taken and not finished.", &place)?,
            paused: series.gauges(
                "batchmill_loop_paused",
                "1 while this process takes no more from the topic, since too much is open in it.",
                &of_group,
            )?,
            lag: series.gauges(
                "batchmill_loop_lag_events",
                "Exact lag: events of the topic that the whole group has not finished. Each process of a room reads the \
                 same figure, so take the maximum, not the sum.",
                &of_group,
            )?,
            raw_lag: series.gauges(
                "batchmill_loop_raw_lag_events",
                "Raw lag, as Kafka's own tools count: also what is finished behind an open event. Take the maximum.",
                &of_group,
            )?,
            dead_letters: series.counters(
                "batchmill_loop_dead_letters_total",
                "Records sent to the dead letters.",
                &["room", "topic", "reason"],
            )?,
            emitted: series.counters("batchmill_loop_emitted_total", "Events emitted and acknowledged.", &["kind"])?,
            gates: GateMetrics::new(&series)?,
        })
    }

    /// All series of a room in a topic, at zero. `reasons` are those of its dead letters.
    pub(crate) fn born<'r>(&self, at: At<'_>, reasons: impl Iterator<Item = &'r str>) {
        let At { room, topic, .. } = at;
        for outcome in Outcome::ALL {
            self.events.with_label_values(&[room, topic, outcome.label()]);
        }
        self.seconds.with_label_values(&[room, topic]);
        for gauge in [&self.running, &self.unfinished] {
            gauge.with_label_values(&[room, topic]).set(0);
        }
        for gauge in [&self.paused, &self.lag, &self.raw_lag] {
            gauge.with_label_values(&at.labels()).set(0);
        }
        reasons.for_each(|reason| drop(self.dead_letters.with_label_values(&[room, topic, reason])));
        for kind in events::Kind::ALL {
            self.emitted.with_label_values(&[kind.name()]);
        }
    }

    /// An event was handled.
    pub(crate) fn record_handled(&self, room: &str, topic: &str, outcome: Outcome) {
        self.events.with_label_values(&[room, topic, outcome.label()]).inc();
    }

    /// A handler ended, one way or another.
    pub(crate) fn record_took(&self, room: &str, topic: &str, time: Duration) {
        self.seconds.with_label_values(&[room, topic]).observe(time.as_secs_f64());
    }

    /// How a topic stands in this process.
    pub(crate) fn record_state(&self, at: At<'_>, running: usize, unfinished: usize, paused: bool) {
        self.running.with_label_values(&[at.room, at.topic]).set(small(running as u64));
        self.unfinished.with_label_values(&[at.room, at.topic]).set(small(unfinished as u64));
        self.paused.with_label_values(&at.labels()).set(i64::from(paused));
    }

    /// A group's lag was read.
    pub(crate) fn record_lag(&self, at: At<'_>, lag: bus::Lag) {
        self.lag.with_label_values(&at.labels()).set(small(lag.exact));
        self.raw_lag.with_label_values(&at.labels()).set(small(lag.raw));
    }

    /// A dead letter was acknowledged.
    pub(crate) fn record_dead_letter(&self, room: &str, topic: &str, reason: &str) {
        self.dead_letters.with_label_values(&[room, topic, reason]).inc();
    }

    /// An event was acknowledged.
    pub(crate) fn record_emitted(&self, kind: events::Kind) {
        self.emitted.with_label_values(&[kind.name()]).inc();
    }

    /// A gate's series, and its marks.
    pub(crate) fn gate_born(&self, edge: &str, high: u64, low: u64) {
        let GateMetrics { waiting, closed, lag, .. } = &self.gates;
        [waiting, closed, lag].iter().for_each(|gauge| gauge.with_label_values(&[edge]).set(0));
        self.gates.high.with_label_values(&[edge]).set(small(high));
        self.gates.low.with_label_values(&[edge]).set(small(low));
    }

    /// How many emits a gate holds back.
    pub(crate) fn record_waiting_emits(&self, edge: &str, waiting: usize) {
        self.gates.waiting.with_label_values(&[edge]).set(small(waiting as u64));
    }

    /// Whether a gate is closed.
    pub(crate) fn record_gate(&self, edge: &str, closed: bool) {
        self.gates.closed.with_label_values(&[edge]).set(i64::from(closed));
    }

    /// A gate read the exact lag of the stage after it.
    pub(crate) fn record_gate_lag(&self, edge: &str, exact: u64) {
        self.gates.lag.with_label_values(&[edge]).set(small(exact));
    }
}

impl GateMetrics {
    fn new(series: &Series<'_>) -> prometheus::Result<Self> {
        let gauges = |name: &str, help: &str| series.gauges(name, help, &["edge"]);
        Ok(Self {
            waiting: gauges("batchmill_gate_waiting_emits", "Emits that wait for room at the stage after the edge.")?,
            closed: gauges(
                "batchmill_gate_closed",
                "1 while this process holds back what it would emit over the edge, since the stage after it is behind.",
            )?,
            lag: gauges(
                "batchmill_gate_lag_events",
                "Exact lag of the stage after the edge as this process last read it, for submissions with the batches that wait \
                 to be tried again; it reads when it has something to emit.",
            )?,
            high: gauges("batchmill_gate_high_events", "The lag at which the gate closes, from the settings.")?,
            low: gauges("batchmill_gate_low_events", "The lag at which it opens again, from the settings.")?,
        })
    }
}
