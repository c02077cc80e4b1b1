//! Leases: a key is computed once at a time, fleet-wide, and an abandoned or invalid lease delays calls by its
//! own duration at most.

use crate::support::amqp::{Caller, Reply};
use crate::support::{EXPENSIVE, ONE_AT_A_TIME, SLOW, Setup, VERY_SLOW, fibonacci, wait};

/// Sends a request for `n` and does not wait for the reply.
async fn send(caller: &Caller, n: u64) {
    let properties = caller.properties();
    caller.send(n.to_string().as_bytes(), properties).await;
}

/// A long cache budget, so that a busy machine loses no lookup.
const LONG_BUDGET: [&str; 2] = ["--cache-budget", "10s"];

async fn replies<const N: usize>(caller: &mut Caller) -> [Reply; N] {
    let mut replies = Vec::new();
    for _ in 0..N {
        replies.push(caller.next_reply().await);
    }
    replies
        .try_into()
        .unwrap_or_else(|_| unreachable!("as many as were asked for"))
}

/// The sources of the answers, sorted.
fn sources<const N: usize>(replies: &[Reply; N]) -> [&str; N] {
    let mut sources = replies
        .each_ref()
        .map(|reply| reply.header("x-rpcache-source").unwrap_or("none"));
    sources.sort_unstable();
    sources
}

fn lease(n: u64) -> String {
    format!("{{fib:{n}}}:lease")
}

#[tokio::test]
async fn key_is_computed_once_for_two_callers_at_two_workers() {
    let setup = Setup::new().await;
    let one_each = [&ONE_AT_A_TIME[..], &LONG_BUDGET, &["--prefetch", "1"]].concat();
    let _workers = [setup.worker(&one_each).await, setup.worker(&one_each).await];
    let mut caller = setup.caller().await;
    send(&caller, SLOW).await;
    send(&caller, SLOW).await;
    let replies: [_; 2] = replies(&mut caller).await;
    assert_eq!(sources(&replies), ["computed", "shared"]);
    assert_eq!(
        setup.redis.keys().await,
        [format!("fib:{SLOW}")],
        "the lease was released"
    );
}

#[tokio::test]
async fn without_redis_key_is_computed_once_in_each_worker() {
    let setup = Setup::new().await;
    let worker = setup.worker(&ONE_AT_A_TIME).await;
    setup.redis.freeze();
    let mut caller = setup.caller().await;
    for _ in 0..5 {
        send(&caller, SLOW).await;
    }
    let replies: [_; 5] = replies(&mut caller).await;
    assert_eq!(
        sources(&replies),
        ["computed", "shared", "shared", "shared", "shared"]
    );
    setup.redis.thaw();
    setup.assert_settled(worker).await;
}

/// The holder does not exist: workers wait until the lease expires.
#[tokio::test]
async fn lease_without_a_holder_expires() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&LONG_BUDGET).await;
    let set = [
        "SET",
        &lease(EXPENSIVE),
        "0123456789abcdef@unknown",
        "PX",
        "3000",
    ];
    setup.redis.run::<()>(&set).await;
    setup
        .call(&[&EXPENSIVE.to_string()])
        .await
        .answers(&format!("{}\n", fibonacci(EXPENSIVE)));
    assert_eq!(setup.redis.keys().await, [format!("fib:{EXPENSIVE}")]);
}

#[tokio::test]
async fn uncached_lease_is_not_waited_for() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&LONG_BUDGET).await;
    setup.redis.set(&lease(EXPENSIVE), "uncached").await;
    setup
        .call(&[&EXPENSIVE.to_string()])
        .await
        .answers(&format!("{}\n", fibonacci(EXPENSIVE)));
}

#[tokio::test]
async fn lease_of_a_wrong_type_is_ignored() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&LONG_BUDGET).await;
    setup
        .redis
        .run::<()>(&["LPUSH", &lease(EXPENSIVE), "x"])
        .await;
    setup
        .call(&[&EXPENSIVE.to_string()])
        .await
        .answers(&format!("{}\n", fibonacci(EXPENSIVE)));
    assert!(
        setup
            .redis
            .keys()
            .await
            .contains(&format!("fib:{EXPENSIVE}"))
    );
}

