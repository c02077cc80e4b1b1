//! Faults of one node of several: of RabbitMQ, or of Redis.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::block_in_place;
use tokio::time::{Instant, sleep};

use super::Injector;
use super::broker::message;
use crate::broker::REQUESTS;
use crate::fault::{Fault, Skipped};
use crate::plan::Event;
use crate::redis_set::RedisSet;
use crate::support::isolated;
use crate::support::rabbit_cluster::{NODES, RabbitCluster};

/// A node of RabbitMQ that does not take part again within this time is partitioned, and restarted.
const RETURNS_WITHIN: Duration = Duration::from_secs(10);
/// Until all servers agree again, and have copied what one of them missed.
const WHOLE_WITHIN: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(200);

impl Injector {
    /// Injects a fault into nodes, one after another, and waits until all servers agree again.
    pub(super) fn nodes(&self, event: &Event) -> Result<(), Skipped> {
        // The support of the tests blocks, and panics when a server does not do what it was asked.
        block_in_place(|| {
            let inject = || Handle::current().block_on(self.inject_into_nodes(event));
            catch_unwind(AssertUnwindSafe(inject))
                .unwrap_or_else(|panic| Err(Skipped::Failed(message(&*panic))))
        })
    }

    async fn inject_into_nodes(&self, event: &Event) -> Result<(), Skipped> {
        match event.fault {
            Fault::NodeCut | Fault::PrimaryCut => {
                if let Some(obstacle) = isolated::obstacle() {
                    return Err(Skipped::Failed(obstacle));
                }
            }
            _ => {}
        }
        match event.fault {
            Fault::NodeKill | Fault::NodeFreeze | Fault::NodeCut | Fault::NodeRestarts => {
                let mut rabbit = self.fleet.several().rabbit.lock().await;
                self.rabbit(event, &mut rabbit).await?;
                whole("the nodes of RabbitMQ", async || rabbit.is_whole()).await
            }
            _ => {
                let mut redis = self.fleet.several().redis.lock().await;
                self.redis_set(event, &mut redis).await?;
                whole("the servers of Redis", async || redis.is_whole().await).await
            }
        }
    }

    async fn rabbit(&self, event: &Event, rabbit: &mut RabbitCluster) -> Result<(), Skipped> {
        let leader = rabbit.leader(REQUESTS, 0)?;
        // Half of the time the leader, otherwise one of the others.
        let other = 1 + usize::from(event.draw & 2 == 0);
        let node = match event.draw & 1 {
            0 => leader,
            _ => (leader + other) % NODES,
        };
        match event.fault {
            Fault::NodeKill => {
                rabbit.kill(node);
                self.last(event).await;
                Ok(rabbit.launch(node)?)
            }
            Fault::NodeFreeze => {
                rabbit.freeze(node);
                self.last(event).await;
                rabbit.thaw(node);
                returns(rabbit, node).await
            }
            Fault::NodeCut => {
                let cut = rabbit.cut(node)?;
                self.last(event).await;
                drop(cut);
                returns(rabbit, node).await
            }
            _ => {
                for node in 0..NODES {
                    rabbit.stop(node);
                    rabbit.launch(node)?;
                    whole("the nodes of RabbitMQ", async || rabbit.is_whole()).await?;
                }
                Ok(())
            }
        }
    }

    async fn redis_set(&self, event: &Event, redis: &mut RedisSet) -> Result<(), Skipped> {
        let (primaries, replicas) = (redis.with_role(true).await, redis.with_role(false).await);
        let drawn = |of: &[usize], draw: u64| {
            let at = usize::try_from(draw % of.len() as u64).expect("a few");
            of[at]
        };
        let primary = drawn(&primaries, event.draw);
        let replica = drawn(&replicas, event.draw);
        match event.fault {
            Fault::PrimaryKill | Fault::ReplicaKill => {
                let is_primary = event.fault == Fault::PrimaryKill;
                let node = redis.node(if is_primary { primary } else { replica });
                node.kill();
                self.last(event).await;
                Ok(node.start_again()?)
            }
            Fault::PrimaryFreeze => {
                redis.node(primary).freeze();
                self.last(event).await;
                redis.node(primary).thaw();
                Ok(())
            }
            Fault::PrimaryCut => {
                let cut = redis.node(primary).cut()?;
                self.last(event).await;
                drop(cut);
                Ok(())
            }
            Fault::PrimarySwitch => {
                redis.switch_to(replica).await;
                Ok(())
            }
            Fault::SlotsMove => {
                let others: Vec<_> = primaries.into_iter().filter(|at| *at != primary).collect();
                redis
                    .move_slots(primary, drawn(&others, event.draw >> 32))
                    .await;
                Ok(())
            }
            Fault::SentinelFreeze => {
                let sentinel = drawn(&[0, 1, 2], event.draw);
                redis.freeze_sentinel(sentinel, true);
                self.last(event).await;
                redis.freeze_sentinel(sentinel, false);
                Ok(())
            }
            _ => restart_all(redis, &replicas).await,
        }
    }
}

/// Restarts all servers as an upgrade does it, so that the answers stay: the replicas first, which then are promoted
/// one after another, and what is a replica now and has not been restarted.
async fn restart_all(redis: &mut RedisSet, replicas: &[usize]) -> Result<(), Skipped> {
    let mut restarted = Vec::new();
    for &replica in replicas {
        restart(redis, replica).await?;
        restarted.push(replica);
    }
    for &replica in replicas {
        if redis.with_role(false).await.contains(&replica) {
            redis.switch_to(replica).await;
            whole("the servers of Redis", async || redis.is_whole().await).await?;
        }
        for at in redis.with_role(false).await {
            if !restarted.contains(&at) {
                restart(redis, at).await?;
                restarted.push(at);
            }
        }
    }
    Ok(())
}

async fn restart(redis: &mut RedisSet, at: usize) -> Result<(), Skipped> {
    let node = redis.node(at);
    node.kill();
    node.start_again()?;
    whole("the servers of Redis", async || redis.is_whole().await).await
}

/// Waits until a node of RabbitMQ that was silent takes part again. If it stays partitioned, it is restarted, as its
/// operators would.
async fn returns(rabbit: &mut RabbitCluster, node: usize) -> Result<(), Skipped> {
    let deadline = Instant::now() + RETURNS_WITHIN;
    while !rabbit.is_whole() {
        if Instant::now() >= deadline {
            rabbit.kill(node);
            return Ok(rabbit.launch(node)?);
        }
        sleep(POLL_INTERVAL).await;
    }
    Ok(())
}

async fn whole(what: &str, mut is_whole: impl AsyncFnMut() -> bool) -> Result<(), Skipped> {
    let deadline = Instant::now() + WHOLE_WITHIN;
    while !is_whole().await {
        if Instant::now() >= deadline {
            return Err(Skipped::Failed(format!(
                "{what} do not agree {} s after the fault",
                WHOLE_WITHIN.as_secs()
            )));
        }
        sleep(POLL_INTERVAL).await;
    }
    Ok(())
}
