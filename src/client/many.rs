//! Many calls as a stream: looked up together, requested concurrently, answered in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::{FutureExt as _, Stream, StreamExt as _, stream};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tracing::Span;

use super::near::StoreTicket;
use super::{Answered, Call, CallOptions, Client, Inner, Looked, observe};
use crate::cache::{Gave, Key, Lookup};
use crate::error::Error;
use crate::procedure::Procedure;
use crate::trace;

/// Calls whose answers are awaited, or wait for an earlier one: at most so many requests are in flight.
const WINDOW: usize = 256;

/// Chunks that are looked up concurrently: the store works on one while another is verified.
const CHUNKS: usize = 2;

/// Keys of one chunk: at most, at least, and at first, when the size of the answers is unknown.
const MAX_CHUNK: usize = 256;
const MIN_CHUNK: usize = 2;
const FIRST_CHUNK: usize = 16;

/// The intended size of a chunk's answers, in bytes. Many times that would not fit into a cache budget.
const CHUNK_BYTES: usize = 512 * 1024;

/// One argument on its way through the stream, with its caller's label.
struct Asked<T, P: Procedure> {
    label: T,
    call: Call,
    /// When the lookup had ended.
    looked_at: Instant,
    argument: Result<(Key, Arc<P::Argument>), Error>,
    span: Span,
}

/// What to do with an argument before the store is asked.
enum BeforeLookup<A> {
    /// It is not looked up.
    Skip(Looked<A>),
    /// It is looked up. The ticket is for a near copy of a hit.
    Look(Option<StoreTicket>),
}

impl<P: Procedure> Client<P> {
    /// Calls for each argument, as [`call_with`](Self::call_with) does, and yields the answers in the
    /// order of the arguments, each as soon as it and those before it are there.
    ///
    /// An argument comes with a label, which is returned with its answer. In place of an argument there may be
    /// an error, which is returned in its place and does not end the stream. Arguments that are ready at the
    /// same moment are looked up together (`MGET`), and only misses become requests, 256 at once at most.
    /// Memory is bounded by some 256 answers, however long `arguments` is. The time that a call waits for its
    /// turn to become a request does not count against its timeout.
    ///
    /// The stream does nothing until it is polled. Dropping it cancels the calls that are in flight, see
    /// [`call_with`](Self::call_with).
    ///
    /// ```no_run
    /// use futures_util::{StreamExt as _, stream};
    /// use rpcache::fibonacci::{Fibonacci, N};
    /// use rpcache::{CallOptions, Client};
    ///
    /// # async fn example(client: Client<Fibonacci>) {
    /// let asked = stream::iter((0..1_000_000).map(|n| (n, Ok(N(n)))));
    /// let answers = client.call_many(asked, CallOptions::default());
    /// let mut answers = std::pin::pin!(answers);
    /// while let Some((n, ended)) = answers.next().await {
    ///     match ended {
    ///         Ok(found) => println!("{n}: {}", found.answer),
    ///         Err(error) => eprintln!("{n}: {error}"),
    ///     }
    /// }
    /// # }
    /// ```
    pub fn call_many<T: Send + 'static>(
        &self,
        arguments: impl Stream<Item = (T, Result<P::Argument, Error>)>,
        options: CallOptions,
    ) -> impl Stream<Item = (T, Result<Answered<P::Answer>, Error>)> {
        let size = Arc::new(ChunkSize(AtomicUsize::new(FIRST_CHUNK)));
        let asked = arguments.map(move |(label, argument)| {
            let argument = argument.map(|argument| {
                let argument = Arc::new(argument);
                (self.inner.key(&argument), argument)
            });
            let span = |(key, _): &(Key, _)| trace::begin(|| self.inner.call_span(key));
            Asked {
                label,
                call: Call::new(options),
                looked_at: Instant::now(),
                span: argument.as_ref().map_or(Span::none(), span),
                argument,
            }
        });
        chunks(asked, Arc::clone(&size))
            .map(move |chunk| {
                // A task of its own: another thread can verify the answers meanwhile.
                let (client, size) = (self.clone(), Arc::clone(&size));
                let look = async move { client.look_up_chunk(chunk, size).await };
                AbortOnDropHandle::new(tokio::spawn(look))
            })
            .buffered(CHUNKS)
            // The runtime is shutting down: the stream ends with it.
            .map(Result::unwrap_or_default)
            .flat_map(stream::iter)
            .map(move |(asked, looked)| self.end_one(asked, looked))
            .buffered(WINDOW)
    }

    /// Looks up a chunk: near copies first, and the rest together in the store.
    async fn look_up_chunk<T>(
        &self,
        chunk: Vec<Asked<T, P>>,
        size: Arc<ChunkSize>,
    ) -> Vec<(Asked<T, P>, Looked<P::Answer>)> {
        let looked = chunk
            .iter()
            .map(|asked| self.inner.look_without_store(asked));
        let looked: Vec<_> = looked.collect();
        let (mut keys, mut spans) = (Vec::new(), Vec::new());
        for (asked, looked) in chunk.iter().zip(&looked) {
            if let (Ok(argument), BeforeLookup::Look(_)) = (&asked.argument, looked) {
                keys.push(argument.clone());
                spans.push(&asked.span);
            }
        }
        // The calls of a chunk started at about the same moment.
        let lookups = match chunk.first().map(|asked| asked.call.deadline()) {
            Some(deadline) if !keys.is_empty() => {
                let lookups = self.inner.look_up_together(keys, deadline, &size);
                trace::batched(&spans, lookups, |lookup| matches!(lookup, Lookup::Hit(_))).await
            }
            _ => Vec::new(),
        };
        let mut lookups = lookups.into_iter();
        let end = |(asked, looked): (Asked<T, P>, BeforeLookup<_>)| {
            let looked = match looked {
                BeforeLookup::Skip(looked) => looked,
                BeforeLookup::Look(ticket) => match lookups.next() {
                    Some(lookup) => self.inner.looked(lookup, ticket, asked.call),
                    None => Looked::Miss(None),
                },
            };
            let looked_at = Instant::now();
            (Asked { looked_at, ..asked }, looked)
        };
        chunk.into_iter().zip(looked).map(end).collect()
    }

    /// Ends one call: its turn among the requests has come.
    async fn end_one<T>(
        &self,
        asked: Asked<T, P>,
        looked: Looked<P::Answer>,
    ) -> (T, Result<Answered<P::Answer>, Error>) {
        let Asked {
            label,
            call,
            looked_at,
            argument,
            span,
        } = asked;
        let (key, argument) = match argument {
            Ok(argument) => argument,
            Err(error) => return (label, Err(error)),
        };
        let call = match looked {
            Looked::Hit(_) => call,
            // Queueing and a slow reader of the stream do not count against its timeout.
            Looked::Miss(_) => call.started_later_by(looked_at.elapsed()),
        };
        let resolved = self.resolve(observe::key_to_log(|| key), argument, looked, call);
        (label, trace::within(|| span, resolved).await)
    }
}

