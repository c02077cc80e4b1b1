//! Shows the progress of a run as one line on stderr: rewritten on a terminal, otherwise every ten seconds.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, interval};

use crate::ledger::Ledger;
use crate::timeline::Timeline;

pub(crate) struct Progress {
    task: JoinHandle<()>,
    on_terminal: bool,
}

impl Progress {
    pub(crate) fn start(ledger: &Arc<Ledger>, timeline: &Arc<Timeline>, length: Duration) -> Self {
        let on_terminal = std::io::stderr().is_terminal();
        let (ledger, timeline) = (Arc::clone(ledger), Arc::clone(timeline));
        let task = tokio::spawn(async move {
            let began = Instant::now();
            let mut next = interval(if on_terminal {
                Duration::from_millis(200)
            } else {
                Duration::from_secs(10)
            });
            loop {
                next.tick().await;
                let line = line(&ledger, &timeline, began.elapsed(), length);
                if on_terminal {
                    eprint!("\r\x1b[K{line}");
                } else {
                    eprintln!("{line}");
                }
            }
        });
        Self { task, on_terminal }
    }

    pub(crate) fn end(self) {
        self.task.abort();
        if self.on_terminal {
            eprint!("\r\x1b[K");
        }
    }
}

fn line(ledger: &Ledger, timeline: &Timeline, elapsed: Duration, length: Duration) -> String {
    let faults: u64 = timeline.counts().values().map(|count| count.injected).sum();
    let tally = ledger.tally();
    let errors: u64 = tally.errors.values().map(|errors| errors.count).sum();
    format!(
        "{} of {} s: {faults} faults, {} calls, {errors} errors, {} wrong, {} lost, {} late",
        elapsed.as_secs(),
        length.as_secs(),
        tally.ended,
        tally.wrong,
        tally.lost,
        tally.late
    )
}
