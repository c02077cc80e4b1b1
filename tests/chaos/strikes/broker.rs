//! Faults of the broker itself.

use super::Striker;
use crate::fault::Fault;
use crate::plan::Event;

/// Of the procedure that is called.
const REQUEST_QUEUE: &str = "rpc_queue";

impl Striker {
    pub(super) async fn broker(&self, event: &Event) -> Result<(), String> {
        let mut broker = self.fleet.broker.lock().await;
        match event.fault {
            Fault::BrokerKill => {
                broker.kill()?;
                self.last(event).await;
                broker.start_again()?;
                self.ledger.broker_accepts();
                Ok(())
            }
            Fault::BrokerClose => broker.close_all_connections(),
            Fault::BrokerAlarm => {
                broker.alarm(true)?;
                self.last(event).await;
                broker.alarm(false)
            }
            Fault::CallbackDelete => broker.delete_queues("amq.gen-"),
            Fault::QueueDelete => broker.delete_queues(REQUEST_QUEUE),
            fault => Err(format!("{fault} strikes no broker")),
        }
    }
}
