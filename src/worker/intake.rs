//! Taking deliveries: as many as the prefetch allows, and more in place of those that only wait.
//!
//! A request that hangs on what is computed for another one holds a place in the prefetch window and
//! needs no slot: a thousand callers of one key would keep those of all others out. So when half of a
//! window only waits, another is opened beside it: a new consumer, since a prefetch holds for the
//! consumers that come after it, see <https://www.rabbitmq.com/docs/consumer-prefetch>. The former
//! one is cancelled; what it was given stays here until it is answered.

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

/// Requests held at once, whatever they wait for. No further window is opened above.
const MOST_HELD: usize = 1024;

type Opening = Pin<Box<dyn Future<Output = lapin::Result<Consumer>> + Send>>;

/// The consumer of the request queue. Ends with its channel.
pub(super) struct Intake {
    channel: Channel,
    queue: ShortString,
    prefetch: u16,
    current: Current,
    /// Cancelled by us, or about to be; they yield what was on its way.
    former: SelectAll<Consumer>,
    /// Why there will be no more, when the last ones have been taken.
    ended: Option<String>,
    crowd: Crowd,
}

enum Current {
    Open(Consumer),
    Opening(Opening),
}

impl Intake {
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
            crowd: Crowd::new(),
        })
    }

    /// The next deliveries with their places, as many as are ready; or why there will be none. Cancel
    /// safe.
    pub(super) async fn next(&mut self) -> Result<Vec<(Delivery, Place)>, String> {
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
                () = self.crowd.waits(self.prefetch), if self.current.is_open() => {
                    self.open_beside();
                    continue;
                }
            };
            let first = first.map_err(|error| broker::describe(&error))?;
            let mut deliveries = vec![(first, self.crowd.place())];
            while let Some(next) = self.current.next().now_or_never() {
                match next {
                    Ok(Some(Ok(delivery))) => deliveries.push((delivery, self.crowd.place())),
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

    /// Opens another window, and cancels the consumer of the one that was the newest so far.
    fn open_beside(&mut self) {
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
        self.crowd.next_window();
    }

    /// Takes no more. What had arrived before comes out of [`last`](Self::last).
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

    /// After the end of it: what is still held.
    pub(super) async fn last(&mut self) -> Option<(Delivery, Place)> {
        let delivery = match (self.former.next().await, &mut self.current) {
            (Some(delivery), _) => delivery,
            (None, Current::Open(consumer)) => consumer.next().await?,
            (None, Current::Opening(_)) => return None,
        };
        let delivery = delivery.ok()?;
        Some((delivery, self.crowd.place()))
    }
}

impl Current {
    fn is_open(&self) -> bool {
        matches!(self, Self::Open(_))
    }

    /// The next delivery; `None` when it has been opened; or why there is none. Cancel safe.
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

/// A consumer of a queue, with the prefetch that the channel has.
pub(super) async fn consume(channel: &Channel, queue: ShortString) -> lapin::Result<Consumer> {
    let (tag, options) = (ShortString::default(), BasicConsumeOptions::default());
    channel
        .basic_consume(queue, tag, options, FieldTable::default())
        .await
}

/// Who is held in all windows, and how many of the newest only wait.
#[derive(Debug, Clone)]
struct Crowd(Arc<watch::Sender<Count>>);

#[derive(Debug, Default)]
struct Count {
    held: usize,
    /// The newest window, by number, and those in it who only wait.
    window: u64,
    waiting: usize,
}

/// One delivery's place in its window, until it is settled or dropped.
#[derive(Debug)]
pub(super) struct Place {
    crowd: Crowd,
    window: u64,
    waits: AtomicBool,
}

impl Crowd {
    fn new() -> Self {
        Self(Arc::new(watch::Sender::default()))
    }

    fn place(&self) -> Place {
        let mut window = 0;
        self.0.send_if_modified(|count| {
            count.held += 1;
            window = count.window;
            false
        });
        Place {
            crowd: self.clone(),
            window,
            waits: AtomicBool::new(false),
        }
    }

    /// Until half of the newest window only waits, and another one is not too much.
    async fn waits(&self, prefetch: u16) {
        let prefetch = usize::from(prefetch);
        let crowded = |count: &Count| {
            count.waiting * 2 >= prefetch.max(1) && count.held + prefetch <= MOST_HELD
        };
        // The sender cannot be gone: it is ours.
        let _ = self.0.subscribe().wait_for(crowded).await;
    }

    fn next_window(&self) {
        self.0.send_modify(|count| {
            count.window += 1;
            count.waiting = 0;
        });
    }
}

impl Place {
    /// Of no window, for tests.
    #[cfg(test)]
    pub(super) fn alone() -> Self {
        Crowd::new().place()
    }

    /// Its request only waits for what is computed for another one.
    pub(super) fn waits(&self) {
        if self.waits.swap(true, Ordering::Relaxed) {
            return;
        }
        self.crowd.0.send_if_modified(|count| {
            let newest = self.window == count.window;
            count.waiting += usize::from(newest);
            newest
        });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let waited = *self.waits.get_mut();
        self.crowd.0.send_if_modified(|count| {
            count.held -= 1;
            if waited && self.window == count.window {
                count.waiting -= 1;
            }
            // Room for another window, where the newest is crowded.
            count.waiting > 0
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_crowded(crowd: &Crowd, prefetch: u16) -> bool {
        crowd.waits(prefetch).now_or_never().is_some()
    }

    #[test]
    fn half_a_window_of_those_who_wait_is_a_crowd_until_the_next_window() {
        let crowd = Crowd::new();
        let places: Vec<Place> = (0..10).map(|_| crowd.place()).collect();
        for place in &places[..4] {
            place.waits();
            place.waits();
        }
        assert!(!is_crowded(&crowd, 10), "each counts once");
        places[4].waits();
        assert!(is_crowded(&crowd, 10));
        crowd.next_window();
        places[5].waits();
        assert!(!is_crowded(&crowd, 10), "the former window does not count");
        let newest: Vec<Place> = (0..5).map(|_| crowd.place()).collect();
        newest.iter().for_each(Place::waits);
        assert!(is_crowded(&crowd, 10));
        drop(newest);
        assert!(!is_crowded(&crowd, 10));
        drop(places);
        let count = crowd.0.borrow();
        assert_eq!((count.held, count.waiting), (0, 0));
    }

    #[tokio::test]
    async fn there_is_an_end_to_windows_until_somebody_is_settled() {
        let crowd = Crowd::new();
        let mut places: Vec<Place> = (0..MOST_HELD).map(|_| crowd.place()).collect();
        places.iter().for_each(Place::waits);
        assert!(!is_crowded(&crowd, 10));
        let waiting = tokio::spawn({
            let crowd = crowd.clone();
            async move { crowd.waits(10).await }
        });
        tokio::task::yield_now().await;
        places.truncate(MOST_HELD - 10);
        waiting.await.unwrap();
    }
}
