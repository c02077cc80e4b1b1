//! Asks a worker on behalf of a call that was a miss: joins a flight, requests, verifies, fills.
//!
//! Callers of one key share one flight, which requests the answer, verifies it, and stores it if the worker has not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout_at;
use tracing::{Instrument as _, warn};
use uuid::Uuid;

use super::answered::{Answered, Resolved};
use super::{Call, CallOptions, Client, FlightResult, Inner};
use crate::cache::Vacancy;
use crate::error::{Error, ErrorCode, quote, quote_inner};
use crate::message::{Failure, Reply};
use crate::procedure::{Answer as _, Procedure, check};
use crate::single_flight::{Callers, Deadline, Outcome};
use crate::source::Source;
use crate::trace;

/// A request that is published again after a wrong answer ends so long before the deadline: the call then
/// fails with the wrong answer, not by its deadline.
const VERDICT_TIME: Duration = Duration::from_millis(50);

impl<P: Procedure> Client<P> {
    /// Asks a worker, by the deadline of this call.
    pub(super) async fn ask_worker(
        &self,
        argument: Arc<P::Argument>,
        vacancy: Option<Vacancy>,
        call: Call,
    ) -> Result<Answered<P::Answer>, Error> {
        let asked = self.join_flight(argument, vacancy, call);
        let outcome = timeout_at(call.deadline(), asked).await;
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
    ) -> FlightResult<P::Answer> {
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
}

impl<P: Procedure> Inner<P> {
    /// Runs one flight: asks a worker, and keeps a near copy of the answer.
    async fn run_flight(
        &self,
        argument: &Arc<P::Argument>,
        vacancy: Option<Vacancy>,
        options: CallOptions,
        deadline: &Deadline,
    ) -> FlightResult<P::Answer> {
        let near = self.near.as_ref().zip(vacancy.as_ref());
        let near = near.map(|(near, vacancy)| (near, near.ticket(vacancy.key())));
        let outcome = self.request(argument, vacancy, options, deadline).await;
        if let (Ok(resolved), Some((near, ticket))) = (&outcome, near) {
            if options.cache.reads() {
                near.keep(ticket, resolved, Instant::now());
            } else {
                near.replace(ticket, resolved, Instant::now());
            }
        }
        outcome
    }

    /// Requests the answer, verifies it, and stores it if the worker has not. A request whose answer is refused
    /// is published again, once.
    async fn request(
        &self,
        argument: &Arc<P::Argument>,
        vacancy: Option<Vacancy>,
        options: CallOptions,
        deadline: &Deadline,
    ) -> FlightResult<P::Answer> {
        let _in_flight = self.calls.in_flight.enter();
        let (id, text) = (Uuid::new_v4(), argument.to_string());
        let mut reply = self.reply(id, &text, options, deadline).await?;
        let mut is_second = false;
        loop {
            let (source, filled) = (reply.source, reply.filled);
            let is_foreign = reply.is_foreign();
            let body = Arc::unwrap_or_clone(reply.outcome.map_err(error_of)?);
            match self.check(argument, body, is_foreign).await {
                Ok(answer) => {
                    let stored = self.fill(vacancy, &answer, source, filled).await;
                    return Ok(Resolved {
                        answer,
                        source: source.unwrap_or(Source::Computed),
                        stored,
                    });
                }
                Err(refused) => {
                    let wrong = self.wrong_answer(&text, &refused);
                    if is_second {
                        return Err(wrong);
                    }
                    is_second = true;
                    reply = self
                        .reply_after(wrong, id, &text, options, deadline)
                        .await?;
                }
            }
        }
    }

    /// Publishes the request and waits for its reply.
    async fn reply(
        &self,
        id: Uuid,
        text: &str,
        options: CallOptions,
        deadline: &Deadline,
    ) -> Result<Reply, Error> {
        let asking = async {
            let CallOptions { cache, wait, .. } = options;
            let requested = self.requester.request(id, text, cache, wait, deadline);
            let replied = requested.await;
            match &replied {
                Ok(reply) => trace::replied(reply.steps.as_deref()),
                Err(error) => trace::failed(error.code()),
            }
            replied
        };
        trace::within(|| trace::request(&id.to_string()), asking).await
    }

    /// Publishes the request again after a wrong answer. If no worker replies, the outcome is the wrong answer.
    async fn reply_after(
        &self,
        wrong: Error,
        id: Uuid,
        text: &str,
        options: CallOptions,
        deadline: &Deadline,
    ) -> Result<Reply, Error> {
        let replied = self.reply(id, text, options, deadline);
        let at = deadline.at();
        match timeout_at(at.checked_sub(VERDICT_TIME).unwrap_or(at), replied).await {
            Ok(Err(Error::Deadline { .. } | Error::NoWorkers { .. })) | Err(_) => Err(wrong),
            Ok(replied) => replied,
        }
    }

    /// Verifies the body of a reply; gives it back if it is refused. White space around a foreign worker's
    /// answer is ignored if it is refused otherwise: many programs end their output with a line break.
    async fn check(
        &self,
        argument: &Arc<P::Argument>,
        body: Vec<u8>,
        is_foreign: bool,
    ) -> Result<P::Answer, Vec<u8>> {
        let checked = check(&self.procedure, argument, body).await;
        match &checked {
            Err(refused) if is_foreign && refused.trim_ascii().len() < refused.len() => {
                let trimmed = refused.trim_ascii().to_vec();
                check(&self.procedure, argument, trimmed).await
            }
            _ => checked,
        }
    }

    /// Stores the answer if the worker has not. An rpcache worker has stored it, or knows why not; another program has
    /// not. A worker that found in its store what this client did not has another Redis or namespace, or was faster:
    /// then it is stored here as well. Returns whether it is stored.
    async fn fill(
        &self,
        vacancy: Option<Vacancy>,
        answer: &P::Answer,
        source: Option<Source>,
        filled: Option<bool>,
    ) -> bool {
        let filled_for_us = filled.is_some() && source != Some(Source::Cache);
        let stored = match vacancy {
            Some(vacancy) if !filled_for_us => self.cache.fill(vacancy, &answer.to_bytes()).await,
            _ => false,
        };
        stored || filled == Some(true)
    }

    /// Counts and logs an answer that is refused; the error of its call.
    fn wrong_answer(&self, argument: &str, refused: &[u8]) -> Error {
        self.calls.wrong_answers.count();
        if let Some(left_out) = self.wrong_answers.happened() {
            warn!(
                argument = quote(argument.as_bytes()),
                answer = quote(refused),
                left_out,
                "refused a worker's answer"
            );
        }
        Error::WrongAnswer {
            quoted: quote_inner(refused),
        }
    }
}

/// The error of a call whose request failed at the worker.
fn error_of(failure: Failure) -> Error {
    match failure.code {
        ErrorCode::Overloaded => Error::Overloaded {
            reason: failure.message,
        },
        code => Error::Failed {
            code,
            message: failure.message,
        },
    }
}
