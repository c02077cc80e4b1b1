//! Waiting: for conditions, never for a guessed time, and never for ever.

use std::time::{Duration, Instant};

/// Limit of every wait. Generous, since only failures reach it and the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Polls until `condition` holds; `what` names it in the failure.
pub(crate) async fn wait_until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(
            Instant::now() < deadline,
            "still waiting, after {PATIENCE:?}, until {what}"
        );
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Like [`wait_until`], outside of a runtime; ends with the error of `condition`.
pub(crate) fn block_until(
    what: &str,
    mut condition: impl FnMut() -> Result<bool, String>,
) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    while !condition()? {
        if Instant::now() >= deadline {
            return Err(format!("still waiting, after {PATIENCE:?}, until {what}"));
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    Ok(())
}

/// The value of `future`, which must come within [`PATIENCE`].
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("still waiting, after {PATIENCE:?}, for {what}"))
}
