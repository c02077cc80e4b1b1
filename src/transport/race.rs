//! Races connection attempts, each with a head start over the next (RFC 8305, "Happy Eyeballs").

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::select;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// The delay between two connection attempts that RFC 8305 recommends.
pub(crate) const CONNECTION_ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// How long an attempt runs before the next one starts beside it.
#[derive(Debug)]
pub(crate) struct HeadStart {
    time: Duration,
    connected: Notify,
    for_login: Duration,
}

impl HeadStart {
    /// For attempts that succeed as soon as they are connected.
    pub(super) fn to_connect(time: Duration) -> Self {
        Self::to_log_in(time, Duration::ZERO)
    }

    /// For attempts that also log in: `for_login` starts at [`connected`](Self::connected). On a busy server a
    /// login takes longer than connecting, and a second one adds load.
    pub(crate) fn to_log_in(time: Duration, for_login: Duration) -> Self {
        Self {
            time,
            connected: Notify::new(),
            for_login,
        }
    }

    /// Extends the head start: the calling attempt is connected and starts its login.
    pub(crate) fn connected(&self) {
        self.connected.notify_one();
    }

    async fn elapse(&self) {
        let mut end = Instant::now() + self.time;
        loop {
            select! {
                () = sleep_until(end) => return,
                () = self.connected.notified() => end = end.max(Instant::now() + self.for_login),
            }
        }
    }
}

/// Runs `attempts` in order until the first one succeeds, and drops the others.
///
/// The next attempt starts when one has failed, or the head start of the latest is over. If all fail, returns
/// their errors in the order in which they occurred. Sets no deadline of its own. Cancel safe.
pub(crate) async fn race<T, E, F>(attempts: Vec<F>, head_start: &HeadStart) -> Result<T, Vec<E>>
where
    F: Future<Output = Result<T, E>>,
{
    let mut waiting = attempts.into_iter();
    let mut running: FuturesUnordered<_> = waiting.next().into_iter().collect();
    let mut errors = Vec::new();
    loop {
        select! {
            ended = running.next() => match ended {
                Some(Ok(winner)) => return Ok(winner),
                Some(Err(error)) => errors.push(error),
                None => return Err(errors),
            },
            () = head_start.elapse(), if waiting.len() > 0 => {}
        }
        running.extend(waiting.next());
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::pending;

    use tokio::time::sleep;

    use super::*;

    const LOGIN: Duration = Duration::from_secs(1);

    fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// An attempt that records when it starts, and ends after `takes`.
    async fn attempt(
        starts: &RefCell<Vec<Duration>>,
        epoch: Instant,
        takes: Duration,
        end: Result<u32, u32>,
    ) -> Result<u32, u32> {
        starts.borrow_mut().push(epoch.elapsed());
        sleep(takes).await;
        end
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_attempt_starts_after_the_head_start_or_a_failure() {
        let (starts, epoch) = (RefCell::default(), Instant::now());
        let attempts = vec![
            attempt(&starts, epoch, LOGIN * 60, Ok(1)),
            attempt(&starts, epoch, millis(100), Err(2)),
            attempt(&starts, epoch, millis(400), Ok(3)),
            attempt(&starts, epoch, LOGIN * 60, Ok(4)),
            attempt(&starts, epoch, LOGIN * 60, Ok(5)),
        ];
        let won = race(attempts, &HeadStart::to_connect(CONNECTION_ATTEMPT_DELAY)).await;
        assert_eq!(won, Ok(3));
        let expected = [0, 250, 350, 600].map(millis);
        assert_eq!(*starts.borrow(), expected);
        assert_eq!(epoch.elapsed(), millis(750));
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_attempt_may_still_win() {
        let (starts, epoch) = (RefCell::default(), Instant::now());
        let attempts = vec![
            attempt(&starts, epoch, millis(300), Ok(1)),
            attempt(&starts, epoch, millis(100), Ok(2)),
        ];
        let won = race(attempts, &HeadStart::to_connect(CONNECTION_ATTEMPT_DELAY)).await;
        assert_eq!((won, epoch.elapsed()), (Ok(1), millis(300)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_login_has_a_longer_head_start_than_a_connection() {
        let head_start = HeadStart::to_log_in(CONNECTION_ATTEMPT_DELAY, LOGIN);
        let epoch = Instant::now();
        let frozen = async {
            sleep(millis(10)).await;
            head_start.connected();
            pending().await
        };
        let starts = RefCell::default();
        let attempts: Vec<std::pin::Pin<Box<dyn Future<Output = _>>>> = vec![
            Box::pin(frozen),
            Box::pin(attempt(&starts, epoch, millis(5), Ok(2))),
        ];
        assert_eq!(race(attempts, &head_start).await, Ok(2));
        assert_eq!(*starts.borrow(), [millis(1010)]);
    }

    #[tokio::test(start_paused = true)]
    async fn all_errors_are_returned_in_order_of_occurrence() {
        let (starts, epoch) = (RefCell::default(), Instant::now());
        let attempts = vec![
            attempt(&starts, epoch, millis(300), Err(1)),
            attempt(&starts, epoch, millis(10), Err(2)),
        ];
        let lost = race(attempts, &HeadStart::to_connect(CONNECTION_ATTEMPT_DELAY)).await;
        assert_eq!(lost, Err(vec![2, 1]));
        let none: Vec<std::future::Ready<Result<u32, u32>>> = Vec::new();
        let lost = race(none, &HeadStart::to_connect(CONNECTION_ATTEMPT_DELAY)).await;
        assert_eq!(lost, Err(Vec::new()));
    }
}
