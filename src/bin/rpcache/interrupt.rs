//! Makes Ctrl-C end a command whose output is not read: there a blocked write keeps the usual handler from running.

use std::time::Duration;
use std::{process, thread};

use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

/// Time limit for a command to end by itself after the first interrupt: it closes connections and prints last lines.
const GRACE: Duration = Duration::from_secs(5);

/// Watches for interrupts: ends the process on the second one, or [`GRACE`] after the first. Starts a thread, so it is
/// for commands that write more than a pipe holds.
pub(crate) fn watch_in_thread() {
    let watch = || {
        let Ok(runtime) = Builder::new_current_thread().enable_all().build() else {
            return;
        };
        runtime.block_on(async {
            if let Ok(mut interrupts) = signal(SignalKind::interrupt()) {
                interrupts.recv().await;
                // Either a second interrupt, or the grace is over.
                let _ = timeout(GRACE, interrupts.recv()).await;
                process::exit(130);
            }
        });
    };
    // Without the thread, an interrupt takes effect when the output is read again.
    let _ = thread::Builder::new()
        .name("interrupts".to_owned())
        .spawn(watch);
}
