//! The client: look in the store, share a flight, ask a worker. Read [`Client::call_with`] first.

mod flight;
mod lookup;
mod many;
mod near;
mod observe;
mod options;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::coop::consume_budget;
use tracing::{Instrument as _, Span};

pub use self::near::LocalOptions;
pub use self::options::{CallOptions, ClientOptions};

use self::lookup::{Call, Looked, Resolved};
use self::near::NearCache;
use crate::cache::{Cache, Key, Vacancy};
use crate::counts::Calls;
use crate::error::{Error, ErrorCode};
use crate::log_throttle::LogThrottle;
use crate::procedure::Procedure;
use crate::requester::{Requester, RequesterOptions};
use crate::single_flight::{Callers, Deadline, Outcome, SingleFlight};
use crate::source::Source;
use crate::trace;

/// An answer, and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answered<A> {
    /// The answer; it has passed [`Procedure::verify`].
    pub answer: A,
    /// Where it came from.
    pub source: Source,
    /// Whether the store has it. Of a [local](Source::Local) answer: whether the store had it when this
    /// process got it.
    pub stored: bool,
    /// How long the call took.
    pub elapsed: Duration,
}

/// Calls a procedure: from the cache where it can, from a worker where it must.
///
/// Use one for a whole process. Clones are cheap and share everything: connections, near copies, and the
/// flights of calls for the same argument. It reconnects by itself until the last clone is dropped, and
/// can be created before either server is up.
///
/// ```no_run
/// use std::time::Duration;
/// use rpcache::fibonacci::{Fibonacci, N};
/// use rpcache::{CacheOptions, CallOptions, Client, ClientOptions, Error};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let cache = CacheOptions::new("redis://localhost".parse()?);
/// let options = ClientOptions::new("amqp://localhost".parse()?, cache);
/// let client = Client::new(Fibonacci::default(), options);
///
/// match client.call_with(N(30), CallOptions::within(Duration::from_secs(2))).await {
///     Ok(found) => println!("{} from {}", found.answer, found.source),
///     Err(Error::NoWorkers { queue }) => println!("start a worker for {queue}"),
///     Err(error) => println!("{}: {error}", error.code()),
/// }
/// client.close().await;
/// # Ok(())
/// # }
/// ```
pub struct Client<P: Procedure> {
    inner: Arc<Inner<P>>,
}

struct Inner<P: Procedure> {
    procedure: Arc<P>,
    cache: Cache,
    /// `None`: off.
    near: Option<NearCache<P::Answer>>,
    requester: Requester,
    calls: Arc<Calls>,
    /// By key, and by whether the callers wait for a worker to come.
    flights: SingleFlight<(Key, bool), FlightOutcome<P::Answer>>,
    wrong_answers: LogThrottle,
}

type FlightOutcome<A> = Result<Resolved<A>, Error>;

impl<P: Procedure> Clone for Client<P> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<P: Procedure> fmt::Debug for Client<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner {
            cache, requester, ..
        } = &*self.inner;
        f.debug_struct("Client")
            .field("procedure", self.inner.procedure.name())
            .field("cache", cache)
            .field("requester", requester)
            .finish_non_exhaustive()
    }
}

impl<P: Procedure> Client<P> {
    /// A client that connects to Redis in the background, and to RabbitMQ at the first miss.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime: it starts tasks there, which end with the last clone.
    pub fn new(procedure: P, options: ClientOptions) -> Self {
        Self::sharing(Arc::new(procedure), options)
    }

    /// The same with a procedure that others use as well.
    pub(crate) fn sharing(procedure: Arc<P>, options: ClientOptions) -> Self {
        let queue = options.queue.unwrap_or_else(|| procedure.queue());
        let requester = Requester::new(RequesterOptions {
            url: options.amqp,
            queue: queue.as_short(),
            one_shot: options.one_shot,
        });
        let cache = Cache::open(options.cache);
        let near = options.local;
        Self {
            inner: Arc::new(Inner {
                near: near.map(|options| NearCache::open(procedure.name(), options, &cache)),
                procedure,
                cache,
                requester,
                calls: Arc::default(),
                flights: SingleFlight::new(|outcome| {
                    outcome.as_ref().is_err_and(Error::is_out_of_time)
                }),
                wrong_answers: LogThrottle::default(),
            }),
        }
    }

    /// Calls with the default options, so within 10 s: see [`call_with`](Self::call_with). Cancel safe.
    pub async fn call(&self, argument: P::Argument) -> Result<Answered<P::Answer>, Error> {
        self.call_with(argument, CallOptions::default()).await
    }

    /// Calls the procedure: returns an answer, or one typed error, by the timeout.
    ///
    /// The answer has passed [`Procedure::verify`] in this process, wherever it came from.
    ///
    /// # Errors
    ///
    /// Any [`Error`]; each says who can help. A fault of Redis is none: the call goes to a worker then.
    ///
    /// # Cancellation
    ///
    /// Cancel safe: a dropped call leaves nothing behind in this process, and other calls for the same
    /// argument get their answer. A worker that has started computes on, and stores the answer for the
    /// next call.
    pub async fn call_with(
        &self,
        argument: P::Argument,
        options: CallOptions,
    ) -> Result<Answered<P::Answer>, Error> {
        let call = Call::new(options);
        // Not by `trace::within`, which would move the future: a near hit would take a tenth longer.
        if trace::on() {
            let span = self.inner.call_span(&self.inner.key(&argument));
            return Box::pin(self.answer(argument, call).instrument(span)).await;
        }
        self.answer(argument, call).await
    }

