//! The caller's half: look in Redis, share a flight, ask a worker. Read [`Client::call_with`] first.

mod local;
mod many;
#[cfg(test)]
mod tests;
mod told;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{Instrument as _, warn};
use uuid::Uuid;

pub use self::local::LocalOptions;

use self::local::Local;
use crate::FOR_EVER;
use crate::cache::{Cache, CacheOptions, Key, Lookup, Vacancy};
use crate::counts::Calls;
use crate::error::{Error, ErrorCode, quote};
use crate::message::{CacheUse, Reply, Source};
use crate::procedure::{Procedure, check};
use crate::queue::QueueName;
use crate::requester::{Requester, RequesterOptions};
use crate::seldom::Seldom;
use crate::server_url::AmqpUrl;
use crate::single_flight::{Callers, Deadline, Landed, SingleFlight};
use crate::trace;

/// A request whose reply was refused is published once more.
const ATTEMPTS: u32 = 2;

/// Where a client finds cache and workers: [`new`](Self::new) takes what has no default, the rest is
/// set field by field.
///
/// ```
/// use rpcache::{CacheOptions, ClientOptions, LocalOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let cache = CacheOptions::new("redis://localhost".parse()?);
/// let mut options = ClientOptions::new("amqp://localhost".parse()?, cache);
/// options.queue = Some("rpc_queue.of.mine".parse()?);
/// options.local = Some(LocalOptions::new(64_000_000));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClientOptions {
    /// The broker; connected to at the first miss.
    pub amqp: AmqpUrl,
    /// The request queue; by default the procedure's, see [`QueueName::of`].
    pub queue: Option<QueueName>,
    /// The cache in front of the workers: the same Redis and namespace as theirs.
    pub cache: CacheOptions,
    /// Copies of answers in this process's memory, in front of Redis: a hit there takes no round trip,
    /// and goes on while Redis is away. None by default.
    pub local: Option<LocalOptions>,
    /// For a process that makes one call and ends: one connection to the broker instead of two, and
    /// direct reply-to instead of a callback queue. Off by default.
    pub one_shot: bool,
}

impl ClientOptions {
    /// The defaults, with this broker and this cache.
    #[must_use]
    pub fn new(amqp: AmqpUrl, cache: CacheOptions) -> Self {
        Self {
            amqp,
            queue: None,
            cache,
            local: None,
            one_shot: false,
        }
    }
}

/// How one call is made: [`within`](Self::within) a time-out, or by [`default`](Self::default).
///
/// ```
/// # use std::time::Duration;
/// use rpcache::{CacheUse, CallOptions};
///
/// let mut options = CallOptions::within(Duration::from_secs(2));
/// options.cache = CacheUse::Refresh;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallOptions {
    /// From the start of the call to its end, whatever happens; then it is [`Error::Deadline`], or
    /// [`Error::Unreachable`] while there is no broker. 10 s by default. More than a hundred years mean
    /// for ever.
    pub timeout: Duration,
    /// Whether to look in the cache and fill it. [`CacheUse::Normal`] by default.
    pub cache: CacheUse,
    /// Whether to wait for a worker to come, instead of failing at once with
    /// [`Error::NobodyServing`]. Off by default.
    pub wait: bool,
}

impl CallOptions {
    /// The defaults, with this time-out.
    #[must_use]
    pub const fn within(timeout: Duration) -> Self {
        Self {
            timeout,
            cache: CacheUse::Normal,
            wait: false,
        }
    }
}

