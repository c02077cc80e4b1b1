//! One flight of a client: ask a worker, check what it says, fill what it did not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout_at;
use tracing::warn;
use uuid::Uuid;

use super::{CallOptions, Flown, Found, Inner};
use crate::cache::Vacancy;
use crate::error::{Error, ErrorCode, quote, quote_inner};
use crate::message::{CacheUse, Reply, Source};
use crate::procedure::{Answer as _, Procedure, check};
use crate::single_flight::Deadline;
use crate::trace;

/// How long before the deadline, at which the caller gives up, a request ends that was published once more
/// after a wrong answer: so that the caller hears of that.
const VERDICT_TIME: Duration = Duration::from_millis(50);

impl<P: Procedure> Inner<P> {
    /// One flight, and the copy that is kept of what it brings home.
    pub(super) async fn fly(
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

    /// Asks once more after a wrong answer. Where nobody is left who gives another, that is the outcome.
    async fn reply_after(
        &self,
        wrong: Error,
        id: Uuid,
        text: &str,
        options: CallOptions,
        deadline: &Deadline,
    ) -> Result<Reply, Error> {
        let asked = self.reply(id, text, options, deadline);
        let at = deadline.at();
        match timeout_at(at.checked_sub(VERDICT_TIME).unwrap_or(at), asked).await {
            Ok(Err(Error::Deadline { .. } | Error::NobodyServing { .. })) | Err(_) => Err(wrong),
            Ok(replied) => replied,
        }
    }

    /// The answer that the body is, or what it is instead. White space around a foreign one is left aside where
    /// it is no answer otherwise: many programs end what they print with a line's end.
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

    /// Asks, checks what is answered, fills what the worker did not. A request whose answer was refused is
    /// published once more.
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
        let mut wrong = None;
        loop {
            let is_last = wrong.is_some();
            let reply = match wrong {
                None => self.reply(id, &text, options, deadline).await?,
                Some(wrong) => {
                    self.reply_after(wrong, id, &text, options, deadline)
                        .await?
                }
            };
            let is_foreign = reply.is_foreign();
            let body = reply.outcome.map_err(|failure| match failure.code {
                ErrorCode::Overloaded => Error::Overloaded {
                    reason: failure.message,
                },
                code => Error::Failed {
                    code,
                    message: failure.message,
                },
            })?;
            let body = Arc::unwrap_or_clone(body);
            match self.check(argument, body, is_foreign).await {
                Ok(answer) => {
                    // Workers of ours have filled, or know why not; others know nothing of it. One
                    // that found what was not there for us has another Redis or namespace, or was
                    // faster: then our own callers shall find it, too.
                    let filled_for_us =
                        reply.filled.is_some() && reply.source != Some(Source::Cache);
                    let stored = match vacancy {
                        Some(vacancy) if !filled_for_us => {
                            self.cache.fill(vacancy, &answer.to_bytes()).await
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
                    let quoted = quote_inner(&refused);
                    self.calls.wrong_answers.count();
                    if let Some(left_out) = self.wrong_answers.happened() {
                        let argument = quote(text.as_bytes());
                        warn!(
                            argument,
                            answer = quote(&refused),
                            left_out,
                            "refused a worker's answer"
                        );
                    }
                    let verdict = Error::WrongAnswer { quoted };
                    if is_last {
                        return Err(verdict);
                    }
                    wrong = Some(verdict);
                }
            }
        }
    }
}
