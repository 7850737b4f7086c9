//! The poller as a service of its own.

use std::process::ExitCode;
use std::sync::Arc;

fn main() -> ExitCode {
    runtime::service_main("poller", async |context| {
        let providers = providers::Providers::open(&context.settings.section("providers")?);
        Ok(Arc::new(poller::Poller::new(context, &providers)?) as Arc<dyn runtime::Room>)
    })
}
