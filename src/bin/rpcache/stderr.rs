//! stderr behind a bounded queue, so that no log line waits for the reader of stderr.
//!
//! A thread of its own writes; the first line starts it. While the reader takes nothing (a pipe that is open
//! and not read, a stopped terminal), lines are kept up to a bound; later ones are dropped and counted, and
//! the count is logged when there is room again. What a command says to the person who typed it is not
//! queued but written [directly](direct).

use std::io::{self, Write};
use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing::{Metadata, warn};
use tracing_subscriber::fmt::MakeWriter;

/// Bytes that wait for the reader at most.
const MAX_PENDING: usize = 1024 * 1024;

/// The same for progress: what is drawn while so much waits would be outdated when it is seen.
const MAX_PENDING_FRAMES: usize = 4 * 1024;

/// How long the end of a command waits for the reader. A worker's grace and this are below the 15 s that
/// service managers are told to give it.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Before a write is tried again that found no room, where stderr does not block.
const RETRY_AFTER: Duration = Duration::from_millis(10);

/// Capacity that is kept when everything is written.
const KEPT_CAPACITY: usize = 16 * 1024;

static QUEUE: Queue = Queue::new(MAX_PENDING);

/// What becomes of bytes that find no room.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// They are dropped and counted.
    Line,
    /// They are dropped: what is drawn later replaces them.
    Frame,
    /// They are queued nevertheless: there is one in a while, or one at all.
    Kept,
}

/// Waits until everything is written, one second at most.
pub(crate) fn flush() {
    QUEUE.flush(FLUSH_TIMEOUT);
}

/// stderr itself, after everything that was queued before.
pub(crate) fn direct() -> io::Stderr {
    flush();
    io::stderr()
}

/// Queues a line that is never dropped: one that is the last.
pub(crate) fn push_last(line: &str) {
    QUEUE.push(line.as_bytes(), Kind::Kept);
}

/// Queues a picture of progress, or drops it without counting it.
pub(crate) fn push_frame(frame: &[u8]) {
    QUEUE.push(frame, Kind::Frame);
}

/// For the log's formatter, which writes each line at once.
pub(crate) struct Lines;

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(Kind::Line)
    }

    fn make_writer_for(&'a self, line: &Metadata<'_>) -> Line {
        // The count of what was dropped is not dropped itself.
        let is_count = line.target() == module_path!();
        Line(if is_count { Kind::Kept } else { Kind::Line })
    }
}

/// Where one line goes.
pub(crate) struct Line(Kind);

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        QUEUE.push(line, self.0);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    max_pending: usize,
}

struct State {
    pending: Vec<u8>,
    /// Lines since the last count was logged.
    dropped: u64,
    /// Whether the writer holds bytes that are not written.
    is_writing: bool,
    has_writer: bool,
}

