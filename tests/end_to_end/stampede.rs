//! A thousand callers of one missing key: it is computed once, and all callers are answered.

use serde_json::Value;

use crate::support::process::{Finished, Process};
use crate::support::{ONE_AT_A_TIME, Setup, fibonacci, wait};

const CLIENTS: usize = 8;
const CALLERS: usize = 125;

/// Its computation takes long enough for all callers to start.
const N: u64 = 400_000;

/// A long cache budget, so that a busy machine loses no lookup.
const LONG_BUDGET: [&str; 2] = ["--cache-budget", "10s"];

async fn workers(setup: &Setup) -> Vec<Process> {
    let mut workers = Vec::new();
    for _ in 0..4 {
        let options = [&ONE_AT_A_TIME[..], &LONG_BUDGET].concat();
        workers.push(setup.worker(&options).await);
    }
    workers
}

/// Client processes, each with many callers at once.
fn clients(setup: &Setup) -> Vec<Process> {
    let n = N.to_string();
    let mut arguments = vec!["--json", "--timeout", "60s"];
    arguments.extend([n.as_str()].repeat(CALLERS));
    (0..CLIENTS).map(|_| setup.start_call(&arguments)).collect()
}

/// Fails unless each caller has the answer; returns how many have the source `computed`.
fn computed(clients: &[Finished]) -> usize {
    let answer = fibonacci(N);
    let mut computed = 0;
    for client in clients {
        assert_eq!(client.code, Some(0), "{}", client.stderr);
        assert_eq!(client.stdout.lines().count(), CALLERS);
        for line in client.stdout.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["answer"], answer.as_str());
            computed += usize::from(line["source"] == "computed");
        }
    }
    computed
}

#[tokio::test]
async fn thousand_callers_of_one_key_cost_one_computation() {
    let setup = Setup::new().await;
    let _workers = workers(&setup).await;
    let mut ended = Vec::new();
    for client in clients(&setup) {
        ended.push(client.finish().await);
    }
    assert_eq!(computed(&ended), 1);
    assert_eq!(setup.redis.keys().await, [format!("fib:{N}")]);
}

#[tokio::test]
async fn thousand_callers_are_answered_when_the_computing_worker_is_killed() {
    let setup = Setup::new().await;
    let _workers = workers(&setup).await;
    let clients = clients(&setup);
    let mut holder = None;
    wait::wait_until("a worker computes it", async || {
        let lease = setup.redis.get(&format!("{{fib:{N}}}:lease")).await;
        holder = lease.and_then(|token| token.split_once('@').map(|(_, id)| id.to_owned()));
        holder.is_some()
    })
    .await;
    let mut killed = None;
    wait::wait_until("the worker has announced its process", async || {
        for place in 0..4 {
            let status = setup.redis.get(&format!("rpcache:worker:{place}")).await;
            let Some(status) = status else { continue };
            let status: Value = serde_json::from_str(&status).unwrap();
            if status["id"].as_str() == holder.as_deref() {
                killed = status["pid"].as_u64();
            }
        }
        killed.is_some()
    })
    .await;
    let killed = u32::try_from(killed.unwrap()).unwrap();
    crate::support::process::signal("KILL", killed);
    let mut ended = Vec::new();
    for client in clients {
        ended.push(client.finish().await);
    }
    // The killed worker's computation was in vain.
    assert_eq!(computed(&ended), 1);
}
