//! The poller as a service of its own.

use std::process::ExitCode;
use std::sync::Arc;

fn main() -> ExitCode {
    runtime::service_main("poller", async |context| {
        Ok(Arc::new(poller::Poller::new(context)?) as Arc<dyn runtime::Room>)
    })
}
