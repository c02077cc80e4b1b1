//! Writes to stderr through a bounded queue, so that no log line waits for the reader of stderr.
//!
//! A thread writes the lines; the first line starts it. While the reader takes nothing (a pipe that is open
//! and not read, a stopped terminal), lines are queued up to a limit. Later lines are dropped and counted, and
//! the count is logged when there is room again. Messages to the user are written [directly](direct).

use std::io::{self, Write};
use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing::{Metadata, warn};
use tracing_subscriber::fmt::MakeWriter;

/// Limit of the queue for log lines, in bytes.
const MAX_PENDING: usize = 1024 * 1024;

/// Limit of the queue for frames of progress, in bytes: behind more than that, a frame is outdated when it is seen.
const MAX_PENDING_FRAMES: usize = 4 * 1024;

/// Time limit for writing the queue at the end of a command. Together with a worker's grace it stays below the 15 s
/// that the unit and the manifest allow.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Pause before a write is repeated, if stderr is non-blocking and full.
const RETRY_AFTER: Duration = Duration::from_millis(10);

/// Capacity of the buffer that is kept after writing, in bytes.
const KEPT_CAPACITY: usize = 16 * 1024;

static QUEUE: Queue = Queue::new(MAX_PENDING);

/// What happens to bytes when the queue is full.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// They are dropped and counted.
    Line,
    /// They are dropped: the next frame replaces them.
    Frame,
    /// They are queued nevertheless: such lines are rare.
    Kept,
}

/// Waits until the queue is written, one second at most.
pub(crate) fn flush() {
    QUEUE.flush(FLUSH_TIMEOUT);
}

/// Returns stderr for direct writes, after the queue is written.
pub(crate) fn direct() -> io::Stderr {
    flush();
    io::stderr()
}

/// Queues the last line of a command. It is never dropped.
pub(crate) fn push_last(line: &str) {
    QUEUE.push(line.as_bytes(), Kind::Kept);
}

/// Queues a frame of progress, or drops it without counting.
pub(crate) fn push_frame(frame: &[u8]) {
    QUEUE.push(frame, Kind::Frame);
}

/// The writer for the log's formatter, which writes each line in one call.
pub(crate) struct Lines;

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(Kind::Line)
    }

    fn make_writer_for(&'a self, line: &Metadata<'_>) -> Line {
        // The line with the count of dropped lines must not be dropped.
        let is_count = line.target() == module_path!();
        Line(if is_count { Kind::Kept } else { Kind::Line })
    }
}

/// Queues one line.
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
    /// Whether the thread holds bytes that it has not written.
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

    /// Queues bytes without waiting for the reader.
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
            // If no thread can be started, the next line tries again.
            state.has_writer = started.is_ok();
        }
        drop(state);
        if was_empty {
            self.changed.notify_all();
        }
    }

    /// Writes what is queued, without end.
    fn write_to(&self, mut reader: impl Write, log_dropped: impl Fn(u64)) {
        let mut taken = Vec::new();
        loop {
            self.take(&mut taken);
            // Line by line: writes of up to 4 kB to a pipe are atomic, so lines of several processes do not mix.
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

    /// Waits for bytes, and swaps them for the buffer that was written.
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
        // After the timeout, the caller goes on.
        let _ = self
            .changed
            .wait_timeout_while(self.lock(), timeout, is_behind);
    }
}

/// Called by the thread after it has written something.
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
            // The reader has closed stderr, and there is no other place to report it.
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use super::*;

    /// A reader that takes nothing until the test allows it.
    struct Stalled {
        may_go_on: Receiver<()>,
        goes_on: bool,
        read: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // A dropped sender lets it read to the end.
            self.goes_on = self.goes_on || self.may_go_on.recv().is_err();
            // Short writes.
            let some = bytes.len().div_ceil(2);
            self.read.lock().unwrap().extend_from_slice(&bytes[..some]);
            Ok(some)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    type Stall = (&'static Queue, SyncSender<()>, Arc<Mutex<Vec<u8>>>);

    /// A queue whose thread runs and stalls.
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
        // The thread holds the first line and cannot write it.
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
