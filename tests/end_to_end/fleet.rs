//! Announcements of workers in Redis, the limit of stored answers, and the warning about unbounded memory.

use crate::support::{EXPENSIVE, Setup, wait};
use serde_json::Value;

async fn announced(setup: &Setup, slot: u32) -> Option<Value> {
    let text = setup.redis.get(&format!("rpcache:worker:{slot}")).await?;
    Some(serde_json::from_str(&text).expect("JSON"))
}

#[tokio::test]
async fn workers_announce_themselves_until_they_stop() {
    let setup = Setup::new().await;
    let (first, second) = (setup.worker(&[]).await, setup.worker(&[]).await);
    let expensive = EXPENSIVE.to_string();
    setup.call(&["5", "5", &expensive, &expensive, "5"]).await;
    wait::wait_until("both have announced their counts", async || {
        let mut answered = 0;
        for slot in 0..2 {
            let status = announced(&setup, slot).await;
            answered += status.map_or(0, |status| status["counts"]["answered"].as_u64().unwrap());
        }
        answered == 2
    })
    .await;
    let one = announced(&setup, 0).await.unwrap();
    assert_eq!(one["procedure"], "fib");
    assert_eq!(one["queue"], "rpc_queue");
    assert_ne!(one["id"], announced(&setup, 1).await.unwrap()["id"]);
    let left = setup.redis.pttl("rpcache:worker:0").await;
    assert!((1..=10_000).contains(&left), "{left}");
    first.terminate().await;
    setup.assert_settled(second).await;
    assert_eq!(announced(&setup, 0).await, None);
    assert_eq!(announced(&setup, 1).await, None);
}

#[tokio::test]
async fn worker_whose_slot_is_taken_uses_another() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&[]).await;
    wait::wait_until("it has its slot", async || {
        announced(&setup, 0).await.is_some()
    })
    .await;
    let mut other = announced(&setup, 0).await.unwrap();
    other["id"] = "another".into();
    setup
        .redis
        .set("rpcache:worker:0", &other.to_string())
        .await;
    wait::wait_until("it has another slot", async || {
        announced(&setup, 1).await.is_some()
    })
    .await;
}

#[tokio::test]
async fn answer_above_the_limit_is_replied_and_not_stored() {
    let setup = Setup::new().await;
    let worker = setup.worker(&["--max-cached-size", "100"]).await;
    let mut caller = setup.caller().await;
    for (n, stored) in [("400", "true"), ("500", "false"), ("2000", "false")] {
        let reply = caller.ask(n).await;
        assert_eq!(reply.header("x-rpcache-filled"), Some(stored), "{n}");
        assert_eq!(reply.header("x-rpcache-source"), Some("computed"));
    }
    assert_eq!(setup.redis.get("fib:500").await, None);
    assert!(setup.redis.get("fib:400").await.is_some());
    setup.assert_settled(worker).await;
}

#[tokio::test]
async fn storing_for_ever_without_a_memory_limit_is_a_warning() {
    let setup = Setup::new().await;
    let worker = setup.worker(&["--ttl", "none"]).await;
    worker.says("no memory bound").await;
    assert!(worker.stderr().contains("maxmemory-policy"));
    setup
        .redis
        .run::<()>(&["CONFIG", "SET", "maxmemory", "100mb"])
        .await;
    let bounded = setup.worker(&["--ttl", "none"]).await;
    setup.call(&["30"]).await.answers("832040\n");
    let finished = bounded.terminate().await;
    assert!(!finished.stderr.contains("memory bound"), "{finished:#?}");
}
