//! Everything that four services would repeat: settings, the store, the one loop, the admin port, metrics, logs, the clock,
//! shutdown.
//!
//! A room is a [`Room`]: a name, the topics it takes, and what it does with one event. Everything else is here, and the
//! same room runs as a process of its own or beside the others in one.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use runtime::{Context, Outbox, Received, Room, Verdict, run_rooms, settings::Settings};
//!
//! /// Looks again until somebody says when the job was cancelled.
//! struct Watcher;
//!
//! #[async_trait::async_trait]
//! impl Room for Watcher {
//!     fn name(&self) -> &'static str {
//!         "watcher"
//!     }
//!
//!     fn topics(&self) -> Vec<events::Topic> {
//!         vec![events::Topic::Jobs]
//!     }
//!
//!     async fn handle(&self, event: &Received, _out: &Outbox) -> anyhow::Result<Verdict> {
//!         println!("{} of team {}", event.event.key(), event.team);
//!         Ok(if event.tries < 2 { Verdict::Later(Duration::from_millis(10)) } else { Verdict::Done })
//!     }
//! }
//!
//! # fn main() -> anyhow::Result<()> {
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let context = Context::in_memory(1, Settings::default())?;
//! let rooms = tokio::spawn(run_rooms(context.clone(), vec![Arc::new(Watcher)]));
//! let job = "spring-catalog".parse()?;
//! Outbox::new(&context, "example").emit(events::JobCancelRequested { job }).await?;
//! context.shutdown.cancel();
//! rooms.await?
//! # }) }
//! ```
//!
//! As a process of its own a room's `main` is one call: [`service_main`].
//!
//! What this crate deliberately lacks: any knowledge of tables, prompts and providers, and any decision about a job.

pub mod admin;
pub mod clock;
pub mod context;
pub mod cpu;
pub mod dead_letters;
pub mod facts;
mod health;
mod lag;
pub mod locations;
pub mod log;
pub mod metrics;
pub mod probe;
pub mod reconcile;
pub mod room;
pub mod scratch;
pub mod service;
pub mod settings;
pub mod store;
pub mod trace;
mod work_loop;

pub use clock::{Clock, rest_after};
pub use context::{Context, Reconcile};
pub use cpu::run_blocking_section;
pub use facts::load_facts;
pub use locations::{Location, Locations, Pinned, ReadError};
pub use reconcile::{Reconciled, Reconciling, reconcile, reconcile_each};
pub use room::{Reason, Received, Room, Verdict};
pub use scratch::{Scratch, ScratchFile};
pub use service::{ServiceArgs, run_rooms, serve, service_main, stop_on_signals};
pub use store::{Fact, ObjectWriter, PutOnce, Store, Written};
pub use work_loop::{Admission, Edge, Outbox, Stopping};
