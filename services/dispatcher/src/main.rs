//! The dispatcher as a service of its own.

use std::process::ExitCode;
use std::sync::Arc;

fn main() -> ExitCode {
    runtime::service_main("dispatcher", async |context| {
        Ok(Arc::new(dispatcher::Dispatcher::new(context)?) as Arc<dyn runtime::Room>)
    })
}
