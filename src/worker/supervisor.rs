//! Runs one session with the broker after another until the worker stops, and logs what became of each.

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{info, warn};

use super::session::{Ended, Session};
use super::{Service, Stopped, WorkerOptions};
use crate::FOR_EVER;
use crate::broker::{self, Backoff};
use crate::counts::ConnectionState;
use crate::error::Error;
use crate::procedure::Procedure;

impl Stopped {
    /// Stopped while there is no session: other workers answer what is being computed.
    fn without_session(tasks: &JoinSet<()>) -> Self {
        info!("stopping without a connection to RabbitMQ");
        if tasks.is_empty() {
            Self::Clean
        } else {
            Self::Abandoned
        }
    }
}

impl<P: Procedure> Service<P> {
    /// Serves until `stop` resolves. Fails only if the broker refuses the login or the vhost of the first
    /// session.
    pub(super) async fn supervise(
        self: &Arc<Self>,
        options: &WorkerOptions,
        stop: impl Future<Output = ()>,
    ) -> Result<Stopped, Error> {
        let (queue, prefetch) = (&self.queue, options.prefetch_or_default());
        let broker = &self.counters.broker;
        let mut tasks = JoinSet::new();
        let mut stop = std::pin::pin!(stop);
        let mut backoff = Backoff::default();
        let mut logged_otherwise = None;
        let mut ever_served = false;
        loop {
            let opened = tokio::select! {
                opened = Session::open(&options.amqp, queue, options.declare, prefetch) => opened,
                () = &mut stop => return Ok(Stopped::without_session(&tasks)),
            };
            match opened {
                Ok(session) => {
                    if let Some(reason) = &session.declared_otherwise
                        && logged_otherwise.as_ref() != Some(reason)
                    {
                        warn!("using {queue} as it is, though it is declared otherwise: {reason}");
                        logged_otherwise = Some(reason.clone());
                    }
                    self.log_serving(options, prefetch);
                    ever_served = true;
                    let opened = Instant::now();
                    match session
                        .serve(self, &mut tasks, &mut stop, options.grace.min(FOR_EVER))
                        .await
                    {
                        Ended::Stopped(stopped) => return Ok(stopped),
                        Ended::Lost(reason) => {
                            warn!("lost RabbitMQ at {}: {reason}; reconnecting", options.amqp);
                            broker.lost(broker::unreachable(&options.amqp, &reason));
                        }
                    }
                    backoff.session_ended(opened);
                }
                Err(error) if error.is_lasting() && !ever_served => return Err(error),
                Err(error) => {
                    let down = ConnectionState::Down(error.clone());
                    if broker.down(error.clone()) != down {
                        warn!("{error}; trying again until it works");
                    }
                    backoff.failed();
                }
            }
            tokio::select! {
                () = backoff.pause() => {}
                () = &mut stop => return Ok(Stopped::without_session(&tasks)),
            }
        }
    }

    fn log_serving(&self, options: &WorkerOptions, prefetch: u16) {
        let back = match self.counters.broker.up() {
            ConnectionState::Down(_) => "RabbitMQ is back: ",
            ConnectionState::Connecting | ConnectionState::Up => "",
        };
        info!(
            "{back}serving {} from {} at {}, {} at once, prefetch {prefetch}, cache at {}",
            self.name(),
            self.queue,
            options.amqp,
            options.concurrency,
            options.cache.url,
        );
    }
}
