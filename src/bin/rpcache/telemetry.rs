//! Who records the library's spans: nobody, unless `--trace` or the environment asks for it.

#[cfg(feature = "otel")]
mod collector;
#[cfg(feature = "otel")]
mod export;

use tracing_subscriber::{Layer, Registry};

use crate::args::{Args, Command};
use crate::timeline::Timeline;

type Boxed = Box<dyn Layer<Registry> + Send + Sync>;

/// What is recorded while the command runs.
pub(crate) struct Telemetry {
    /// Of one call, for whoever waits for it.
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

    /// What has to hear of the library's spans.
    pub(crate) fn layers(&self) -> Vec<Boxed> {
        let timeline = self.timeline.clone();
        let timeline = timeline.map(|timeline| timeline.with_filter(Timeline::filter()).boxed());
        let layers = timeline.into_iter();
        #[cfg(feature = "otel")]
        let layers = layers.chain(self.export.iter().flatten().map(export::Export::layer));
        layers.collect()
    }

    /// Traces that were asked for in a way that cannot be understood are not sent; that ends no command.
    pub(crate) fn say_what_is_wrong(&self) {
        #[cfg(feature = "otel")]
        if let Err(reason) = &self.export {
            tracing::warn!("cannot send traces: {reason}");
        }
    }

    /// The command has ended: sends what has not been sent, for a bounded time.
    pub(crate) fn end(self) {
        #[cfg(feature = "otel")]
        if let Ok(Some(export)) = self.export {
            export.end();
        }
    }
}
