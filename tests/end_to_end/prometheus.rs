//! A real Prometheus scrapes a worker and a client, and answers every query of the dashboard.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::io::AsyncWriteExt;

use crate::support::http::{address_of, get};
use crate::support::process::{Process, Program};
use crate::support::{EXPENSIVE, Setup, lifetime, ports, wait};

/// The dashboard, as docker compose gives it to Grafana.
fn dashboard() -> Value {
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docker/grafana/dashboards/rpcache.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

struct Prometheus {
    server: Child,
    address: SocketAddr,
}

impl Prometheus {
    /// Scrapes these, several times a second.
    fn scraping(targets: &[SocketAddr]) -> Self {
        let targets: Vec<_> = targets
            .iter()
            .map(|address| format!("'{address}'"))
            .collect();
        let configuration = format!(
            "global: {{scrape_interval: 250ms, scrape_timeout: 250ms}}\n\
             scrape_configs: [{{job_name: rpcache, static_configs: [{{targets: [{}]}}]}}]\n",
            targets.join(", ")
        );
        let folder = lifetime::folder("prometheus");
        std::fs::write(folder.join("prometheus.yml"), configuration).unwrap();
        let [port] = ports::free();
        let mut command = Command::new("prometheus");
        command
            .arg("--config.file=prometheus.yml")
            .arg("--storage.tsdb.path=data")
            .arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let server = lifetime::start_server(command, &folder, port).expect("a Prometheus");
        let address = ([127, 0, 0, 1], port).into();
        Self { server, address }
    }

    /// The result of a query, or the error.
    async fn query(&self, query: &str) -> Result<Vec<Value>, String> {
        let query = utf8_percent_encode(query, NON_ALPHANUMERIC);
        let page = get(self.address, &format!("/api/v1/query?query={query}")).await;
        let body: Value = serde_json::from_str(&page.body).map_err(|_| page.body.clone())?;
        match body["data"]["result"].as_array() {
            Some(result) if body["status"] == "success" => Ok(result.clone()),
            _ => Err(body.to_string()),
        }
    }

    /// The value of a query with one result.
    async fn number(&self, query: &str) -> Option<f64> {
        let result = self.query(query).await.ok()?;
        result.first()?["value"][1].as_str()?.parse().ok()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// A worker and a long-lived client at work, and where their metrics are.
async fn at_work(setup: &Setup) -> ([Process; 2], [SocketAddr; 2]) {
    let worker = setup.worker(&["--metrics-addr", "127.0.0.1:0"]).await;
    let client = Program::example("client_metrics", &["127.0.0.1:0"]);
    let client = setup.knowing(client).start();
    let mut address = None;
    wait::wait_until("the client says where", async || {
        let stdout = client.stdout();
        let stdout = stdout.strip_prefix("http://");
        address = stdout.and_then(|url| url.split_once("/metrics")?.0.parse().ok());
        address.is_some()
    })
    .await;
    let addresses = [address_of(&worker).await, address.unwrap()];
    ([worker, client], addresses)
}

#[tokio::test]
async fn promtool_accepts_the_metrics() {
    let setup = Setup::new().await;
    let (_processes, addresses) = at_work(&setup).await;
    for address in addresses {
        let page = get(address, "/metrics").await;
        let mut promtool = tokio::process::Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("promtool; scripts/test installs it");
        let mut stdin = promtool.stdin.take().unwrap();
        stdin.write_all(page.body.as_bytes()).await.unwrap();
        drop(stdin);
        let said = wait::soon("promtool", promtool.wait_with_output())
            .await
            .unwrap();
        assert!(
            said.status.success() && said.stdout.is_empty() && said.stderr.is_empty(),
            "{said:?}"
        );
    }
}

#[tokio::test]
async fn every_query_of_the_dashboard_is_answered() {
    let setup = Setup::new().await;
    let (_processes, addresses) = at_work(&setup).await;
    let prometheus = Prometheus::scraping(&addresses);
    let mut caller = setup.caller().await;
    wait::wait_until("rates of both are known", async || {
        caller.ask(&EXPENSIVE.to_string()).await;
        caller.ask("abc").await.fails_as("bad-argument");
        prometheus
            .number("count(rate(rpcache_cache_lookups_total{result=\"hit\"}[10s]) > 0)")
            .await
            == Some(2.0)
            && prometheus
                .number("sum(rate(rpcache_errors_total[10s]))")
                .await
                > Some(0.0)
    })
    .await;
    assert_eq!(prometheus.number("count(up == 1)").await, Some(2.0));
    let queries = queries(&dashboard());
    assert!(queries.len() > 30, "{queries:#?}");
    for query in &queries {
        let answer = prometheus.query(query).await;
        assert!(
            answer.as_ref().is_ok_and(|result| !result.is_empty()),
            "{query}: {answer:?}"
        );
    }
    // The results are right, too.
    for (query, expected) in [
        ("sum(rpcache_broker_up)", 2.0),
        ("count(rpcache_redis_up == 0) or vector(0)", 0.0),
        ("count(rpcache_build_info)", 2.0),
    ] {
        assert_eq!(prometheus.number(query).await, Some(expected), "{query}");
    }
    let median = "histogram_quantile(0.5, sum by (le) (rpcache_call_duration_seconds_bucket))";
    let median = prometheus.number(median).await.unwrap();
    assert!((1e-5..1.0).contains(&median), "{median} s");
}

/// All queries, with values for Grafana's variables.
fn queries(dashboard: &Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array());
    let queries = targets.flatten().map(|target| {
        let query = target["expr"].as_str().unwrap();
        let query = query
            .replace("$__rate_interval", "10s")
            .replace("$procedure", ".*");
        assert!(!query.contains('$'), "another variable: {query}");
        query
    });
    queries.collect()
}

/// Every metric is in a panel, and every panel's metric exists.
#[tokio::test]
async fn dashboard_and_metrics_match() {
    let setup = Setup::new().await;
    let (_processes, addresses) = at_work(&setup).await;
    let queries = queries(&dashboard()).join("\n");
    let mut names = Vec::new();
    for address in addresses {
        let page = get(address, "/metrics").await;
        let types = page
            .body
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "));
        names.extend(types.filter_map(|line| Some(line.split_once(' ')?.0.to_owned())));
    }
    for name in &names {
        assert!(queries.contains(name), "no panel shows {name}");
    }
    for word in queries.split(|c: char| !c.is_alphanumeric() && c != '_') {
        let known = names.iter().any(|name| word.starts_with(name));
        assert!(
            known || !word.starts_with("rpcache_"),
            "nothing is called {word}"
        );
    }
}
