//! The dispatcher as a service of its own.

use std::process::ExitCode;
use std::sync::Arc;

fn main() -> ExitCode {
    runtime::service_main("dispatcher", async |context| {
        let providers = providers::Providers::open(&context.settings.section("providers")?);
        Ok(Arc::new(dispatcher::Dispatcher::new(context, &providers)?) as Arc<dyn runtime::Room>)
    })
}
