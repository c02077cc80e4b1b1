//! A tap reads the traffic of a worker's links, and kills the worker at a chosen point of its work.
//!
//! All links of one worker share a tap. Armed with a fault, it waits for the bytes that mark its point,
//! kills the worker, and drops all further traffic: for all peers the worker died at exactly that point,
//! whatever it did in its last millisecond.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::oneshot;
use tokio::task::block_in_place;

use crate::fault::Fault;
use crate::support::process::signal;

/// The protocol of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Amqp,
    Redis,
}

/// The sender of one direction of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sender {
    Worker,
    Server,
}

/// A point of a worker's work that its traffic shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Marker {
    /// A lookup on its way to Redis, after a request was delivered.
    Lookup,
    /// The lookup missed: the worker computes next.
    Miss,
    /// Redis has stored an answer.
    Stored,
    /// A reply on its way to the broker.
    Reply,
    /// An ack on its way to the broker, after the confirm of the reply.
    Ack,
}

/// The marker that a fault waits for, and whether those bytes still pass.
fn trigger(fault: Fault) -> Option<(Marker, bool)> {
    Some(match fault {
        Fault::KillBeforeCompute => (Marker::Lookup, false),
        Fault::KillInCompute => (Marker::Miss, true),
        Fault::KillAfterFill => (Marker::Stored, false),
        Fault::KillAfterReply => (Marker::Reply, true),
        Fault::KillBeforeAck => (Marker::Ack, false),
        _ => return None,
    })
}

#[derive(Default)]
pub(crate) struct Tap {
    armed: Mutex<Option<(Fault, Kill)>>,
    /// The worker was killed: everything is dropped.
    fired: AtomicBool,
    replies: AtomicU64,
}

/// A kill that is to be carried out at once.
pub(crate) struct Kill {
    worker: u32,
    done: oneshot::Sender<()>,
}

/// What to do with a piece of traffic.
pub(crate) enum Action {
    Pass,
    Drop,
    /// Pass it, then kill the worker.
    PassAndKill(Kill),
    /// Drop it and kill the worker.
    DropAndKill(Kill),
}

impl Tap {
    /// Kills the worker at the point of this fault from now on; the receiver resolves once it is killed.
    pub(crate) fn arm(&self, fault: Fault, worker: u32) -> oneshot::Receiver<()> {
        let (done, killed) = oneshot::channel();
        *self.armed.lock().expect("the lock is not poisoned") =
            Some((fault, Kill { worker, done }));
        killed
    }

    /// Lets everything pass again; returns whether the worker was not killed.
    pub(crate) fn disarm(&self) -> bool {
        let mut armed = self.armed.lock().expect("the lock is not poisoned");
        self.fired.store(false, Ordering::Release);
        armed.take().is_some()
    }

    /// The number of replies that the worker has sent.
    pub(crate) fn replies(&self) -> u64 {
        self.replies.load(Ordering::Relaxed)
    }

    /// Decides on a piece of traffic with these markers.
    pub(crate) fn observe(&self, markers: &[Marker]) -> Action {
        let replies = markers.iter().filter(|marker| **marker == Marker::Reply);
        self.replies
            .fetch_add(replies.count() as u64, Ordering::Relaxed);
        let mut armed = self.armed.lock().expect("the lock is not poisoned");
        if self.fired.load(Ordering::Acquire) {
            return Action::Drop;
        }
        let reached = armed.take_if(|(fault, _)| {
            trigger(*fault).is_some_and(|(marker, _)| markers.contains(&marker))
        });
        let Some((fault, kill)) = reached else {
            return Action::Pass;
        };
        self.fired.store(true, Ordering::Release);
        if trigger(fault).is_some_and(|(_, passes)| passes) {
            Action::PassAndKill(kill)
        } else {
            Action::DropAndKill(kill)
        }
    }
}

impl Kill {
    pub(crate) fn carry_out(self) {
        block_in_place(|| signal("KILL", self.worker));
        let _ = self.done.send(());
    }
}

/// Finds markers in one direction of one connection.
pub(crate) enum Reader {
    Frames(Frames),
    Commands,
    /// Whether a lookup was answered before: an OK until then is no fill.
    Answers(bool),
}

impl Reader {
    pub(crate) fn new(protocol: Protocol, sender: Sender) -> Self {
        match (protocol, sender) {
            (Protocol::Amqp, sender) => Self::Frames(Frames::of(sender)),
            (Protocol::Redis, Sender::Worker) => Self::Commands,
            (Protocol::Redis, Sender::Server) => Self::Answers(false),
        }
    }

    /// The markers in the next piece. In Redis' protocol, each piece is searched by itself: a marker that is split
    /// between two pieces is not found.
    pub(crate) fn read(&mut self, piece: &[u8]) -> Vec<Marker> {
        let has = |mark: &[u8]| piece.windows(mark.len()).any(|window| window == mark);
        let mut markers = Vec::new();
        match self {
            Self::Frames(frames) => return frames.read(piece),
            Self::Commands if has(b"\r\nGET\r\n") => markers.push(Marker::Lookup),
            Self::Commands => {}
            Self::Answers(looked_up) => {
                if *looked_up && has(b"+OK\r\n") {
                    markers.push(Marker::Stored);
                }
                *looked_up |= piece.contains(&b'$');
                if has(b"$-1\r\n") {
                    markers.push(Marker::Miss);
                }
            }
        }
        markers
    }
}

/// AMQP frames: type, channel, size; a method's payload begins with its class and its number.
pub(crate) struct Frames {
    sender: Sender,
    /// The head of the present frame, as far as it was read.
    head: Vec<u8>,
    /// Bytes to skip: the rest of the last frame, or the protocol header.
    rest: usize,
}

const HEAD: usize = 7;
const METHOD: u8 = 1;
const PUBLISH: [u8; 4] = [0, 60, 0, 40];
const ACK: [u8; 4] = [0, 60, 0, 80];

impl Frames {
    fn of(sender: Sender) -> Self {
        let rest = match sender {
            // "AMQP" and the version.
            Sender::Worker => 8,
            Sender::Server => 0,
        };
        Self {
            sender,
            head: Vec::new(),
            rest,
        }
    }

    fn read(&mut self, mut piece: &[u8]) -> Vec<Marker> {
        let mut markers = Vec::new();
        while !piece.is_empty() {
            let skipped = self.rest.min(piece.len());
            self.rest -= skipped;
            piece = &piece[skipped..];
            while self.rest == 0 {
                let Some((byte, left)) = piece.split_first() else {
                    break;
                };
                self.head.push(*byte);
                piece = left;
                self.classify(&mut markers);
            }
        }
        markers
    }

    /// Adds the marker of the present frame once its head is complete.
    fn classify(&mut self, markers: &mut Vec<Marker>) {
        let &[kind, _, _, a, b, c, d, ref method @ ..] = self.head.as_slice() else {
            return;
        };
        let size = u32::from_be_bytes([a, b, c, d]) as usize;
        let wanted = if kind == METHOD { 4 } else { 0 };
        if method.len() < wanted {
            return;
        }
        if self.sender == Sender::Worker && kind == METHOD {
            if *method == PUBLISH {
                markers.push(Marker::Reply);
            } else if *method == ACK {
                markers.push(Marker::Ack);
            }
        }
        // A frame ends with one more byte.
        self.rest = HEAD + size + 1 - self.head.len();
        self.head.clear();
    }
}
