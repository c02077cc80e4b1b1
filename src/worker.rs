//! The worker: takes requests from the queue, one after another, and answers each.
//!
//! [`Desk::serve`] is the whole path of one request. One session with the broker after another is
//! [`sessions`]', its connections are [`session`]'s, replying and settling [`post`]'s, computing [`compute`]'s. Requests
//! that may have ended a worker are kept apart by [`suspects`]; for requests that the broker has
//! given up, [`dead_letters`] answers.

mod activity;
mod announcement;
mod answer;
mod callback_queues;
mod compute;
mod dead_letters;
mod direct;
mod flight;
mod health;
mod intake;
mod lately;
mod options;
mod post;
mod reply_pattern;
mod session;
mod sessions;
mod suspects;
#[cfg(test)]
mod tests;
mod told;
mod turns;

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use lapin::message::Delivery;
use lapin::types::ShortString;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, error, info, warn};

#[cfg(feature = "metrics")]
pub(crate) use self::activity::Activity;
use self::activity::Running;
pub(crate) use self::activity::Vitals;
use self::announcement::announce;
pub use self::announcement::{
    Computing, Durations, FailedKey, HotKey, SlowKey, WorkerCounts, WorkerStatus,
};
use self::compute::Computer;
pub use self::health::{Readiness, WorkerHealth};
pub use self::options::WorkerOptions;
use self::post::{Post, Unsettled};
pub use self::reply_pattern::{ReplyPattern, ReplyPatternError};
use self::suspects::{Arrival, Suspects};
use crate::cache::{Cache, Key};
use crate::cache_use::CacheUse;
use crate::error::{Error, quote};
use crate::message::{Failure, Reply, Request};
use crate::procedure::Procedure;
use crate::procedure_name::ProcedureName;
use crate::queue::QueueName;
use crate::seldom::Seldom;
use crate::single_flight::SingleFlight;
use crate::trace::{self, Stopwatch};

/// How a worker ended, see [`Worker::run`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// Everything that it held was answered.
    Clean,
    /// The grace ran out before; the broker gives what is left to other workers.
    Abandoned,
}

/// Serves a procedure from a queue.
///
/// As many as wanted, in as many processes: the broker deals requests out among them, and a lease in
/// Redis keeps two from computing the same.
///
/// ```no_run
/// use rpcache::fibonacci::Fibonacci;
/// use rpcache::{CacheOptions, Stopped, Worker, WorkerOptions};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let cache = CacheOptions::new("redis://localhost".parse()?);
/// let options = WorkerOptions::new("amqp://localhost".parse()?, cache);
/// let worker = Worker::new(Fibonacci::default(), options);
///
/// let stop = async { tokio::signal::ctrl_c().await.unwrap_or(()) };
/// if worker.run(stop).await? == Stopped::Abandoned {
///     eprintln!("the grace was too short; what is left goes to other workers");
/// }
/// # Ok(())
/// # }
/// ```
///
/// `examples/graceful_shutdown.rs` is a whole process around one, with signals and exit codes.
#[derive(Debug)]
pub struct Worker<P: Procedure> {
    procedure: P,
    options: WorkerOptions,
    vitals: Vitals,
}

impl<P: Procedure> Worker<P> {
    /// A worker that does nothing until it is [run](Self::run).
    #[must_use]
    pub fn new(procedure: P, options: WorkerOptions) -> Self {
        Self {
            procedure,
            options,
            vitals: Vitals::default(),
        }
    }

    /// How it is, to be asked while it runs, from any thread and at any time.
    #[must_use]
    pub fn health(&self) -> WorkerHealth {
        WorkerHealth(self.vitals.clone())
    }

    /// What it counts, to be read whenever one likes.
    #[cfg(feature = "metrics")]
    #[must_use]
    pub fn metrics(&self) -> crate::Metrics {
        let slots = self.options.concurrency;
        crate::Metrics::of_worker(self.procedure.name(), slots, self.vitals.clone())
    }

