//! The caller's half: look in Redis, share a flight, ask a worker. Read [`Client::call_with`] first.

mod flight;
mod local;
mod many;
mod options;
#[cfg(test)]
mod tests;
mod told;

use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::task::coop::consume_budget;
use tracing::{Instrument as _, Span};

pub use self::local::LocalOptions;
pub use self::options::{CallOptions, ClientOptions};

use self::local::Local;
use crate::FOR_EVER;
use crate::cache::{Cache, Key, Lookup, Vacancy};
use crate::counts::Calls;
use crate::error::{Error, ErrorCode};
use crate::message::{CacheUse, Source};
use crate::procedure::Procedure;
use crate::requester::{Requester, RequesterOptions};
use crate::seldom::Seldom;
use crate::single_flight::{Callers, Deadline, Landed, SingleFlight};
use crate::trace;

/// An answer, and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answered<A> {
    /// The answer; it has passed [`Procedure::verify`].
    pub answer: A,
    /// Where it came from.
    pub source: Source,
    /// Whether Redis has it now, for others to find; of a [local](Source::Local) answer: had it when
    /// this process got it.
    pub stored: bool,
    /// How long the call took.
    pub elapsed: Duration,
}

/// Calls a procedure: from the cache where it can, from a worker where it must.
///
/// One for a whole process; clones are cheap and share everything: connections, the local tier, and the
/// flights of calls for the same argument. It reconnects by itself, for as long as it lives, so that it
/// can be made before either server is there.
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
///     Err(Error::NobodyServing { queue }) => println!("start a worker for {queue}"),
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
    local: Option<Local<P::Answer>>,
    requester: Requester,
    calls: Arc<Calls>,
    /// By key, and by whether its callers wait for a worker to come.
    flights: SingleFlight<(Key, bool), Flown<P::Answer>>,
    wrong_answers: Seldom,
}

type Flown<A> = Result<Found<A>, Error>;

/// What a flight brings home: an answer, where it came from, and whether Redis has it now.
#[derive(Debug, Clone)]
struct Found<A> {
    answer: A,
    source: Source,
    stored: bool,
}

/// One call from its start.
#[derive(Clone, Copy)]
struct Call {
    options: CallOptions,
    started: Instant,
}

/// What the look into the cache found, if there was one.
enum Looked<A> {
    Hit(Found<A>),
    /// Nothing, and the permission to fill it in, where the call fills.
    Miss(Option<Vacancy>),
}

impl<A> Looked<A> {
    fn is_hit(&self) -> bool {
        matches!(self, Self::Hit(_))
    }
}

impl<A> From<Lookup<A>> for Looked<A> {
    fn from(lookup: Lookup<A>) -> Self {
        match lookup {
            Lookup::Hit(answer) => Self::Hit(Found::in_cache(answer)),
            Lookup::Miss(vacancy) => Self::Miss(Some(vacancy)),
        }
    }
}

impl<A> Found<A> {
    fn in_cache(answer: A) -> Self {
        Self {
            answer,
            source: Source::Cache,
            stored: true,
        }
    }

    fn answered(self, started: Instant) -> Answered<A> {
        Answered {
            answer: self.answer,
            source: self.source,
            stored: self.stored,
            elapsed: started.elapsed(),
        }
    }
}

impl Call {
    fn new(options: CallOptions) -> Self {
        Self {
            options,
            started: Instant::now(),
        }
    }

    fn deadline(&self) -> tokio::time::Instant {
        let deadline = self.started + self.options.timeout.min(FOR_EVER);
        tokio::time::Instant::from_std(deadline)
    }

