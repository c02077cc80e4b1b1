//! Sends traces to an OpenTelemetry collector, configured by the standard variables:
//! `OTEL_EXPORTER_OTLP_ENDPOINT` turns it on; the SDK reads `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`,
//! `OTEL_TRACES_SAMPLER` and the others.
//!
//! A thread of the SDK sends spans in batches. Its queue drops spans when it is full, so no call waits for
//! it.

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

/// Time limit at the end of the command for sending the rest.
const FLUSH_DEADLINE: Duration = Duration::from_secs(2);

/// Name of the tracer, and of the service if the environment sets none.
const NAME: &str = "rpcache";

/// Sends the library's spans to a collector.
pub(super) struct Export {
    provider: SdkTracerProvider,
}

impl Export {
    /// The export that the environment configures; `None` if it configures none.
    pub(super) fn by_environment() -> Result<Option<Self>, String> {
        if !is_configured(|name| std::env::var(name).ok()) {
            return Ok(None);
        }
        let exporter = SpanExporter::builder()
            .with_http()
            // The only built-in protocol; every collector supports it.
            .with_protocol(Protocol::HttpBinary)
            .with_retry_policy(RetryPolicy::recommended().with_max_retries(1))
            .with_http_client(Collector::new())
            .build()
            // The error is dropped: it may quote the endpoint, which may have a password.
            .map_err(|_| "the endpoint or another variable OTEL_… is not valid".to_owned())?;
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource())
            .build();
        Ok(Some(Self { provider }))
    }

    pub(super) fn layer(&self) -> Boxed {
        // A worker sends its own spans to the collector: its steps are not repeated as events.
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

    pub(super) fn shut_down(self) {
        // The collector's client has already warned of spans that could not be sent.
        let _ = self.provider.shutdown_with_timeout(FLUSH_DEADLINE);
    }
}

/// Whether an endpoint is set, and neither the SDK nor the exporter is switched off.
fn is_configured(variable: impl Fn(&str) -> Option<String>) -> bool {
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
            assert_eq!(is_configured(variable), expected, "{variables:?}");
        }
    }
}
