//! Faults of the Redis server and of its data.

use std::time::Duration;

use fastrand::Rng;
use tokio::time::sleep;

use super::Injector;
use crate::fault::{Fault, Skipped};
use crate::oracle;
use crate::plan::Event;
use crate::redis_server::{Connection, Redis};

/// The number of answers that are overwritten at once, drawn from this many of the hottest.
const CORRUPTED: u64 = 8;
const AMONG: u64 = 40;
const EVICTION: [&str; 2] = ["allkeys-random", "allkeys-lfu"];
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// No server listens on this port: the replication link never comes up.
const DEAD_MASTER: [&str; 3] = ["REPLICAOF", "127.0.0.1", "1"];

impl Injector {
    pub(super) async fn redis(&self, event: &Event) -> Result<(), Skipped> {
        let mut server = self.fleet.single().redis.lock().await;
        match event.fault {
            Fault::RedisKill => {
                server.kill();
                self.last(event).await;
                Ok(server.start_again()?)
            }
            Fault::RedisFreeze => {
                server.signal("STOP");
                self.last(event).await;
                server.signal("CONT");
                Ok(())
            }
            Fault::RedisLoading => load(&mut server, event.lasts).await,
            Fault::RedisEvicting => {
                let mut redis = server.connect().await?;
                let before = redis.info("evicted_keys").await?;
                let policy = EVICTION[usize::from(event.draw.is_multiple_of(2))];
                evict(&mut redis, policy).await?;
                self.last(event).await;
                redis
                    .execute(&[
                        "CONFIG",
                        "SET",
                        "maxmemory",
                        "0",
                        "maxmemory-policy",
                        "noeviction",
                    ])
                    .await?;
                if redis.info("evicted_keys").await? > before {
                    Ok(())
                } else {
                    Err(Skipped::NoOpportunity)
                }
            }
            _ => Ok(self.by_command(event, server.connect().await?).await?),
        }
    }

    /// Injects a fault that is a command to Redis.
    async fn by_command(&self, event: &Event, mut redis: Connection) -> Result<(), String> {
        let mut rng = Rng::with_seed(event.draw);
        match event.fault {
            Fault::RedisFlush => redis.execute(&["FLUSHALL"]).await,
            Fault::RedisPause => {
                let millis = event.lasts.as_millis().to_string();
                redis.execute(&["CLIENT", "PAUSE", &millis, "ALL"]).await?;
                self.last(event).await;
                redis.execute(&["PING"]).await
            }
            Fault::RedisFull => {
                redis.execute(&["CONFIG", "SET", "maxmemory", "1"]).await?;
                self.last(event).await;
                redis.execute(&["CONFIG", "SET", "maxmemory", "0"]).await
            }
            Fault::RedisReadonly => {
                redis.execute(&DEAD_MASTER).await?;
                self.last(event).await;
                redis.execute(&["REPLICAOF", "NO", "ONE"]).await
            }
            Fault::RedisPassword => {
                redis
                    .execute(&["CONFIG", "SET", "requirepass", "unknown"])
                    .await?;
                // Connections that have logged in would stay.
                redis
                    .execute(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])
                    .await?;
                self.last(event).await;
                redis.execute(&["CONFIG", "SET", "requirepass", ""]).await
            }
            Fault::RedisWrongtype => {
                for _ in 0..CORRUPTED {
                    let key = key(oracle::hot(rng.u64(0..AMONG)));
                    redis.execute(&["DEL", &key]).await?;
                    redis.execute(&["LPUSH", &key, "x"]).await?;
                }
                Ok(())
            }
            Fault::RedisGarbage => corrupt(&mut redis, &mut rng).await,
            fault => Err(format!("{fault} is not a fault of Redis")),
        }
    }
}

/// Restarts Redis with its data, so that it replies LOADING for a while.
async fn load(server: &mut Redis, lasts: Duration) -> Result<(), Skipped> {
    let mut redis = server.connect().await?;
    redis.execute(&["SAVE"]).await?;
    let keys: u32 = redis.run(&["DBSIZE"]).await?;
    if keys == 0 {
        return Err(Skipped::NoOpportunity);
    }
    server.kill();
    server.start_loading(lasts / keys)?;
    let mut redis = server.connect().await?;
    let mut refused = false;
    while redis.info("loading").await? > 0 {
        let answer = redis.execute(&["EXISTS", "fib:0"]).await;
        refused |= answer.is_err_and(|error| error.contains("LOADING"));
        sleep(POLL_INTERVAL).await;
    }
    server.forget_saved();
    if refused {
        Ok(())
    } else {
        Err(Skipped::NoOpportunity)
    }
}

/// Lowers maxmemory, so that a quarter of the data is evicted, and then something for each new key.
async fn evict(redis: &mut Connection, policy: &str) -> Result<(), String> {
    let used = redis.info("used_memory").await?;
    let held = redis.info("used_memory_dataset").await?;
    let maxmemory = (used - held / 4).to_string();
    redis
        .execute(&[
            "CONFIG",
            "SET",
            "maxmemory-policy",
            policy,
            "maxmemory",
            &maxmemory,
        ])
        .await
}

/// Overwrites hot answers with wrong ones.
async fn corrupt(redis: &mut Connection, rng: &mut Rng) -> Result<(), String> {
    for _ in 0..CORRUPTED {
        let n = oracle::hot(rng.u64(0..AMONG));
        let wrong = wrong_answer(n, rng);
        redis.execute(&["SET", &key(n), &wrong]).await?;
    }
    Ok(())
}

fn wrong_answer(n: u64, rng: &mut Rng) -> String {
    match rng.u8(0..6) {
        0 => "\u{1b}[2J\0garbage\n".to_owned(),
        1 => String::new(),
        // The right answer of another argument.
        2 => oracle::fibonacci(n + 1 + rng.u64(0..3)),
        // The right answer with a space, a zero, a sign or a line break.
        3 => {
            let right = oracle::fibonacci(n);
            match rng.u8(0..4) {
                0 => format!(" {right}"),
                1 => format!("0{right}"),
                2 => format!("+{right}"),
                _ => format!("{right}\n"),
            }
        }
        4 => {
            let mut right = oracle::fibonacci(n);
            right.truncate(right.len() / 2);
            right
        }
        // The right answer with one wrong digit.
        _ => {
            let mut digits = oracle::fibonacci(n).into_bytes();
            let at = rng.usize(0..digits.len());
            digits[at] = b'1' + (digits[at] - b'0' + rng.u8(0..8)) % 9;
            String::from_utf8(digits).expect("digits")
        }
    }
}

fn key(n: u64) -> String {
    format!("fib:{n}")
}
