//! The worker: takes requests from the queue, one after another, and answers each.
//!
//! [`Worker::run`] keeps a session with the broker; [`Desk::serve`] is the whole path of one request.
//! Connections are [`session`]'s, replying and settling [`post`]'s, computing [`compute`]'s. Requests
//! that may have ended a worker are kept apart by [`suspects`]; for requests that the broker has
//! given up, [`dead_letters`] answers.

mod announcement;
mod answer;
mod compute;
mod dead_letters;
mod flight;
mod intake;
mod options;
mod post;
mod session;
mod suspects;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use lapin::message::Delivery;
use lapin::types::ShortString;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::announcement::{Activity, announce};
pub use self::announcement::{Computing, WorkerCounts, WorkerStatus};
use self::compute::Computer;
pub use self::options::WorkerOptions;
use self::post::{Post, Unsettled};
use self::session::{Ended, Session};
use self::suspects::{Arrival, Suspects};
use crate::broker;
use crate::cache::{Cache, Key};
use crate::error::{Error, quote};
use crate::message::{CacheUse, Failure, Reply, ReplyPattern, Request};
use crate::procedure::Procedure;
use crate::queue::QueueName;
use crate::seldom::Seldom;
use crate::single_flight::SingleFlight;

/// A session that ends sooner was none: the next attempt waits longer.
const LIVED: Duration = Duration::from_secs(1);

/// How a worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// Everything that it held was answered.
    Clean,
    /// The grace ran out before; the broker gives what is left to other workers.
    Abandoned,
}

impl Stopped {
    /// Stopped while there is no session: what is computed is answered by another worker.
    fn without(tasks: &JoinSet<()>) -> Self {
        info!("stopping while there is no connection");
        if tasks.is_empty() {
            Self::Clean
        } else {
            Self::Abandoned
        }
    }
}

/// Serves a procedure from a queue.
#[derive(Debug)]
pub struct Worker<P: Procedure> {
    procedure: P,
    options: WorkerOptions,
}

impl<P: Procedure> Worker<P> {
    /// A worker that does nothing until it is [run](Self::run).
    pub fn new(procedure: P, options: WorkerOptions) -> Self {
        Self { procedure, options }
    }

    /// Serves until `stop` resolves; then takes no more, finishes and answers what it holds, and
    /// closes. A server that cannot be reached is tried again for ever, a lost one as well.
    ///
    /// Fails only at the start: when the broker refuses the login or the vhost. Dropping the future
    /// ends it at once: computations are cancelled, and the broker gives what they were for to
    /// other workers. What Redis has to know of that is told in the background, for some seconds at
    /// most.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<Stopped, Error> {
        let Self { procedure, options } = self;
        let queue = options.queue.clone().unwrap_or_else(QueueName::of::<P>);
        let desk = Arc::new(Desk {
            id: format!("{:08x}", fastrand::u32(..)),
            computer: Computer::new(procedure, options.concurrency),
            cache: Cache::open(options.cache.clone()),
            flights: SingleFlight::new(flight::is_out_of_time),
            activity: Activity::default(),
            queue,
            reply_to: options.reply_to.clone(),
            max_reply_size: options.max_reply_size,
            refused_reply_to: Seldom::default(),
            suspects: Suspects::new(),
        });
        let _cancels = desk.computer.cancel_on_drop();
        let announcing = CancellationToken::new();
        let ends = announcing.clone().drop_guard();
        let announced = tokio::spawn(announce(Arc::clone(&desk), options.concurrency, announcing));
        let ended = tokio::select! {
            ended = desk.serve_sessions(&options, stop) => ended,
            never = desk.warn_of_endless_growth() => match never {},
        };
        drop(ends);
        // Where there was no session to end, it has not ceased yet.
        desk.cease().await;
        // Bounded by its waits for Redis. What it says of itself is nobody's concern any more.
        let _ = announced.await;
        ended
    }
}

impl<P: Procedure> Desk<P> {
    async fn warn_of_endless_growth(&self) -> Infallible {
        self.cache.warn_if_unbounded().await;
        std::future::pending().await
    }

