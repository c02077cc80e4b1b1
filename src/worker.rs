//! The worker: takes requests from the queue, one after another, and answers each.
//!
//! [`Worker::run`] keeps a session with the broker; [`Desk::serve`] is the whole path of one request.
//! Connections are [`session`]'s, replying and settling [`post`]'s, computing [`compute`]'s. Requests
//! that may have ended a worker are kept apart by [`suspects`]; for requests that the broker has
//! given up, [`dead_letters`] answers.

mod compute;
mod dead_letters;
mod options;
mod post;
mod session;
mod suspects;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use lapin::message::Delivery;
use lapin::types::ShortString;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{debug, error, info, warn};

use self::compute::Computer;
pub use self::options::WorkerOptions;
use self::post::{Post, Unsettled};
use self::session::{Ended, Session};
use self::suspects::{Arrival, Suspects};
use crate::broker;
use crate::cache::{Cache, Key, Lookup};
use crate::error::{Error, ErrorCode, quote};
use crate::message::{CacheUse, Failure, Reply, ReplyPattern, Request, Source};
use crate::procedure::Procedure;
use crate::queue::QueueName;
use crate::seldom::Seldom;

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
    /// other workers.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<Stopped, Error> {
        let Self { procedure, options } = self;
        let queue = options.queue.unwrap_or_else(QueueName::of::<P>);
        let prefetch = options
            .prefetch
            .unwrap_or_else(|| options.concurrency.saturating_add(options::WAITING_ROOM));
        if prefetch < options.concurrency {
            warn!("no more than {prefetch} are computed at once: the prefetch is that small");
        }
        let cache = options.cache.url.to_string();
        let desk = Arc::new(Desk {
            computer: Computer::new(procedure, options.concurrency),
            cache: Cache::open(options.cache),
            queue: queue.clone(),
            reply_to: options.reply_to,
            max_reply_size: options.max_reply_size,
            refused_reply_to: Seldom::default(),
            suspects: Suspects::new(),
        });
        let mut tasks = JoinSet::new();
        let mut stop = std::pin::pin!(stop);
        let mut attempt = 0;
        let mut known: Option<Error> = None;
        let mut otherwise = None;
        let mut ever_served = false;
        loop {
            let opened = tokio::select! {
                opened = Session::open(&options.amqp, &queue, options.declare, prefetch) => opened,
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
                        "serving {} from {queue} at {}, {} at once, prefetch {prefetch}, cache at {cache}",
                        P::NAME,
                        options.amqp,
                        options.concurrency,
                    );
                    (known, ever_served) = (None, true);
                    let opened = Instant::now();
                    match session
                        .serve(&desk, &mut tasks, &mut stop, options.grace)
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
    computer: Computer<P>,
    cache: Cache,
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
    async fn serve(self: Arc<Self>, post: Post, arrival: Arrival, delivery: Delivery) {
        let taken = Instant::now();
        let (unsettled, body, properties) = Unsettled::take(delivery);
        let request = Request::read(body, &properties);
        if let Some(name) = &request.reply_to
            && !self.may_reply_to(name)
        {
            return post.ack(unsettled).await;
        }
        // A panic of the user's code while reading or writing text; computing has its own net.
        let answer = AssertUnwindSafe(self.answer(&post, &arrival, &request, taken));
        let Some(reply) = answer.catch_unwind().await.unwrap_or_else(|_| {
            error!("{} panicked; its caller is told that it failed", P::NAME);
            Some(failed(Failure::panicked::<P>()))
        }) else {
            return;
        };
        let Some(reply_to) = request.reply_to else {
            return post.ack(unsettled).await;
        };
        let (body, properties) = reply.write(request.correlation_id.as_ref());
        post.reply(unsettled, reply_to, &body, properties).await;
    }

    /// Answers for a request that the broker has given up, see [`dead_letters`].
    async fn serve_dead(self: Arc<Self>, post: Post, delivery: Delivery) {
        let (unsettled, body, properties) = Unsettled::take(delivery);
        let failure = dead_letters::failure(&properties);
        let request = Request::read(body, &properties);
        if let (Some(failure), Some(reply_to)) = (failure, request.reply_to)
            && self.may_reply_to(&reply_to)
        {
            let (body, properties) = failed(failure).write(request.correlation_id.as_ref());
            return post.reply(unsettled, reply_to, &body, properties).await;
        }
        post.ack(unsettled).await;
    }

    /// The reply; `None` when the session was lost before computing began, or all has to end.
    async fn answer(
        &self,
        post: &Post,
        arrival: &Arrival,
        request: &Request,
        taken: Instant,
    ) -> Option<Reply> {
        let argument = match request.argument::<P::Argument>() {
            Ok(argument) => Arc::new(argument),
            Err(failure) => return Some(failed(failure)),
        };
        let key = self.cache.key::<P>(&argument);
        let vacancy = match request.cache {
            CacheUse::Bypass => None,
            CacheUse::Refresh => Some(self.cache.vacancy(key.clone())),
            CacheUse::Normal => {
                let procedure = self.computer.procedure();
                match self.cache.lookup(key.clone(), procedure, &argument).await {
                    Lookup::Hit(answer) => {
                        return Some(self.answered(answer.to_string(), Source::Cache, true));
                    }
                    Lookup::Miss(vacancy) => Some(vacancy),
                }
            }
        };
        let turn = post.lost.run_until_cancelled(arrival.turn()).await?;
        if turn.is_some() && self.is_poison(&key, request).await {
            error!(%key, "a request has ended the workers that began it, and is not begun again");
            return Some(failed(Failure {
                code: ErrorCode::Poison,
                message: "the request has ended the workers that tried it".to_owned(),
            }));
        }
        let may_start = || request.expiration.is_none_or(|left| taken.elapsed() < left);
        let computing = self.computer.compute(&argument, &post.lost, may_start);
        let computed = computing.await;
        if turn.is_some() {
            // We are alive: it was innocent, or was not begun after all because the session ended.
            self.cache.forget_starts(&key).await;
        }
        let computed = computed?;
        debug!(%key, ok = computed.is_ok(), elapsed = ?taken.elapsed(), "computed");
        let answer = match computed {
            Ok(answer) => answer.to_string(),
            Err(failure) => return Some(failed(failure)),
        };
        let filled = match vacancy {
            Some(vacancy) if answer.len() <= self.max_reply_size => {
                self.cache.fill(vacancy, &answer).await
            }
            _ => false,
        };
        Some(self.answered(answer, Source::Computed, filled))
    }

    /// Counts a suspect's start, in Redis or, where that cannot be asked, as the broker does.
    async fn is_poison(&self, key: &Key, request: &Request) -> bool {
        match self.cache.count_start(key).await {
            Some(starts) => starts >= suspects::MOST_STARTS,
            None => request.delivered_before >= suspects::MOST_DELIVERIES,
        }
    }

    fn answered(&self, answer: String, source: Source, filled: bool) -> Reply {
        if answer.len() > self.max_reply_size {
            return failed(Failure {
                code: ErrorCode::TooLarge,
                message: format!(
                    "the answer has {} bytes, this worker sends {} at most",
                    answer.len(),
                    self.max_reply_size
                ),
            });
        }
        Reply {
            outcome: Ok(answer.into_bytes()),
            source: Some(source),
            filled: Some(filled),
        }
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

fn failed(failure: Failure) -> Reply {
    Reply {
        outcome: Err(failure),
        source: None,
        filled: None,
    }
}
