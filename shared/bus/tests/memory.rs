//! The conformance suite on the memory bus.

use bus::{Bus, conformance};

#[tokio::test]
async fn the_memory_bus_keeps_its_promises() {
    conformance::all(Bus::memory(), "run").await;
}

#[tokio::test(start_paused = true)]
async fn it_keeps_them_under_a_paused_clock() {
    conformance::all(Bus::memory(), "run").await;
}