    /// The same after a wait that is not its own.
    fn later_by(self, waited: Duration) -> Self {
        Self {
            started: self.started + waited,
            ..self
        }
    }
}

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

    /// The same with a procedure that others have, too.
    pub(crate) fn sharing(procedure: Arc<P>, options: ClientOptions) -> Self {
        let queue = options.queue.unwrap_or_else(|| procedure.queue());
        let requester = Requester::new(RequesterOptions {
            url: options.amqp,
            queue: queue.as_short(),
            one_shot: options.one_shot,
        });
        let cache = Cache::open(options.cache);
        let local = options.local;
        Self {
            inner: Arc::new(Inner {
                local: local.map(|options| Local::open(procedure.name(), options, &cache)),
                procedure,
                cache,
                requester,
                calls: Arc::default(),
                flights: SingleFlight::new(|flown| {
                    flown.as_ref().is_err_and(Error::is_out_of_time)
                }),
                wrong_answers: Seldom::default(),
            }),
        }
    }

    /// Calls with the default options, so within 10 s: see [`call_with`](Self::call_with). Cancel safe.
    pub async fn call(&self, argument: P::Argument) -> Result<Answered<P::Answer>, Error> {
        self.call_with(argument, CallOptions::default()).await
    }

    /// The caller's whole path: an answer, or one typed error, by the time-out.
    ///
    /// An answer has passed [`Procedure::verify`] in this process, wherever it came from.
    ///
    /// # Errors
    ///
    /// Any [`Error`], each saying who can help it. No fault of Redis is one: then the call goes to a
    /// worker.
    ///
    /// # Cancellation
    ///
    /// Cancel safe: a call that is dropped leaves nothing behind here, and others that wait for the same
    /// argument get their answer. A worker that has begun computes on, and the answer is in the cache
    /// for the next one.
    pub async fn call_with(
        &self,
        argument: P::Argument,
        options: CallOptions,
    ) -> Result<Answered<P::Answer>, Error> {
        let call = Call::new(options);
        if trace::on() {
            let span = self.inner.call_span(&self.inner.key(&argument));
            return Box::pin(self.answer(argument, call).instrument(span)).await;
        }
        self.answer(argument, call).await
    }

    /// The same within whatever span there is.
    async fn answer(
        &self,
        argument: P::Argument,
        call: Call,
    ) -> Result<Answered<P::Answer>, Error> {
        // Look here, where there is a local tier.
        let key = match self.inner.look_here(&argument, call) {
            Ok(found) => {
                if Local::<P::Answer>::is_others_turn() {
                    consume_budget().await;
                }
                let told = told::key(|| self.inner.key(&argument));
                let ended = Ok(found.answered(call.started));
                self.inner.ended(told, call.started, &ended);
                return ended;
            }
            Err(key) => key,
        };
        let mut elsewhere = pin!(self.answer_from_elsewhere(key, argument, call));
        poll_fn(|cx| poll_apart(elsewhere.as_mut(), cx)).await
    }

    /// The same where this process has no copy.
    async fn answer_from_elsewhere(
        &self,
        key: Key,
        argument: P::Argument,
        call: Call,
    ) -> Result<Answered<P::Answer>, Error> {
        let argument = Arc::new(argument);
        let told = told::key(|| key.clone());
        // Look in Redis. A hit is all that most calls are: it has no timer but the cache's own.
        let ended = match self.look(key, &argument, call).await {
            Looked::Hit(found) => Ok(found.answered(call.started)),
            // In a box: the future of a hit stays small.
            Looked::Miss(vacancy) => Box::pin(self.ask(argument, vacancy, call)).await,
        };
        self.inner.ended(told, call.started, &ended);
        ended
    }

    async fn look(&self, key: Key, argument: &Arc<P::Argument>, call: Call) -> Looked<P::Answer> {
        let Inner {
            procedure,
            cache,
            local,
            ..
        } = &*self.inner;
        match call.options.cache {
            CacheUse::Bypass => Looked::Miss(None),
            CacheUse::Refresh => Looked::Miss(Some(cache.vacancy(key))),
            CacheUse::Normal => {
                let local = local.as_ref().map(|local| (local, local.keeping(&key)));
                let lookup = cache.lookup(key, procedure, argument, call.deadline());
                let looked = Looked::from(lookup.await);
                if let (Looked::Hit(found), Some((local, keeping))) = (&looked, local) {
                    local.keep(keeping, found, call.started);
                }
                looked
            }
        }
    }

    /// After a miss: together with whoever asks for the same, or alone when the cache is not used as
    /// others use it.
    async fn ask(
        &self,
        argument: Arc<P::Argument>,
        vacancy: Option<Vacancy>,
        call: Call,
    ) -> Result<Answered<P::Answer>, Error> {
        let found = self.fly_or_join(argument, vacancy, call);
        let found = tokio::time::timeout_at(call.deadline(), found).await;
        let found = found.unwrap_or_else(|_elapsed| Err(self.inner.requester.timed_out()));
        found
            .map(|found| found.answered(call.started))
            .map_err(|error| match error {
                // The flight may have had another caller's deadline.
                Error::Deadline { .. } => Error::Deadline {
                    timeout: call.options.timeout,
                },
                error => error,
            })
    }

    async fn fly_or_join(
        &self,
        argument: Arc<P::Argument>,
        vacancy: Option<Vacancy>,
        call: Call,
    ) -> Flown<P::Answer> {
        let (options, deadline) = (call.options, call.deadline());
        let shared = match (options.cache, &vacancy) {
            (CacheUse::Normal, Some(vacancy)) => Some((vacancy.key().clone(), options.wait)),
            _ => None,
        };
        let mut vacancy = vacancy;
        let mut fly = |deadline| {
            let (inner, argument) = (Arc::clone(&self.inner), Arc::clone(&argument));
            let vacancy = vacancy.take();
            async move { inner.fly(&argument, vacancy, options, &deadline).await }
        };
        let landed = match shared {
            Some(flight) => {
                let flights = &self.inner.flights;
                let joins = trace::on() && flights.is_aloft(&flight);
                let _span = joins.then(trace::join);
                let fly = |callers: Callers<_>| fly(callers.deadline).in_current_span();
                flights.join(flight, deadline, fly).await
            }
            None => Landed::Own(fly(Deadline::new(deadline)).await),
        };
        match landed {
            Landed::Own(found) => found,
            Landed::Shared(found) => {
                self.inner.calls.shared_flights.count();
                found.map(|found| Found {
                    source: Source::Shared,
                    ..found
                })
            }
            Landed::Lost => Err(Error::Failed {
                code: ErrorCode::Failed,
                message: "the call ended unexpectedly in this process".to_owned(),
            }),
        }
    }

    /// Closes the connection to the broker politely, as far as it is open, within some seconds; calls
    /// that are under way, also by other clones, fail as [`Error::Unreachable`], and so do later ones
    /// that miss.
    ///
    /// Dropping the last clone closes it, too, without saying goodbye, and so does dropping this future.
    pub async fn close(self) {
        self.inner.requester.close().await;
    }
}

/// Not inlined: a local hit would make room on its stack, page by page, for steps that it never takes.
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

    /// The answer, if this process has a copy that the call may use, or else the key.
    fn look_here(&self, argument: &P::Argument, call: Call) -> Result<Found<P::Answer>, Key> {
        let key = || self.key(argument);
        match &self.local {
            Some(local) if call.options.cache == CacheUse::Normal => {
                local.look(argument, key, call.started)
            }
            _ => Err(key()),
        }
    }
}
