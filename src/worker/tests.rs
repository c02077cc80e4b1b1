//! What suspects cost, and leave behind, in a worker that ends or loses its session amid them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use tokio::task::JoinHandle;

use super::intake::Place;
use super::*;
use crate::cache::fake::{self, FakeRedis};
use crate::procedure::{Cancel, ComputeError};
use crate::procedure_name::ProcedureName;

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

fn desk(cache: Cache) -> (Arc<Desk<WhenLet>>, Lets) {
    let lets = Lets(Arc::default());
    let desk = Desk {
        id: "desk".to_owned(),
        computer: Computer::new(WhenLet(Arc::clone(&lets.0)), 4),
        cache,
        flights: SingleFlight::new(flight::is_out_of_time),
        vitals: Vitals::default(),
        queue: QueueName::of(&ProcedureName::new("when-let")),
        reply_to: ReplyPattern::defaults(),
        max_reply_size: 100,
        refused_reply_to: Seldom::default(),
        poison: Seldom::default(),
        suspects: Suspects::new(),
    };
    (Arc::new(desk), lets)
}

/// One more delivery of the same suspect request, in a session of its own.
fn deliver(
    desk: &Arc<Desk<WhenLet>>,
    cache: &'static str,
) -> (CancellationToken, JoinHandle<Option<Reply>>) {
    let (desk, lost) = (Arc::clone(desk), CancellationToken::new());
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
        let arrival = Arc::new(desk.suspects.arrived(true, Place::alone()));
        let watch = Stopwatch::start(Instant::now(), false);
        desk.answer(&lost, &arrival, &request, &watch).await
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
    let (desk, lets) = desk(cache);
    drop(lets);
    let (_session, answer) = deliver(&desk, "");
    assert!(answer.await.unwrap().unwrap().outcome.is_ok());
    until(|| starts(&redis) == (1, 0, 1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_stops_amid_a_suspect_takes_its_start_back_before_it_has_ceased() {
    for cache in ["", "bypass", "refresh"] {
        let (redis, cache_of_desk) = FakeRedis::answering().await;
        let (desk, _lets) = desk(cache_of_desk);
        let (_session, answer) = deliver(&desk, cache);
        until(|| starts(&redis) == (1, 0, 0)).await;
        desk.cease().await;
        assert_eq!(starts(&redis), (1, 1, 0), "{cache:?}");
        assert_eq!(answer.await.unwrap(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_dropped_amid_a_suspect_takes_its_start_back() {
    let (redis, cache) = FakeRedis::answering().await;
    let (desk, _lets) = desk(cache);
    let run = desk.computer.cancel_on_drop();
    let (_session, answer) = deliver(&desk, "");
    until(|| starts(&redis) == (1, 0, 0)).await;
    answer.abort();
    drop((run, desk));
    until(|| starts(&redis) == (1, 1, 0)).await;
}

#[tokio::test(start_paused = true)]
async fn a_suspect_that_loses_its_sessions_while_it_is_computed_aside_leaves_no_start() {
    let (redis, cache) = FakeRedis::answering().await;
    let (desk, _lets) = desk(cache);
    for lost in 0..3 {
        let (session, answer) = deliver(&desk, "bypass");
        until(|| starts(&redis) == (lost + 1, lost, 0)).await;
        session.cancel();
        assert_eq!(answer.await.unwrap(), None);
        until(|| starts(&redis) == (lost + 1, lost + 1, 0)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_redis_costs_a_suspect_one_budget_and_does_not_hold_the_end_up() {
    let (redis, cache) = FakeRedis::silent().await;
    let (desk, lets) = desk(cache);
    let since = Instant::now();
    drop(lets);
    let (_session, answer) = deliver(&desk, "");
    assert!(answer.await.unwrap().unwrap().outcome.is_ok());
    assert!(redis.heard(&["EVAL", ":lease"]) > 0, "it was asked");
    // Beside it, only the wait for its place among other suspects.
    let waited = since.elapsed();
    assert!(waited < fake::BUDGET * 3 / 2, "{waited:?}");
    let since = Instant::now();
    desk.cease().await;
    assert!(since.elapsed() < Duration::from_secs(1));
}

#[test]
fn the_task_of_a_request_is_small() {
    /// Bytes of what a function of four arguments gives.
    fn size<A, B, C, D, F>(_: fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }
    // It is moved several times before it runs.
    let serve = size(Desk::<WhenLet>::serve);
    assert!(serve < 4096, "{serve} bytes");
}
