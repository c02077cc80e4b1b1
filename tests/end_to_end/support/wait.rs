//! Waiting: for conditions, never for a guessed time, and never for ever.

use std::time::{Duration, Instant};

/// How long anything may take before its test fails. Generous: it is only ever reached by a failure,
/// and the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// Looks again and again until `condition` holds; `what` is what the failure says was waited for.
pub(crate) async fn wait_until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let last_look = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(
            Instant::now() < last_look,
            "still waiting, after {PATIENCE:?}, until {what}"
        );
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}

/// Like [`wait_until`] for what is started outside any runtime; gives up when `condition` is an error.
pub(crate) fn block_until(
    what: &str,
    mut condition: impl FnMut() -> Result<bool, String>,
) -> Result<(), String> {
    let last_look = Instant::now() + PATIENCE;
    while !condition()? {
        if Instant::now() >= last_look {
            return Err(format!("still waiting, after {PATIENCE:?}, until {what}"));
        }
        std::thread::sleep(BETWEEN_LOOKS);
    }
    Ok(())
}

/// The value of `future`, which must come within [`PATIENCE`].
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("still waiting, after {PATIENCE:?}, for {what}"))
}
