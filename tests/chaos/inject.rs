//! Injects the planned faults and repairs them.

mod broker;
mod link;
mod log_pipe;
mod moved;
mod nodes;
mod redis;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::clients::Instructions;
use crate::fault::{Fault, Scope, Skipped};
use crate::fleet::Fleet;
use crate::ledger::Ledger;
use crate::plan::Event;
use crate::proxy::Mode;
use crate::timeline::Timeline;

/// The delay of a slow link, in each direction.
const DELAY: Duration = Duration::from_millis(50);

const POLL_INTERVAL: Duration = Duration::from_millis(50);

#[derive(Clone)]
pub(crate) struct Injector {
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) timeline: Arc<Timeline>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) instructions: Instructions,
    /// Ends active faults at once; no further fault begins.
    pub(crate) stop: CancellationToken,
}

impl Injector {
    /// Injects the faults of one lane of the plan. A fault that is due while the one before is still being
    /// repaired follows at once.
    pub(crate) async fn follow(self, lane: Vec<Event>, start: Instant) {
        for event in lane {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                () = sleep_until(start + event.at) => {}
            }
            let number = self.timeline.begin(event.fault);
            let outcome = self.inject(&event).await;
            self.timeline.end(number, outcome);
        }
    }

    async fn inject(&self, event: &Event) -> Result<(), Skipped> {
        let links = || self.fleet.links.iter();
        let amqp: Vec<_> = links().map(|links| &links.amqp[..]).collect();
        let redis: Vec<_> = links().map(|links| &links.redis[..]).collect();
        let (amqp, redis) = (&amqp[..], &redis[..]);
        match event.fault {
            Fault::AmqpStall => self.links(amqp, event, Mode::Stall).await,
            Fault::AmqpDelay => self.links(amqp, event, Mode::Delay(DELAY)).await,
            Fault::AmqpRefuse => self.links(amqp, event, Mode::Refuse).await,
            Fault::AmqpCut => self.links(amqp, event, Mode::Pass).await,
            Fault::AmqpNodeDown => self.node(event).await,
            Fault::FirstAddressDead => self.first_address(event).await,
            Fault::RedisIdleClose => return self.idle_close(event).await,
            Fault::RedisReadonlyForGood => return self.moved(event).await,
            Fault::RedisStall => self.links(redis, event, Mode::Stall).await,
            Fault::RedisDelay => self.links(redis, event, Mode::Delay(DELAY)).await,
            Fault::RedisRefuse => self.links(redis, event, Mode::Refuse).await,
            Fault::RedisCut => self.links(redis, event, Mode::Pass).await,
            fault => match fault.about().scope {
                Scope::Worker => return self.worker(event).await,
                Scope::Broker => return self.broker(event).await,
                Scope::Redis => return self.redis(event).await,
                Scope::BrokerNode | Scope::RedisNode => return self.nodes(event),
            },
        }
        Ok(())
    }

    /// Whether the broker is under another fault than this one, or was just before.
    fn broker_is_disturbed(&self, event: &Event) -> bool {
        let faults = self.timeline.active_now();
        let mut others = faults.iter().filter(|fault| **fault != event.fault);
        others.any(|fault| fault.about().scope == Scope::Broker)
    }

    /// Waits for the next poll of a condition that must hold within `left`; time in which the broker is under
    /// another fault does not count. Returns false once `left` has passed, or the run ends.
    async fn poll_again(&self, event: &Event, left: &mut Duration) -> bool {
        if left.is_zero() {
            return false;
        }
        tokio::select! {
            () = sleep(POLL_INTERVAL) => {}
            () = self.stop.cancelled() => return false,
        }
        if !self.broker_is_disturbed(event) {
            *left = left.saturating_sub(POLL_INTERVAL);
        }
        true
    }

    /// Waits as long as the fault lasts.
    async fn last(&self, event: &Event) {
        tokio::select! {
            () = sleep(event.lasts) => {}
            () = self.stop.cancelled() => {}
        }
    }
}
