//! The calls of providers, as metrics and traces have them: `providers` has neither a clock nor metrics, the runtime knows no providers.

use std::sync::Arc;

use providers::observe::Ended;
use providers::{CallOutcome, Observer, Operation, Providers};
use runtime::metrics::ProviderCalls;
use runtime::{Clock, Context};

#[derive(Debug)]
struct Calls {
    clock: Clock,
    calls: ProviderCalls,
}

impl Observer for Calls {
    fn begin(&self, provider: &str, operation: Operation) -> Ended {
        let (clock, calls, provider) = (self.clock.clone(), self.calls.clone(), provider.to_owned());
        let began = clock.monotonic();
        let span = runtime::trace::client_call(&provider, operation.as_str());
        Box::new(move |outcome: CallOutcome| {
            let took = clock.monotonic().saturating_sub(began);
            span(outcome.as_str());
            calls.record_call(&provider, operation.as_str(), outcome.as_str(), took);
        })
    }
}

/// The providers with their calls in the metrics. `operations` are those that the room makes: their series begin at 0.
#[must_use]
pub fn measured(context: &Context, providers: &Providers, operations: &[Operation]) -> Providers {
    for (provider, _) in providers.usable() {
        for operation in operations {
            let ends = CallOutcome::ALL.iter().filter(|outcome| outcome.is_of(*operation));
            let ends: Vec<&str> = ends.map(|outcome| outcome.as_str()).collect();
            context.provider_calls.born(provider, operation.as_str(), &ends);
        }
    }
    let calls = Calls { clock: context.clock.clone(), calls: context.provider_calls.clone() };
    providers.observed_by(&(Arc::new(calls) as Arc<dyn Observer>))
}
