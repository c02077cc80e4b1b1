//! How one call uses the cache.

/// How one call uses the cache. It travels with the request, so that the worker does the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum CacheUse {
    /// Look, and store what is missing. The default.
    #[default]
    Normal,
    /// Neither look nor store: the answer is computed for this call alone, and the store stays as it is.
    Bypass,
    /// Do not look, but store: the answer is computed afresh, and replaces the one in the store and this
    /// client's copy of it.
    Refresh,
}

impl CacheUse {
    /// Whether an answer that is stored already, or that another call is waiting for, will do.
    pub(crate) fn reads(self) -> bool {
        self == Self::Normal
    }

    /// Whether the answer that is computed is stored.
    pub(crate) fn writes(self) -> bool {
        self != Self::Bypass
    }

    /// Whether a worker may compute the answer once for several requests of the same use. An answer that
    /// must not be stored is for its caller alone.
    pub(crate) fn shares(self) -> bool {
        self.writes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_use_reads_writes_and_shares_as_it_says() {
        let all = [CacheUse::Normal, CacheUse::Bypass, CacheUse::Refresh];
        assert_eq!(all.map(CacheUse::reads), [true, false, false]);
        assert_eq!(all.map(CacheUse::writes), [true, false, true]);
        assert_eq!(all.map(CacheUse::shares), [true, false, true]);
    }
}