    /// Serves until `stop` resolves; then takes no more, finishes and answers what it holds within
    /// [`WorkerOptions::grace`], and closes. A server that cannot be reached is tried again for ever, a
    /// lost one as well.
    ///
    /// # Errors
    ///
    /// Only at the start: [`Error::Refused`] when the broker refuses the login or the vhost.
    ///
    /// # Cancellation
    ///
    /// Dropping the future ends it at once: computations are [cancelled](crate::Cancel), and the broker
    /// gives what they were for to other workers. What Redis has to know of that is told in the
    /// background, for some seconds at most. To lose no time, have `stop` resolve instead.
    ///
    /// # Panics
    ///
    /// When polled outside of a Tokio runtime.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<Stopped, Error> {
        let Self {
            procedure,
            options,
            vitals,
        } = self;
        let queue = options.queue.clone().unwrap_or_else(|| procedure.queue());
        let desk = Arc::new(Desk {
            id: format!("{:08x}", fastrand::u32(..)),
            computer: Computer::new(procedure, options.concurrency),
            cache: Cache::open_counting(options.cache.clone(), Arc::clone(&vitals.cache)),
            flights: SingleFlight::new(flight::is_out_of_time),
            vitals,
            queue,
            reply_to: options.reply_to.clone(),
            max_reply_size: options.max_reply_size,
            refused_reply_to: Seldom::default(),
            poison: Seldom::default(),
            suspects: Suspects::new(),
        });
        let _cancels = desk.computer.cancel_on_drop();
        let _running = Running(Arc::clone(&desk.vitals.activity));
        let announcing = CancellationToken::new();
        let ends = announcing.clone().drop_guard();
        let announced = tokio::spawn(announce(Arc::clone(&desk), options.concurrency, announcing));
        let stop = async {
            stop.await;
            desk.vitals.activity.stops();
        };
        let ended = tokio::select! {
            ended = desk.serve_sessions(&options, stop) => ended,
            never = desk.warn_of_endless_growth() => match never {},
        };
        drop(ends);
        // Where there was no session to end, it has not ceased yet.
        desk.cease().await;
        // Bounded by its waits for Redis. What it says of itself is nobody's concern any more.
        let _ = announced.await;
        if let Ok(Stopped::Clean) = ended {
            let answered = desk.vitals.counts().answered;
            info!(answered, "stopped: everything that was taken is answered");
        }
        ended
    }
}

impl<P: Procedure> Desk<P> {
    async fn warn_of_endless_growth(&self) -> Infallible {
        self.cache.warn_if_unbounded().await;
        std::future::pending().await
    }
}

/// Where requests are answered: everything that all requests share.
#[derive(Debug)]
struct Desk<P: Procedure> {
    /// Tells this worker from others, in leases.
    id: String,
    computer: Computer<P>,
    cache: Cache,
    /// What is computed or waited for. Requests that only want it refreshed are apart.
    flights: SingleFlight<(Key, CacheUse), flight::Landed>,
    vitals: Vitals,
    queue: QueueName,
    reply_to: Vec<ReplyPattern>,
    max_reply_size: usize,
    refused_reply_to: Seldom,
    /// Of those that the broker has found out.
    poison: Seldom,
    suspects: Suspects,
}

impl<P: Procedure> Desk<P> {
    /// The worker's whole path: check, look, compute, fill, reply, wait for the confirm, ack.
    ///
    /// In this order: whoever has seen an answer finds it in the cache, a lost reply is still
    /// cached, and a killed worker's delivery goes to the next one. Returns early, without settling,
    /// when the session is lost: the broker redelivers.
    async fn serve(self: Arc<Self>, post: Arc<Post>, arrival: Arrival, delivery: Delivery) {
        let taken = Instant::now();
        let activity = &self.vitals.activity;
        activity.taken.count();
        let _held = activity.held.enter();
        let (unsettled, body, properties) = Unsettled::take(delivery);
        let request = Request::read(body, &properties);
        let watch = Stopwatch::start(taken, request.asks_steps);
        if trace::on() {
            let redelivered = arrival.is_suspect();
            let span = trace::process(&self.queue, &request, redelivered);
            let serve = self.serve_read(&post, arrival, unsettled, request, &watch);
            return Box::pin(serve.instrument(span)).await;
        }
        self.serve_read(&post, arrival, unsettled, request, &watch)
            .await;
    }

