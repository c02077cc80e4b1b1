//! When answers came, so that the pauses between them show what a fault cost: hits by a third of Redis' slots, since
//! a shard that is lost costs its own keys alone, and computed answers.

use std::collections::BTreeMap;
use std::time::Duration;

/// Answers within this time, in microseconds, are one moment.
const MOMENT: u64 = 10_000;
const SLOTS: u16 = 16384;
/// The shards of a cluster, as it starts.
const SHARDS: u16 = 3;

/// What is answered without a pause while nothing is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stream {
    /// Of the keys of a third of the slots.
    Hits(u16),
    Computed,
}

impl Stream {
    pub(crate) fn hits_of(n: u64) -> Self {
        let slot = crc16(format!("fib:{n}").as_bytes()) % SLOTS;
        Self::Hits(slot / SLOTS.div_ceil(SHARDS))
    }
}

/// The moments of a run, from its beginning, in which each stream had an answer.
pub(crate) struct Pauses {
    began: u64,
    answered: BTreeMap<Stream, Vec<bool>>,
}

impl Pauses {
    pub(crate) fn new(began: u64) -> Self {
        Self {
            began,
            answered: BTreeMap::new(),
        }
    }

    /// Notes an answer at a time of the clock, in microseconds.
    pub(crate) fn note(&mut self, stream: Stream, at: u64) {
        let moment = self.moment(at);
        let answered = self.answered.entry(stream).or_default();
        if answered.len() <= moment {
            answered.resize(moment + 1, false);
        }
        answered[moment] = true;
    }

    /// The longest pauses of hits and of computed answers that touch this time, each from one answer to the next.
    pub(crate) fn between(&self, start: u64, end: u64) -> [Duration; 2] {
        let longest = |of: fn(&Stream) -> bool| {
            let streams = self.answered.iter().filter(|(stream, _)| of(stream));
            let pauses = streams.map(|(_, answered)| self.longest(answered, start, end));
            pauses.max().unwrap_or_default()
        };
        [
            longest(|stream| matches!(stream, Stream::Hits(_))),
            longest(|stream| *stream == Stream::Computed),
        ]
    }

    fn longest(&self, answered: &[bool], start: u64, end: u64) -> Duration {
        let (start, end) = (self.moment(start), self.moment(end));
        let (mut last, mut longest) = (0, 0);
        for (moment, _) in answered.iter().enumerate().filter(|(_, has)| **has) {
            if moment >= start {
                longest = longest.max(moment - last);
            }
            last = moment;
            if moment > end {
                break;
            }
        }
        // Without an answer after the end, the pause lasts.
        let longest = longest.max(end.saturating_sub(last));
        Duration::from_micros(longest as u64 * MOMENT)
    }

    fn moment(&self, at: u64) -> usize {
        let moment = at.saturating_sub(self.began) / MOMENT;
        usize::try_from(moment).expect("a run of days at most")
    }
}

/// As Redis Cluster computes it: XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc: u16, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| {
            let next = crc << 1;
            if crc & 0x8000 == 0 {
                next
            } else {
                next ^ 0x1021
            }
        })
    })
}
