//! Backpressure: a stage holds back while the stage after it is behind.
//!
//! The measure is the exact lag of the consumer group downstream, which everyone reads from the bus: no stage asks another, and
//! it counts what all producers sent. A reading is old at once, so what was granted since counts on top. Who waits is
//! granted round-robin over jobs.
//!
//! A process alone keeps the lag below `high`. Several read the same figure and may each fill what it leaves, so of n processes
//! each of the n − 1 others may add what there was room for: (n − 1) × (high − low) where a gate opens again, (n − 1) × high at a
//! start from nothing.
//!
//! At the edge to the pollers, batches that are to be tried again count too, though they never wait: each keeps the place that its
//! last attempt had, so a provider that lets everything expire does not get the retries on top of what was let in meanwhile.
//!
//! If the lag can't be read, one emit for each try to read goes through: a trickle, so that a broken reading slows the
//! pipeline and does not stop it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bus::Bus;
use events::{Event, Topic, Topics};
use model::JobId;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::round_robin::RoundRobin;
use crate::clock::Clock;
use crate::context;
use crate::metrics::{BusMetrics, BusOperation, LoopMetrics};
use crate::settings::{Common, Marks};

/// How often a closed gate looks again at the memory bus, where a look costs next to nothing.
const MEMORY_READING: Duration = Duration::from_millis(20);

/// Where a stage may have to wait for the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Edge {
    /// From the splitter to the dispatchers: first attempts that are ready.
    Batches,
    /// From the dispatchers to the pollers: batches at the providers.
    Submissions,
    /// From the pollers to the mergers: attempts that are collected.
    Results,
}

impl Edge {
    /// The edge at which an event waits, if it does. Retries and `batch.dispatched` never do: the one would hold up what is
    /// nearly finished, the other what is paid for.
    #[must_use]
    pub fn of(event: &Event) -> Option<Self> {
        match event {
            Event::BatchReady(_) if event.topic() == Topic::Batches => Some(Self::Batches),
            Event::BatchCollected(_) => Some(Self::Results),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Batches => "batches",
            Self::Submissions => "submissions",
            Self::Results => "results",
        }
    }

    /// What counts: the events of these topics that these rooms have not finished.
    fn counted(self) -> &'static [(Topic, &'static str)] {
        match self {
            Self::Batches => &[(Topic::Batches, "dispatcher")],
            Self::Submissions => &[(Topic::Submissions, "poller"), (Topic::Retries, "dispatcher")],
            Self::Results => &[(Topic::Results, "merger")],
        }
    }
}

/// The gates of a process, one for each edge.
pub(crate) struct Gates {
    batches: Arc<Gate>,
    submissions: Arc<Gate>,
    results: Arc<Gate>,
}

impl Gates {
    pub(crate) fn new(
        common: &Common,
        topics: &Topics,
        bus: &Bus,
        clock: &Clock,
        (metrics, bus_metrics): (&LoopMetrics, &BusMetrics),
        shutdown: &CancellationToken,
    ) -> Self {
        let gate = |edge: Edge, marks: Marks| {
            let counted = edge.counted().iter();
            let in_memory = matches!(bus, Bus::Memory(_));
            let high = marks.high.max(1);
            let low = marks.low.min(high - 1);
            metrics.gate_born(edge.name(), high, low);
            Arc::new(Gate {
                edge,
                high,
                low,
                counted: counted.map(|(topic, room)| (context::group(common, room), topics.name(*topic))).collect(),
                fresh_for: if in_memory {
                    Duration::ZERO
                } else {
                    Duration::from_millis(common.backpressure.reading_ms)
                },
                every: if in_memory {
                    MEMORY_READING
                } else {
                    Duration::from_millis(common.backpressure.reading_ms.max(1))
                },
                bus: bus.clone(),
                clock: clock.clone(),
                metrics: metrics.clone(),
                bus_metrics: bus_metrics.clone(),
                shutdown: shutdown.clone(),
                reading: tokio::sync::Mutex::new(()),
                state: Mutex::default(),
            })
        };
        let marks = &common.backpressure;
        Self {
            batches: gate(Edge::Batches, marks.batches),
            submissions: gate(Edge::Submissions, marks.submissions),
            results: gate(Edge::Results, marks.results),
        }
    }

