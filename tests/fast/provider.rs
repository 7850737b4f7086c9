//! The OpenAI provider against the simulator: the suite that defines class B.

use std::time::Duration;

use providers::conformance::{Setup, class_b};
use providers::{ProviderSettings, open};
use simulator::{Config, Pace};

async fn conforms(pace: Pace) {
    let data = tempfile::tempdir().unwrap();
    let running = simulator::start(Config { pace, ..Config::new(data.path()) }).await.unwrap();
    let provider = open("sim", &ProviderSettings::simulator(running.url.clone())).unwrap();
    // One receiver for all waits: what changed between a look and the wait after it is not missed.
    let changes = tokio::sync::Mutex::new(running.simulator().changes());
    let setup = Setup {
        model: "sim/echo".to_owned(),
        nonce: model::Nonce::from_bits(7),
        wait: |_| async {
            changes.lock().await.changed().await.unwrap();
        },
        looks: 1_000,
    };
    let checked = class_b(provider.as_ref(), &setup).await;
    checked.unwrap();
    running.stop().await;
}

#[tokio::test]
async fn the_openai_provider_keeps_class_b_with_a_quick_simulator() {
    conforms(Pace::default()).await;
}

#[tokio::test]
async fn the_openai_provider_keeps_class_b_with_a_slow_simulator() {
    conforms(Pace::each(Duration::from_millis(200))).await;
}
