//! A hostile Redis that violates the protocol, and hostile values under keys of rpcache: they cost a lookup, and
//! neither time nor memory.

use crate::support::amqp::QUEUE;
use crate::support::ports::ClosedPort;
use crate::support::process::{Process, Program};
use crate::support::{Setup, wait};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Limit for a call when Redis cannot be used.
const NOT_LONG: Duration = Duration::from_millis(2500);

/// Limit for the memory of a process, in kB. An idle one takes 10 MB in a debug build.
const MEMORY_LIMIT_KB: u64 = 60_000;

/// The reply of the hostile server to a GET.
#[derive(Clone, Copy)]
struct Hostile {
    begin: &'static str,
    /// Repeated without end.
    again: &'static [u8],
}

/// Starts a server that greets as Redis does, and sends this reply to every GET; returns its port.
async fn start(hostile: Hostile) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((peer, _)) = listener.accept().await {
            tokio::spawn(serve(peer, hostile));
        }
    });
    port
}

async fn serve(mut peer: TcpStream, hostile: Hostile) -> std::io::Result<()> {
    let (mut received, mut bytes) = (Vec::new(), [0; 4096]);
    loop {
        let count = peer.read(&mut bytes).await?;
        if count == 0 {
            return Ok(());
        }
        received.extend_from_slice(&bytes[..count]);
        let text = String::from_utf8_lossy(&received).into_owned();
        for (name, answer) in [("PING", "+PONG\r\n"), ("HELLO", "-ERR unknown command\r\n")] {
            for _ in text.matches(name) {
                peer.write_all(answer.as_bytes()).await?;
            }
        }
        if text.contains("GET") || text.contains("SET") {
            peer.write_all(hostile.begin.as_bytes()).await?;
            let again = hostile.again.repeat(65_536 / hostile.again.len().max(1));
            while !again.is_empty() {
                peer.write_all(&again).await?;
            }
        }
        received.clear();
    }
}

/// The peak memory of the process, in kB.
fn memory(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.unwrap().trim().trim_end_matches(" kB");
    number.parse().unwrap()
}

#[tokio::test]
async fn protocol_violations_cost_a_connection_and_neither_time_nor_memory() {
    let hostile = |begin, again| Hostile { begin, again };
    for (hostile, reason) in [
        (hostile("(", b"7"), "a type that was not asked for, '('"),
        (hostile("+", b"x"), "a line of more than 65536 bytes"),
        (
            hostile("$2147483648\r\n", b"x"),
            "a string of 2147483648 bytes",
        ),
        (hostile("", b"*1\r\n"), "more than 8 deep"),
        (
            hostile("*2147483648\r\n", b":1\r\n"),
            "an array of 2147483648 elements",
        ),
        (
            hostile(">2\r\n", b"+x\r\n"),
            "a type that was not asked for, '>'",
        ),
        (
            hostile("%1\r\n", b"+x\r\n"),
            "a type that was not asked for, '%'",
        ),
        (
            hostile("HTTP/1.1 200 OK\r\n", b""),
            "a type that was not asked for, 'H'",
        ),
        (hostile("$-7\r\n", b""), "a length that is no number"),
    ] {
        let setup = Setup::new().await;
        let url = format!("redis://127.0.0.1:{}", start(hostile).await);
        let program = setup.rpcache(&["worker"]).env("REDIS_URL", &url);
        let worker = setup.serving(program).await;
        for n in ["30", "100000"] {
            let call = setup.rpcache(&["call", n]).env("REDIS_URL", &url);
            let call = call.run().await;
            assert_eq!(call.code, Some(0), "{call:#?}");
            assert!(call.took < NOT_LONG, "{reason}: {call:#?}");
        }
        worker.says(reason).await;
        assert!(
            memory(&worker) < MEMORY_LIMIT_KB,
            "{reason}: {} kB",
            memory(&worker)
        );
        let ended = worker.terminate().await;
        assert_eq!(ended.code, Some(0), "{reason}");
        setup.broker.assert_empty(QUEUE).await;
    }
}

