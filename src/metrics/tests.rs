//! Tests of the metrics' text as a whole, and of rules for every name and label.

use std::collections::BTreeSet;

use super::*;
use crate::fibonacci::Fibonacci;
use crate::procedure::Procedure as _;
use crate::source::Source;

fn worker() -> (Counters, Metrics) {
    let counters = Counters::default();
    let metrics = Metrics::of_worker(Fibonacci::default().name(), 2, counters.clone());
    (counters, metrics)
}

fn client() -> (Arc<Calls>, Metrics) {
    let calls = Arc::<Calls>::default();
    let metrics = Metrics::of_client(
        Fibonacci::default().name(),
        Arc::clone(&calls),
        Arc::default(),
        Arc::default(),
    );
    (calls, metrics)
}

/// The lines that begin so.
fn lines<'a>(text: &'a str, start: &str) -> Vec<&'a str> {
    text.lines()
        .filter(|line| line.starts_with(start))
        .collect()
}

#[test]
fn counters_and_gauges_are_written_with_their_labels() {
    let (counters, metrics) = worker();
    counters.activity.taken.add(3);
    counters.activity.failed.count("too-large");
    counters.cache.hits.count();
    counters.broker.up();
    let _held = counters.activity.held.enter();
    let text = metrics.encode(MetricsFormat::Prometheus);
    for line in [
        "# TYPE rpcache_build_info gauge",
        &format!(
            "rpcache_build_info{{version=\"{}\"}} 1",
            env!("CARGO_PKG_VERSION")
        ),
        "# TYPE rpcache_requests_total counter",
        "rpcache_requests_total{procedure=\"fib\"} 3",
        "# TYPE rpcache_requests_held gauge",
        "rpcache_requests_held{procedure=\"fib\"} 1",
        "rpcache_compute_slots{procedure=\"fib\"} 2",
        "rpcache_errors_total{procedure=\"fib\",role=\"worker\",code=\"too-large\"} 1",
        "rpcache_errors_total{procedure=\"fib\",role=\"worker\",code=\"poison\"} 0",
        "rpcache_cache_lookups_total{procedure=\"fib\",role=\"worker\",result=\"hit\"} 1",
        "rpcache_cache_lookups_total{procedure=\"fib\",role=\"worker\",result=\"miss\"} 0",
        "rpcache_broker_up{procedure=\"fib\",role=\"worker\"} 1",
        "rpcache_redis_up{procedure=\"fib\",role=\"worker\"} 0",
    ] {
        assert_eq!(lines(&text, line), [line], "{text}");
    }
}

#[test]
fn durations_are_written_as_cumulative_buckets_in_seconds() {
    let (calls, metrics) = client();
    let durations = calls.answered.of(Source::Cache);
    for micros in [7, 250, 251, 40_000_000] {
        durations.observe(Duration::from_micros(micros));
    }
    let text = metrics.encode(MetricsFormat::Prometheus);
    let name = "rpcache_call_duration_seconds";
    assert_eq!(
        lines(&text, "# TYPE rpcache_call"),
        [format!("# TYPE {name} histogram")]
    );
    let labels = "procedure=\"fib\",source=\"cache\"";
    for (le, count) in [
        ("1e-05", 1),
        ("0.00025", 2),
        ("0.0005", 3),
        ("30", 3),
        ("+Inf", 4),
    ] {
        let line = format!("{name}_bucket{{{labels},le=\"{le}\"}} {count}");
        assert_eq!(lines(&text, &line), [line], "{text}");
    }
    let sum = format!("{name}_sum{{{labels}}} 40.000508");
    assert_eq!(lines(&text, &sum), [sum], "{text}");
    let count = format!("{name}_count{{{labels}}} 4");
    assert_eq!(lines(&text, &count), [count], "{text}");
}

#[test]
fn openmetrics_is_used_if_accepted() {
    let browser = "text/html,application/xml;q=0.9,*/*;q=0.8";
    assert_eq!(
        MetricsFormat::accepted_by(browser),
        MetricsFormat::Prometheus
    );
    assert_eq!(MetricsFormat::accepted_by(""), MetricsFormat::Prometheus);
    let prometheus = "application/openmetrics-text;version=1.0.0,\
        application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    let format = MetricsFormat::accepted_by(prometheus);
    assert_eq!(format, MetricsFormat::OpenMetrics);
    assert!(format.content_type().contains("version=1.0.0"));
    let text = worker().1.encode(format);
    assert!(text.ends_with("# EOF\n"));
    assert!(text.contains("# TYPE rpcache_requests counter\n"), "{text}");
    assert!(
        text.contains("# UNIT rpcache_compute_duration_seconds seconds\n"),
        "{text}"
    );
}

/// Each family once, though client and worker both have it.
#[test]
fn a_client_and_a_worker_of_one_process_are_exported_together() {
    let text = client().1.and(worker().1).encode(MetricsFormat::Prometheus);
    let types = lines(&text, "# TYPE ");
    let names: BTreeSet<_> = types.iter().collect();
    assert_eq!(types.len(), names.len(), "{text}");
    assert_eq!(
        types.len(),
        FAMILIES.len() + 1,
        "all of them, and the build: {text}"
    );
    for role in ["client", "worker"] {
        let line = format!("rpcache_redis_up{{procedure=\"fib\",role=\"{role}\"}} 0");
        assert_eq!(lines(&text, &line).len(), 1, "{text}");
    }
    let series: BTreeSet<_> = text.lines().map(|line| line.split(' ').next()).collect();
    let samples = text.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(
        series.len(),
        samples + 1,
        "one stands for the comments: {text}"
    );
}

/// However much happens: what peers send becomes no label.
#[test]
fn the_number_of_series_is_constant() {
    let (counters, metrics) = worker();
    let before = metrics.encode(MetricsFormat::OpenMetrics).lines().count();
    assert!(before < 250, "{before}");
    for n in 0..1000_u64 {
        counters.activity.failed.count(&format!("code-{n}"));
        counters.activity.computed.observe(Duration::from_millis(n));
    }
    assert_eq!(
        metrics.encode(MetricsFormat::OpenMetrics).lines().count(),
        before
    );
}

/// As a user's own registry reads it.
#[test]
fn a_registry_adds_its_own_prefix() {
    let mut registry = Registry::with_prefix("shop");
    registry.register_collector(Box::new(client().1));
    let mut text = String::new();
    text::encode(&mut text, &registry).unwrap();
    let line = "shop_rpcache_wrong_answers_total{procedure=\"fib\"} 0";
    assert_eq!(lines(&text, line), [line], "{text}");
}
