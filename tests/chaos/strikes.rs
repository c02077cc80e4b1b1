//! Doing what the plan says: each fault and its repair.

mod broker;
mod link;
mod log_pipe;
mod moved;
mod redis;
mod worker;

use std::slice;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::clients::Orders;
use crate::fault::{Fault, Miss, Scope};
use crate::fleet::Fleet;
use crate::ledger::Ledger;
use crate::plan::Event;
use crate::proxy::Mode;
use crate::timeline::Timeline;

/// What a link that is delayed adds, each way.
const DELAY: Duration = Duration::from_millis(50);

const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

#[derive(Clone)]
pub(crate) struct Striker {
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) timeline: Arc<Timeline>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) orders: Orders,
    /// Faults that last end at once, and no other begins.
    pub(crate) stop: CancellationToken,
}

impl Striker {
    /// One lane of the plan. An event whose time has come while the one before is not repaired yet
    /// follows at once.
    pub(crate) async fn follow(self, lane: Vec<Event>, start: Instant) {
        for event in lane {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                () = sleep_until(start + event.at) => {}
            }
            let number = self.timeline.begin(event.fault);
            let outcome = self.strike(&event).await;
            self.timeline.end(number, outcome);
        }
    }

    async fn strike(&self, event: &Event) -> Result<(), Miss> {
        let links = || self.fleet.links.iter();
        let amqp: Vec<_> = links().map(|links| &links.amqp[..]).collect();
        let redis: Vec<_> = links().map(|links| slice::from_ref(&links.redis)).collect();
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
            },
        }
        Ok(())
    }

    /// Whether the broker is, or was a moment ago, under another fault than this.
    fn broker_is_disturbed(&self, event: &Event) -> bool {
        let faults = self.timeline.active_now();
        let mut others = faults.iter().filter(|fault| **fault != event.fault);
        others.any(|fault| fault.about().scope == Scope::Broker)
    }

    /// Waits until it is time to look again for what must come about within `left`, without the time in
    /// which the broker is under another fault. Not if nothing is left of it, or the run ends.
    async fn look_again(&self, event: &Event, left: &mut Duration) -> bool {
        if left.is_zero() {
            return false;
        }
        tokio::select! {
            () = sleep(BETWEEN_LOOKS) => {}
            () = self.stop.cancelled() => return false,
        }
        if !self.broker_is_disturbed(event) {
            *left = left.saturating_sub(BETWEEN_LOOKS);
        }
        true
    }

    /// As long as the fault lasts.
    async fn last(&self, event: &Event) {
        tokio::select! {
            () = sleep(event.lasts) => {}
            () = self.stop.cancelled() => {}
        }
    }
}
