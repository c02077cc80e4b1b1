//! Support for tests of shared state: runs tasks in an order and at times that are drawn from a seed.
//!
//! Time is paused: it passes only while every task waits, and then at once. Within one moment, the
//! tasks of a world take their steps in a random order, see [`shuffled`].

use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use fastrand::Rng;
use tokio::time::timeout;

/// Longer than anything waits on purpose.
const FOR_EVER: Duration = Duration::from_secs(3600);

/// One world after another, for the seeds from 0. A failure says which one it was.
pub(crate) fn of_each_seed(seeds: u64, world: impl AsyncFn(Rng)) {
    for seed in 0..seeds {
        let _says = SaysSeed(seed);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        // What the code under test draws itself.
        fastrand::seed(seed);
        let ended = runtime.block_on(async {
            let world = world(Rng::with_seed(seed));
            timeout(FOR_EVER, world).await
        });
        assert!(ended.is_ok(), "a task waits for ever");
    }
}

struct SaysSeed(u64);

impl Drop for SaysSeed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("it was seed {}", self.0);
        }
    }
}

/// Puts each step of a task off a random number of times, so that others come first.
pub(crate) async fn shuffled<T>(mut rng: Rng, task: impl Future<Output = T>) -> T {
    let mut task = pin!(task);
    std::future::poll_fn(move |context| {
        if rng.bool() {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        task.as_mut().poll(context)
    })
    .await
}

/// A duration below so many milliseconds.
pub(crate) fn millis(rng: &mut Rng, below: u64) -> Duration {
    Duration::from_millis(rng.u64(..below))
}

mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::sync::Mutex;

    #[test]
    fn tasks_of_one_moment_come_in_every_order() {
        let orders = Mutex::new(HashSet::new());
        of_each_seed(1000, async |mut rng| {
            let order = Mutex::new(Vec::new());
            let tasks = (0..4).map(|task| {
                let order = &order;
                shuffled(rng.fork(), async move { order.lock().unwrap().push(task) })
            });
            futures_util::future::join_all(tasks).await;
            orders.lock().unwrap().insert(order.into_inner().unwrap());
        });
        assert_eq!(orders.into_inner().unwrap().len(), 24);
    }
}
