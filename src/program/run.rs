//! One computation by a process: writes its stdin, reads its stdout and stderr all the time, and ends it when it has ended, has
//! written too much, or its time is up. Runs on a thread where blocking is allowed.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{ChildStderr, ChildStdin, ChildStdout, Command};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionbio};
use tracing::debug;

use super::outcome::{self, Tail};
use super::processes::{Leader, end_orphans, reap_orphans};
use crate::message::Failure;

/// How often a computation looks at a deadline that may have been moved, and reaps orphans.
const TICK: Duration = Duration::from_secs(1);

/// The size of one read, which is what a pipe holds if it was not enlarged.
const READ: usize = 64 * 1024;

/// What a pipe holds at most, unless root has enlarged it.
const MAX_PIPE: usize = 1024 * 1024;

/// The limits of one computation.
pub(crate) struct Limits<'a> {
    /// The size of its answer.
    pub(crate) max_size: usize,
    /// When the time of its request runs out. Requests that join it may move this later.
    pub(crate) deadline: &'a dyn Fn() -> Instant,
}

/// Ends computations: a pipe that is closed then, since they wait for pipes.
#[derive(Debug)]
pub(super) struct Stop {
    closed: PipeReader,
    open: Mutex<Option<PipeWriter>>,
}

impl Stop {
    pub(super) fn new() -> io::Result<Self> {
        let (closed, open) = io::pipe()?;
        Ok(Self {
            closed,
            open: Mutex::new(Some(open)),
        })
    }

    pub(super) fn now(&self) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Why a computation is over.
enum Over {
    /// The process has ended by itself.
    Ended,
    /// It is ended for this reason.
    Failed(Failure),
    /// It is ended because the worker stops; there is no reply.
    Stopped,
}

/// What a computation waits for.
#[derive(Debug, Clone, Copy)]
enum Ready {
    Stop,
    Stdin,
    Stdout,
    Stderr,
    Ended,
}

/// Starts the process, and calls `reply` as soon as there is an outcome. Returns when none of its processes is left.
pub(super) fn run(
    mut command: Command,
    input: Vec<u8>,
    timeout: Duration,
    limits: &Limits<'_>,
    stop: &Stop,
    reply: impl FnOnce(Result<Vec<u8>, Failure>),
) {
    let times_out = Instant::now() + timeout;
    let mut leader = match Leader::start(&mut command) {
        Ok(leader) => leader,
        Err(error) => {
            debug!(%error, "a program cannot be started");
            return reply(Err(outcome::failed(format!(
                "the program cannot be started: {error}"
            ))));
        }
    };
    let mut pipes = match Pipes::take(&mut leader, input) {
        Ok(pipes) => pipes,
        Err(error) => {
            return reply(Err(outcome::failed(format!(
                "a pipe to the program: {error}"
            ))));
        }
    };
    let mut next_tick = Instant::now() + TICK;
    let over = loop {
        let now = Instant::now();
        let expires = (limits.deadline)();
        if now >= times_out {
            break Over::Failed(outcome::timed_out(timeout));
        }
        if now >= expires {
            break Over::Failed(outcome::expired());
        }
        let wait = times_out
            .min(expires)
            .saturating_duration_since(now)
            .min(TICK);
        match pipes.wait(&leader, stop, wait) {
            Ok(None) if Instant::now() >= next_tick => {
                reap_orphans();
                next_tick = Instant::now() + TICK;
            }
            Ok(None) => {}
            Ok(Some(over)) => break over,
            Err(error) => {
                break Over::Failed(outcome::failed(format!(
                    "cannot read from the program: {error}"
                )));
            }
        }
        if pipes.answer.len() > limits.max_size.saturating_add(1) {
            break Over::Failed(outcome::too_large(limits.max_size));
        }
    };
    match over {
        Over::Ended => {
            // What is left of its group must write no more.
            leader.kill_group();
            pipes.read_rest(limits.max_size);
            let Pipes { answer, errors, .. } = pipes;
            let outcome = match leader.reap() {
                Ok(status) => outcome::of(status, answer, &errors),
                Err(error) => Err(outcome::failed(format!(
                    "the program cannot be waited for: {error}"
                ))),
            };
            reply(outcome.and_then(|answer| {
                let fits = answer.len() <= limits.max_size;
                if fits {
                    Ok(answer)
                } else {
                    Err(outcome::too_large(limits.max_size))
                }
            }));
        }
        Over::Failed(failure) => {
            // Descendants that hold the other ends delay nothing.
            drop(pipes);
            reply(Err(failure));
            leader.terminate();
        }
        Over::Stopped => {
            drop(pipes);
            leader.terminate();
        }
    }
    drop(leader);
    end_orphans();
}

/// This process' ends of the pipes, and what was read.
struct Pipes {
    /// `None` once all is written, or the process has closed it.
    stdin: Option<ChildStdin>,
    /// What is to be written, from `written` on.
    input: Vec<u8>,
    written: usize,
    /// `None` at their end.
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    answer: Vec<u8>,
    errors: Tail,
    buffer: Vec<u8>,
}

impl Pipes {
    fn take(leader: &mut Leader, input: Vec<u8>) -> io::Result<Self> {
        let child = leader.child();
        let mut pipes = Self {
            stdin: child.stdin.take(),
            input,
            written: 0,
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
            answer: Vec::new(),
            errors: Tail::default(),
            buffer: vec![0; READ],
        };
        let ends = [
            pipes.stdin.as_ref().map(AsFd::as_fd),
            pipes.stdout.as_ref().map(AsFd::as_fd),
            pipes.stderr.as_ref().map(AsFd::as_fd),
        ];
        for end in ends.into_iter().flatten() {
            ioctl_fionbio(end, true)?;
        }
        pipes.write();
        Ok(pipes)
    }