impl Queue {
    const fn new(max_pending: usize) -> Self {
        Self {
            state: Mutex::new(State {
                pending: Vec::new(),
                dropped: 0,
                is_writing: false,
                has_writer: false,
            }),
            changed: Condvar::new(),
            max_pending,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Never waits for the reader.
    fn push(&'static self, bytes: &[u8], kind: Kind) {
        let limit = match kind {
            Kind::Line => self.max_pending,
            Kind::Frame => MAX_PENDING_FRAMES,
            Kind::Kept => usize::MAX,
        };
        let mut state = self.lock();
        if state.pending.len().saturating_add(bytes.len()) > limit {
            state.dropped += u64::from(kind == Kind::Line);
            return;
        }
        let was_empty = state.pending.is_empty();
        state.pending.extend_from_slice(bytes);
        if !state.has_writer {
            let writer = thread::Builder::new().name("stderr".to_owned());
            let started = writer.spawn(|| self.write_to(io::stderr(), log_dropped));
            // Where no thread can be had, the next line tries again.
            state.has_writer = started.is_ok();
        }
        drop(state);
        if was_empty {
            self.changed.notify_all();
        }
    }

    /// Writes what is pushed, for ever.
    fn write_to(&self, mut reader: impl Write, log_dropped: impl Fn(u64)) {
        let mut taken = Vec::new();
        loop {
            self.take(&mut taken);
            // Line by line, so that lines of several processes on one pipe do not mix: up to 4 kB are
            // written as a whole.
            for line in taken.split_inclusive(|&byte| byte == b'\n') {
                write(&mut reader, line);
            }
            taken.clear();
            taken.shrink_to(KEPT_CAPACITY);
            let dropped = mem::take(&mut self.lock().dropped);
            if dropped > 0 {
                log_dropped(dropped);
            }
        }
    }

    /// Waits for bytes, and swaps them for what was written before.
    fn take(&self, taken: &mut Vec<u8>) {
        let mut state = self.lock();
        state.is_writing = false;
        self.changed.notify_all();
        while state.pending.is_empty() {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        mem::swap(&mut state.pending, taken);
        state.is_writing = true;
    }

    fn flush(&self, timeout: Duration) {
        let is_behind = |state: &mut State| state.is_writing || !state.pending.is_empty();
        // Written or not, the caller goes on.
        let _ = self
            .changed
            .wait_timeout_while(self.lock(), timeout, is_behind);
    }
}

/// Called by the writer, when the reader has taken something.
fn log_dropped(dropped: u64) {
    warn!(
        dropped,
        "log lines were dropped: the reader of stderr was too slow"
    );
}

fn write(reader: &mut impl Write, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match reader.write(bytes) {
            Ok(0) => return,
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Another process that shares the pipe has made it non-blocking.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(RETRY_AFTER),
            // The reader is gone, and there is no other place to say so.
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use super::*;

    /// A reader that takes nothing until it is told to.
    struct Stalled {
        may_go_on: Receiver<()>,
        goes_on: bool,
        read: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // A sender that is gone lets it go on for good.
            self.goes_on = self.goes_on || self.may_go_on.recv().is_err();
            // Never all at once.
            let some = bytes.len().div_ceil(2);
            self.read.lock().unwrap().extend_from_slice(&bytes[..some]);
            Ok(some)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    type Stall = (&'static Queue, SyncSender<()>, Arc<Mutex<Vec<u8>>>);

    /// A queue whose writer is at work, and stalls.
    fn stalled(max_pending: usize) -> Stall {
        let queue: &'static Queue = Box::leak(Box::new(Queue::new(max_pending)));
        queue.lock().has_writer = true;
        let (go_on, may_go_on) = sync_channel(0);
        let read = Arc::<Mutex<Vec<u8>>>::default();
        let reader = Stalled {
            may_go_on,
            goes_on: false,
            read: Arc::clone(&read),
        };
        thread::spawn(move || {
            queue.write_to(reader, |dropped| {
                queue.push(format!("dropped {dropped}\n").as_bytes(), Kind::Kept);
            });
        });
        (queue, go_on, read)
    }

    fn read(read: &Mutex<Vec<u8>>) -> String {
        String::from_utf8(read.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn every_line_is_written_in_order() {
        let (queue, go_on, written) = stalled(MAX_PENDING);
        let lines: Vec<_> = (0..1000).map(|n| format!("line {n}\n")).collect();
        for line in &lines {
            queue.push(line.as_bytes(), Kind::Line);
        }
        drop(go_on);
        queue.flush(Duration::from_secs(60));
        assert_eq!(read(&written), lines.concat());
    }

    #[test]
    fn lines_without_room_are_dropped_and_counted_when_there_is_room_again() {
        let (queue, go_on, written) = stalled(10);
        queue.push(b"first\n", Kind::Line);
        // The writer holds the first line and cannot get rid of it.
        while !queue.lock().is_writing {
            thread::yield_now();
        }
        queue.push(b"second\n", Kind::Line);
        for _ in 0..3 {
            queue.push(b"third\n", Kind::Line);
        }
        drop(go_on);
        queue.flush(Duration::from_secs(60));
        assert_eq!(read(&written), "first\nsecond\ndropped 3\n");
        queue.push(b"fourth\n", Kind::Line);
        queue.flush(Duration::from_secs(60));
        assert!(read(&written).ends_with("fourth\n"));
    }

    #[test]
    fn a_flush_ends_though_the_reader_takes_nothing() {
        let (queue, _go_on, written) = stalled(MAX_PENDING);
        queue.push(b"first\n", Kind::Line);
        queue.flush(Duration::from_millis(10));
        assert_eq!(read(&written), "");
    }

    #[test]
    fn nothing_queued_needs_no_writer() {
        let queue: &'static Queue = Box::leak(Box::new(Queue::new(MAX_PENDING)));
        queue.flush(Duration::from_secs(60));
        assert!(!queue.lock().has_writer);
    }
}