    pub(super) fn of(&self, edge: Edge) -> &Arc<Gate> {
        match edge {
            Edge::Batches => &self.batches,
            Edge::Submissions => &self.submissions,
            Edge::Results => &self.results,
        }
    }
}

/// One gate.
pub(super) struct Gate {
    edge: Edge,
    high: u64,
    low: u64,
    /// Groups and topics whose lags add up.
    counted: Vec<(String, String)>,
    /// How old a reading may be.
    fresh_for: Duration,
    /// How often a closed gate looks again.
    every: Duration,
    bus: Bus,
    clock: Clock,
    metrics: LoopMetrics,
    bus_metrics: BusMetrics,
    shutdown: CancellationToken,
    /// Held by the one that reads.
    reading: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The last reading, and when it was taken.
    lag: Option<u64>,
    read_at: Option<Duration>,
    /// Granted and not yet in the reading.
    granted: u64,
    /// Granted and not yet acknowledged.
    in_flight: u64,
    /// Between `high` and `low` it stays as it was.
    closed: bool,
    /// Grants that an unreadable lag still allows.
    trickle: u64,
    waiting: RoundRobin<JobId, oneshot::Sender<Grant>>,
    driven: bool,
}

/// The leave to put one event on an edge. It counts as on its way until it is dropped.
pub(super) struct Grant {
    gate: Arc<Gate>,
}

