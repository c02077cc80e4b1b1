//! What passes on a worker's links, watched closely enough to kill it at a chosen moment.
//!
//! A tap is shared by all links of one worker. Armed with a point, it waits for the bytes that mark
//! it, kills the worker, and from then on nothing of that worker passes any more: for everybody else
//! it died at that point exactly, whatever it still did in its last millisecond.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::oneshot;
use tokio::task::block_in_place;

use crate::fault::Fault;
use crate::support::process::signal;

/// Who speaks on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Amqp,
    Redis,
}

/// Who sends what passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sender {
    Worker,
    Server,
}

/// What can be told from the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sight {
    /// A lookup on its way to Redis: a request was delivered before.
    Lookup,
    /// There is no answer yet: it is computed now.
    Nothing,
    /// Redis has stored an answer.
    Stored,
    /// A reply on its way to the broker.
    Reply,
    /// An ack on its way to the broker: the reply's confirm came before.
    Ack,
}

/// What a fault waits for, and whether that still passes.
fn mark(point: Fault) -> Option<(Sight, bool)> {
    Some(match point {
        Fault::KillBeforeCompute => (Sight::Lookup, false),
        Fault::KillInCompute => (Sight::Nothing, true),
        Fault::KillAfterFill => (Sight::Stored, false),
        Fault::KillAfterReply => (Sight::Reply, true),
        Fault::KillBeforeAck => (Sight::Ack, false),
        _ => return None,
    })
}

#[derive(Default)]
pub(crate) struct Tap {
    armed: Mutex<Option<(Fault, Kill)>>,
    sprung: AtomicBool,
    replies: AtomicU64,
}

/// To be carried out at once.
pub(crate) struct Kill {
    worker: u32,
    done: oneshot::Sender<()>,
}

/// What becomes of a piece.
pub(crate) enum Verdict {
    Passes,
    IsDropped,
    /// It passes, and then the worker dies.
    PassesAsTheLast(Kill),
    /// The worker dies, and it does not pass.
    IsDroppedFor(Kill),
}

impl Tap {
    /// From now on the worker dies at this point. What is returned resolves when it has.
    pub(crate) fn arm(&self, point: Fault, worker: u32) -> oneshot::Receiver<()> {
        let (done, told) = oneshot::channel();
        *self.armed.lock().expect("nobody panics with it") = Some((point, Kill { worker, done }));
        told
    }

    /// Everything passes again; whether the worker was spared.
    pub(crate) fn disarm(&self) -> bool {
        let mut armed = self.armed.lock().expect("nobody panics with it");
        self.sprung.store(false, Ordering::Release);
        armed.take().is_some()
    }

    /// How many replies have been on their way.
    pub(crate) fn replies(&self) -> u64 {
        self.replies.load(Ordering::Relaxed)
    }

    /// What becomes of a piece with these sights in it.
    pub(crate) fn judge(&self, sights: &[Sight]) -> Verdict {
        let replies = sights.iter().filter(|sight| **sight == Sight::Reply);
        self.replies
            .fetch_add(replies.count() as u64, Ordering::Relaxed);
        let mut armed = self.armed.lock().expect("nobody panics with it");
        if self.sprung.load(Ordering::Acquire) {
            return Verdict::IsDropped;
        }
        let marked = armed
            .take_if(|(point, _)| mark(*point).is_some_and(|(sight, _)| sights.contains(&sight)));
        let Some((point, kill)) = marked else {
            return Verdict::Passes;
        };
        self.sprung.store(true, Ordering::Release);
        if mark(point).is_some_and(|(_, passes)| passes) {
            Verdict::PassesAsTheLast(kill)
        } else {
            Verdict::IsDroppedFor(kill)
        }
    }
}

impl Kill {
    pub(crate) fn carry_out(self) {
        block_in_place(|| signal("KILL", self.worker));
        let _ = self.done.send(());
    }
}

/// Reads along in one direction of one connection.
pub(crate) enum Reader {
    Frames(Frames),
    Commands,
    /// And whether a lookup was answered before: what is OK until then is no fill.
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

    /// What is in the next piece. Redis' is looked for in each piece by itself: one that is torn
    /// apart is missed, and the next one seen.
    pub(crate) fn read(&mut self, piece: &[u8]) -> Vec<Sight> {
        let has = |mark: &[u8]| piece.windows(mark.len()).any(|window| window == mark);
        let mut sights = Vec::new();
        match self {
            Self::Frames(frames) => return frames.read(piece),
            Self::Commands if has(b"\r\nGET\r\n") => sights.push(Sight::Lookup),
            Self::Commands => {}
            Self::Answers(looked_up) => {
                if *looked_up && has(b"+OK\r\n") {
                    sights.push(Sight::Stored);
                }
                *looked_up |= piece.contains(&b'$');
                if has(b"$-1\r\n") {
                    sights.push(Sight::Nothing);
                }
            }
        }
        sights
    }
}

/// AMQP frames: type, channel, size; a method's payload begins with its class and its number.
pub(crate) struct Frames {
    sender: Sender,
    /// Of the frame that begins here, as far as it has come.
    head: Vec<u8>,
    /// Of the frame before, or of the protocol's own header.
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

    fn read(&mut self, mut piece: &[u8]) -> Vec<Sight> {
        let mut sights = Vec::new();
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
                self.look(&mut sights);
            }
        }
        sights
    }

    /// Whether the head is complete, and what it says.
    fn look(&mut self, sights: &mut Vec<Sight>) {
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
                sights.push(Sight::Reply);
            } else if *method == ACK {
                sights.push(Sight::Ack);
            }
        }
        // And the byte that ends a frame.
        self.rest = HEAD + size + 1 - self.head.len();
        self.head.clear();
    }
}
