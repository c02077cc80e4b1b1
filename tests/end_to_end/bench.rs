//! `rpcache bench`: what it counts and prints, and how it ends.

use serde_json::Value;

use crate::support::process::Finished;
use crate::support::{Setup, wait};

/// The smallest argument that is computed under a lease; smaller ones may be computed twice at once.
const LEASED: &str = "1001";

async fn bench(setup: &Setup, arguments: &[&str]) -> Finished {
    setup.rpcache(&[&["bench"], arguments].concat()).run().await
}

async fn report(setup: &Setup, arguments: &[&str]) -> Value {
    let finished = bench(setup, &[&["--json"], arguments].concat()).await;
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert_eq!(finished.stderr, "");
    json(&finished)
}

fn json(finished: &Finished) -> Value {
    serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished:#?}"))
}

fn number(report: &Value, name: &str) -> u64 {
    let value = report.pointer(&format!("/{name}")).and_then(Value::as_u64);
    value.unwrap_or_else(|| panic!("no {name}: {report}"))
}

fn float(report: &Value, name: &str) -> f64 {
    let value = report.pointer(&format!("/{name}")).and_then(Value::as_f64);
    value.unwrap_or_else(|| panic!("no {name}: {report}"))
}

#[tokio::test]
async fn report_adds_up() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&[]).await;
    let sequential = ["--keys", "50", "--distribution", "sequential"];
    let cold = [&sequential[..], &["--calls", "50", "--concurrency", "8"]].concat();
    let report = report(&setup, &cold).await;
    assert_eq!(number(&report, "answered"), 50);
    assert_eq!(number(&report, "sources/computed"), 50);
    assert_eq!(number(&report, "sources/cache"), 0);
    assert_eq!(number(&report, "distinct"), 50);
    assert!((float(&report, "computations_per_distinct") - 1.0).abs() < 1e-9);
    for nothing in ["failed", "not_started", "given_up"] {
        assert_eq!(number(&report, nothing), 0, "{nothing}");
    }
    let quantiles = ["min", "p50", "p90", "p99", "p99_9", "max"]
        .map(|name| float(&report, &format!("latency_ms/{name}")));
    assert!(quantiles[0] > 0.0 && quantiles.is_sorted(), "{quantiles:?}");
    let bins = report["histogram"].as_array().unwrap();
    let counted: u64 = bins.iter().map(|bin| number(bin, "count")).sum();
    assert_eq!(counted, 50);
    assert_eq!(setup.redis.keys().await.len(), 50);
}

#[tokio::test]
async fn output_is_a_table_and_a_histogram() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&[]).await;
    let finished = bench(&setup, &["--calls", "100", "--seed", "7"]).await;
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    for part in [
        "answered",
        "100",
        "computed",
        "p99.9",
        "slowest task",
        "seed 7",
        "█",
    ] {
        assert!(finished.stdout.contains(part), "no {part}: {finished:#?}");
    }
}

#[tokio::test]
async fn zipf_load_from_several_processes_computes_each_key_once() {
    let setup = Setup::new().await;
    let _workers = [setup.worker(&[]).await, setup.worker(&[]).await];
    let load = ["--first", LEASED, "--keys", "100", "--distribution", "zipf"];
    let calls = ["bench", "--json", "--calls", "2000", "--concurrency", "32"];
    let clients = ["1", "2", "3"].map(|seed| {
        setup
            .rpcache(&[&calls[..], &load, &["--seed", seed]].concat())
            .start()
    });
    let mut computed = 0;
    for client in clients {
        let finished = client.finish().await;
        assert_eq!(finished.code, Some(0), "{finished:#?}");
        computed += number(&json(&finished), "sources/computed");
    }
    assert_eq!(computed, setup.redis.keys().await.len() as u64);
    assert!(computed > 50, "few keys were computed: {computed}");
}

#[tokio::test]
async fn keys_of_hits_are_stored_before_the_start_and_others_are_called_once() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&[]).await;
    let report = report(
        &setup,
        &[
            "--keys", "20", "--hits", "0.5", "--calls", "400", "--seed", "1",
        ],
    )
    .await;
    let computed = number(&report, "sources/computed");
    assert!((150..250).contains(&computed), "{report}");
    assert_eq!(number(&report, "sources/cache"), 400 - computed);
    assert_eq!(number(&report, "distinct"), 20 + computed);
}

