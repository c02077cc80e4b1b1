//! Many calls as a stream: looked up together, asked for side by side, answered in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::{FutureExt as _, Stream, StreamExt as _, stream};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tracing::Span;

use super::{Answered, Call, CallOptions, Client, Inner, Looked, told};
use crate::cache::{Gave, Key};
use crate::error::Error;
use crate::message::CacheUse;
use crate::procedure::Procedure;
use crate::trace;

/// Answers that are waited for, or that wait for an earlier one: so many misses are asked for at
/// once.
const WINDOW: usize = 256;

/// Chunks that are looked up at once, so that Redis works on one while another is checked.
const CHUNKS: usize = 2;

/// Keys that are looked up together: at most, at least, and at first, when nobody knows how large
/// their answers are.
const LARGEST_CHUNK: usize = 256;
const SMALLEST_CHUNK: usize = 2;
const FIRST_CHUNK: usize = 16;

/// What a chunk's answers are meant to come to. Many times that would not fit into a cache budget.
const CHUNK_BYTES: usize = 512 * 1024;

/// One argument on its way through the stream, with what its caller knows it by.
struct Asked<T, P: Procedure> {
    label: T,
    call: Call,
    /// When the look for it had ended.
    looked: Instant,
    argument: Result<(Key, Arc<P::Argument>), Error>,
    span: Span,
}

impl<P: Procedure> Client<P> {
    /// Calls for each argument, as [`call_with`](Self::call_with) does, and yields the answers in the
    /// order of the arguments, each as soon as it and those before it are there.
    ///
    /// An argument comes with a label, which comes back with its answer; in its place there may be an
    /// error, which keeps that place and ends nothing. What is ready of `arguments` is looked up in Redis together
    /// (`MGET`), and only misses become requests, 256 at once at most. Memory is bounded by some 256
    /// answers, however long `arguments` is. The time that a call waits for its turn to
    /// become a request is not counted.
    ///
    /// The stream does nothing until it is polled. Dropping it drops the calls that are under way, as
    /// [`call_with`](Self::call_with) says.
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
                looked: Instant::now(),
                span: argument.as_ref().map_or(Span::none(), span),
                argument,
            }
        });
        chunks(asked, Arc::clone(&size))
            .map(move |chunk| {
                // A task of its own: checking is work that another thread can do meanwhile.
                let (client, size) = (self.clone(), Arc::clone(&size));
                let look = async move { client.look_at_all(chunk, size).await };
                AbortOnDropHandle::new(tokio::spawn(look))
            })
            .buffered(CHUNKS)
            // The runtime is being shut down: nobody will see the answers.
            .map(Result::unwrap_or_default)
            .flat_map(stream::iter)
            .map(move |(asked, looked)| self.end_one(asked, looked))
            .buffered(WINDOW)
    }

    async fn look_at_all<T>(
        &self,
        chunk: Vec<Asked<T, P>>,
        size: Arc<ChunkSize>,
    ) -> Vec<(Asked<T, P>, Looked<P::Answer>)> {
        let looked = chunk.iter().map(|one| self.look_without_redis(one));
        let looked: Vec<_> = looked.collect();
        let (mut wanted, mut calls) = (Vec::new(), Vec::new());
        for (one, looked) in chunk.iter().zip(&looked) {
            if let (Ok(argument), None) = (&one.argument, looked) {
                wanted.push(argument.clone());
                calls.push(&one.span);
            }
        }
        // What is ready together was taken together, more or less.
        let first = chunk.first().map(|one| one.call);
        let mut found = match first {
            Some(first) if !wanted.is_empty() => {
                let look = self.look_in_redis(wanted, first, &size);
                trace::together(&calls, look, Looked::is_hit).await
            }
            _ => Vec::new(),
        }
        .into_iter();
        let look = |(one, looked): (Asked<T, P>, Option<Looked<_>>)| {
            let looked = looked.or_else(|| found.next());
            let one = Asked {
                looked: Instant::now(),
                ..one
            };
            (one, looked.unwrap_or(Looked::Miss(None)))
        };
        chunk.into_iter().zip(looked).map(look).collect()
    }

    /// `None`: Redis has to be asked.
    fn look_without_redis<T>(&self, one: &Asked<T, P>) -> Option<Looked<P::Answer>> {
        let Ok((key, _)) = &one.argument else {
            return Some(Looked::Miss(None));
        };
        let Inner { cache, local, .. } = &*self.inner;
        match one.call.options.cache {
            CacheUse::Bypass => Some(Looked::Miss(None)),
            CacheUse::Refresh => Some(Looked::Miss(Some(cache.vacancy(key.clone())))),
            CacheUse::Normal => {
                let local = local.as_ref()?;
                local.get(key.as_bytes(), one.call.started).map(Looked::Hit)
            }
        }
    }

    /// What Redis has of these, in their order.
    async fn look_in_redis(
        &self,
        wanted: Vec<(Key, Arc<P::Argument>)>,
        first: Call,
        size: &ChunkSize,
    ) -> Vec<Looked<P::Answer>> {
        let inner = &*self.inner;
        let (keys, local) = (wanted.len(), inner.local.as_ref());
        let keeping = |(key, _): &(Key, _)| local.map(|local| (local, local.keeping(key)));
        let keeping: Vec<_> = wanted.iter().map(keeping).collect();
        let lookups = inner
            .cache
            .lookup_many(wanted, &inner.procedure, first.deadline());
        let (found, gave) = lookups.await;
        size.adapt(keys, gave);
        let mut looked = Vec::with_capacity(keys);
        for (lookup, keeping) in found.into_iter().zip(keeping) {
            let one = Looked::from(lookup);
            if let (Looked::Hit(found), Some((local, keeping))) = (&one, keeping) {
                local.keep(keeping, found, first.started);
            }
            looked.push(one);
        }
        looked
    }

    async fn end_one<T>(
        &self,
        asked: Asked<T, P>,
        looked: Looked<P::Answer>,
    ) -> (T, Result<Answered<P::Answer>, Error>) {
        let span = asked.span.clone();
        let end = self.end_one_within_its_span(asked, looked);
        trace::within(|| span, end).await
    }

    async fn end_one_within_its_span<T>(
        &self,
        asked: Asked<T, P>,
        looked: Looked<P::Answer>,
    ) -> (T, Result<Answered<P::Answer>, Error>) {
        let ended = match (asked.argument, looked) {
            (Err(error), _) => Err(error),
            (Ok((key, _)), Looked::Hit(found)) => {
                let ended = Ok(found.answered(asked.call.started));
                let told = told::key(|| key);
                self.inner.ended(told, asked.call.started, &ended);
                ended
            }
            (Ok((key, argument)), Looked::Miss(vacancy)) => {
                // Its turn has come: what lay before it, and whoever reads, took their own time.
                let call = asked.call.later_by(asked.looked.elapsed());
                let ended = self.ask(argument, vacancy, call).await;
                self.inner.ended(told::key(|| key), call.started, &ended);
                ended
            }
        };
        (asked.label, ended)
    }
}