#[tokio::test]
async fn a_value_that_is_too_large_is_replaced_and_costs_no_memory() {
    let setup = Setup::new().await;
    // 80 MB of zeros.
    let large = ["SETRANGE", "fib:30", "80000000", "x"];
    setup.redis.run::<()>(&large).await;
    let get = setup.redis.rpcache(&["get", "30"]).await;
    assert!(get.stderr.contains("too large to be read"), "{get:#?}");
    let worker = setup.worker(&[]).await;
    let mut call = setup.rpcache(&["call", "-"]).fed().start();
    // The lookup may exceed the cache budget: then the answer is computed.
    for expected in ["832040\n", "832040\n832040\n"] {
        call.feed("30\n").await;
        wait::wait_until("it is answered", async || {
            call.stdout().replace("30\t", "") == expected
        })
        .await;
    }
    wait::wait_until("it is replaced", async || {
        let length: u64 = setup.redis.run(&["STRLEN", "fib:30"]).await;
        length == 6
    })
    .await;
    let memories = [memory(&call), memory(&worker)];
    assert!(
        memories.iter().all(|&kb| kb < MEMORY_LIMIT_KB),
        "{memories:?}"
    );
    call.close_stdin();
    assert_eq!(call.finish().await.code, Some(0));
}

/// Values that are not UTF-8, of another type, too large, or not an announcement.
#[tokio::test]
async fn invalid_announcements_are_left_out_and_logged() {
    let setup = Setup::new().await;
    let redis = &setup.redis;
    let bytes = redis::cmd("SET")
        .arg("rpcache:worker:0")
        .arg(b"\xff\xfe".as_slice())
        .to_owned();
    redis.command::<()>(&bytes).await;
    redis.run::<()>(&["LPUSH", "rpcache:worker:1", "x"]).await;
    redis
        .run::<()>(&["SETRANGE", "rpcache:worker:2", "80000000", "x"])
        .await;
    redis.set("rpcache:worker:3", "\u{1b}[2J").await;
    let sent = async || {
        let stats: String = redis.run(&["INFO", "stats"]).await;
        let line = stats
            .lines()
            .find_map(|line| line.strip_prefix("total_net_output_bytes:"));
        line.unwrap().trim().parse::<u64>().unwrap()
    };
    let before = sent().await;
    let stats = redis.rpcache(&["stats", "--json"]).await;
    assert!(sent().await - before < 1_000_000);
    assert_eq!(stats.code, Some(0), "{stats:#?}");
    assert!(stats.stdout.contains("\"workers\":[]"), "{stats:#?}");
    assert!(stats.stderr.contains("rpcache:worker:0") && stats.stderr.contains("not UTF-8"));
    assert!(!stats.stderr.contains('\u{1b}'), "{stats:#?}");
    // A worker still finds a slot for itself.
    let _worker = setup.worker(&[]).await;
    wait::wait_until("the worker is seen", async || {
        let stats = redis.rpcache(&["stats", "--json"]).await;
        stats.stdout.contains("\"queue\":\"rpc_queue\"")
    })
    .await;
    let there: Vec<u8> = redis.run(&["GET", "rpcache:worker:0"]).await;
    assert_eq!(there, [0xff, 0xfe]);
}

/// With the documented rights of a worker.
#[tokio::test]
async fn a_worker_s_rights_are_enough_to_see_the_workers() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&[]).await;
    let rights = [
        "ACL",
        "SETUSER",
        "u",
        "on",
        ">pw",
        "~fib:*",
        "~rpcache:worker:*",
        "+mget",
        "+@connection",
    ];
    setup.redis.run::<()>(&rights).await;
    let closed = ClosedPort::reserve();
    wait::wait_until("the worker is seen", async || {
        let top = Program::rpcache(&["top", "--json", "--interval", "200ms"])
            .env("AMQP_URL", &format!("amqp://127.0.0.1:{}", closed.port()))
            .env("REDIS_URL", &setup.redis.url_with("u:pw@"));
        top.run().await.stdout.contains("\"workers\":1")
    })
    .await;
}