    /// Waits until there is something to do, for `wait` at most, and does it. `None` while the computation goes on.
    fn wait(&mut self, leader: &Leader, stop: &Stop, wait: Duration) -> io::Result<Option<Over>> {
        let mut over = None;
        for ready in self.poll(leader, stop, wait)? {
            match ready {
                Ready::Stdin => self.write(),
                Ready::Stdout => self.read_stdout(),
                Ready::Stderr => self.read_stderr(),
                Ready::Ended => over = Some(Over::Ended),
                Ready::Stop => return Ok(Some(Over::Stopped)),
            }
        }
        Ok(over)
    }

    /// Waits for the process, the pipes, and the stop. Empty if none of them is ready in time.
    fn poll(&self, leader: &Leader, stop: &Stop, wait: Duration) -> io::Result<Vec<Ready>> {
        let (input, output) = (PollFlags::IN, PollFlags::OUT);
        let ends = [
            (Ready::Stop, Some(stop.closed.as_fd()), input),
            (Ready::Stdin, self.stdin.as_ref().map(AsFd::as_fd), output),
            (Ready::Stdout, self.stdout.as_ref().map(AsFd::as_fd), input),
            (Ready::Stderr, self.stderr.as_ref().map(AsFd::as_fd), input),
            (Ready::Ended, Some(leader.ended()), input),
        ];
        let open = ends
            .into_iter()
            .filter_map(|(what, end, flags)| Some((what, PollFd::from_borrowed_fd(end?, flags))));
        let (ready, mut polled): (Vec<_>, Vec<_>) = open.unzip();
        let wait = Timespec::try_from(wait).map_err(io::Error::other)?;
        match poll(&mut polled, Some(&wait)) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
        let ready = ready.into_iter().zip(&polled);
        let ready = ready.filter(|(_, polled)| !polled.revents().is_empty());
        Ok(ready.map(|(what, _)| what).collect())
    }

    /// Writes as much as fits. Closes stdin when all is written, or when the process does not read it.
    fn write(&mut self) {
        while let Some(stdin) = &mut self.stdin {
            match stdin.write(&self.input[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // It may compute its answer without reading to the end.
                Err(_) => self.stdin = None,
            }
            if self.written == self.input.len() {
                self.stdin = None;
            }
        }
    }

    fn read_stdout(&mut self) {
        if let Some(count) = read(&mut self.stdout, &mut self.buffer) {
            self.answer.extend_from_slice(&self.buffer[..count]);
        }
    }

    fn read_stderr(&mut self) {
        if let Some(count) = read(&mut self.stderr, &mut self.buffer) {
            self.errors.push(&self.buffer[..count]);
        }
    }

    /// Reads what the pipes hold after the process has ended, without waiting for others that have them open.
    fn read_rest(&mut self, max_size: usize) {
        let is_ready = |end: Option<BorrowedFd<'_>>| {
            let Some(end) = end else { return false };
            let mut polled = [PollFd::from_borrowed_fd(end, PollFlags::IN)];
            let now = Timespec::default();
            poll(&mut polled, Some(&now)).is_ok_and(|ready| ready > 0)
        };
        while self.answer.len() <= max_size.saturating_add(1)
            && is_ready(self.stdout.as_ref().map(AsFd::as_fd))
        {
            self.read_stdout();
        }
        // A pipe holds 1 MiB at most; a descendant may write for ever.
        for _ in 0..MAX_PIPE / READ {
            if !is_ready(self.stderr.as_ref().map(AsFd::as_fd)) {
                break;
            }
            self.read_stderr();
        }
    }
}

/// Reads once from an end that does not block. Closes it at its end; `None` if nothing was read.
fn read(end: &mut Option<impl Read>, buffer: &mut [u8]) -> Option<usize> {
    match end.as_mut()?.read(buffer) {
        Ok(count) if count > 0 => return Some(count),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
        Ok(_) | Err(_) => *end = None,
    }
    None
}
