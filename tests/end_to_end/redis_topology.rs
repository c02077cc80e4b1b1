//! Redis as a replica, a Sentinel or a cluster, at its limit of clients, and closing connections.

use crate::support::http::{get, scraped};
use crate::support::ports::{ClosedPort, Forwarder};
use crate::support::process::Program;
use crate::support::redis::Redis;
use crate::support::{Setup, fibonacci, lifetime, ports, wait};
use std::net::SocketAddr;
use std::process::Command;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A forwarder to this Redis that can be led to another one, and its URL.
fn forwarder_to(redis: &Redis) -> (Forwarder, String) {
    let forwarder = ClosedPort::reserve().forward_to(redis.port());
    let url = format!("redis://127.0.0.1:{}/", forwarder.port());
    (forwarder, url)
}

async fn becomes_a_replica(redis: &Redis) -> ClosedPort {
    let closed = ClosedPort::reserve();
    let of = ["REPLICAOF", "127.0.0.1", &closed.port().to_string()];
    redis.run::<()>(&of).await;
    closed
}

async fn is_ready(worker: SocketAddr) {
    wait::wait_until("the worker is ready", async || {
        get(worker, "/readyz").await.body == "ready\n"
    })
    .await;
}

/// Makes calls until the worker is degraded, and returns the reason.
async fn is_degraded(setup: &Setup, worker: SocketAddr, from: u64) -> String {
    let (mut n, mut body) = (from, String::new());
    wait::wait_until("the worker is degraded", async || {
        setup
            .call(&[&n.to_string()])
            .await
            .answers(&format!("{}\n", fibonacci(n)));
        n += 1;
        body = get(worker, "/readyz").await.body;
        body.contains("degraded")
    })
    .await;
    body
}

#[tokio::test]
async fn a_primary_that_became_a_replica_is_left_when_its_address_leads_to_another() {
    let mut setup = Setup::new().await;
    let (old, new) = (Redis::start(), Redis::start());
    let (forwarder, url) = forwarder_to(&old);
    setup.redis = old;
    let program = setup.rpcache(&["worker", "--metrics-addr", "127.0.0.1:0"]);
    let worker = setup.serving(program.env("REDIS_URL", &url)).await;
    let address = crate::support::http::address_of(&worker).await;
    is_ready(address).await;
    setup.call(&["30"]).await.answers("832040\n");
    let _closed = becomes_a_replica(&setup.redis).await;
    let output = is_degraded(&setup, address, 40).await;
    let expected = format!("(127.0.0.1:{}) is a read-only replica", forwarder.port());
    assert!(output.contains(&expected), "{output}");
    // Lookups go on: the worker's own lookup hits.
    let found = setup.redis.found().await;
    let mut caller = setup.caller().await;
    caller.ask("30").await.answers("832040");
    assert!(setup.redis.found().await > found);
    forwarder.lead_to(new.port());
    is_ready(address).await;
    caller.ask("31").await.answers("1346269");
    assert_eq!(new.get("fib:31").await.as_deref(), Some("1346269"));
    let log = worker.terminate().await.stderr;
    assert_eq!(log.matches("connecting again until").count(), 1, "{log}");
    assert_eq!(log.matches("stores answers again").count(), 1, "{log}");
    assert!(!log.contains("without the cache"), "{log}");
}

#[tokio::test]
async fn a_replica_that_becomes_a_primary_is_used_again() {
    for serves_stale in ["yes", "no"] {
        let setup = Setup::new().await;
        let set = ["CONFIG", "SET", "replica-serve-stale-data", serves_stale];
        setup.redis.run::<()>(&set).await;
        let (_worker, address) = scraped(&setup, &[]).await;
        is_ready(address).await;
        let _closed = becomes_a_replica(&setup.redis).await;
        let output = is_degraded(&setup, address, 40).await;
        assert!(output.contains("replica"), "{output}");
        setup.redis.run::<()>(&["REPLICAOF", "NO", "ONE"]).await;
        is_ready(address).await;
        let mut caller = setup.caller().await;
        caller.ask("31").await.answers("1346269");
        assert!(setup.redis.get("fib:31").await.is_some());
    }
}

#[tokio::test]
async fn a_full_redis_makes_a_worker_degraded_until_it_has_room() {
    let setup = Setup::new().await;
    let (_worker, address) = scraped(&setup, &[]).await;
    is_ready(address).await;
    let limit = async |bytes: &str| {
        let set = ["CONFIG", "SET", "maxmemory", bytes];
        setup.redis.run::<()>(&set).await;
    };
    limit("1").await;
    let output = is_degraded(&setup, address, 40).await;
    assert!(output.contains("refuses to store answers: OOM"), "{output}");
    limit("0").await;
    let mut caller = setup.caller().await;
    caller.ask("31").await.answers("1346269");
    is_ready(address).await;
}