/// The next worker takes over the lease at once, since the request is the same.
#[tokio::test]
async fn lease_of_a_killed_holder_is_taken_over() {
    let setup = Setup::new().await;
    let mut caller = setup.caller().await;
    let holder = setup.worker(&ONE_AT_A_TIME).await;
    send(&caller, VERY_SLOW).await;
    wait::wait_until("it is computed", async || {
        setup.redis.get(&lease(VERY_SLOW)).await.is_some()
    })
    .await;
    let before = setup.redis.get(&lease(VERY_SLOW)).await;
    // The lease does not expire, so that waiting for it would be noticed.
    setup.redis.run::<()>(&["PERSIST", &lease(VERY_SLOW)]).await;
    let _other = setup.worker(&ONE_AT_A_TIME).await;
    holder.signal("KILL");
    holder.finish().await;
    wait::wait_until("another computes it", async || {
        let now = setup.redis.get(&lease(VERY_SLOW)).await;
        now.is_some() && now != before
    })
    .await;
    let [reply] = replies(&mut caller).await;
    assert_eq!(reply.header("x-rpcache-source"), Some("computed"));
}

#[tokio::test]
async fn lease_is_renewed_until_the_answer_is_stored() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&ONE_AT_A_TIME).await;
    let mut caller = setup.caller().await;
    // The second request waits for the slot of the first one while it holds its lease.
    send(&caller, VERY_SLOW + 1).await;
    send(&caller, VERY_SLOW).await;
    let mut before = i64::MAX;
    wait::wait_until("the lease has been renewed", async || {
        let left = setup.redis.pttl(&lease(VERY_SLOW)).await;
        let renewed = left > before;
        // Negative before it is taken.
        before = if left > 0 { left } else { i64::MAX };
        renewed
    })
    .await;
    let replies: [_; 2] = replies(&mut caller).await;
    assert_eq!(sources(&replies), ["computed", "computed"]);
}

#[tokio::test]
async fn hundreds_of_requests_for_one_key_do_not_block_others() {
    let setup = Setup::new().await;
    let worker = setup.worker(&LONG_BUDGET).await;
    let mut caller = setup.caller().await;
    // As if another worker computed it for a long time: the test renews the lease before it expires.
    let held = lease(EXPENSIVE);
    let renew = async || setup.redis.set(&held, "0123456789abcdef@another").await;
    for n in 0..700 {
        if n % 50 == 0 {
            renew().await;
        }
        send(&caller, EXPENSIVE).await;
    }
    renew().await;
    caller
        .ask(&(EXPENSIVE + 1).to_string())
        .await
        .answers(&fibonacci(EXPENSIVE + 1));
    setup.redis.run::<()>(&["DEL", &held]).await;
    let rest: [_; 700] = replies(&mut caller).await;
    assert_eq!(sources(&rest)[..2], ["computed", "shared"]);
    setup.assert_settled(worker).await;
}

#[tokio::test]
async fn failure_leaves_no_lease() {
    let setup = Setup::new().await;
    let worker = setup.worker(&["--max-n", "2000"]).await;
    let mut caller = setup.caller().await;
    caller.ask("2001").await.fails_as("too-large");
    assert!(setup.redis.keys().await.is_empty());
    setup.assert_settled(worker).await;
}

/// Values of a lease that no worker holds: without a TTL, with a long one, and with the id of the worker itself.
#[tokio::test]
async fn stray_lease_delays_calls_by_the_duration_of_a_lease_at_most() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&LONG_BUDGET).await;
    wait::wait_until("the worker has announced itself", async || {
        setup.redis.get("rpcache:worker:0").await.is_some()
    })
    .await;
    let announced = setup.redis.get("rpcache:worker:0").await.unwrap();
    let announced: serde_json::Value = serde_json::from_str(&announced).unwrap();
    let own = format!("0000000000000000@{}", announced["id"].as_str().unwrap());
    let strays = [
        (5900, vec!["x"]),
        (5901, vec!["00ff00ff00ff00ff@deadbeef", "PX", "3600000"]),
        (5902, vec![&own, "PX", "3600000"]),
    ];
    for (n, value) in &strays {
        let () = setup
            .redis
            .run(&[&["SET", &lease(*n)], &value[..]].concat())
            .await;
    }
    for (n, _) in strays {
        let call = setup.call(&[&n.to_string()]).await;
        call.answers(&format!("{}\n", fibonacci(n)));
        assert!(call.took < std::time::Duration::from_secs(8), "{call:?}");
        let call = setup.call(&[&n.to_string(), "--refresh"]).await;
        assert_eq!(call.code, Some(0), "{call:?}");
    }
}
