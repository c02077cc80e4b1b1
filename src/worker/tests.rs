//! Redelivered requests in a worker that stops or loses its session while it computes them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::computer::{Computer, Engine};
use super::prefetch_window::Permit;
use super::*;
use crate::CacheOptions;
use crate::cache::fake::{self, FakeRedis};
use crate::message::{Reply, Request};
use crate::procedure::{Cancel, ComputeError};
use crate::procedure_name::ProcedureName;
use crate::trace::Stopwatch;

/// Returns when released, and ignores its cancellation until then.
#[derive(Debug)]
struct WhenReleased(Arc<AtomicBool>);

impl Procedure for WhenReleased {
    type Argument = u32;
    type Answer = u32;

    fn name(&self) -> &ProcedureName {
        const { &ProcedureName::new("when-released") }
    }

    fn compute(&self, argument: &u32, _: &Cancel) -> Result<u32, ComputeError> {
        while !self.0.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(*argument)
    }

    fn verify(&self, argument: &u32, answer: &u32) -> bool {
        argument == answer
    }
}

/// Releases all computations when dropped, also when its test fails: the runtime waits for its threads.
struct Release(Arc<AtomicBool>);

impl Drop for Release {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn service(cache: Cache) -> (Arc<Service<WhenReleased>>, Release) {
    let release = Release(Arc::default());
    let mut options = WorkerOptions::new(
        "amqp://localhost".parse().unwrap(),
        CacheOptions::new("redis://localhost".parse().unwrap()),
    );
    (options.concurrency, options.max_reply_size) = (4, 100);
    let procedure = WhenReleased(Arc::clone(&release.0));
    let queue = procedure.queue();
    let computer = Computer::new(procedure, Engine::Procedure);
    let service = Service::new(computer, cache, queue, Counters::default(), &options);
    (Arc::new(service), release)
}

/// One more delivery of the same redelivered request, in a session of its own.
fn deliver(
    service: &Arc<Service<WhenReleased>>,
    cache: &'static str,
) -> (CancellationToken, JoinHandle<Option<Reply>>) {
    let (service, lost) = (Arc::clone(service), CancellationToken::new());
    let session = lost.clone();
    let answer = tokio::spawn(async move {
        let mut headers = FieldTable::default();
        headers.insert(
            "x-rpcache-cache".into(),
            AMQPValue::LongString(cache.into()),
        );
        let properties = BasicProperties::default()
            .with_correlation_id("one and the same".into())
            .with_headers(headers);
        let request = Request::read(b"7".to_vec(), &properties);
        let delivery = Arc::new(service.redelivered.register(true, Permit::alone()));
        let watch = Stopwatch::start(Instant::now(), false);
        service.answer(&lost, &delivery, &request, &watch).await
    });
    (session, answer)
}

/// Advances paused time until the condition holds: paused time does not pass by itself while threads compute.
async fn until(condition: impl Fn() -> bool) {
    let since = std::time::Instant::now();
    while !condition() {
        assert!(
            since.elapsed() < Duration::from_secs(10),
            "the condition never held"
        );
        tokio::time::advance(Duration::from_millis(1)).await;
    }
}

const COUNTED: [&str; 3] = ["INCRBY", "{when-released:7}:starts", " 1"];
const TAKEN_BACK: [&str; 2] = ["EVAL", "{when-released:7}:starts"];
const FORGOTTEN: [&str; 2] = ["UNLINK", "{when-released:7}:starts"];

/// How often an attempt was counted, taken back, and all attempts forgotten.
fn attempts(redis: &FakeRedis) -> (usize, usize, usize) {
    let forgotten = redis.heard(&FORGOTTEN) - redis.heard(&TAKEN_BACK);
    let counted = redis.heard(&COUNTED) - redis.heard(&TAKEN_BACK);
    (counted, redis.heard(&TAKEN_BACK), forgotten)
}

#[tokio::test(start_paused = true)]
async fn attempts_are_forgotten_once_computed() {
    let (redis, cache) = FakeRedis::answering().await;
    let (service, release) = service(cache);
    drop(release);
    let (_session, answer) = deliver(&service, "");
    assert!(answer.await.unwrap().unwrap().outcome.is_ok());
    until(|| attempts(&redis) == (1, 0, 1)).await;
}

#[tokio::test(start_paused = true)]
async fn worker_that_stops_takes_its_attempt_back_first() {
    for cache in ["", "bypass", "refresh"] {
        let (redis, cache_of_service) = FakeRedis::answering().await;
        let (service, _release) = service(cache_of_service);
        let (_session, answer) = deliver(&service, cache);
        until(|| attempts(&redis) == (1, 0, 0)).await;
        service.cease().await;
        assert_eq!(attempts(&redis), (1, 1, 0), "{cache:?}");
        assert_eq!(answer.await.unwrap(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn worker_that_is_dropped_takes_its_attempt_back() {
    let (redis, cache) = FakeRedis::answering().await;
    let (service, _release) = service(cache);
    let run = service.computer.cancel_on_drop();
    let (_session, answer) = deliver(&service, "");
    until(|| attempts(&redis) == (1, 0, 0)).await;
    answer.abort();
    drop((run, service));
    until(|| attempts(&redis) == (1, 1, 0)).await;
}

#[tokio::test(start_paused = true)]
async fn uncached_request_that_loses_its_sessions_leaves_no_attempt() {
    let (redis, cache) = FakeRedis::answering().await;
    let (service, _release) = service(cache);
    for lost in 0..3 {
        let (session, answer) = deliver(&service, "bypass");
        until(|| attempts(&redis) == (lost + 1, lost, 0)).await;
        session.cancel();
        assert_eq!(answer.await.unwrap(), None);
        until(|| attempts(&redis) == (lost + 1, lost + 1, 0)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn silent_redis_costs_a_redelivered_request_one_budget_and_does_not_delay_the_stop() {
    let (redis, cache) = FakeRedis::silent().await;
    let (service, release) = service(cache);
    let since = Instant::now();
    drop(release);
    let (_session, answer) = deliver(&service, "");
    assert!(answer.await.unwrap().unwrap().outcome.is_ok());
    assert!(redis.heard(&["EVAL", ":lease"]) > 0, "it was asked");
    // The rest is the random wait before its turn.
    let waited = since.elapsed();
    assert!(waited < fake::BUDGET * 3 / 2, "{waited:?}");
    let since = Instant::now();
    service.cease().await;
    assert!(since.elapsed() < Duration::from_secs(1));
}

#[test]
fn task_of_a_request_is_small() {
    /// The size in bytes of the return value of a function of four arguments.
    fn size<A, B, C, D, F>(_: fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }
    // The task is moved several times before it runs.
    let serve = size(Service::<WhenReleased>::serve);
    assert!(serve < 4096, "{serve} bytes");
}
