//! What one request takes: decided once, before any work starts. Pure.

use crate::cache_use::CacheUse;

/// How one request gets its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) path: Path,
    pub(super) policy: CachePolicy,
}

/// Where the answer is computed if the cache does not have it, and who else computes the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Path {
    /// On the async thread, without lease, slot or flight: computing takes less time than coordinating.
    Inline,
    /// In a slot, once per key: requests in this worker share a flight, workers compete for a lease.
    Leased,
    /// In a slot, for this request alone.
    Uncached,
}

/// What a request's [`CacheUse`] permits. The worker interprets [`CacheUse`] here only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct CachePolicy {
    /// May be answered from the cache.
    pub(super) read: bool,
    /// Its answer may be stored.
    pub(super) write: bool,
    /// May share a computation with requests of the same policy.
    pub(super) share: bool,
}

impl Plan {
    /// `is_cheap` is the procedure's verdict on the argument. It is not asked about a redelivered request:
    /// that may have crashed a worker, so none of it runs before the attempt is counted.
    pub(super) fn new(cache: CacheUse, redelivered: bool, is_cheap: impl FnOnce() -> bool) -> Self {
        let policy = CachePolicy::of(cache);
        let path = if !redelivered && is_cheap() {
            Path::Inline
        } else if policy.share {
            Path::Leased
        } else {
            Path::Uncached
        };
        Self { path, policy }
    }
}

impl CachePolicy {
    fn of(cache: CacheUse) -> Self {
        Self {
            read: cache.reads(),
            write: cache.writes(),
            // An answer that must not be stored is for its caller alone.
            share: cache.writes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_depends_on_cache_use_cost_and_redelivery() {
        let (fresh, redelivered, cheap, costly) = (false, true, true, false);
        let expected = [
            (CacheUse::Normal, fresh, cheap, Path::Inline),
            (CacheUse::Refresh, fresh, cheap, Path::Inline),
            (CacheUse::Bypass, fresh, cheap, Path::Inline),
            (CacheUse::Normal, fresh, costly, Path::Leased),
            (CacheUse::Refresh, fresh, costly, Path::Leased),
            (CacheUse::Bypass, fresh, costly, Path::Uncached),
            (CacheUse::Normal, redelivered, costly, Path::Leased),
            (CacheUse::Bypass, redelivered, costly, Path::Uncached),
        ];
        for (cache, redelivered, is_cheap, path) in expected {
            let plan = Plan::new(cache, redelivered, || is_cheap);
            assert_eq!(plan.path, path, "{cache:?}, {redelivered}, {is_cheap}");
        }
    }

    #[test]
    fn redelivered_request_is_never_inline_and_runs_no_code_of_the_procedure() {
        for cache in [CacheUse::Normal, CacheUse::Refresh, CacheUse::Bypass] {
            let plan = Plan::new(cache, true, || panic!("asked whether it is cheap"));
            assert_ne!(plan.path, Path::Inline);
        }
    }

    #[test]
    fn only_refresh_and_normal_write_and_only_normal_reads() {
        let policy = |read, write, share| CachePolicy { read, write, share };
        for (cache, expected) in [
            (CacheUse::Normal, policy(true, true, true)),
            (CacheUse::Refresh, policy(false, true, true)),
            (CacheUse::Bypass, policy(false, false, false)),
        ] {
            assert_eq!(Plan::new(cache, false, || false).policy, expected);
            assert_eq!(Plan::new(cache, false, || true).policy, expected);
        }
    }
}
