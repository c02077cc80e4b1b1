//! Redis behind Sentinels with small time-outs, so that they replace a dead primary within seconds.

use super::redis::Redis;
use super::redis_cluster::DOWN_AFTER;
use super::{lifetime, ports, wait};
use redis::RedisResult;
use std::process::{Child, Command};

/// A primary, its replicas, and three Sentinels that know it as `fleet`.
pub(crate) struct SentinelSet {
    /// The primary first.
    pub(crate) nodes: Vec<Redis>,
    sentinels: Vec<(u16, Child)>,
}

impl SentinelSet {
    pub(crate) async fn start(replicas: usize) -> Self {
        Self::start_with(replicas, &[], "").await
    }

    /// Starts servers with further options, and Sentinels with further lines of configuration.
    pub(crate) async fn start_with(replicas: usize, options: &[&str], lines: &str) -> Self {
        let primary = Redis::start_isolated(options);
        let port = primary.port().to_string();
        let of = [
            "--replicaof",
            "127.0.0.1",
            &port,
            "--repl-diskless-sync-delay",
            "0",
        ];
        let replica = |_| Redis::start_isolated(&[&of, options].concat());
        let nodes: Vec<_> = (0..replicas).map(replica).collect();
        let nodes: Vec<_> = std::iter::once(primary).chain(nodes).collect();
        let sentinels = (0..3).map(|_| start_sentinel(&port, lines)).collect();
        let set = Self { nodes, sentinels };
        set.is_ok(replicas, lines).await;
        set
    }

    async fn is_ok(&self, replicas: usize, lines: &str) {
        let login = if lines.contains("requirepass") {
            ":sentinel@"
        } else {
            ""
        };
        for (port, _) in &self.sentinels {
            wait::wait_until(
                "the Sentinels know one another and the replicas",
                async || {
                    let url = format!("redis://{login}127.0.0.1:{port}/");
                    let client = redis::Client::open(url).unwrap();
                    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
                    let mut ask = redis::cmd("SENTINEL");
                    ask.arg("MASTER").arg("fleet");
                    let facts: Vec<String> = ask.query_async(&mut connection).await.unwrap();
                    let number = |name: &str| {
                        let at = facts.iter().position(|fact| fact == name).unwrap();
                        facts[at + 1].parse::<usize>().unwrap()
                    };
                    number("num-slaves") == replicas && number("num-other-sentinels") == 2
                },
            )
            .await;
        }
    }

    pub(crate) fn url(&self) -> String {
        self.url_with("", "")
    }

    pub(crate) fn url_with(&self, credentials: &str, parameters: &str) -> String {
        let ports = self.sentinels.iter().map(|(port, _)| port);
        let hosts: Vec<_> = ports.map(|port| format!("127.0.0.1:{port}")).collect();
        format!(
            "redis+sentinel://{credentials}{}/fleet{parameters}",
            hosts.join(",")
        )
    }

    pub(crate) fn sentinel(&self, at: usize) -> u16 {
        self.sentinels[at].0
    }

    pub(crate) fn freeze_sentinel(&self, at: usize) {
        super::process::signal("STOP", self.sentinels[at].1.id());
    }

    pub(crate) fn thaw_sentinel(&self, at: usize) {
        super::process::signal("CONT", self.sentinels[at].1.id());
    }

    /// Whether all Sentinels name the one primary, and all replicas have its data.
    pub(crate) async fn is_whole(&self) -> bool {
        let mut primaries = Vec::new();
        for node in &self.nodes {
            if node.is_primary().await {
                primaries.push(node.port().to_string());
            }
            if !node.has_its_copy().await {
                return false;
            }
        }
        for at in 0..self.sentinels.len() {
            let ask = ["GET-MASTER-ADDR-BY-NAME", "fleet"];
            let named = self.ask::<Vec<String>>(at, &ask).await;
            if !named.is_ok_and(|named| named[1..] == primaries) {
                return false;
            }
        }
        true
    }

    async fn ask<T: redis::FromRedisValue>(&self, at: usize, words: &[&str]) -> RedisResult<T> {
        let url = format!("redis://127.0.0.1:{}/", self.sentinel(at));
        let client = redis::Client::open(url)?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        let mut ask = redis::cmd("SENTINEL");
        ask.arg(words).query_async(&mut connection).await
    }

    /// Makes the Sentinels replace the primary, once they have heard of its replicas.
    pub(crate) async fn fail_over(&self) {
        wait::wait_until("the Sentinels replace the primary", async || {
            self.ask::<()>(0, &["FAILOVER", "fleet"]).await.is_ok()
        })
        .await;
    }

    /// Waits until another server than the first one is a primary; which.
    pub(crate) async fn promoted(&self) -> usize {
        let mut promoted = None;
        wait::wait_until("a replica is promoted", async || {
            for (at, node) in self.nodes.iter().enumerate().skip(1) {
                if node.is_primary().await {
                    promoted = Some(at);
                }
            }
            promoted.is_some()
        })
        .await;
        promoted.unwrap()
    }
}

impl Drop for SentinelSet {
    fn drop(&mut self) {
        for (_, sentinel) in &mut self.sentinels {
            // It may have ended already.
            let _ = sentinel.kill();
            let _ = sentinel.wait();
        }
    }
}

fn start_sentinel(primary: &str, lines: &str) -> (u16, Child) {
    let mut failure = String::new();
    for _ in 0..3 {
        // Another process may have taken the port: once more with another.
        let folder = lifetime::folder("sentinel");
        let [port] = ports::free();
        let config = format!(
            "port {port}\nbind 127.0.0.1\nsentinel monitor fleet 127.0.0.1 {primary} 2\n\
             sentinel down-after-milliseconds fleet {DOWN_AFTER}\n\
             sentinel failover-timeout fleet 3000\n{lines}\n"
        );
        std::fs::write(folder.join("sentinel.conf"), config).unwrap();
        let mut command = Command::new("redis-server");
        command.args(["sentinel.conf", "--sentinel"]);
        match lifetime::start_server(command, &folder, port) {
            Ok(sentinel) => return (port, sentinel),
            Err(reason) => failure = reason,
        }
    }
    panic!("no Sentinel for the test: {failure}");
}
