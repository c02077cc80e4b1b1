//! Faults of the broker: killed, alarmed, its queues deleted, replies refused, a hostile publisher.

use std::any::Any;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Injector;
use crate::broker::{Broker, REQUESTS};
use crate::call::Instruction;
use crate::fault::{Fault, Skipped};
use crate::hostile;
use crate::oracle;
use crate::plan::Event;
use crate::support::rabbitmq::Vhost;

/// The ledger's name for calls whose reply the broker refused.
const REFUSED: &str = "too-large, as expected";

/// Time to connect, compute an answer, have its reply refused, and send the error.
const REFUSED_WITHIN: Duration = Duration::from_secs(6);

impl Injector {
    pub(super) async fn broker(&self, event: &Event) -> Result<(), Skipped> {
        let mut broker = self.fleet.single().broker.lock().await;
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
            fault => Err(Skipped::Failed(format!(
                "{fault} is not a fault of the broker"
            ))),
        }
    }

    /// The broker refuses replies above a limit. Connections are closed at the end, since sessions remember the
    /// limit.
    async fn refuse_replies(&self, event: &Event, broker: &Broker) -> Result<(), Skipped> {
        let limit = broker.max_message_size()?;
        broker.set_max_message_size(oracle::LARGE)?;
        let done = self.call_for_large(event, broker).await;
        broker.set_max_message_size(limit)?;
        broker.close_all_connections()?;
        Ok(done?)
    }

    /// Makes a client call for large answers; it must get `too-large`.
    async fn call_for_large(&self, event: &Event, broker: &Broker) -> Result<(), String> {
        broker.close_all_connections()?;
        let refused = || self.ledger.tally().answers.get(REFUSED).copied();
        let before = refused();
        let instruction = Instruction {
            pause_ms: 0,
            arguments: oracle::large(event.draw).collect(),
            stored: false,
        };
        let client = self.fleet.client(event.draw);
        self.instructions.send(client, &instruction).await?;
        let mut left = REFUSED_WITHIN;
        while refused() == before {
            if !self.poll_again(event, &mut left).await {
                if left.is_zero() {
                    self.ledger.broken(
                        "no call ended as too-large while the broker refused large replies",
                    );
                }
                break;
            }
        }
        self.last(event).await;
        Ok(())
    }

    async fn hostile(&self, event: &Event, vhost: Vhost) -> Result<(), Skipped> {
        let (stop, seed) = (CancellationToken::new(), event.draw);
        let sending = tokio::task::spawn_blocking({
            let stop = stop.clone();
            move || hostile::publish(&vhost, seed, &stop)
        });
        self.last(event).await;
        stop.cancel();
        if let Err(ended) = sending.await {
            let ended = ended.try_into_panic().map(|panic| message(&*panic));
            self.ledger.broken(format!(
                "the valid requests of a hostile publisher have no reply: {}",
                ended.unwrap_or_default()
            ));
        }
        Ok(())
    }
}

/// The message of a panic.
pub(super) fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_default()
}
