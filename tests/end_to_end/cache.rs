//! The answers in Redis: their keys, values and TTLs, and that wrong entries are computed again.

use crate::support::ports::ClosedPort;
use crate::support::{EXPENSIVE, Setup, fibonacci};

/// A day in milliseconds: the default TTL, which varies by a tenth.
const DAY: i64 = 24 * 60 * 60 * 1000;

#[tokio::test]
async fn answer_is_a_plain_string_for_about_a_day() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&[]).await;
    setup.call(&["30", &EXPENSIVE.to_string()]).await;
    assert_eq!(
        setup.redis.keys().await,
        ["fib:100000", "fib:30"],
        "nothing but answers is left"
    );
    assert_eq!(setup.redis.get("fib:30").await.as_deref(), Some("832040"));
    assert_eq!(
        setup.redis.get("fib:100000").await,
        Some(fibonacci(EXPENSIVE))
    );
    for key in ["fib:30", "fib:100000"] {
        let left = setup.redis.pttl(key).await;
        assert!(
            (DAY * 9 / 10 - 60_000..=DAY * 11 / 10).contains(&left),
            "{key}: {left} ms"
        );
    }
}

/// Entries that were filled together must not expire together.
#[tokio::test]
async fn ttls_vary() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&["--ttl", "1000s"]).await;
    setup.call(&["1..20"]).await;
    let mut ttls = Vec::new();
    for n in 1..=20 {
        ttls.push(setup.redis.pttl(&format!("fib:{n}")).await);
    }
    ttls.sort_unstable();
    assert!(
        (840_000..=1_100_000).contains(&ttls[0]) && ttls[19] <= 1_100_000,
        "{ttls:?}"
    );
    assert!(ttls[19] - ttls[0] > 20_000, "{ttls:?}");
}

#[tokio::test]
async fn ttl_none_keeps_answers_for_ever() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&["--ttl", "none"]).await;
    setup.call(&["30"]).await.answers("832040\n");
    assert_eq!(setup.redis.pttl("fib:30").await, -1);
}

/// The client fills for a worker that is not ours, with a TTL of its own.
#[tokio::test]
async fn client_applies_its_ttl() {
    let setup = Setup::new().await;
    let mut worker = setup.raw_worker().await;
    let call = setup.start_call(&["30", "--ttl", "none"]);
    let request = worker.take().await;
    worker.reply(&request, "832040").await;
    call.finish().await.answers("832040\n");
    assert_eq!(setup.redis.pttl("fib:30").await, -1);
}

#[tokio::test]
async fn namespace_is_a_prefix_of_the_key() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&["--namespace", "prod"]).await;
    setup
        .call(&["30", "--namespace", "prod"])
        .await
        .answers("832040\n");
    assert_eq!(setup.redis.keys().await, ["prod:fib:30"]);
    let get = setup
        .rpcache(&["cache", "get", "30"])
        .env("RPCACHE_NAMESPACE", "prod");
    get.run().await.answers("832040\n");
}

#[tokio::test]
async fn hit_needs_neither_broker_nor_worker() {
    let setup = Setup::new().await;
    setup.redis.set("fib:30", "832040").await;
    let closed = ClosedPort::reserve();
    let amqp = setup.vhost.url_by(closed.port());
    setup
        .rpcache(&["call", "30"])
        .env("AMQP_URL", &amqp)
        .run()
        .await
        .answers("832040\n");
    let json = setup
        .rpcache(&["call", "30", "--json"])
        .env("AMQP_URL", &amqp)
        .run()
        .await;
    assert!(json.stdout.contains(r#""source":"cache""#), "{json:#?}");
}

#[tokio::test]
async fn entries_are_got_listed_and_removed() {
    let setup = Setup::new().await;
    setup.redis.set("fib:30", "832040").await;
    setup.redis.set("fib:31", "1346269").await;
    setup.redis.set("other:key", "1").await;
    let cache =
        async |arguments: &[&str]| setup.rpcache(&[&["cache"], arguments].concat()).run().await;

    cache(&["get", "30"]).await.answers("832040\n");
    cache(&["get", "30", "31"])
        .await
        .answers("30\t832040\n31\t1346269\n");
    let listed = cache(&["ls"]).await;
    assert_eq!(listed.code, Some(0), "{listed:#?}");
    let mut keys: Vec<&str> = listed.stdout.lines().collect();
    keys.sort_unstable();
    assert_eq!(keys, ["fib:30", "fib:31"]);

    assert_eq!(cache(&["rm", "30"]).await.code, Some(0));
    assert_eq!(setup.redis.keys().await, ["fib:31", "other:key"]);
    cache(&["get", "30"]).await.refuses(1, "30");
}

/// Values under the key of 30 that are not its answer.
const WRONG: [&str; 12] = [
    "",
    " ",
    "832041",
    "83204",
    "8320400",
    "0832040",
    "+832040",
    "-832040",
    "832040\n",
    "８３２０４０",
    "garbage\0\u{1b}[31m",
    "error: the dog ate it",
];

/// A wrong entry costs one computation, and is replaced.
#[tokio::test]
async fn wrong_entry_is_computed_again_and_replaced() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&[]).await;
    for wrong in WRONG {
        eprintln!("the entry is {wrong:?}");
        setup.redis.set("fib:30", wrong).await;
        setup.call(&["30"]).await.answers("832040\n");
        assert_eq!(setup.redis.get("fib:30").await.as_deref(), Some("832040"));
        setup
            .rpcache(&["cache", "get", "30"])
            .run()
            .await
            .answers("832040\n");
    }
}

/// The answer is too long for a table to verify it.
#[tokio::test]
async fn long_wrong_entry_is_computed_again_and_replaced() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&[]).await;
    let n = EXPENSIVE.to_string();
    let right = fibonacci(EXPENSIVE);
    let middle = right.len() / 2;
    let other_digit = if &right[middle..=middle] == "1" {
        "2"
    } else {
        "1"
    };
    let wrong = [
        right[..right.len() - 1].to_owned(),
        format!("{right}0"),
        format!("{}{other_digit}{}", &right[..middle], &right[middle + 1..]),
        fibonacci(EXPENSIVE + 1),
        "9".repeat(right.len()),
        "9".repeat(2_000_000),
    ];
    for wrong in wrong {
        setup.redis.set("fib:100000", &wrong).await;
        setup.call(&[&n]).await.answers(&format!("{right}\n"));
        assert_eq!(setup.redis.get("fib:100000").await.as_ref(), Some(&right));
    }
}

#[tokio::test]
async fn entry_of_another_type_is_computed_again_and_replaced() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&[]).await;
    for n in [30, EXPENSIVE] {
        let key = format!("fib:{n}");
        for command in [["LPUSH", &key, "x", "y"], ["HSET", &key, "x", "y"]] {
            setup.redis.run::<()>(&["DEL", &key]).await;
            setup.redis.run::<()>(&command).await;
            setup
                .call(&[&n.to_string()])
                .await
                .answers(&format!("{}\n", fibonacci(n)));
            assert_eq!(setup.redis.get(&key).await, Some(fibonacci(n)));
        }
    }
}
