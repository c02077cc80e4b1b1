//! Faults of the broker itself.

use std::any::Any;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Striker;
use crate::broker::{Broker, REQUESTS};
use crate::fault::{Fault, Miss};
use crate::hostile;
use crate::oracle;
use crate::plan::Event;
use crate::record::Order;
use crate::support::rabbitmq::Vhost;

/// What calls are counted as that hear of a refused reply.
const REFUSED: &str = "too-large, as it must";

/// A connection is made, an answer computed, its reply refused, and the failure sent.
const HEARS_WITHIN: Duration = Duration::from_secs(6);

impl Striker {
    pub(super) async fn broker(&self, event: &Event) -> Result<(), Miss> {
        let mut broker = self.fleet.broker.lock().await;
        match event.fault {
            Fault::BrokerKill => {
                broker.kill()?;
                self.last(event).await;
                broker.start_again()?;
                self.ledger.broker_accepts();
                Ok(())
            }
            Fault::BrokerClose => Ok(broker.close_all_connections()?),
            Fault::BrokerAlarm => {
                broker.alarm(true)?;
                self.last(event).await;
                Ok(broker.alarm(false)?)
            }
            Fault::ReplyRefused => self.refuse_replies(event, &broker).await,
            Fault::HostilePublisher => {
                let vhost = broker.vhost();
                drop(broker);
                self.hostile(event, vhost).await
            }
            Fault::CallbackDelete => Ok(broker.delete_queues("amq.gen-")?),
            Fault::QueueDelete => Ok(broker.delete_queues(REQUESTS)?),
            fault => Err(Miss::Problem(format!("{fault} strikes no broker"))),
        }
    }

    /// Replies above a limit, until all connections are new once more: sessions remember a limit that they
    /// have met.
    async fn refuse_replies(&self, event: &Event, broker: &Broker) -> Result<(), Miss> {
        let limit = broker.max_message_size()?;
        broker.set_max_message_size(oracle::LARGE)?;
        let done = self.ask_for_large(event, broker).await;
        broker.set_max_message_size(limit)?;
        broker.close_all_connections()?;
        Ok(done?)
    }

    /// Has a client ask for large answers, which it must hear of.
    async fn ask_for_large(&self, event: &Event, broker: &Broker) -> Result<(), String> {
        broker.close_all_connections()?;
        let refused = || self.ledger.tally().answers.get(REFUSED).copied();
        let before = refused();
        let order = Order {
            pause_ms: 0,
            ask: oracle::large(event.draw).collect(),
            stored: false,
        };
        let client = self.fleet.client(event.draw);
        self.orders.give(client, &order).await?;
        let mut left = HEARS_WITHIN;
        while refused() == before {
            if !self.look_again(event, &mut left).await {
                if left.is_zero() {
                    self.ledger
                        .broken("no caller has heard that its answer is too large for the broker");
                }
                break;
            }
        }
        self.last(event).await;
        Ok(())
    }

    async fn hostile(&self, event: &Event, vhost: Vhost) -> Result<(), Miss> {
        let (stop, seed) = (CancellationToken::new(), event.draw);
        let sending = tokio::task::spawn_blocking({
            let stop = stop.clone();
            move || hostile::publish(&vhost, seed, &stop)
        });
        self.last(event).await;
        stop.cancel();
        if let Err(ended) = sending.await {
            let ended = ended.try_into_panic().map(|panic| words(&*panic));
            self.ledger.broken(format!(
                "a hostile publisher is not served as before: {}",
                ended.unwrap_or_default()
            ));
        }
        Ok(())
    }
}

/// Of a panic.
fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_default()
}
