//! Reading the own lag now and then, for the metrics.
//!
//! Apart from the loop: a broker that is slow to answer slows nobody down. A reading that fails is counted, and the last figure
//! stays.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::context::{Context, Reconcile};
use crate::metrics::{At, BusOperation};
use crate::room::Room;

/// Reads the lag of these rooms every `metrics.lag_seconds`, until the process stops.
pub(crate) async fn keep_reading_lag(context: Context, rooms: Vec<Arc<dyn Room>>) {
    let every = Duration::from_secs(context.common.metrics.lag_seconds);
    if context.reconcile == Reconcile::Off || every.is_zero() {
        return;
    }
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        read_lag(&context, &rooms).await;
    }
}

/// Reads the lag of these rooms on all their topics once, into the metrics.
async fn read_lag(context: &Context, rooms: &[Arc<dyn Room>]) {
    for room in rooms {
        let group = context.group(room.name());
        for topic in room.topics().into_iter().flat_map(|topic| context.topic_names(topic)) {
            match context.bus.lag(&group, &topic).await {
                Ok(lag) => context.metrics.record_lag(At { room: room.name(), topic: &topic, group: &group }, lag),
                Err(error) => {
                    context.bus_metrics.record_error(BusOperation::Lag, &error);
                    tracing::debug!(room = room.name(), topic, %error, "the lag can't be read now");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bus::memory::line::{Call, Line, Passage};
    use bus::{Bus, Error, MemoryBus, Outgoing, Placed};
    use events::Topic;

    use crate::settings::{LocationRules, Settings};
    use crate::work_loop::Outbox;
    use crate::{Clock, Locations, Received, Store, Verdict, run_rooms};

    /// A broker that does everything but tell a lag.
    #[derive(Debug)]
    struct NoLag {
        /// Whether it says so, or says nothing.
        answers: bool,
    }

    impl Line for NoLag {
        fn send<'a>(&'a self, bus: MemoryBus, out: Outgoing) -> Passage<'a, Placed> {
            Box::pin(async move { Bus::Memory(bus).send(out).await })
        }

        fn pass(&self, call: Call) -> Passage<'_, ()> {
            Box::pin(async move {
                match (call, self.answers) {
                    (Call::Lag, false) => std::future::pending().await,
                    (Call::Lag, true) => {
                        Err(Error::Unreachable { what: "the lag".to_owned(), reason: "a test".to_owned() })
                    }
                    _ => Ok(()),
                }
            })
        }
    }

    struct Done;

    #[async_trait::async_trait]
    impl Room for Done {
        fn name(&self) -> &'static str {
            "done"
        }

        fn topics(&self) -> Vec<Topic> {
            vec![Topic::Jobs]
        }

        async fn handle(&self, _: &Received, _: &Outbox) -> anyhow::Result<Verdict> {
            Ok(Verdict::Done)
        }
    }

    /// Events that were handled, and readings that failed, after a minute with this broker.
    async fn minute(answers: bool) -> (f64, f64) {
        let bus = Bus::Memory(MemoryBus::default().with_line(Arc::new(NoLag { answers })));
        let locations = Locations::in_memory(LocationRules::default(), Arc::new(object_store::memory::InMemory::new()));
        let clock = Clock::seeded(1);
        let context = Context::of_parts(clock, Settings::default(), Store::in_memory(), locations, bus).unwrap();
        let running = tokio::spawn(run_rooms(context.clone(), vec![Arc::new(Done)]));
        context.clock.sleep(Duration::from_secs(1)).await;
        let cancel = events::JobCancelRequested { job: "j".parse().unwrap() };
        Outbox::new(&context, "test").emit(cancel).await.unwrap();
        context.clock.sleep(Duration::from_secs(60)).await;
        let figure = |name: &str, value: &str| -> f64 {
            let families = context.registry.gather();
            let metrics = families.iter().filter(|family| family.name() == name).flat_map(|family| family.get_metric());
            let labelled = metrics.filter(|metric| metric.get_label().iter().any(|label| label.value() == value));
            labelled.map(|metric| metric.get_counter().get_value()).sum()
        };
        let figures = (figure("batchmill_loop_events_total", "done"), figure("batchmill_bus_errors_total", "lag"));
        context.shutdown.cancel();
        running.await.unwrap().unwrap();
        figures
    }

    #[tokio::test(start_paused = true)]
    async fn a_lag_that_can_not_be_read_is_counted_and_holds_nothing_up() {
        assert_eq!(minute(true).await, (1.0, 5.0), "at the start and every quarter of a minute");
        assert_eq!(minute(false).await, (1.0, 0.0));
    }
}