#[tokio::test]
async fn without_the_cache_nothing_is_found_or_stored() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&[]).await;
    let report = report(&setup, &["--no-cache", "--keys", "5", "--calls", "100"]).await;
    assert_eq!(number(&report, "sources/computed"), 100);
    assert_eq!(setup.redis.keys().await, Vec::<String>::new());
}

/// A latency counts from when the call was due: one slow answer makes those behind it late.
#[tokio::test]
async fn open_loop_counts_the_wait_behind_a_stalled_call() {
    let setup = Setup::new().await;
    let mut worker = setup.raw_worker().await;
    let one_at_a_time = ["bench", "--json", "--concurrency", "1", "--keys", "1"];
    let load = ["--no-cache", "--rate", "100", "--calls", "30"];
    let client = setup.rpcache(&[&one_at_a_time[..], &load].concat()).start();
    let first = worker.take_argument("0").await;
    // The worker stalls; all thirty calls are due meanwhile.
    tokio::time::sleep(std::time::Duration::from_millis(400)).await;
    worker.reply(&first, "0").await;
    for _ in 1..30 {
        let request = worker.take_argument("0").await;
        worker.reply(&request, "0").await;
    }
    let report = json(&client.finish().await);
    assert_eq!(number(&report, "answered"), 30);
    assert!(float(&report, "latency_ms/p50") > 150.0, "{report}");
}

#[tokio::test]
async fn calls_that_could_not_be_started_are_counted() {
    let setup = Setup::new().await;
    let mut worker = setup.raw_worker().await;
    let load = ["--rate", "100", "--duration", "200ms", "--concurrency", "1"];
    let client = setup
        .rpcache(&[&["bench", "--json", "--no-cache", "--keys", "1"][..], &load].concat())
        .start();
    let first = worker.take_argument("0").await;
    // The worker stalls for longer than the run is to take.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    worker.reply(&first, "0").await;
    let report = json(&client.finish().await);
    assert_eq!(number(&report, "answered"), 1);
    assert_eq!(number(&report, "not_started"), 19);
}

#[tokio::test]
async fn failures_are_counted_by_their_code() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&["--max-n", "9"]).await;
    let load = ["--distribution", "sequential", "--keys", "12"];
    let one_at_a_time = ["--json", "--calls", "12", "--concurrency", "1"];
    let finished = bench(&setup, &[&load[..], &one_at_a_time].concat()).await;
    assert_eq!(finished.code, Some(1), "{finished:#?}");
    let report = json(&finished);
    assert_eq!(number(&report, "answered"), 10);
    assert_eq!(number(&report, "failed"), 2);
    assert_eq!(number(&report, "errors/too-large"), 2);
    finished.has_one_clear_line("n is limited to 9");
}

#[tokio::test]
async fn interrupt_ends_it_and_prints_the_report_so_far() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&[]).await;
    let endless = ["bench", "--json", "--duration", "1h", "--keys", "10"];
    let client = setup.rpcache(&endless).start();
    // More than can be in flight at once: some of them have been counted.
    wait::wait_until("a thousand were found", async || {
        setup.redis.found().await >= 1000
    })
    .await;
    client.signal("INT");
    let finished = client.finish().await;
    assert_eq!(finished.code, Some(130), "{finished:#?}");
    finished.has_one_clear_line("interrupted");
    let report = json(&finished);
    assert!(number(&report, "answered") >= 10, "{report}");
    assert_eq!(report["interrupted"], true);
}

#[tokio::test]
async fn queue_without_workers_is_an_error() {
    let setup = Setup::new().await;
    let finished = bench(&setup, &["--json"]).await;
    finished.refuses(3, "rpcache worker");
}

#[tokio::test]
async fn wrong_arguments_are_refused() {
    let setup = Setup::new().await;
    for (arguments, reason) in [
        (&["--hits", "1.5"][..], "--hits"),
        (&["--hits", "0.5", "--no-cache"], "--no-cache"),
        (&["--skew", "-1"], "--skew"),
        (&["--hits", "-0.5"], "--hits"),
        (&["--skew", "NaN"], "--skew"),
        (&["--keys", "0"], "--keys"),
        (&["--concurrency", "0"], "--concurrency"),
        (&["--rate", "0"], "--rate"),
        (&["--calls", "5", "--duration", "1s"], "--duration"),
        (&["--distribution", "normal"], "--distribution"),
    ] {
        bench(&setup, arguments).await.refuses(2, reason);
    }
}
