//! The rate of many tasks that each make one call after another for a given time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

/// Numbers for calls, each used once in a run.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// The calls per second of so many tasks, measured for so long. Each call gets a number of its own.
pub(crate) async fn rate<C, F>(tasks: usize, time: Duration, call: C) -> f64
where
    C: Fn(u64) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send,
{
    let call = Arc::new(call);
    let start = Instant::now();
    let mut running = JoinSet::new();
    for _ in 0..tasks {
        let call = Arc::clone(&call);
        running.spawn(async move {
            let mut calls: u32 = 0;
            while start.elapsed() < time {
                call(NEXT.fetch_add(1, Ordering::Relaxed)).await;
                calls += 1;
            }
            calls
        });
    }
    let calls: u32 = running.join_all().await.into_iter().sum();
    f64::from(calls) / start.elapsed().as_secs_f64()
}
