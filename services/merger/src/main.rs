//! The merger as a service of its own.

use std::process::ExitCode;
use std::sync::Arc;

fn main() -> ExitCode {
    runtime::service_main("merger", async |context| {
        Ok(Arc::new(merger::Merger::new(context)?) as Arc<dyn runtime::Room>)
    })
}
