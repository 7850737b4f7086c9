//! The splitter as a service of its own.

use std::process::ExitCode;
use std::sync::Arc;

fn main() -> ExitCode {
    runtime::service_main("splitter", async |context| {
        Ok(Arc::new(splitter::Splitter::new(context)?) as Arc<dyn runtime::Room>)
    })
}
