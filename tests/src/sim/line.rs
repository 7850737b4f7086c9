//! A process's way to the bus: events are lost (where the world allows it), doubled, late, out of order, and answered
//! by errors whether they landed or not.

use std::sync::Arc;

use bus::memory::line::{Call, Line, Passage};
use bus::{Error, MemoryBus, Outgoing, Placed};

use super::faults::Faults;
use super::gate::Gate;

/// The most bytes of an event: ARCHITECTURE's first invariant.
const MAX_EVENT_BYTES: usize = 64 * 1024;

/// All faults of a bus.
pub const FAULTS: &[&str] = &[
    "event doubled",
    "event late",
    "event slow",
    "event landed, fails",
    "event not landed, fails",
    "commit fails",
    "lag unreadable",
    "event lost",
];

const SENDS: &[&str] = FAULTS.split_at(5).0;
/// The same where events may be lost.
const LOSSY_SENDS: &[&str] =
    &["event doubled", "event late", "event slow", "event landed, fails", "event not landed, fails", "event lost"];

/// The line.
#[derive(Debug)]
pub struct SimLine {
    gate: Arc<Gate>,
    faults: Faults,
}

impl SimLine {
    /// The line of a process.
    #[must_use]
    pub fn new(gate: &Arc<Gate>, faults: &Faults) -> Arc<Self> {
        Arc::new(Self { gate: Arc::clone(gate), faults: faults.clone() })
    }

    fn later(&self, bus: MemoryBus, out: Outgoing) {
        let (faults, late) = (self.faults.clone(), self.faults.chance.duration(10, 120_000));
        tokio::spawn(async move {
            faults.clock.sleep(late).await;
            faults.journal.note(format_args!("bus late {}", name_of(&out)));
            drop(bus.append(out));
        });
    }

    async fn carry(&self, bus: MemoryBus, out: Outgoing) -> bus::Result<Placed> {
        let name = name_of(&out);
        self.faults.journal.note(format_args!("{} sends {name}", self.gate.name()));
        let kinds = if self.faults.lossy { LOSSY_SENDS } else { SENDS };
        let nowhere = Placed { partition: 0, offset: 0 };
        match self.faults.draw(self.faults.rates.bus, kinds, &name) {
            None => bus.append(out),
            Some("event lost") => Ok(nowhere),
            Some("event doubled") => {
                self.later(bus.clone(), out.clone());
                bus.append(out)
            }
            Some("event late") => {
                self.later(bus, out);
                Ok(nowhere)
            }
            Some("event slow") => {
                self.faults.wait(100, 20_000).await;
                bus.append(out)
            }
            Some("event landed, fails") => bus.append(out).and(Err(unreachable("sending"))),
            Some(_) => Err(unreachable("sending")),
        }
    }
}

fn unreachable(what: &str) -> Error {
    Error::Unreachable { what: what.to_owned(), reason: "simulated".to_owned() }
}

fn name_of(out: &Outgoing) -> String {
    let key = out.key.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
    format!("{} {key}", out.topic)
}

impl Line for SimLine {
    fn send<'a>(&'a self, bus: MemoryBus, out: Outgoing) -> Passage<'a, Placed> {
        Box::pin(async move {
            self.gate.step("produce<").await;
            let headers: usize = out.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
            let sizes =
                [out.key.as_ref().map_or(0, bytes::Bytes::len), out.value.as_ref().map_or(0, bytes::Bytes::len)];
            let bytes = headers + sizes.iter().sum::<usize>();
            if bytes > MAX_EVENT_BYTES {
                self.faults.journal.violation(format!("an event of {bytes} bytes: {}", name_of(&out)));
            }
            let sent = self.carry(bus, out).await;
            self.gate.step("produce>").await;
            sent
        })
    }

    fn pass(&self, call: Call) -> Passage<'_, ()> {
        Box::pin(async move {
            let fault = match call {
                Call::Next => {
                    self.gate.open().await;
                    None
                }
                Call::Commit => {
                    self.gate.step("commit<").await;
                    self.faults.draw(self.faults.rates.bus, &["commit fails"], self.gate.name())
                }
                Call::Lag => {
                    self.gate.open().await;
                    self.faults.draw(self.faults.rates.bus / 4, &["lag unreadable"], self.gate.name())
                }
            };
            fault.map_or(Ok(()), |what| Err(unreachable(what)))
        })
    }
}
