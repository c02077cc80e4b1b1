//! What suspects cost, and leave behind, in a worker that ends or loses its session amid them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::intake::Place;
use super::*;
use crate::CacheOptions;
use crate::cache::fake::{self, FakeRedis};
use crate::message::{Reply, Request};
use crate::procedure::{Cancel, ComputeError};
use crate::procedure_name::ProcedureName;
use crate::trace::Stopwatch;

/// Answers when it is let, and looks away from its flag until then.
#[derive(Debug)]
struct WhenLet(Arc<AtomicBool>);

impl Procedure for WhenLet {
    type Argument = u32;
    type Answer = u32;

    fn name(&self) -> &ProcedureName {
        const { &ProcedureName::new("when-let") }
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

/// Lets all that is computed end, also when its test fails: the runtime waits for its threads.
struct Lets(Arc<AtomicBool>);

impl Drop for Lets {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn service(cache: Cache) -> (Arc<Service<WhenLet>>, Lets) {
    let lets = Lets(Arc::default());
    let mut options = WorkerOptions::new(
        "amqp://localhost".parse().unwrap(),
        CacheOptions::new("redis://localhost".parse().unwrap()),
    );
    (options.concurrency, options.max_reply_size) = (4, 100);
    let procedure = WhenLet(Arc::clone(&lets.0));
    let queue = procedure.queue();
    let service = Service::new(procedure, cache, queue, Vitals::default(), &options);
    (Arc::new(service), lets)
}

/// One more delivery of the same suspect request, in a session of its own.
fn deliver(
    service: &Arc<Service<WhenLet>>,
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
        let arrival = Arc::new(service.suspects.arrived(true, Place::alone()));
        let watch = Stopwatch::start(Instant::now(), false);
        service.answer(&lost, &arrival, &request, &watch).await
    });
    (session, answer)
}

/// Threads compute meanwhile, and paused time does not pass by itself then.
async fn until(condition: impl Fn() -> bool) {
    let since = std::time::Instant::now();
    while !condition() {
        assert!(since.elapsed() < Duration::from_secs(10), "it never comes");
        tokio::time::advance(Duration::from_millis(1)).await;
    }
}

const COUNTED: [&str; 3] = ["INCRBY", "{when-let:7}:starts", " 1"];
const TAKEN_BACK: [&str; 2] = ["EVAL", "{when-let:7}:starts"];
const FORGOTTEN: [&str; 2] = ["UNLINK", "{when-let:7}:starts"];

/// How often a start was counted, taken back, and all forgotten.
fn starts(redis: &FakeRedis) -> (usize, usize, usize) {
    let forgotten = redis.heard(&FORGOTTEN) - redis.heard(&TAKEN_BACK);
    let counted = redis.heard(&COUNTED) - redis.heard(&TAKEN_BACK);
    (counted, redis.heard(&TAKEN_BACK), forgotten)
}

#[tokio::test(start_paused = true)]
async fn a_suspect_that_is_computed_is_forgotten() {
    let (redis, cache) = FakeRedis::answering().await;
    let (service, lets) = service(cache);
    drop(lets);
    let (_session, answer) = deliver(&service, "");
    assert!(answer.await.unwrap().unwrap().outcome.is_ok());
    until(|| starts(&redis) == (1, 0, 1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_stops_amid_a_suspect_takes_its_start_back_before_it_has_ceased() {
    for cache in ["", "bypass", "refresh"] {
        let (redis, cache_of_service) = FakeRedis::answering().await;
        let (service, _lets) = service(cache_of_service);
        let (_session, answer) = deliver(&service, cache);
        until(|| starts(&redis) == (1, 0, 0)).await;
        service.cease().await;
        assert_eq!(starts(&redis), (1, 1, 0), "{cache:?}");
        assert_eq!(answer.await.unwrap(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_dropped_amid_a_suspect_takes_its_start_back() {
    let (redis, cache) = FakeRedis::answering().await;
    let (service, _lets) = service(cache);
    let run = service.computer.cancel_on_drop();
    let (_session, answer) = deliver(&service, "");
    until(|| starts(&redis) == (1, 0, 0)).await;
    answer.abort();
    drop((run, service));
    until(|| starts(&redis) == (1, 1, 0)).await;
}

#[tokio::test(start_paused = true)]
async fn a_suspect_that_loses_its_sessions_while_it_is_computed_aside_leaves_no_start() {
    let (redis, cache) = FakeRedis::answering().await;
    let (service, _lets) = service(cache);
    for lost in 0..3 {
        let (session, answer) = deliver(&service, "bypass");
        until(|| starts(&redis) == (lost + 1, lost, 0)).await;
        session.cancel();
        assert_eq!(answer.await.unwrap(), None);
        until(|| starts(&redis) == (lost + 1, lost + 1, 0)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_redis_costs_a_suspect_one_budget_and_does_not_hold_the_end_up() {
    let (redis, cache) = FakeRedis::silent().await;
    let (service, lets) = service(cache);
    let since = Instant::now();
    drop(lets);
    let (_session, answer) = deliver(&service, "");
    assert!(answer.await.unwrap().unwrap().outcome.is_ok());
    assert!(redis.heard(&["EVAL", ":lease"]) > 0, "it was asked");
    // Beside it, only the wait for its place among other suspects.
    let waited = since.elapsed();
    assert!(waited < fake::BUDGET * 3 / 2, "{waited:?}");
    let since = Instant::now();
    service.cease().await;
    assert!(since.elapsed() < Duration::from_secs(1));
}

#[test]
fn the_task_of_a_request_is_small() {
    /// Bytes of what a function of four arguments gives.
    fn size<A, B, C, D, F>(_: fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }
    // It is moved several times before it runs.
    let serve = size(Service::<WhenLet>::serve);
    assert!(serve < 4096, "{serve} bytes");
}
