//! Faults of Redis itself, and of what stands in it.

use fastrand::Rng;

use super::Striker;
use crate::fault::Fault;
use crate::oracle;
use crate::plan::Event;
use crate::redis_server::Connection;

/// How many keys are spoilt at once, and among how many of the hottest they are chosen.
const SPOILT: u64 = 8;
const AMONG: u64 = 40;
/// Nobody listens there: a link that never comes up.
const DEAD_MASTER: [&str; 3] = ["REPLICAOF", "127.0.0.1", "1"];

impl Striker {
    pub(super) async fn redis(&self, event: &Event) -> Result<(), String> {
        let mut server = self.fleet.redis.lock().await;
        match event.fault {
            Fault::RedisKill => {
                server.kill();
                self.last(event).await;
                return server.start_again();
            }
            Fault::RedisFreeze => {
                server.signal("STOP");
                self.last(event).await;
                server.signal("CONT");
                return Ok(());
            }
            _ => {}
        }
        let mut redis = server.connect().await?;
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
