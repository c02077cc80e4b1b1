//! Connections to Redis that no longer lead where they should: to a server that is none any more, or nowhere.

use std::time::Duration;

use tokio::task::block_in_place;
use tokio::time::sleep;

use super::Striker;
use crate::fault::Miss;
use crate::oracle;
use crate::plan::Event;
use crate::record::Order;
use crate::redis_server::Redis;

/// How long after its name leads elsewhere workers are there; connections are tried once a second.
const WITHIN: Duration = Duration::from_secs(5);
/// Answers that a client asks for after its pause.
const STORED: u64 = 16;
/// They are stored so long before.
const STORED_BEFORE: Duration = Duration::from_millis(500);
/// And kept for so many milliseconds.
const KEPT: &str = "20000";

impl Striker {
    /// The name leads to another server from now on. The old one stays up as its replica: it answers, and
    /// takes no writes.
    pub(super) async fn moved(&self, event: &Event) -> Result<(), Miss> {
        let mut server = self.fleet.redis.lock().await;
        let next = block_in_place(Redis::start)?;
        let port = next.port();
        let mut redis = server.connect().await?;
        redis
            .order(&["REPLICAOF", "127.0.0.1", &port.to_string()])
            .await?;
        let old = std::mem::replace(&mut *server, next);
        for links in &self.fleet.links {
            links.redis.lead_to(port);
        }
        let mut left = WITHIN;
        while !has_answers(&server).await {
            if !self.look_again(event, &mut left).await {
                if left.is_zero() {
                    self.ledger
                        .broken("no answer is stored in the Redis that its name leads to now");
                }
                break;
            }
        }
        // Worker 0 stores answers all the time, so that it hears of it soon.
        let mut left = WITHIN;
        while self.fleet.links[0].redis.open_to(port) == 0 {
            if !self.look_again(event, &mut left).await {
                if left.is_zero() {
                    self.ledger
                        .broken("worker 0 stays with a Redis that takes no writes");
                }
                break;
            }
        }
        self.last(event).await;
        drop(old);
        Ok(())
    }

    /// Idle for longer than Redis allows, a client then asks for what is stored.
    pub(super) async fn idle_close(&self, event: &Event) -> Result<(), Miss> {
        let server = self.fleet.redis.lock().await;
        let workers = self.fleet.workers.len();
        let client = self.fleet.client(event.draw);
        let link = &self.fleet.links[workers + client].redis;
        let first = event.draw % 1000;
        let stored: Vec<u64> = (first..first + STORED).collect();
        let mut redis = server.connect().await?;
        redis.order(&["CONFIG", "SET", "timeout", "1"]).await?;
        let before = link.ended_by_server();
        let order = Order {
            pause_ms: event.lasts.as_millis().try_into().expect("seconds"),
            ask: stored.clone(),
            stored: true,
        };
        self.orders.give(client, &order).await?;
        sleep(event.lasts.saturating_sub(STORED_BEFORE)).await;
        let ended = link.ended_by_server() > before;
        // The driver's own may be closed as well.
        let mut redis = server.connect().await?;
        for n in stored {
            let (key, answer) = (format!("fib:{n}"), oracle::fibonacci(n));
            redis.order(&["SET", &key, &answer, "PX", KEPT]).await?;
        }
        // Not before it has asked for them.
        sleep(STORED_BEFORE * 2).await;
        let mut redis = server.connect().await?;
        redis.order(&["CONFIG", "SET", "timeout", "0"]).await?;
        if ended { Ok(()) } else { Err(Miss::NoChance) }
    }
}

async fn has_answers(server: &Redis) -> bool {
    let Ok(mut redis) = server.connect().await else {
        return false;
    };
    let answers = redis.run::<Vec<String>>(&["KEYS", "fib:*"]).await;
    answers.is_ok_and(|answers| !answers.is_empty())
}
