//! Ctrl-C for a command whose output is not read: a write that blocks would hold up its own handler.

use std::time::Duration;
use std::{process, thread};

use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

/// What a command that can end by itself takes for it at most: closing its connections, and its last lines.
const GRACE: Duration = Duration::from_secs(5);

/// Ends the process on the second interrupt, or [`GRACE`] after the first. Starts a thread: for commands that
/// write so much that the reader of their output may hold them up.
pub(crate) fn insist() {
    let watch = || {
        let Ok(runtime) = Builder::new_current_thread().enable_all().build() else {
            return;
        };
        runtime.block_on(async {
            if let Ok(mut interrupts) = signal(SignalKind::interrupt()) {
                interrupts.recv().await;
                // A second one, or the end of the grace.
                let _ = timeout(GRACE, interrupts.recv()).await;
                process::exit(130);
            }
        });
    };
    // Without it, an interrupt ends the command when its output is read again.
    let _ = thread::Builder::new()
        .name("interrupts".to_owned())
        .spawn(watch);
}
