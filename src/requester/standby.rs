//! A second session at another node, opened before it is needed.
//!
//! RabbitMQ announces the new leader of a quorum queue to the channels that have published there. A channel whose first
//! message comes while a frozen or cut-off leader still counts as a member waits until it does not, up to `net_ticktime`.
//! So a copy of one request is published over the second session in advance.

use std::time::Duration;

use lapin::Confirmation;
use tokio::time::{sleep, timeout};

use super::session::{Publication, Session};
use super::successor::Place;
use super::supervisor::Supervisor;
use crate::broker::{self, Published};

/// The age of a session that gets a standby, and the pause after a failed attempt to open one.
const PAUSE: Duration = Duration::from_secs(2);

/// Time for the confirm of the first message.
const CONFIRM_DEADLINE: Duration = Duration::from_secs(5);

impl Supervisor {
    /// Opens a standby for `present`. Never ends if the address has one node, or no request is published. Cancel safe.
    pub(super) async fn standby(&self, present: &Place) -> Session {
        let others = || self.options.url.without(&present.node);
        if self.options.one_shot || others().endpoints().is_empty() {
            return std::future::pending().await;
        }
        loop {
            sleep(PAUSE).await;
            // Each time: silent nodes come last.
            let others = others();
            let Ok(standby) = self.open_direct(&others).await else {
                continue;
            };
            // Requests would be confirmed there, and replies would not come.
            if broker::is_partitioned(&self.options.url, &standby.place.node).await {
                self.options.url.mark_silent(&standby.place.node);
                standby.close().await;
                continue;
            }
            let first = present.watch.next_publication().await;
            let published = timeout(CONFIRM_DEADLINE, publish_copy(&standby, first)).await;
            if let Ok(true) = published {
                return standby;
            }
        }
    }
}

/// Publishes a copy of a request; whether the queue has taken it. Its reply, if it comes first, is dropped: the request's
/// own follows.
async fn publish_copy(standby: &Session, request: Publication) -> bool {
    let properties = request
        .properties
        .with_reply_to(standby.handle.reply_to.clone());
    let copy = Publication {
        properties,
        ..request
    };
    let (_, published) = standby.requests.publish(&standby.queue, copy).await;
    matches!(published, Ok(Published::Confirmed(Confirmation::Ack(None))))
}