    async fn serve_read(
        self: &Arc<Self>,
        post: &Post,
        arrival: Arrival,
        unsettled: Unsettled,
        request: Request,
        watch: &Stopwatch,
    ) {
        let arrival = Arc::new(arrival);
        if let Some(name) = &request.reply_to
            && !self.may_reply_to(post, name, || arrival.waits()).await
        {
            return post.ack(unsettled).await;
        }
        let answer = async {
            let reply = self.answer(&post.lost, &arrival, &request, watch).await?;
            self.tell(&request, &reply, watch.taken);
            Some(reply)
        };
        let reply = AssertUnwindSafe(answer).catch_unwind().await;
        let Some(mut reply) = reply.unwrap_or_else(|_| Some(self.panicked())) else {
            return;
        };
        self.vitals.activity.answered(&reply, watch.taken.elapsed());
        reply.steps = watch.told();
        let Some(reply_to) = request.reply_to else {
            return post.ack(unsettled).await;
        };
        let (body, properties) = reply.write(request.correlation_id.as_ref());
        let replying = post.reply(unsettled, reply_to, &body, properties, || arrival.waits());
        trace::within(trace::reply, replying).await;
    }

    /// Answers for a request that the broker has given up, see [`dead_letters`].
    async fn serve_dead(self: Arc<Self>, post: Arc<Post>, delivery: Delivery) {
        let (unsettled, body, properties) = Unsettled::take(delivery);
        let given_up = dead_letters::given_up(&properties);
        let request = Request::read(body, &properties);
        if let Some(given_up) = &given_up
            && !given_up.rejected
        {
            let failure = &given_up.failure;
            self.vitals.activity.failed.count(failure.code.as_str());
            self.tell_given_up(&request, failure);
        }
        if let (Some(given_up), Some(reply_to)) = (given_up, request.reply_to)
            && self.may_reply_to(&post, &reply_to, || {}).await
        {
            let reply = Reply::failure(given_up.failure);
            let (body, properties) = reply.write(request.correlation_id.as_ref());
            let replying = post.reply(unsettled, reply_to, &body, properties, || {});
            return replying.await;
        }
        post.ack(unsettled).await;
    }

    /// Only to callback queues: by their name, see [`ReplyPattern`], or because they are exclusive to another
    /// connection. Never to where requests come from.
    async fn may_reply_to(&self, post: &Post, name: &ShortString, waits: impl Fn()) -> bool {
        let replies = post.replies();
        let text = name.as_str();
        let named = self.reply_to.iter().any(|pattern| pattern.matches(text));
        // In a box: looking for a queue is rare, and each delivery's task would be larger.
        let may = !self.queue.covers(text)
            && (named || Box::pin(replies.is_callback_queue(name, waits)).await);
        if !may {
            self.vitals.activity.refused_reply_to.count();
        }
        if !may && let Some(left_out) = self.refused_reply_to.happened() {
            warn!(
                reply_to = quote(text.as_bytes()),
                left_out,
                "refused a request: its reply_to is no callback queue; --reply-to PATTERN allows it",
            );
        }
        may
    }

    fn name(&self) -> &ProcedureName {
        self.computer.procedure().name()
    }

    /// The procedure panicked while it read or wrote text; a panic while it computes is caught there.
    fn panicked(&self) -> Reply {
        let name = self.name();
        error!("{name} panicked; its caller is told that it failed");
        Reply::failure(Failure::panicked(name))
    }
}