/// What is ready, in pieces of the size that fits at the moment.
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

/// How many keys are looked up together: as many as come to [`CHUNK_BYTES`].
struct ChunkSize(AtomicUsize);

impl ChunkSize {
    fn keys(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// After a lookup of so many keys, at once, and what it gave.
    fn adapt(&self, keys: usize, gave: Gave) {
        let size = self.keys();
        let next = match gave {
            Gave::Bytes(bytes) if bytes <= CHUNK_BYTES / 4 && keys >= size => size * 2,
            Gave::Bytes(bytes) if bytes > CHUNK_BYTES => size / 2,
            Gave::NothingInTime => size / 2,
            Gave::Bytes(_) | Gave::Unknown => size,
        };
        let next = next.clamp(SMALLEST_CHUNK, LARGEST_CHUNK);
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
        assert_eq!(size.keys(), LARGEST_CHUNK);
        size.adapt(3, Gave::Bytes(1000));
        assert_eq!(size.keys(), LARGEST_CHUNK, "a chunk that was not full");
        size.adapt(LARGEST_CHUNK, Gave::Bytes(CHUNK_BYTES));
        assert_eq!(size.keys(), LARGEST_CHUNK);
        size.adapt(LARGEST_CHUNK, Gave::Bytes(CHUNK_BYTES + 1));
        assert_eq!(size.keys(), LARGEST_CHUNK / 2);
        for _ in 0..10 {
            size.adapt(size.keys(), Gave::NothingInTime);
        }
        assert_eq!(size.keys(), SMALLEST_CHUNK);
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