    /// The steps of a call: a near copy, else the store, else a worker.
    async fn answer(
        &self,
        argument: P::Argument,
        call: Call,
    ) -> Result<Answered<P::Answer>, Error> {
        let key = match self.inner.near_copy(&argument, call) {
            Ok(copy) => {
                if NearCache::<P::Answer>::should_yield() {
                    consume_budget().await;
                }
                let key = observe::key_to_log(|| self.inner.key(&argument));
                let outcome = Ok(copy.answered(call.started));
                self.inner.observe(key, call.started, &outcome);
                return outcome;
            }
            Err(key) => key,
        };
        let mut rest = pin!(self.answer_from_store_or_worker(key, argument, call));
        poll_fn(|cx| poll_apart(rest.as_mut(), cx)).await
    }

    async fn answer_from_store_or_worker(
        &self,
        key: Key,
        argument: P::Argument,
        call: Call,
    ) -> Result<Answered<P::Answer>, Error> {
        let argument = Arc::new(argument);
        let key_to_log = observe::key_to_log(|| key.clone());
        let looked = self.inner.look(key, &argument, call).await;
        self.resolve(key_to_log, argument, looked, call).await
    }

    /// Returns the hit, or asks a worker. Records the outcome.
    async fn resolve(
        &self,
        key_to_log: Option<Key>,
        argument: Arc<P::Argument>,
        looked: Looked<P::Answer>,
        call: Call,
    ) -> Result<Answered<P::Answer>, Error> {
        let outcome = match looked {
            Looked::Hit(hit) => Ok(hit.answered(call.started)),
            // In a box: the future of a hit stays small.
            Looked::Miss(vacancy) => Box::pin(self.ask_worker(argument, vacancy, call)).await,
        };
        self.inner.observe(key_to_log, call.started, &outcome);
        outcome
    }

    /// Asks a worker, by the deadline of this call.
    async fn ask_worker(
        &self,
        argument: Arc<P::Argument>,
        vacancy: Option<Vacancy>,
        call: Call,
    ) -> Result<Answered<P::Answer>, Error> {
        let asked = self.join_flight(argument, vacancy, call);
        let outcome = tokio::time::timeout_at(call.deadline(), asked).await;
        let outcome = outcome.unwrap_or_else(|_elapsed| Err(self.inner.requester.timed_out()));
        outcome
            .map(|resolved| resolved.answered(call.started))
            .map_err(|error| match error {
                // The flight may have had another call's deadline.
                Error::Deadline { .. } => Error::Deadline {
                    timeout: call.options.timeout,
                },
                error => error,
            })
    }

    /// Shares the request of other calls for the same key, or makes one of its own if this call does not
    /// take an answer that was asked for before.
    async fn join_flight(
        &self,
        argument: Arc<P::Argument>,
        vacancy: Option<Vacancy>,
        call: Call,
    ) -> FlightOutcome<P::Answer> {
        let (options, deadline) = (call.options, call.deadline());
        let shared = vacancy.as_ref().filter(|_| options.cache.reads());
        let shared = shared.map(|vacancy| (vacancy.key().clone(), options.wait));
        let run = |deadline| {
            let inner = Arc::clone(&self.inner);
            async move {
                inner
                    .run_flight(&argument, vacancy, options, &deadline)
                    .await
            }
        };
        let outcome = match shared {
            Some(flight) => {
                let flights = &self.inner.flights;
                let joins = trace::on() && flights.in_flight(&flight);
                let _span = joins.then(trace::join);
                let run = |callers: Callers<_>| run(callers.deadline).in_current_span();
                flights.join(flight, deadline, run).await
            }
            None => Outcome::Own(run(Deadline::new(deadline)).await),
        };
        match outcome {
            Outcome::Own(outcome) => outcome,
            Outcome::Shared(outcome) => {
                self.inner.calls.shared_flights.count();
                outcome.map(|resolved| Resolved {
                    source: Source::Shared,
                    ..resolved
                })
            }
            Outcome::Lost => Err(Error::Failed {
                code: ErrorCode::Failed,
                message: "the call ended unexpectedly in this process".to_owned(),
            }),
        }
    }

    /// Closes the connection to the broker by AMQP's handshake, within some seconds. Calls that are waiting
    /// for a worker, also those of other clones, fail as [`Error::Unreachable`], and so do later misses.
    ///
    /// Dropping the last clone, or this future, closes the connection without the handshake.
    pub async fn close(self) {
        self.inner.requester.close().await;
    }
}

/// Not inlined: a near hit would otherwise reserve stack for steps that it never takes.
#[inline(never)]
fn poll_apart<F: Future>(future: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<F::Output> {
    future.poll(cx)
}

impl<P: Procedure> Inner<P> {
    fn key(&self, argument: &P::Argument) -> Key {
        self.cache.key(self.procedure.name(), argument)
    }

    fn call_span(&self, key: &Key) -> Span {
        trace::call(self.procedure.name(), key)
    }
}
