//! Consumes the request queue: as many deliveries as the prefetch allows, and more in place of those that wait.
//!
//! A request that waits for another request's computation occupies the prefetch and no slot: a thousand callers
//! of one key would keep all other keys' requests in the queue. So when half of a prefetch window only waits,
//! another window is opened by a new consumer, since a prefetch applies to the consumers that start after it is
//! set, see <https://www.rabbitmq.com/docs/consumer-prefetch>. The former consumer is cancelled; its deliveries
//! stay here until they are settled.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::stream::SelectAll;
use futures_util::{FutureExt as _, StreamExt as _};
use lapin::message::Delivery;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Consumer};
use tokio::sync::watch;

use crate::broker;

/// The most deliveries held in all windows together. Above it no further window is opened.
const MAX_HELD: usize = 1024;

type Opening = Pin<Box<dyn Future<Output = lapin::Result<Consumer>> + Send>>;

/// The consumer of the request queue. Ends with its channel.
pub(super) struct RequestConsumer {
    channel: Channel,
    queue: ShortString,
    prefetch: u16,
    current: Current,
    /// Cancelled, or about to be; they yield what was on its way.
    former: SelectAll<Consumer>,
    /// Why there will be no more deliveries, for the next call of [`next`](Self::next).
    ended: Option<String>,
    windows: PrefetchWindow,
}

/// The consumer of the newest window.
enum Current {
    Open(Consumer),
    Opening(Opening),
}

impl RequestConsumer {
    pub(super) async fn open(
        channel: Channel,
        queue: ShortString,
        prefetch: u16,
    ) -> lapin::Result<Self> {
        channel
            .basic_qos(prefetch, BasicQosOptions::default())
            .await?;
        Ok(Self {
            current: Current::Open(consume(&channel, queue.clone()).await?),
            channel,
            queue,
            prefetch,
            former: SelectAll::new(),
            ended: None,
            windows: PrefetchWindow::new(),
        })
    }

    /// Waits for the next deliveries and returns all that are ready, with their permits. Fails with the reason
    /// when there will be none. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Vec<(Delivery, Permit)>, String> {
        if let Some(reason) = self.ended.take() {
            return Err(reason);
        }
        loop {
            let first = tokio::select! {
                delivery = self.current.next() => match delivery? {
                    Some(delivery) => delivery,
                    None => continue,
                },
                Some(delivery) = self.former.next(), if !self.former.is_empty() => delivery,
                () = self.windows.half_waits(self.prefetch), if self.current.is_open() => {
                    self.open_next_window();
                    continue;
                }
            };
            let first = first.map_err(|error| broker::describe(&error))?;
            let mut deliveries = vec![(first, self.windows.permit())];
            while let Some(next) = self.current.next().now_or_never() {
                match next {
                    Ok(Some(Ok(delivery))) => deliveries.push((delivery, self.windows.permit())),
                    Ok(Some(Err(error))) => self.ended = Some(broker::describe(&error)),
                    Err(reason) => self.ended = Some(reason),
                    Ok(None) => {}
                }
                if self.ended.is_some() {
                    break;
                }
            }
            return Ok(deliveries);
        }
    }

    /// Starts a new consumer, and cancels the one of the newest window so far.
    fn open_next_window(&mut self) {
        let Current::Open(newest) = &self.current else {
            return;
        };
        let (channel, queue, tag) = (self.channel.clone(), self.queue.clone(), newest.tag());
        let opening = async move {
            let consumer = consume(&channel, queue).await?;
            channel
                .basic_cancel(tag, BasicCancelOptions::default())
                .await?;
            Ok(consumer)
        };
        let opening = Current::Opening(Box::pin(opening));
        if let Current::Open(newest) = std::mem::replace(&mut self.current, opening) {
            self.former.push(newest);
        }
        self.windows.start_next();
    }

    /// Stops consuming. Deliveries that had arrived before come out of [`drain`](Self::drain).
    pub(super) async fn cancel(&mut self) -> lapin::Result<()> {
        if let Current::Opening(opening) = &mut self.current {
            self.current = Current::Open(opening.await?);
        }
        let Current::Open(consumer) = &self.current else {
            return Ok(());
        };
        let tag = consumer.tag();
        self.channel
            .basic_cancel(tag, BasicCancelOptions::default())
            .await
    }

    /// After [`cancel`](Self::cancel): the next delivery that had arrived before.
    pub(super) async fn drain(&mut self) -> Option<(Delivery, Permit)> {
        let delivery = match (self.former.next().await, &mut self.current) {
            (Some(delivery), _) => delivery,
            (None, Current::Open(consumer)) => consumer.next().await?,
            (None, Current::Opening(_)) => return None,
        };
        let delivery = delivery.ok()?;
        Some((delivery, self.windows.permit()))
    }
}

impl Current {
    fn is_open(&self) -> bool {
        matches!(self, Self::Open(_))
    }

