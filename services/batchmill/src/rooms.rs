//! How the rooms are made.

use std::sync::Arc;

use providers::Providers;
use runtime::{Context, Room};

/// The providers of the settings.
pub(crate) fn providers(context: &Context) -> anyhow::Result<Providers> {
    Ok(Providers::open(&context.settings.section("providers")?))
}

/// The splitter.
pub(crate) fn splitter(context: &Context) -> anyhow::Result<Arc<dyn Room>> {
    Ok(Arc::new(splitter::Splitter::new(context, &providers(context)?)?))
}

/// The dispatcher.
pub(crate) fn dispatcher(context: &Context) -> anyhow::Result<Arc<dyn Room>> {
    Ok(Arc::new(dispatcher::Dispatcher::new(context, &providers(context)?)?))
}

/// The poller.
pub(crate) fn poller(context: &Context) -> anyhow::Result<Arc<dyn Room>> {
    Ok(Arc::new(poller::Poller::new(context, &providers(context)?)?))
}

/// The merger.
pub(crate) fn merger(context: &Context) -> anyhow::Result<Arc<dyn Room>> {
    Ok(Arc::new(merger::Merger::new(context)?))
}

/// All four.
pub(crate) fn all(context: &Context) -> anyhow::Result<Vec<Arc<dyn Room>>> {
    all_with(context, &providers(context)?)
}

/// All four, with other providers than those of the settings.
pub(crate) fn all_with(context: &Context, providers: &Providers) -> anyhow::Result<Vec<Arc<dyn Room>>> {
    Ok(vec![
        Arc::new(splitter::Splitter::new(context, providers)?),
        Arc::new(dispatcher::Dispatcher::new(context, providers)?),
        Arc::new(poller::Poller::new(context, providers)?),
        merger(context)?,
    ])
}
