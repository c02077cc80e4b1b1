//! Records the library's spans for `--trace` and, with the feature `otel`, for a collector. By default nothing is
//! recorded.

#[cfg(feature = "otel")]
mod collector;
#[cfg(feature = "otel")]
mod export;

use tracing_subscriber::{Layer, Registry};

use crate::args::{Args, Command};
use crate::timeline::Timeline;

type Boxed = Box<dyn Layer<Registry> + Send + Sync>;

/// The recorders that are active while the command runs.
pub(crate) struct Telemetry {
    /// The steps of the one call of `call --trace`.
    pub(crate) timeline: Option<Timeline>,
    #[cfg(feature = "otel")]
    export: Result<Option<export::Export>, String>,
}

impl Telemetry {
    pub(crate) fn of(args: &Args) -> Self {
        let shown = matches!(&args.command, Command::Call(call) if call.trace);
        Self {
            timeline: shown.then(Timeline::default),
            #[cfg(feature = "otel")]
            export: export::Export::by_environment(),
        }
    }

    /// The layers of the subscriber that receive the library's spans.
    pub(crate) fn layers(&self) -> Vec<Boxed> {
        let timeline = self.timeline.clone();
        let timeline = timeline.map(|timeline| timeline.with_filter(Timeline::filter()).boxed());
        let layers = timeline.into_iter();
        #[cfg(feature = "otel")]
        let layers = layers.chain(self.export.iter().flatten().map(export::Export::layer));
        layers.collect()
    }

    /// Warns if the variables `OTEL_…` are not valid. No traces are sent then, and the command goes on.
    #[cfg(feature = "otel")]
    pub(crate) fn warn_of_invalid_variables(&self) {
        if let Err(reason) = &self.export {
            tracing::warn!("cannot send traces: {reason}");
        }
    }

    /// Sends the spans that have not been sent, within a limited time.
    #[cfg(feature = "otel")]
    pub(crate) fn shut_down(self) {
        if let Ok(Some(export)) = self.export {
            export.shut_down();
        }
    }
}
