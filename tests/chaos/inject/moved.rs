//! Faults of connections to Redis that are out of date: the address leads to another server, or Redis has
//! closed the connection while it was idle.

use std::time::Duration;

use tokio::task::block_in_place;
use tokio::time::sleep;

use super::Injector;
use crate::call::Instruction;
use crate::fault::Skipped;
use crate::oracle;
use crate::plan::Event;
use crate::redis_server::Redis;

/// Workers must use the new server within this time; they try to connect once a second.
const WITHIN: Duration = Duration::from_secs(5);
/// The number of answers that a client calls for after its pause.
const STORED: u64 = 16;
/// The answers are stored this long before the end of the pause.
const STORED_BEFORE: Duration = Duration::from_millis(500);
/// The TTL of these answers, in milliseconds.
const TTL_MS: &str = "20000";

impl Injector {
    /// Lets the address lead to another server. The old one stays up as its replica: it answers, and refuses
    /// writes.
    pub(super) async fn moved(&self, event: &Event) -> Result<(), Skipped> {
        let mut server = self.fleet.single().redis.lock().await;
        let next = block_in_place(Redis::start)?;
        let port = next.port();
        let mut redis = server.connect().await?;
        redis
            .execute(&["REPLICAOF", "127.0.0.1", &port.to_string()])
            .await?;
        let old = std::mem::replace(&mut *server, next);
        for links in &self.fleet.links {
            links.redis[0].lead_to(port);
        }
        let mut left = WITHIN;
        while !has_answers(&server).await {
            if !self.poll_again(event, &mut left).await {
                if left.is_zero() {
                    self.ledger.broken(
                        "no answer is stored in the Redis server that the address leads to",
                    );
                }
                break;
            }
        }
        // Worker 0 stores answers all the time, so that it soon gets READONLY.
        let mut left = WITHIN;
        while self.fleet.links[0].redis[0].open_to(port) == 0 {
            if !self.poll_again(event, &mut left).await {
                if left.is_zero() {
                    self.ledger
                        .broken("worker 0 stays connected to a read-only Redis");
                }
                break;
            }
        }
        self.last(event).await;
        drop(old);
        Ok(())
    }

    /// A client pauses for longer than Redis keeps idle connections, then calls for stored answers.
    pub(super) async fn idle_close(&self, event: &Event) -> Result<(), Skipped> {
        let server = self.fleet.single().redis.lock().await;
        let workers = self.fleet.workers.len();
        let client = self.fleet.client(event.draw);
        let link = &self.fleet.links[workers + client].redis[0];
        let first = event.draw % 1000;
        let stored: Vec<u64> = (first..first + STORED).collect();
        let mut redis = server.connect().await?;
        redis.execute(&["CONFIG", "SET", "timeout", "1"]).await?;
        let before = link.ended_by_server();
        let instruction = Instruction {
            pause_ms: event.lasts.as_millis().try_into().expect("seconds"),
            arguments: stored.clone(),
            stored: true,
        };
        self.instructions.send(client, &instruction).await?;
        sleep(event.lasts.saturating_sub(STORED_BEFORE)).await;
        let ended = link.ended_by_server() > before;
        // The driver's own connection may be closed, too.
        let mut redis = server.connect().await?;
        for n in stored {
            let (key, answer) = (format!("fib:{n}"), oracle::fibonacci(n));
            redis.execute(&["SET", &key, &answer, "PX", TTL_MS]).await?;
        }
        // Not before the client has made its calls.
        sleep(STORED_BEFORE * 2).await;
        let mut redis = server.connect().await?;
        redis.execute(&["CONFIG", "SET", "timeout", "0"]).await?;
        if ended {
            Ok(())
        } else {
            Err(Skipped::NoOpportunity)
        }
    }
}

async fn has_answers(server: &Redis) -> bool {
    let Ok(mut redis) = server.connect().await else {
        return false;
    };
    let answers = redis.run::<Vec<String>>(&["KEYS", "fib:*"]).await;
    answers.is_ok_and(|answers| !answers.is_empty())
}
