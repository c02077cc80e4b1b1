//! Faults of Redis itself, and of what stands in it.

use std::time::Duration;

use fastrand::Rng;
use tokio::time::sleep;

use super::Striker;
use crate::fault::{Fault, Miss};
use crate::oracle;
use crate::plan::Event;
use crate::redis_server::{Connection, Redis};

/// How many keys are spoilt at once, and among how many of the hottest they are chosen.
const SPOILT: u64 = 8;
const AMONG: u64 = 40;
const EVICTION: [&str; 2] = ["allkeys-random", "allkeys-lfu"];
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);
/// Nobody listens there: a link that never comes up.
const DEAD_MASTER: [&str; 3] = ["REPLICAOF", "127.0.0.1", "1"];

impl Striker {
    pub(super) async fn redis(&self, event: &Event) -> Result<(), Miss> {
        let mut server = self.fleet.redis.lock().await;
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
                    .order(&[
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
                    Err(Miss::NoChance)
                }
            }
            _ => Ok(self.ordered(event, server.connect().await?).await?),
        }
    }

    /// What Redis does by an order.
    async fn ordered(&self, event: &Event, mut redis: Connection) -> Result<(), String> {
        let mut rng = Rng::with_seed(event.draw);
        match event.fault {
            Fault::RedisFlush => redis.order(&["FLUSHALL"]).await,
            Fault::RedisPause => {
                let millis = event.lasts.as_millis().to_string();
                redis.order(&["CLIENT", "PAUSE", &millis, "ALL"]).await?;
                self.last(event).await;
                redis.order(&["PING"]).await
            }
            Fault::RedisFull => {
                redis.order(&["CONFIG", "SET", "maxmemory", "1"]).await?;
                self.last(event).await;
                redis.order(&["CONFIG", "SET", "maxmemory", "0"]).await
            }
            Fault::RedisReadonly => {
                redis.order(&DEAD_MASTER).await?;
                self.last(event).await;
                redis.order(&["REPLICAOF", "NO", "ONE"]).await
            }
            Fault::RedisPassword => {
                redis
                    .order(&["CONFIG", "SET", "requirepass", "nobody-knows"])
                    .await?;
                // Those who are in would stay in.
                redis
                    .order(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])
                    .await?;
                self.last(event).await;
                redis.order(&["CONFIG", "SET", "requirepass", ""]).await
            }
            Fault::RedisWrongtype => {
                for _ in 0..SPOILT {
                    let key = key(oracle::hot(rng.u64(0..AMONG)));
                    redis.order(&["DEL", &key]).await?;
                    redis.order(&["LPUSH", &key, "x"]).await?;
                }
                Ok(())
            }
            Fault::RedisGarbage => spoil(&mut redis, &mut rng).await,
            fault => Err(format!("{fault} strikes no Redis")),
        }
    }
}

/// Has it restart with all that it holds, and answer LOADING meanwhile.
async fn load(server: &mut Redis, lasts: Duration) -> Result<(), Miss> {
    let mut redis = server.connect().await?;
    redis.order(&["SAVE"]).await?;
    let keys: u32 = redis.run(&["DBSIZE"]).await?;
    if keys == 0 {
        return Err(Miss::NoChance);
    }
    server.kill();
    server.start_loading(lasts / keys)?;
    let mut redis = server.connect().await?;
    let mut refused = false;
    while redis.info("loading").await? > 0 {
        let answer = redis.order(&["EXISTS", "fib:0"]).await;
        refused |= answer.is_err_and(|error| error.contains("LOADING"));
        sleep(BETWEEN_LOOKS).await;
    }
    server.forget_saved();
    if refused { Ok(()) } else { Err(Miss::NoChance) }
}

/// A quarter of what it holds must go, and then something for whatever comes.
async fn evict(redis: &mut Connection, policy: &str) -> Result<(), String> {
    let used = redis.info("used_memory").await?;
    let held = redis.info("used_memory_dataset").await?;
    let most = (used - held / 4).to_string();
    redis
        .order(&[
            "CONFIG",
            "SET",
            "maxmemory-policy",
            policy,
            "maxmemory",
            &most,
        ])
        .await
}

/// Overwrites hot answers with what is none.
async fn spoil(redis: &mut Connection, rng: &mut Rng) -> Result<(), String> {
    for _ in 0..SPOILT {
        let n = oracle::hot(rng.u64(0..AMONG));
        let wrong = wrong_answer(n, rng);
        redis.order(&["SET", &key(n), &wrong]).await?;
    }
    Ok(())
}

fn wrong_answer(n: u64, rng: &mut Rng) -> String {
    match rng.u8(0..6) {
        0 => "\u{1b}[2J\0garbage\n".to_owned(),
        1 => String::new(),
        // Another argument's, so a good answer to another question.
        2 => oracle::fibonacci(n + 1 + rng.u64(0..3)),
        // The same with a space or a zero around it, or cut off.
        3 => {
            let right = oracle::fibonacci(n);
            match rng.u8(0..4) {
                0 => format!(" {right}"),
                1 => format!("0{right}"),
                2 => format!("+{right}"),
                _ => format!(
                    "{right}
"
                ),
            }
        }
        4 => {
            let mut right = oracle::fibonacci(n);
            right.truncate(right.len() / 2);
            right
        }
        // As many digits, one of them another one.
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
