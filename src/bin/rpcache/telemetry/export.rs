//! Traces for an OpenTelemetry collector, by the variables that every program of that kind knows:
//! `OTEL_EXPORTER_OTLP_ENDPOINT` turns it on, `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`,
//! `OTEL_TRACES_SAMPLER` and the others are read by the SDK.
//!
//! Spans are sent by a thread of the SDK's own, in batches, from a queue that drops what it has no room
//! for: no call waits for it.

use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{
    Protocol, RetryPolicy, SpanExporter, WithExportConfig as _, WithHttpConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{LevelFilter, Targets};

use super::Boxed;
use super::collector::Collector;
use crate::timeline::SPANS;

/// At the end of the command, for what has not been sent.
const FLUSH_DEADLINE: Duration = Duration::from_secs(2);

/// The tracer's name, and the service's where the environment gives it none.
const NAME: &str = "rpcache";

/// Sends the library's spans to a collector.
pub(super) struct Export {
    provider: SdkTracerProvider,
}

impl Export {
    /// `None` where the environment does not ask for it, or what is wrong with how it does.
    pub(super) fn by_environment() -> Result<Option<Self>, String> {
        if !is_asked_for(|name| std::env::var(name).ok()) {
            return Ok(None);
        }
        let exporter = SpanExporter::builder()
            .with_http()
            // The one that is built in, and that every collector takes.
            .with_protocol(Protocol::HttpBinary)
            .with_retry_policy(RetryPolicy::recommended().with_max_retries(1))
            .with_http_client(Collector::new())
            .build()
            // It may quote the endpoint, and that may have a password.
            .map_err(|_| "the endpoint or another variable OTEL_… is not understood".to_owned())?;
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource())
            .build();
        Ok(Some(Self { provider }))
    }

    pub(super) fn layer(&self) -> Boxed {
        // What a worker tells is for those who cannot see its own spans.
        let spans = Targets::new()
            .with_target(SPANS, LevelFilter::TRACE)
            .with_target(format!("{SPANS}::told"), LevelFilter::OFF);
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer(NAME))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_filter(spans)
            .boxed()
    }

    pub(super) fn end(self) {
        // What could not be sent has been told by the collector's client.
        let _ = self.provider.shutdown_with_timeout(FLUSH_DEADLINE);
    }
}

/// An endpoint, and nothing that says otherwise.
fn is_asked_for(variable: impl Fn(&str) -> Option<String>) -> bool {
    let is = |name, value: &str| variable(name).is_some_and(|is| is.eq_ignore_ascii_case(value));
    let endpoints = [
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    ];
    let endpoint = endpoints
        .into_iter()
        .filter_map(&variable)
        .any(|url| !url.is_empty());
    endpoint && !is("OTEL_SDK_DISABLED", "true") && !is("OTEL_TRACES_EXPORTER", "none")
}

fn resource() -> Resource {
    let attributes = std::env::var("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    let service = std::env::var("OTEL_SERVICE_NAME").unwrap_or_default();
    let resource = Resource::builder();
    if service.is_empty() && !attributes.contains("service.name=") {
        resource.with_service_name(NAME).build()
    } else {
        resource.build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_off_unless_an_endpoint_is_named() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318");
        for (variables, expected) in [
            (vec![], false),
            (vec![endpoint], true),
            (
                vec![(
                    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
                    "http://localhost/v1/traces",
                )],
                true,
            ),
            (vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "")], false),
            (vec![("OTEL_SERVICE_NAME", "fib")], false),
            (vec![endpoint, ("OTEL_SDK_DISABLED", "TRUE")], false),
            (vec![endpoint, ("OTEL_SDK_DISABLED", "false")], true),
            (vec![endpoint, ("OTEL_TRACES_EXPORTER", "none")], false),
            (vec![endpoint, ("OTEL_TRACES_EXPORTER", "otlp")], true),
        ] {
            let variable = |name: &str| {
                let found = variables.iter().find(|(is, _)| *is == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            assert_eq!(is_asked_for(variable), expected, "{variables:?}");
        }
    }
}
