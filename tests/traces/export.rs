//! Export of traces: when they are sent, and calls while the collector is down or silent.

use std::time::Duration;

use crate::setup::{SECRET, Setup};
use crate::support::wait::soon;

#[tokio::test]
async fn nothing_is_sent_without_an_endpoint_or_without_sampling() {
    let setup = Setup::new().await;
    let _worker = setup.serving(setup.plain(&["worker"])).await;
    setup.plain(&["call", "30"]).run().await.answers("832040\n");
    let unsampled = setup
        .traced("caller", &["call", "31"])
        .env("OTEL_TRACES_SAMPLER", "always_off");
    unsampled.run().await.answers("1346269\n");
    let disabled = setup
        .traced("caller", &["call", "31"])
        .env("OTEL_SDK_DISABLED", "true");
    disabled.run().await.answers("1346269\n");
    assert_eq!(setup.collector.all().len(), 0);
}

#[tokio::test]
async fn collector_that_is_down_fails_no_call_and_is_logged_once() {
    let setup = Setup::new().await;
    let gone = |arguments: &[&str]| {
        setup.traced("caller", arguments).env(
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            &format!("http://user:{SECRET}@127.0.0.1:1"),
        )
    };
    let worker = setup.serving(gone(&["worker"])).await;
    for _ in 0..3 {
        let call = gone(&["call", "30"]).run().await;
        assert_eq!(call.code, Some(0), "{call:#?}");
        assert_eq!(call.stdout, "832040\n");
        let lines: Vec<&str> = call.stderr.lines().collect();
        let [line] = lines[..] else {
            panic!("{call:#?}")
        };
        assert!(line.contains("cannot send traces to 127.0.0.1:1"), "{line}");
        assert!(!line.contains(SECRET), "{line}");
        assert!(call.took < Duration::from_secs(3), "{call:#?}");
    }
    worker.says("cannot send traces").await;
    let worker = worker.terminate().await;
    assert_eq!(worker.code, Some(0), "{worker:#?}");
    assert_eq!(
        worker.stderr.matches("cannot send traces").count(),
        1,
        "{worker:#?}"
    );
    assert!(!worker.stderr.contains(SECRET), "{worker:#?}");
}

#[tokio::test]
async fn collector_that_never_answers_is_not_waited_for() {
    let setup = Setup::new().await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let _worker = setup.serving(setup.plain(&["worker"])).await;
    let call = setup
        .traced("caller", &["call", "30"])
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &url);
    let call = soon("the call", call.run()).await;
    assert_eq!(
        (call.code, call.stdout.as_str()),
        (Some(0), "832040\n"),
        "{call:#?}"
    );
    assert!(call.took < Duration::from_secs(5), "{call:#?}");
}
