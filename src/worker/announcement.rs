//! A worker's announcement: its status as JSON in Redis, under a key that expires soon, for `rpcache top` and
//! `rpcache cache stats`. Not part of any call.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::Service;
use crate::fleet::{WorkerStatus, unix_seconds};
use crate::procedure::Procedure;

/// The time between two announcements.
const INTERVAL: Duration = Duration::from_secs(2);

/// Announces the worker until `end`, then removes the announcement.
pub(super) async fn announce<P: Procedure>(
    service: Arc<Service<P>>,
    concurrency: u16,
    end: CancellationToken,
) {
    let mut status = WorkerStatus::starting(
        &service.id,
        service.name().as_str(),
        service.queue.to_string(),
        concurrency,
    );
    let (mut slot, start) = (None, Instant::now());
    loop {
        status.announced = unix_seconds();
        status.uptime_millis = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        service.counters.read_into(&mut status, start);
        slot = service.cache.announce(&status, slot).await;
        if timeout(INTERVAL, end.cancelled()).await.is_ok() {
            break;
        }
    }
    if let Some(slot) = slot {
        service.cache.retract(slot).await;
    }
}