impl Default for CallOptions {
    fn default() -> Self {
        Self::within(Duration::from_secs(10))
    }
}

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
    deadline: tokio::time::Instant,
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
        let started = Instant::now();
        let deadline = started + options.timeout.min(FOR_EVER);
        Self {
            options,
            started,
            deadline: tokio::time::Instant::from_std(deadline),
        }
    }

    /// The same after a wait that is not its own.
    fn later_by(self, waited: Duration) -> Self {
        Self {
            started: self.started + waited,
            deadline: self.deadline + waited,
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
            .field("procedure", &P::NAME)
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
        let queue = options.queue.unwrap_or_else(QueueName::of::<P>);
        let requester = Requester::new(RequesterOptions {
            url: options.amqp,
            queue: queue.as_short(),
            one_shot: options.one_shot,
        });
        let cache = Cache::open(options.cache);
        let local = options.local;
        Self {
            inner: Arc::new(Inner {
                procedure,
                local: local.map(|options| Local::open::<P>(options, &cache)),
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
            let span = trace::call::<P>(&self.inner.cache.key::<P>(&argument));
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
                let told = told::key(|| self.inner.cache.key::<P>(&argument));
                let ended = Ok(found.answered(call.started));
                self.inner.ended(told, call.started, &ended);
                Local::<P::Answer>::let_others_run().await;
                return ended;
            }
            Err(key) => key,
        };
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
                let lookup = cache.lookup(key, procedure, argument, call.deadline);
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
        let found = tokio::time::timeout_at(call.deadline, found).await;
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
        let Call {
            options, deadline, ..
        } = call;
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

impl<P: Procedure> Inner<P> {
    /// The answer, if this process has a copy that the call may use, or else the key.
    fn look_here(&self, argument: &P::Argument, call: Call) -> Result<Found<P::Answer>, Key> {
        let key = || self.cache.key::<P>(argument);
        match &self.local {
            Some(local) if call.options.cache == CacheUse::Normal => {
                local.look(argument, key, call.started)
            }
            _ => Err(key()),
        }
    }

    /// One flight, and the copy that is kept of what it brings home.
    async fn fly(
        &self,
        argument: &Arc<P::Argument>,
        vacancy: Option<Vacancy>,
        options: CallOptions,
        deadline: &Deadline,
    ) -> Flown<P::Answer> {
        let local = self.local.as_ref().zip(vacancy.as_ref());
        let local = local.map(|(local, vacancy)| (local, local.keeping(vacancy.key())));
        let flown = self.request(argument, vacancy, options, deadline).await;
        if let (Ok(found), Some((local, keeping))) = (&flown, local) {
            match options.cache {
                CacheUse::Normal => local.keep(keeping, found, Instant::now()),
                CacheUse::Refresh => local.replace(keeping, found, Instant::now()),
                CacheUse::Bypass => {}
            }
        }
        flown
    }

    /// Asks once.
    async fn reply(
        &self,
        id: Uuid,
        text: &str,
        options: CallOptions,
        deadline: &Deadline,
    ) -> Result<Reply, Error> {
        let asking = async {
            let CallOptions { cache, wait, .. } = options;
            let asked = self.requester.request(id, text, cache, wait, deadline);
            let replied = asked.await;
            match &replied {
                Ok(reply) => trace::replied(reply.steps.as_deref()),
                Err(error) => trace::failed(error.code()),
            }
            replied
        };
        trace::within(|| trace::request(&id.to_string()), asking).await
    }

    /// Asks, checks what is answered, fills what the worker did not.
    async fn request(
        &self,
        argument: &Arc<P::Argument>,
        vacancy: Option<Vacancy>,
        options: CallOptions,
        deadline: &Deadline,
    ) -> Result<Found<P::Answer>, Error> {
        let _in_flight = self.calls.in_flight.enter();
        let id = Uuid::new_v4();
        let text = argument.to_string();
        let mut attempt = 1;
        loop {
            let reply = self.reply(id, &text, options, deadline).await?;
            let body = reply.outcome.map_err(|failure| match failure.code {
                ErrorCode::Overloaded => Error::Overloaded {
                    reason: failure.message,
                },
                code => Error::Failed {
                    code,
                    message: failure.message,
                },
            })?;
            match check(&self.procedure, argument, Arc::unwrap_or_clone(body)).await {
                Ok(answer) => {
                    // Workers of ours have filled, or know why not; others know nothing of it. One
                    // that found what was not there for us has another Redis or namespace, or was
                    // faster: then our own callers shall find it, too.
                    let filled_for_us =
                        reply.filled.is_some() && reply.source != Some(Source::Cache);
                    let stored = match vacancy {
                        Some(vacancy) if !filled_for_us => {
                            self.cache.fill(vacancy, &answer.to_string()).await
                        }
                        _ => reply.filled == Some(true),
                    };
                    return Ok(Found {
                        answer,
                        source: reply.source.unwrap_or(Source::Computed),
                        stored,
                    });
                }
                Err(refused) => {
                    let quoted = quote(&refused);
                    self.calls.wrong_answers.count();
                    if let Some(left_out) = self.wrong_answers.happened() {
                        let argument = quote(text.as_bytes());
                        warn!(
                            argument,
                            answer = quoted,
                            left_out,
                            "refused a worker's answer"
                        );
                    }
                    if attempt == ATTEMPTS {
                        return Err(Error::WrongAnswer { quoted });
                    }
                    attempt += 1;
                }
            }
        }
    }
}