impl Drop for Grant {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        state.in_flight = state.in_flight.saturating_sub(1);
    }
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The leave, if it can be had at once.
    pub(super) async fn try_acquire(self: &Arc<Self>) -> Option<Grant> {
        if self.lock().waiting.len() > 0 {
            return None;
        }
        self.read_if_stale().await;
        let mut state = self.lock();
        let free = state.waiting.len() == 0 && self.admits(&mut state);
        free.then(|| self.grant(&mut state))
    }

    /// Waits for the leave, in turn with other jobs. `None` if the process stops.
    pub(super) async fn acquire(self: &Arc<Self>, job: &JobId) -> Option<Grant> {
        let (sender, granted) = oneshot::channel();
        let driven = {
            let mut state = self.lock();
            state.waiting.push(job.clone(), sender);
            std::mem::replace(&mut state.driven, true)
        };
        if !driven {
            tokio::spawn(Arc::clone(self).drive());
        }
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => None,
            grant = granted => grant.ok(),
        }
    }

    /// Grants to those who wait, until none does.
    async fn drive(self: Arc<Self>) {
        loop {
            self.read_if_stale().await;
            {
                let mut state = self.lock();
                state.waiting.retain(|sender| !sender.is_closed());
                while state.waiting.len() > 0 && self.admits(&mut state) {
                    let Some(sender) = state.waiting.pop() else { break };
                    let grant = self.grant(&mut state);
                    // Dropping a grant takes the lock, so one that nobody took is kept until it is free.
                    if let Err(unwanted) = sender.send(grant) {
                        state.granted = state.granted.saturating_sub(1);
                        drop(state);
                        drop(unwanted);
                        state = self.lock();
                    }
                }
                self.metrics.record_waiting_emits(self.edge.name(), state.waiting.len());
                if state.waiting.len() == 0 {
                    state.driven = false;
                    return;
                }
            }
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => {
                    let mut state = self.lock();
                    state.waiting = RoundRobin::default();
                    state.driven = false;
                    return;
                }
                () = self.clock.sleep(self.every) => {}
            }
        }
    }

    fn grant(self: &Arc<Self>, state: &mut State) -> Grant {
        state.granted += 1;
        state.in_flight += 1;
        Grant { gate: Arc::clone(self) }
    }

    fn admits(&self, state: &mut State) -> bool {
        let Some(lag) = state.lag else {
            let one = state.trickle > 0;
            state.trickle = state.trickle.saturating_sub(1);
            return one;
        };
        let estimate = lag + state.granted;
        if state.closed {
            state.closed = estimate > self.low;
        } else {
            state.closed = estimate >= self.high;
        }
        self.metrics.record_gate(self.edge.name(), state.closed);
        !state.closed
    }

    async fn read_if_stale(&self) {
        let _one_reads = self.reading.lock().await;
        let now = self.clock.monotonic();
        let fresh = self.lock().read_at.is_some_and(|at| now.saturating_sub(at) < self.fresh_for);
        if fresh {
            return;
        }
        // What is acknowledged before the reading begins is in it; what is on its way may be or not.
        let on_the_way = self.lock().in_flight;
        let read = self.lag().await;
        let mut state = self.lock();
        state.read_at = Some(self.clock.monotonic());
        match read {
            Ok(lag) => {
                self.metrics.record_gate_lag(self.edge.name(), lag);
                state.lag = Some(lag);
                state.granted = on_the_way;
            }
            Err(error) => {
                self.bus_metrics.record_error(BusOperation::Lag, &error);
                tracing::warn!(edge = self.edge.name(), %error, "the lag can't be read: emits trickle");
                state.lag = None;
                state.trickle = 1;
            }
        }
    }

    async fn lag(&self) -> Result<u64, bus::Error> {
        let mut sum = 0;
        for (group, topic) in &self.counted {
            sum += self.bus.lag(group, topic).await?.exact;
        }
        Ok(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Context;
    use crate::settings::Settings;

    #[tokio::test(start_paused = true)]
    async fn an_unreadable_lag_lets_one_through_for_each_reading() {
        let context = Context::in_memory(1, Settings::default()).unwrap();
        let gate = context.gates.of(Edge::Batches);
        let mut state = State { trickle: 1, ..State::default() };
        assert!(gate.admits(&mut state));
        assert!(!gate.admits(&mut state));
        state.trickle = 1;
        assert!(gate.admits(&mut state));
    }

    #[tokio::test(start_paused = true)]
    async fn metrics_show_the_marks_and_whether_a_gate_is_closed() {
        let context = Context::in_memory(1, Settings::default()).unwrap();
        let gate = context.gates.of(Edge::Results);
        let figure = |name: &str| {
            let text = prometheus::TextEncoder::new().encode_to_string(&context.registry.gather()).unwrap();
            let series = format!("batchmill_gate_{name}{{edge=\"results\"}} ");
            text.lines().find_map(|line| line.strip_prefix(&series).map(str::to_owned)).unwrap()
        };
        assert_eq!([figure("high_events"), figure("low_events"), figure("closed")], ["256", "192", "0"]);
        gate.admits(&mut State { lag: Some(gate.high), ..State::default() });
        assert_eq!(figure("closed"), "1");
        gate.admits(&mut State { lag: Some(gate.low), closed: true, ..State::default() });
        assert_eq!(figure("closed"), "0");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_granted_since_the_reading_counts_and_between_the_marks_nothing_changes() {
        let context = Context::in_memory(1, Settings::default()).unwrap();
        let gate = context.gates.of(Edge::Batches);
        let (high, low) = (gate.high, gate.low);
        let admits = |lag: u64, granted: u64, closed: bool| {
            gate.admits(&mut State { lag: Some(lag), granted, closed, ..State::default() })
        };
        assert!(admits(high - 1, 0, false));
        assert!(!admits(high - 1, 1, false));
        assert!(!admits(low + 1, 0, true));
        assert!(admits(low + 1, 0, false));
        assert!(admits(low, 0, true));
    }
}