    /// The next delivery; `None` once a consumer that was opening is open. Fails with the reason when there will
    /// be none. Cancel safe.
    async fn next(&mut self) -> Result<Option<lapin::Result<Delivery>>, String> {
        match self {
            Self::Open(consumer) => match consumer.next().await {
                Some(delivery) => Ok(Some(delivery)),
                None => Err("the queue was deleted".to_owned()),
            },
            Self::Opening(opening) => {
                let opened = opening.await.map_err(|error| broker::describe(&error))?;
                *self = Self::Open(opened);
                Ok(None)
            }
        }
    }
}

/// Starts a consumer with the channel's prefetch.
pub(super) async fn consume(channel: &Channel, queue: ShortString) -> lapin::Result<Consumer> {
    let (tag, options) = (ShortString::default(), BasicConsumeOptions::default());
    channel
        .basic_consume(queue, tag, options, FieldTable::default())
        .await
}

/// Counts the deliveries held in all windows, and how many of the newest window only wait. Clones share the
/// counts.
#[derive(Debug, Clone)]
struct PrefetchWindow(Arc<watch::Sender<Held>>);

#[derive(Debug, Default)]
struct Held {
    /// Deliveries in all windows.
    total: usize,
    /// The newest window's number.
    window: u64,
    /// Deliveries in the newest window that only wait.
    waiting: usize,
}

/// One delivery's place in its window, until it is settled or dropped.
#[derive(Debug)]
pub(super) struct Permit {
    windows: PrefetchWindow,
    window: u64,
    waits: AtomicBool,
}

impl PrefetchWindow {
    fn new() -> Self {
        Self(Arc::new(watch::Sender::default()))
    }

    fn permit(&self) -> Permit {
        let mut window = 0;
        self.0.send_if_modified(|held| {
            held.total += 1;
            window = held.window;
            false
        });
        Permit {
            windows: self.clone(),
            window,
            waits: AtomicBool::new(false),
        }
    }

    /// Waits until half of the newest window only waits and there is room for another one below [`MAX_HELD`].
    async fn half_waits(&self, prefetch: u16) {
        let prefetch = usize::from(prefetch);
        let half_waits =
            |held: &Held| held.waiting * 2 >= prefetch.max(1) && held.total + prefetch <= MAX_HELD;
        // Cannot fail: the sender is ours.
        let _ = self.0.subscribe().wait_for(half_waits).await;
    }

    fn start_next(&self) {
        self.0.send_modify(|held| {
            held.window += 1;
            held.waiting = 0;
        });
    }
}

impl Permit {
    /// A permit of a window of its own.
    #[cfg(test)]
    pub(super) fn alone() -> Self {
        PrefetchWindow::new().permit()
    }

    /// Notes that the request only waits for what is computed for another one.
    pub(super) fn mark_waiting(&self) {
        if self.waits.swap(true, Ordering::Relaxed) {
            return;
        }
        self.windows.0.send_if_modified(|held| {
            let newest = self.window == held.window;
            held.waiting += usize::from(newest);
            newest
        });
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let waited = *self.waits.get_mut();
        self.windows.0.send_if_modified(|held| {
            held.total -= 1;
            if waited && self.window == held.window {
                held.waiting -= 1;
            }
            // There may be room for another window now.
            held.waiting > 0
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn half_waits(windows: &PrefetchWindow, prefetch: u16) -> bool {
        windows.half_waits(prefetch).now_or_never().is_some()
    }

    #[test]
    fn another_window_is_due_when_half_of_the_newest_one_waits() {
        let windows = PrefetchWindow::new();
        let permits: Vec<Permit> = (0..10).map(|_| windows.permit()).collect();
        for permit in &permits[..4] {
            permit.mark_waiting();
            permit.mark_waiting();
        }
        assert!(!half_waits(&windows, 10), "each counts once");
        permits[4].mark_waiting();
        assert!(half_waits(&windows, 10));
        windows.start_next();
        permits[5].mark_waiting();
        assert!(
            !half_waits(&windows, 10),
            "the former window does not count"
        );
        let newest: Vec<Permit> = (0..5).map(|_| windows.permit()).collect();
        newest.iter().for_each(Permit::mark_waiting);
        assert!(half_waits(&windows, 10));
        drop(newest);
        assert!(!half_waits(&windows, 10));
        drop(permits);
        let held = windows.0.borrow();
        assert_eq!((held.total, held.waiting), (0, 0));
    }

    #[tokio::test]
    async fn no_further_window_is_due_until_there_is_room() {
        let windows = PrefetchWindow::new();
        let mut permits: Vec<Permit> = (0..MAX_HELD).map(|_| windows.permit()).collect();
        permits.iter().for_each(Permit::mark_waiting);
        assert!(!half_waits(&windows, 10));
        let waiting = tokio::spawn({
            let windows = windows.clone();
            async move { windows.half_waits(10).await }
        });
        tokio::task::yield_now().await;
        permits.truncate(MAX_HELD - 10);
        waiting.await.unwrap();
    }
}
