//! The handle of a client: made, cloned, closed, and read by metrics. No part of a call.

use std::fmt;
use std::sync::Arc;

use super::near::NearCache;
use super::{Client, ClientOptions, Inner};
use crate::cache::Cache;
use crate::error::Error;
use crate::log_throttle::LogThrottle;
use crate::procedure::Procedure;
use crate::requester::{Requester, RequesterOptions};
use crate::single_flight::SingleFlight;

impl<P: Procedure> Client<P> {
    /// A client that connects to Redis in the background, and to RabbitMQ at the first miss.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime: it starts tasks there, which end with the last clone.
    pub fn new(procedure: P, options: ClientOptions) -> Self {
        Self::sharing(Arc::new(procedure), options)
    }

    /// A client whose procedure its creator goes on using.
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

    /// Closes the connection to the broker by AMQP's handshake, within some seconds. Calls that are waiting
    /// for a worker, also those of other clones, fail as [`Error::Unreachable`], and so do later misses.
    ///
    /// Dropping the last clone, or this future, closes the connection without the handshake.
    pub async fn close(self) {
        self.inner.requester.close().await;
    }

    /// The counters of this client and its clones, to be read at any time.
    #[cfg(feature = "metrics")]
    #[must_use]
    pub fn metrics(&self) -> crate::Metrics {
        let Inner {
            procedure,
            cache,
            requester,
            calls,
            ..
        } = &*self.inner;
        crate::Metrics::of_client(
            procedure.name(),
            Arc::clone(calls),
            Arc::clone(cache.counts()),
            Arc::clone(requester.counts()),
        )
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