    /// One session with the broker after another.
    async fn serve_sessions(
        self: &Arc<Self>,
        options: &WorkerOptions,
        stop: impl Future<Output = ()>,
    ) -> Result<Stopped, Error> {
        let (queue, prefetch) = (&self.queue, options.prefetch_or_default());
        let mut tasks = JoinSet::new();
        let mut stop = std::pin::pin!(stop);
        let mut attempt = 0;
        let mut known: Option<Error> = None;
        let mut otherwise = None;
        let mut ever_served = false;
        loop {
            let opened = tokio::select! {
                opened = Session::open(&options.amqp, queue, options.declare, prefetch) => opened,
                () = &mut stop => return Ok(Stopped::without(&tasks)),
            };
            match opened {
                Ok(session) => {
                    if let Some(reason) = &session.declared_otherwise
                        && otherwise.as_ref() != Some(reason)
                    {
                        warn!("using {queue} as it is, though it is declared otherwise: {reason}");
                        otherwise = Some(reason.clone());
                    }
                    info!(
                        "serving {} from {queue} at {}, {} at once, prefetch {prefetch}, cache at {}",
                        P::NAME,
                        options.amqp,
                        options.concurrency,
                        options.cache.url,
                    );
                    (known, ever_served) = (None, true);
                    let opened = Instant::now();
                    match session
                        .serve(self, &mut tasks, &mut stop, options.grace)
                        .await
                    {
                        Ended::Stopped(stopped) => return Ok(stopped),
                        Ended::Lost(reason) => {
                            warn!("lost RabbitMQ at {}: {reason}; reconnecting", options.amqp);
                        }
                    }
                    attempt = if opened.elapsed() < LIVED {
                        attempt + 1
                    } else {
                        0
                    };
                }
                Err(error @ Error::Refused { .. }) if !ever_served => return Err(error),
                Err(error) => {
                    if known.as_ref() != Some(&error) {
                        warn!("{error}; trying again until it works");
                        known = Some(error);
                    }
                    attempt += 1;
                }
            }
            tokio::select! {
                () = sleep(broker::redial_pause(attempt)) => {}
                () = &mut stop => return Ok(Stopped::without(&tasks)),
            }
        }
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
    activity: Activity,
    queue: QueueName,
    reply_to: Vec<ReplyPattern>,
    max_reply_size: usize,
    refused_reply_to: Seldom,
    suspects: Suspects,
}

impl<P: Procedure> Desk<P> {
    /// The worker's whole path: check, look, compute, fill, reply, wait for the confirm, ack.
    ///
    /// In this order: whoever has seen an answer finds it in the cache, a lost reply is still
    /// cached, and a killed worker's delivery goes to the next one. Returns early, without settling,
    /// when the session is lost: the broker redelivers.
    async fn serve(self: Arc<Self>, post: Arc<Post>, arrival: Arrival, delivery: Delivery) {
        let (taken, arrival) = (Instant::now(), Arc::new(arrival));
        let (unsettled, body, properties) = Unsettled::take(delivery);
        let request = Request::read(body, &properties);
        if let Some(name) = &request.reply_to
            && !self.may_reply_to(name)
        {
            return post.ack(unsettled).await;
        }
        let answer = AssertUnwindSafe(self.answer(&post.lost, &arrival, &request, taken));
        let reply = answer.catch_unwind().await;
        let Some(reply) = reply.unwrap_or_else(|_| Some(panicked::<P>())) else {
            return;
        };
        self.activity.answered(&reply);
        let Some(reply_to) = request.reply_to else {
            return post.ack(unsettled).await;
        };
        let (body, properties) = reply.write(request.correlation_id.as_ref());
        post.reply(unsettled, reply_to, &body, properties).await;
    }

    /// Answers for a request that the broker has given up, see [`dead_letters`].
    async fn serve_dead(self: Arc<Self>, post: Arc<Post>, delivery: Delivery) {
        let (unsettled, body, properties) = Unsettled::take(delivery);
        let failure = dead_letters::failure(&properties);
        let request = Request::read(body, &properties);
        if let (Some(failure), Some(reply_to)) = (failure, request.reply_to)
            && self.may_reply_to(&reply_to)
        {
            let (body, properties) = Reply::failure(failure).write(request.correlation_id.as_ref());
            return post.reply(unsettled, reply_to, &body, properties).await;
        }
        post.ack(unsettled).await;
    }

    /// Only to callback queues: see [`ReplyPattern`]. Never to where requests come from.
    fn may_reply_to(&self, name: &ShortString) -> bool {
        let name = name.as_str();
        let may =
            !self.queue.covers(name) && self.reply_to.iter().any(|pattern| pattern.matches(name));
        if !may && let Some(left_out) = self.refused_reply_to.happened() {
            warn!(
                reply_to = quote(name.as_bytes()),
                left_out,
                "refused a request: its reply_to is no callback queue; --reply-to PATTERN allows it",
            );
        }
        may
    }
}

/// The user's code panicked while it read or wrote text; computing has its own net.
fn panicked<P: Procedure>() -> Reply {
    error!("{} panicked; its caller is told that it failed", P::NAME);
    Reply::failure(Failure::panicked::<P>())
}
