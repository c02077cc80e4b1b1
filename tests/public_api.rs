//! Properties of the public API that need no server: `Send`, `Debug`, error traits, hidden passwords, extreme
//! values.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashSet;
use std::error::Error as StdError;
use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rpcache::doctor::{Check, Doctor, DoctorOptions, Finding, Found, Severity};
use rpcache::errors::{
    ErrorCodeError, NamespaceError, QueueNameError, ReplyPatternError, UrlError,
};
use rpcache::fibonacci::{Decimal, Fibonacci, N, ParseError};
use rpcache::fleet::{Computing, WorkerCounts, WorkerStatus};
use rpcache::inspect::*;
use rpcache::*;

/// Nothing listens there.
const AMQP: &str = "amqp://user:s3cret@127.0.0.1:1/vhost";
const REDIS: &str = "redis://user:s3cret@127.0.0.1:1/0";

fn cache_options() -> CacheOptions {
    CacheOptions::new(REDIS.parse().unwrap())
}

fn client_options() -> ClientOptions {
    ClientOptions::new(AMQP.parse().unwrap(), cache_options())
}

fn worker_options() -> WorkerOptions {
    WorkerOptions::new(AMQP.parse().unwrap(), cache_options())
}

fn doctor_options() -> DoctorOptions {
    DoctorOptions::new(AMQP.parse(), REDIS.parse())
}

#[test]
fn types_can_be_shared_between_threads_and_shown() {
    fn shared<T: Send + Sync + Unpin + Debug + 'static>() {}
    shared::<Client<Fibonacci>>();
    shared::<Worker<Fibonacci>>();
    shared::<Cache>();
    shared::<Scan<'static, Fibonacci>>();
    shared::<Doctor<Fibonacci>>();
    shared::<WorkerHealth>();
    shared::<Cancel>();
    shared::<(ClientOptions, WorkerOptions, CacheOptions, DoctorOptions)>();
    shared::<(CallOptions, LocalOptions, CacheUse, Declare)>();
    shared::<(Answered<Decimal>, Source, Stopped, Readiness)>();
    shared::<(Stored<Decimal>, Entry, Explained, LeaseHeld, LeaseHolder)>();
    shared::<(Verified, WrongEntry, EntryFault, StoredKey, KeyPattern)>();
    shared::<(Survey, ServerStats, Estimate, Precision, TtlBuckets)>();
    shared::<(WorkerStatus, WorkerCounts, Computing)>();
    shared::<(Finding, Found, Check, Severity)>();
    #[cfg(feature = "metrics")]
    shared::<(Metrics, MetricsFormat)>();
    #[cfg(feature = "programs")]
    shared::<(program::Program, program::ProgramOptions)>();
}

#[test]
fn errors_are_errors() {
    fn error<T: StdError + Clone + Eq + Send + Sync + 'static>() {}
    error::<Error>();
    error::<ComputeError>();
    error::<ErrorCodeError>();
    error::<UrlError>();
    error::<NamespaceError>();
    error::<QueueNameError>();
    error::<ReplyPatternError>();
    error::<KeyPatternError>();
    error::<ParseError>();
    #[cfg(feature = "programs")]
    error::<program::ProgramError>();
}

#[test]
fn names_are_read_written_and_kept_in_sets() {
    fn reads_back<T: FromStr<Err: Debug> + Display + Debug + Eq + Hash + Clone>(text: &str) {
        let name: T = text.parse().unwrap();
        assert_eq!(name.to_string(), text);
        assert!(HashSet::from([name.clone()]).contains(&name));
    }
    reads_back::<QueueName>("rpc_queue.of.mine");
    reads_back::<Namespace>("prod:v2");
    reads_back::<KeyPattern>("1*");
    reads_back::<ReplyPattern>("replies.*");
    reads_back::<ErrorCode>("too-large");
    reads_back::<N>("30");
    reads_back::<Decimal>("832040");
}

/// Futures of calls can be spawned; one value held across an await can break that.
#[tokio::test]
async fn futures_can_be_spawned() {
    fn sendable<F: Future + Send>(_: F) {}
    let client = Client::new(Fibonacci::default(), client_options());
    sendable(client.call(N(30)));
    sendable(client.call_with(N(30), CallOptions::default()));
    sendable(client.clone().close());
    let asked = futures_util::stream::iter([((), Ok(N(30)))]);
    sendable(futures_util::StreamExt::into_future(Box::pin(
        client.call_many(asked, CallOptions::default()),
    )));
    sendable(Worker::new(Fibonacci::default(), worker_options()).run(std::future::pending()));
    let (cache, fib) = (Cache::open(cache_options()), Arc::new(Fibonacci::default()));
    sendable(cache.get(&fib, &Arc::new(N(30))));
    sendable(cache.explain(&fib, &N(30)));
    sendable(cache.verify(&fib, &[], true));
    sendable(cache.remove(&*fib, &N(30)));
    sendable(cache.survey(&*fib));
    sendable(cache.sample(&*fib, 1));
    sendable(cache.scan(&*fib, &KeyPattern::default()).next_page());
    sendable(Doctor::new(Fibonacci::default(), [N(30)], doctor_options()).next());
}

#[tokio::test]
async fn nothing_shows_a_password() {
    let client = Client::new(Fibonacci::default(), client_options());
    let (cache, fib) = (Cache::open(cache_options()), Arc::new(Fibonacci::default()));
    let worker = Worker::new(Fibonacci::default(), worker_options());
    let doctor = Doctor::new(Fibonacci::default(), [N(30)], doctor_options());
    let failed = client.call(N(30)).await.unwrap_err();
    let refused = cache.get(&fib, &Arc::new(N(30))).await.unwrap_err();
    let mut shown = vec![
        format!("{:?} {:#?}", client_options(), worker_options()),
        format!("{:?} {:#?}", doctor_options(), doctor),
        format!("{client:?} {cache:?} {worker:?} {:?}", worker.health()),
        format!("{failed:?} {failed} {refused:?} {refused}"),
    ];
    for text in [AMQP.replace("amqp", "amqq"), REDIS.replace("/0", "/x")] {
        let (amqp, redis) = (text.parse::<AmqpUrl>(), text.parse::<RedisUrl>());
        shown.push(format!("{amqp:?} {redis:?}"));
    }
    for shown in shown {
        assert!(!shown.contains("s3cret"), "{shown}");
        assert!(shown.len() > 20, "{shown}");
    }
}

/// The longest duration means for ever.
#[tokio::test]
async fn longest_times_overflow_nothing() {
    let mut options = client_options();
    options.cache.budget = Duration::MAX;
    options.cache.ttl = Some(Duration::MAX);
    options.local = Some(LocalOptions::new(1000));
    let client = Client::new(Fibonacci::default(), options);
    let failed = client.call_with(N(30), CallOptions::within(Duration::MAX));
    assert!(matches!(failed.await, Err(Error::Unreachable { .. })));
    let mut options = worker_options();
    options.grace = Duration::MAX;
    options.cache.budget = Duration::MAX;
    let worker = Worker::new(Fibonacci::default(), options);
    assert_eq!(worker.run(async {}).await, Ok(Stopped::Clean));
}