#[tokio::test]
async fn connections_that_redis_closes_cost_no_hit_and_no_log_line() {
    let redis = Redis::start();
    redis.set("fib:30", "832040").await;
    let closed = ClosedPort::reserve();
    let call = Program::rpcache(&["call", "-", "--json", "--keep-going"]);
    let call = call
        .env("AMQP_URL", &format!("amqp://127.0.0.1:{}", closed.port()))
        .env("REDIS_URL", &redis.url());
    let mut call = call.fed().start();
    for round in 1..=5 {
        call.feed("30\n").await;
        wait::wait_until("it is answered", async || {
            call.stdout().lines().count() == round
        })
        .await;
        // A connection that is lost within a second is dialled again after that second only.
        let old = async || {
            let clients: String = redis.run(&["CLIENT", "LIST", "TYPE", "normal"]).await;
            let ours = clients.lines().find(|line| !line.contains("cmd=client"))?;
            let field = |name| ours.split(' ').find_map(|field| field.strip_prefix(name));
            field("age=")?.parse().ok().filter(|age: &u64| *age >= 3)
        };
        wait::wait_until("the connection is some seconds old", async || {
            old().await.is_some()
        })
        .await;
        let kill = ["CLIENT", "KILL", "TYPE", "normal"];
        redis.run::<redis::Value>(&kill).await;
    }
    call.feed("30\n").await;
    let finished = {
        call.close_stdin();
        call.finish().await
    };
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""));
    for line in finished.stdout.lines() {
        assert!(line.contains("\"source\":\"cache\""), "{finished:#?}");
    }
    assert_eq!(finished.stdout.lines().count(), 6);
}

fn cluster_node() -> Redis {
    Redis::start_with(&["--cluster-enabled", "yes"])
}

async fn owns(redis: &Redis, from: &str, to: &str) {
    let slots = ["CLUSTER", "ADDSLOTSRANGE", from, to];
    redis.run::<()>(&slots).await;
}

async fn is_ok(redis: &Redis) {
    wait::wait_until("the cluster is up", async || {
        let info: String = redis.run(&["CLUSTER", "INFO"]).await;
        info.contains("cluster_state:ok")
    })
    .await;
}

#[tokio::test]
async fn a_cluster_of_one_shard_serves_everything() {
    let mut setup = Setup::new().await;
    setup.redis = cluster_node();
    owns(&setup.redis, "0", "16383").await;
    is_ok(&setup.redis).await;
    let worker = setup.worker(&[]).await;
    let first = setup.call(&["0..99"]).await;
    assert_eq!((first.code, first.stderr.as_str()), (Some(0), ""));
    let again = setup.call(&["0..99", "--json"]).await;
    assert_eq!((again.code, again.stderr.as_str()), (Some(0), ""));
    let hits = again.stdout.matches("\"source\":\"cache\"").count();
    assert_eq!(hits, 100, "{again:#?}");
    wait::wait_until("the worker is seen", async || {
        let top = setup.rpcache(&["top", "--json", "--interval", "200ms"]);
        let top = top.run().await;
        assert_eq!(top.stderr, "");
        top.stdout.contains("\"workers\":1")
    })
    .await;
    let stats = setup.redis.rpcache(&["stats", "--json"]).await;
    assert_eq!((stats.code, stats.stderr.as_str()), (Some(0), ""));
    setup.redis.set("fib:7", "14").await;
    let verify = setup.redis.rpcache(&["verify", "--repair"]).await;
    assert!(verify.stdout.contains("fib:7"), "{verify:#?}");
    assert_eq!(setup.redis.keys().await.len(), 99);
    let rm = setup.redis.rpcache(&["rm", "--all", "--yes"]).await;
    rm.answers("removed 99\n");
    assert!(setup.redis.keys().await.is_empty());
    let log = setup.assert_settled(worker).await.stderr;
    assert!(!log.contains("CROSSSLOT"), "{log}");
}

