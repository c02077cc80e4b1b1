//! Inspecting and tidying up the cache: the types that methods of [`Cache`](crate::Cache) take and return. Also
//! the length of the request queue, by [`QueueWatch`].
//!
//! ```no_run
//! use std::sync::Arc;
//! use rpcache::fibonacci::{Fibonacci, N};
//! use rpcache::inspect::{KeyPattern, Stored};
//! use rpcache::{Cache, CacheOptions};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let cache = Cache::open(CacheOptions::new("redis://localhost".parse()?));
//! let fib = Arc::new(Fibonacci::default());
//! if let Stored::Answer(answer) = cache.get(&fib, &Arc::new(N(30))).await? {
//!     println!("fib:30 holds {answer}");
//! }
//! let mut keys = cache.scan(&*fib, &KeyPattern::default());
//! while let Some(page) = keys.next_page().await? {
//!     for entry in cache.verify(&fib, &page, false).await?.wrong {
//!         println!("{}: {}", entry.key, entry.fault);
//!     }
//! }
//! # Ok(())
//! # }
//! ```

pub use crate::broker::{QueueDepth, QueueDepths, QueueWatch};
pub use crate::cache::{
    Entry, EntryFault, Estimate, Explained, KeyPattern, KeyPatternError, LeaseHeld, LeaseHolder,
    Precision, Scan, ServerStats, Stored, StoredKey, Survey, TtlBuckets, Verified, WrongEntry,
};
