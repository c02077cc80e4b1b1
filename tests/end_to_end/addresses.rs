//! Addresses of both servers: several nodes, Unix sockets, databases, URLs that are refused, and passwords
//! from files.

use crate::support::ports::{DroppingPort, SilentPeer};
use crate::support::process::Program;
use crate::support::redis::Redis;
use crate::support::{Setup, lifetime};

#[tokio::test]
async fn nodes_that_are_frozen_or_drop_packets_cost_a_head_start() {
    let setup = Setup::new().await;
    let (frozen, dropping) = (SilentPeer::start(), DroppingPort::reserve());
    // They are tried in a random order.
    let nodes = [frozen.port(), dropping.port(), setup.vhost.port()];
    let nodes = nodes.map(|port| setup.vhost.url_by(port)).join(",");
    let by_all = |arguments: &[&str]| setup.rpcache(arguments).env("AMQP_URL", &nodes);
    let _worker = setup.serving(by_all(&["worker"])).await;
    for n in 30..40 {
        let call = ["call", &n.to_string(), "--no-cache", "--timeout", "3s"];
        let call = by_all(&call).run().await;
        assert_eq!(call.code, Some(0), "{call:#?}");
    }
}

#[tokio::test]
async fn redis_is_reached_by_a_unix_socket() {
    let mut setup = Setup::new().await;
    let socket = lifetime::folder("socket").join("redis.sock");
    let socket = socket.display().to_string();
    setup.redis = Redis::start_with(&["--unixsocket", &socket]);
    let url = format!("unix://{socket}?db=5");
    let by_socket = |arguments: &[&str]| setup.rpcache(arguments).env("REDIS_URL", &url);
    let worker = setup.serving(by_socket(&["worker"])).await;
    by_socket(&["call", "30"]).run().await.answers("832040\n");
    let hit = by_socket(&["call", "30", "--json"]).run().await;
    assert!(hit.stdout.contains(r#""source":"cache""#), "{hit:#?}");
    assert_eq!(setup.redis.keys().await, [""; 0], "they are in database 5");
    by_socket(&["cache", "get", "30"])
        .run()
        .await
        .answers("832040\n");
    let doctor = by_socket(&["doctor"]).run().await;
    for line in [
        format!("ok       redis-url         {url}"),
        format!("ok       redis-name        {socket} is a path"),
        format!("ok       redis-port        {socket} is open"),
        "ok       redis-encryption  not needed: the server is this machine".to_owned(),
        "ok       redis-protocol    Redis".to_owned(),
        "ok       hit ".to_owned(),
    ] {
        // Long lines are folded.
        let unfolded = |text: &str| text.replace(char::is_whitespace, "");
        let is_shown = unfolded(&doctor.stdout).contains(&unfolded(&line));
        assert!(is_shown, "{line}: {doctor:#?}");
    }
    let log = setup.assert_settled(worker).await;
    assert!(!log.stderr.contains("WARN"), "{log:#?}");
}

#[tokio::test]
async fn a_missing_unix_socket_is_reported() {
    let get =
        Program::rpcache(&["cache", "get", "30"]).env("REDIS_URL", "unix:///nowhere/redis.sock");
    let get = get.run().await;
    get.refuses(
        3,
        "cannot reach unix:///nowhere/redis.sock?db=0: there is no such file; is Redis running, with \
         `unixsocket` set to this path",
    );
    let doctor = Program::rpcache(&["doctor"]).env("REDIS_URL", "unix:///nowhere/redis.sock");
    let doctor = doctor.run().await.stdout;
    let expected = "FAILURE  redis-port        /nowhere/redis.sock: there is no such file\n";
    assert!(doctor.contains(expected), "{doctor}");
}

#[tokio::test]
async fn a_database_by_another_name_is_refused_and_nothing_is_removed() {
    let redis = Redis::start();
    redis.set("fib:30", "832040").await;
    let remove = ["cache", "rm", "--all", "--yes"];
    for (database, named) in [("?database=5", "?database="), ("0?db=5", "two databases")] {
        let url = redis.url() + database;
        let refused = Program::rpcache(&remove).env("REDIS_URL", &url).run().await;
        refused.refuses(2, named);
    }
    for database in ["?db=5", "5", "5?db=5"] {
        let url = redis.url() + database;
        let removed = Program::rpcache(&remove).env("REDIS_URL", &url).run().await;
        assert_eq!(removed.code, Some(0), "{removed:#?}");
    }
    assert_eq!(redis.keys().await, ["fib:30"]);
    let url = redis.url() + "16";
    let refused = Program::rpcache(&remove).env("REDIS_URL", &url).run().await;
    refused.refuses(
        3,
        "the number of the database in --redis-url (REDIS_URL) is out of range",
    );
    let url = redis.url() + "?db=0";
    let removed = Program::rpcache(&remove).env("REDIS_URL", &url).run().await;
    assert_eq!(removed.code, Some(0), "{removed:#?}");
    assert_eq!(redis.keys().await, [""; 0]);
}

#[tokio::test]
async fn a_raw_character_in_a_password_is_named_without_the_password() {
    for (character, code) in [("#", "%23"), ("/", "%2f"), ("?", "%3f"), (",", "%2c")] {
        for secret in [format!("s3{character}cret"), format!("12{character}s3cret")] {
            let url = format!("amqp://u:{secret}@127.0.0.1/v");
            let refused = Program::rpcache(&["call", "30"])
                .env("AMQP_URL", &url)
                .run()
                .await;
            refused.refuses(2, code);
            assert!(!refused.stderr.contains("s3"), "{refused:#?}");
        }
    }
}

#[tokio::test]
async fn a_byte_order_mark_before_a_password_or_a_number_is_ignored() {
    let redis = Redis::start();
    redis.set("fib:30", "832040").await;
    redis
        .run::<()>(&["CONFIG", "SET", "requirepass", "s3cret"])
        .await;
    let file = lifetime::folder("password").join("password");
    std::fs::write(&file, "\u{feff}s3cret\r\n").unwrap();
    let file = file.display().to_string();
    let call = ["call", "-", "--redis-password-file", &file];
    let call = Program::rpcache(&call).env("REDIS_URL", &redis.url());
    let mut call = call.fed().start();
    call.feed("\u{feff}30\r\n30\n").await;
    call.finish().await.answers("30\t832040\n30\t832040\n");
}
