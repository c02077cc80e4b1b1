//! Ends the processes after the last call, and reports as a leak what is left: messages, queues, connections,
//! processes, panics in a log.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::fleet::Fleet;
use crate::ledger::Ledger;
use crate::support::lifetime;
use crate::usage;

/// Time until the queue of a killed connection and an expired request are gone.
const PATIENCE: Duration = Duration::from_secs(45);

/// Ends the fleet, and reports to the ledger what leaked.
pub(crate) async fn run(fleet: Arc<Fleet>, ledger: &Ledger, logs: Option<&Path>) {
    settled(ledger, || left_in_queues(&fleet, false)).await;
    for worker in &fleet.workers {
        let code = worker.lock().await.terminate().await;
        ledger.worker_ended(code);
        if code != Some(0) {
            ledger.leak(format!("a worker that was idle ended with {code:?}"));
        }
    }
    for crasher in fleet.crashers.lock().await.drain(..) {
        let exits = crasher.end().await;
        ledger.tally().aborted_workers += exits.aborted;
        for unexpected in exits.unexpected {
            ledger.leak(format!("a crasher {unexpected}"));
        }
    }
    settled(ledger, || left_in_queues(&fleet, true)).await;
    settled(ledger, async || match fleet.open_links() {
        0 => None,
        open => Some(format!("{open} connections are still open")),
    })
    .await;
    for (name, log) in fleet.logs() {
        read(ledger, &name, &log);
        if let Some(folder) = logs {
            keep(&log, folder, &name).unwrap_or_else(|error| eprintln!("{name}: {error}"));
        }
    }
    drop(Arc::into_inner(fleet).expect("all lanes have ended"));
    settled(ledger, async || {
        let mut left = usage::members(lifetime::group());
        // `cat` leads the group, and epmd ends with the run.
        left.retain(|name| name != "cat" && name != "epmd");
        (!left.is_empty()).then(|| format!("processes are left: {left:?}"))
    })
    .await;
}

/// The panic of the crasher itself, and the log line of its worker.
const EXPECTED: [&str; 2] = ["panicked at tests/chaos/crasher.rs", "crasher panicked"];

/// Counts the bytes of a log. A panic counts as a leak: a fault reached the process's own code.
fn read(ledger: &Ledger, name: &str, log: &Path) {
    let bytes = std::fs::read(log).unwrap_or_default();
    ledger.tally().log_bytes += bytes.len() as u64;
    let panics = String::from_utf8_lossy(&bytes)
        .lines()
        .filter(|line| line.contains("panicked"))
        .filter(|line| !EXPECTED.iter().any(|expected| line.contains(expected)))
        .count();
    if panics > 0 {
        ledger.leak(format!("{name} panicked: {panics} lines of its log say so"));
    }
}

fn keep(log: &Path, folder: &Path, name: &str) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    std::fs::copy(log, folder.join(format!("{name}.log"))).map(drop)
}

/// Waits until nothing is left; reports what is left at the deadline as a leak.
async fn settled(ledger: &Ledger, left: impl AsyncFn() -> Option<String>) {
    let deadline = Instant::now() + PATIENCE;
    while let Some(left) = left().await {
        if Instant::now() >= deadline {
            return ledger.leak(left);
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// A message that is left in a queue, a callback queue, or, without workers, a connection.
async fn left_in_queues(fleet: &Fleet, without_workers: bool) -> Option<String> {
    let queues = match fleet.servers.queues().await {
        Ok(queues) => queues,
        Err(problem) => return Some(problem),
    };
    for (name, ready, unacked) in queues {
        if ready + unacked > 0 {
            return Some(format!(
                "{name} holds {ready} messages and {unacked} that are not acked"
            ));
        }
        if name.starts_with("amq.") {
            return Some(format!("the queue {name} is left"));
        }
    }
    match fleet.servers.connections().await {
        Ok(0) => None,
        Ok(_) if !without_workers => None,
        Ok(connections) => Some(format!("the broker still has {connections} connections")),
        Err(problem) => Some(problem),
    }
}