/// The doctor's findings about Redis, which do not depend on the broker.
async fn doctor(redis_url: &str) -> String {
    let closed = ClosedPort::reserve();
    let doctor = Program::rpcache(&["doctor"])
        .env("AMQP_URL", &format!("amqp://127.0.0.1:{}", closed.port()))
        .env("REDIS_URL", redis_url);
    let finished = doctor.run().await;
    let (_, of_redis) = finished.stdout.split_once("redis-protocol").unwrap();
    let lines = of_redis.lines().skip(1);
    let words = lines.flat_map(str::split_whitespace);
    words.collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn doctor_names_a_cluster_of_several_shards() {
    let (one, other) = (cluster_node(), cluster_node());
    owns(&one, "0", "8191").await;
    owns(&other, "8192", "16383").await;
    let meet = ["CLUSTER", "MEET", "127.0.0.1", &other.port().to_string()];
    one.run::<()>(&meet).await;
    is_ok(&one).await;
    let output = doctor(&one.url()).await;
    let node = format!("127.0.0.1:{}", one.port());
    let expected = format!(
        "it is a node of a Redis Cluster of 2 shards: write redis+cluster://{node} -> write that \
         address in --redis-url (REDIS_URL)"
    );
    assert!(output.contains(&expected), "{output}");
    let user = [
        "ACL", "SETUSER", "least", "on", ">pw", "~fib:*", "+get", "+set",
    ];
    one.run::<()>(&user).await;
    let output = doctor(&one.url_with("least:pw@")).await;
    assert!(
        output.contains("a node of a Redis Cluster of several shards"),
        "{output}"
    );
}

#[tokio::test]
async fn doctor_names_a_replica_with_its_address() {
    let redis = Redis::start();
    let _closed = becomes_a_replica(&redis).await;
    let output = doctor(&redis.url()).await;
    let port = redis.port();
    let expected = format!(
        "WARNING redis-rights 127.0.0.1:{port} is a read-only replica: answers are not stored there -> \
         write the primary's address in --redis-url (REDIS_URL), or a name that follows it; the \
         address is printed by -> redis-cli -h 127.0.0.1 -p {port} ROLE"
    );
    assert!(output.contains(&expected), "{output}");
}

#[tokio::test]
async fn a_sentinel_is_refused_with_the_address_to_write() {
    let redis = Redis::start();
    let folder = lifetime::folder("sentinel");
    let [port] = ports::free();
    let config = format!(
        "port {port}\nbind 127.0.0.1\nsentinel monitor fleet 127.0.0.1 {} 1\n",
        redis.port()
    );
    std::fs::write(folder.join("sentinel.conf"), config).unwrap();
    let mut command = Command::new("redis-server");
    command.args(["sentinel.conf", "--sentinel"]);
    let mut sentinel = lifetime::start_server(command, &folder, port).unwrap();
    let url = format!("redis://127.0.0.1:{port}");
    let output = doctor(&url).await;
    let expected = format!(
        "it is a Sentinel: write redis+sentinel://127.0.0.1:{port}/fleet -> write that address in \
         --redis-url (REDIS_URL)"
    );
    assert!(output.contains(&expected), "{output}");
    let setup = Setup::new().await;
    let _worker = setup.worker(&[]).await;
    let call = setup.rpcache(&["call", "30"]).env("REDIS_URL", &url);
    let call = call.run().await;
    call.answers("832040\n");
    call.has_one_clear_line("is a Sentinel");
    sentinel.kill().unwrap();
    sentinel.wait().unwrap();
}

#[tokio::test]
async fn doctor_names_the_limit_of_clients() {
    let redis = Redis::start_with(&["--maxclients", "1"]);
    let mut only = None;
    wait::wait_until("there is one client, this one", async || {
        let mut stream = TcpStream::connect(("127.0.0.1", redis.port()))
            .await
            .unwrap();
        stream.write_all(b"PING\r\n").await.unwrap();
        let mut said = [0; 7];
        let is_one = stream.read_exact(&mut said).await.is_ok() && &said == b"+PONG\r\n";
        only = Some(stream);
        is_one
    })
    .await;
    for credentials in ["", "user:password@"] {
        let output = doctor(&redis.url_with(credentials)).await;
        assert!(output.contains("cannot reach"), "{output}");
        let expected = "ERR max number of clients reached -> close connections, or raise the limit";
        assert!(output.contains(expected), "{output}");
    }
}

#[tokio::test]
async fn redis_without_the_command_ping_or_the_right_to_it_is_used() {
    let without_ping = Redis::start_with(&["--rename-command", "PING", ""]);
    let forbidden = Redis::start();
    let user = ["ACL", "SETUSER", "u", "on", ">pw", "~*", "+@all", "-ping"];
    forbidden.run::<()>(&user).await;
    for (redis, credentials) in [(without_ping, ""), (forbidden, "u:pw@")] {
        redis.set("fib:30", "832040").await;
        let closed = ClosedPort::reserve();
        let call = Program::rpcache(&["call", "30"])
            .env("AMQP_URL", &format!("amqp://127.0.0.1:{}", closed.port()))
            .env("REDIS_URL", &redis.url_with(credentials));
        let call = call.run().await;
        call.answers("832040\n");
        assert_eq!(call.stderr, "");
    }
}