impl<P: Procedure> Inner<P> {
    /// An error, a near copy, or what to do next.
    fn look_without_store<T>(&self, asked: &Asked<T, P>) -> BeforeLookup<P::Answer> {
        let Ok((key, _)) = &asked.argument else {
            return BeforeLookup::Skip(Looked::Miss(None));
        };
        if !asked.call.options.cache.reads() {
            return BeforeLookup::Skip(self.no_lookup(key.clone(), asked.call));
        }
        let near = self.near.as_ref();
        match near.and_then(|near| near.get(key.as_bytes(), asked.call.started)) {
            Some(copy) => BeforeLookup::Skip(Looked::Hit(copy)),
            None => BeforeLookup::Look(self.near_ticket(key)),
        }
    }

    /// Looks up many keys in one round trip, in their order.
    async fn look_up_together(
        &self,
        keys: Vec<(Key, Arc<P::Argument>)>,
        deadline: Instant,
        size: &ChunkSize,
    ) -> Vec<Lookup<P::Answer>> {
        let count = keys.len();
        let lookups = self.cache.lookup_many(keys, &self.procedure, deadline);
        let (lookups, gave) = lookups.await;
        size.adapt(count, gave);
        lookups
    }
}

/// Splits a stream into chunks of the items that are ready, up to the present size.
fn chunks<S: Stream>(source: S, size: Arc<ChunkSize>) -> impl Stream<Item = Vec<S::Item>> {
    stream::unfold(Box::pin(source.fuse()), move |mut source| {
        let most = size.keys();
        async move {
            let mut chunk = vec![source.next().await?];
            while chunk.len() < most
                && let Some(Some(next)) = source.next().now_or_never()
            {
                chunk.push(next);
            }
            Some((chunk, source))
        }
    })
}

/// How many keys are looked up together: so many that their answers have about [`CHUNK_BYTES`].
struct ChunkSize(AtomicUsize);

impl ChunkSize {
    fn keys(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Adapts the size after the lookup of so many keys.
    fn adapt(&self, keys: usize, gave: Gave) {
        let size = self.keys();
        let next = match gave {
            Gave::Bytes(bytes) if bytes <= CHUNK_BYTES / 4 && keys >= size => size * 2,
            Gave::Bytes(bytes) if bytes > CHUNK_BYTES => size / 2,
            Gave::NothingInTime => size / 2,
            Gave::Bytes(_) | Gave::Unknown => size,
        };
        let next = next.clamp(MIN_CHUNK, MAX_CHUNK);
        self.0.store(next, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_grows_with_small_answers_and_shrinks_with_large_ones() {
        let size = ChunkSize(AtomicUsize::new(FIRST_CHUNK));
        for _ in 0..10 {
            size.adapt(size.keys(), Gave::Bytes(1000));
        }
        assert_eq!(size.keys(), MAX_CHUNK);
        size.adapt(3, Gave::Bytes(1000));
        assert_eq!(size.keys(), MAX_CHUNK, "a chunk that was not full");
        size.adapt(MAX_CHUNK, Gave::Bytes(CHUNK_BYTES));
        assert_eq!(size.keys(), MAX_CHUNK);
        size.adapt(MAX_CHUNK, Gave::Bytes(CHUNK_BYTES + 1));
        assert_eq!(size.keys(), MAX_CHUNK / 2);
        for _ in 0..10 {
            size.adapt(size.keys(), Gave::NothingInTime);
        }
        assert_eq!(size.keys(), MIN_CHUNK);
    }

    #[tokio::test]
    async fn chunks_wait_for_nothing_that_is_not_ready() {
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        let source = stream::unfold(receiver, async |mut receiver| {
            receiver.recv().await.map(|n: u32| (n, receiver))
        });
        let size = Arc::new(ChunkSize(AtomicUsize::new(2)));
        let mut chunks = std::pin::pin!(chunks(source, size));
        for n in 0..3 {
            sender.send(n).unwrap();
        }
        assert_eq!(chunks.next().await, Some(vec![0, 1]));
        assert_eq!(chunks.next().await, Some(vec![2]));
        assert!(chunks.next().now_or_never().is_none());
        sender.send(3).unwrap();
        assert_eq!(chunks.next().await, Some(vec![3]));
        drop(sender);
        assert_eq!(chunks.next().await, None);
    }
}
