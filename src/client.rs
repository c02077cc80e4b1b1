//! The client: a call looks for a near copy, then in the store, and else asks a worker.
//!
//! [`Client::call_with`] is the whole path. This file has its first half, and a hit goes no further; [`ask_worker`] has
//! the second one. Beside that path: [`handle`] makes and closes clients, [`many`] makes many calls together, [`near`]
//! keeps copies, [`observe`] counts and logs how a call has ended.

mod answered;
mod ask_worker;
mod handle;
mod many;
mod near;
mod observe;
mod options;
#[cfg(test)]
mod tests;

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::task::coop::consume_budget;
use tracing::{Instrument as _, Span};

pub use self::answered::Answered;
pub use self::near::LocalOptions;
pub use self::options::{CallOptions, ClientOptions};

use self::answered::Resolved;
use self::near::{NearCache, StoreTicket};
use crate::FOR_EVER;
use crate::cache::{Cache, Key, Lookup, Vacancy};
use crate::counts::Calls;
use crate::error::Error;
use crate::log_throttle::LogThrottle;
use crate::procedure::Procedure;
use crate::requester::Requester;
use crate::single_flight::SingleFlight;
use crate::trace;

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
    flights: SingleFlight<(Key, bool), FlightResult<P::Answer>>,
    wrong_answers: LogThrottle,
}

type FlightResult<A> = Result<Resolved<A>, Error>;

/// One call: its options and when it started.
#[derive(Clone, Copy)]
struct Call {
    options: CallOptions,
    started: Instant,
}

/// The outcome of the lookup.
enum Looked<A> {
    Hit(Resolved<A>),
    /// No answer, and the permission to fill it in, if this call stores answers.
    Miss(Option<Vacancy>),
}

impl<P: Procedure> Client<P> {
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
}

/// Not inlined: a near hit would otherwise reserve stack for steps that it never takes.
#[inline(never)]
fn poll_apart<F: Future>(future: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<F::Output> {
    future.poll(cx)
}

impl<P: Procedure> Inner<P> {
    /// This process's copy of the answer, if the call may use one; else the key.
    fn near_copy(&self, argument: &P::Argument, call: Call) -> Result<Resolved<P::Answer>, Key> {
        let key = || self.key(argument);
        match &self.near {
            Some(near) if call.options.cache.reads() => near.look(argument, key, call.started),
            _ => Err(key()),
        }
    }

    /// Looks in the store, if the call reads it.
    async fn look(&self, key: Key, argument: &Arc<P::Argument>, call: Call) -> Looked<P::Answer> {
        if !call.options.cache.reads() {
            return self.no_lookup(key, call);
        }
        let ticket = self.near_ticket(&key);
        let mut budget = self.cache.budget_until(call.deadline()).await;
        let lookup = self
            .cache
            .lookup(key, &mut budget, &self.procedure, argument);
        self.looked(lookup.await, ticket, call)
    }

    /// The outcome of a call that does not read the store.
    fn no_lookup(&self, key: Key, call: Call) -> Looked<P::Answer> {
        let may_fill = call.options.cache.writes();
        Looked::Miss(may_fill.then(|| self.cache.vacancy(key)))
    }

    /// The permission to keep a near copy of the answer that is about to be looked up; `None`: off.
    fn near_ticket(&self, key: &Key) -> Option<StoreTicket> {
        self.near.as_ref().map(|near| near.ticket(key))
    }

    /// Keeps a near copy of a hit.
    fn looked(
        &self,
        lookup: Lookup<P::Answer>,
        ticket: Option<StoreTicket>,
        call: Call,
    ) -> Looked<P::Answer> {
        match lookup {
            Lookup::Hit(answer) => {
                let hit = Resolved::from_store(answer);
                if let (Some(near), Some(ticket)) = (&self.near, ticket) {
                    near.keep(ticket, &hit, call.started);
                }
                Looked::Hit(hit)
            }
            Lookup::Miss(vacancy) => Looked::Miss(Some(vacancy)),
        }
    }

    fn key(&self, argument: &P::Argument) -> Key {
        self.cache.key(self.procedure.name(), argument)
    }

    fn call_span(&self, key: &Key) -> Span {
        trace::call(self.procedure.name(), key)
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

    /// The same call, whose time starts later: a wait does not count against its timeout.
    fn started_later_by(self, waited: Duration) -> Self {
        Self {
            started: self.started + waited,
            ..self
        }
    }
}
