//! Filters frames from the broker to lapin. Pure: bytes in, bytes out.
//!
//! Frames that lapin can parse stay in the buffer that they were read into. A frame that is rewritten, and what
//! follows it in the same read, is copied; so is the start of an incomplete frame.

use std::io;

use super::properties::ContentHeader;
use super::{Envelope, MAX_BODY, MAX_FRAME, broken, methods};

/// A content header larger than this is not buffered: its message arrives without properties.
const MAX_HEADER: usize = 1024 * 1024;

/// The encoding of no properties.
const NO_PROPERTIES: [u8; 2] = [0, 0];

/// The state of the filter in the direction of lapin.
#[derive(Debug)]
pub(super) struct Inbound {
    /// The largest frame that lapin requests and the broker offers.
    frame_max: u32,
    /// Whether a frame was received. Before that, the server may not be a broker.
    is_amqp: bool,
    /// The server does not use AMQP frames: everything passes, and lapin reports it.
    is_foreign: bool,
    /// Bytes of the current frame that pass, or are dropped, without inspection.
    passing: usize,
    dropping: usize,
    /// Bodies that are dropped: their channel, and the bytes still to come.
    oversized: Vec<(u16, u64)>,
    /// The start of an incomplete frame.
    pending: Vec<u8>,
    /// Filtered bytes for lapin, from `taken` on.
    ready: Vec<u8>,
    taken: usize,
}

/// What to do with the frame at the start of some bytes.
enum Verdict {
    /// Wait for more bytes.
    Incomplete,
    /// Pass so many bytes unchanged, including those still to come.
    Pass(usize),
    /// Drop so many bytes, and insert this in their place.
    Replace(usize, Vec<u8>),
}

impl Inbound {
    pub(super) fn new(frame_max: u32) -> Self {
        Self {
            frame_max,
            is_amqp: false,
            is_foreign: false,
            passing: 0,
            dropping: 0,
            oversized: Vec::new(),
            pending: Vec::new(),
            ready: Vec::new(),
            taken: 0,
        }
    }

    /// The largest frame that both sides accept.
    pub(super) fn frame_max(&self) -> u32 {
        self.frame_max
    }

    /// Filtered bytes for lapin.
    pub(super) fn ready(&self) -> &[u8] {
        &self.ready[self.taken..]
    }

    /// Removes `count` of the ready bytes.
    pub(super) fn take(&mut self, count: usize) {
        self.taken += count;
        if self.taken == self.ready.len() {
            self.ready.clear();
            self.taken = 0;
        }
    }

    /// The start of an incomplete frame, to be put before the next read.
    pub(super) fn pending(&self) -> &[u8] {
        &self.pending
    }

    /// Filters `bytes`: `pending` and what was read after it. Returns how many bytes pass in place. The rest is
    /// copied: filtered bytes to `ready`, an incomplete frame to `pending`.
    pub(super) fn judge_in_place(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.pending.clear();
        let mut at = 0;
        while at < bytes.len() {
            if self.passing > 0 || self.is_foreign {
                at += self.pass(bytes.len() - at);
                continue;
            }
            let rest = &mut bytes[at..];
            let verdict = if self.dropping > 0 {
                Verdict::Replace(0, Vec::new())
            } else {
                self.judge(rest)?
            };
            match verdict {
                Verdict::Pass(size) => self.passing = size,
                Verdict::Incomplete => {
                    self.pending.extend_from_slice(rest);
                    break;
                }
                Verdict::Replace(size, replacement) => {
                    self.ready.extend_from_slice(&replacement);
                    self.dropping += size;
                    let judged = self.judge_copied(rest)?;
                    self.pending.extend_from_slice(&rest[judged..]);
                    break;
                }
            }
        }
        Ok(at)
    }

    /// Filters bytes that were read into another buffer than lapin's.
    pub(super) fn judge_more(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut together = std::mem::take(&mut self.pending);
        together.extend_from_slice(bytes);
        let judged = self.judge_copied(&mut together)?;
        together.drain(..judged);
        self.pending = together;
        Ok(())
    }

    /// Filters bytes, and copies those that pass to `ready`. Returns how many were filtered.
    fn judge_copied(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut at = 0;
        while at < bytes.len() {
            let left = bytes.len() - at;
            if self.dropping > 0 {
                let dropped = self.dropping.min(left);
                self.dropping -= dropped;
                at += dropped;
            } else if self.passing > 0 || self.is_foreign {
                let passed = self.pass(left);
                self.ready.extend_from_slice(&bytes[at..at + passed]);
                at += passed;
            } else {
                match self.judge(&mut bytes[at..])? {
                    Verdict::Pass(size) => self.passing = size,
                    Verdict::Incomplete => break,
                    Verdict::Replace(size, replacement) => {
                        self.ready.extend_from_slice(&replacement);
                        self.dropping = size;
                    }
                }
            }
        }
        Ok(at)
    }

    /// Counts up to `available` bytes as passed. Returns their number.
    fn pass(&mut self, available: usize) -> usize {
        if self.is_foreign {
            return available;
        }
        let passed = self.passing.min(available);
        self.passing -= passed;
        passed
    }

    /// Decides about the frame at the start of the bytes, and makes text in methods UTF-8.
    fn judge(&mut self, bytes: &mut [u8]) -> io::Result<Verdict> {
        let first = *bytes.first().unwrap_or(&0);
        if !self.is_amqp && first != Envelope::METHOD {
            // Another version of AMQP, TLS, HTTP: lapin and `super::super::dial` report it.
            self.is_foreign = true;
            return Ok(Verdict::Pass(0));
        }
        let Some(envelope) = Envelope::read(bytes) else {
            return Ok(Verdict::Incomplete);
        };
        let total = envelope.total();
        match envelope.kind {
            Envelope::BODY => self.judge_body(&envelope),
            Envelope::HEADER if envelope.size > MAX_HEADER => {
                self.judge_huge_header(&envelope, bytes)
            }
            Envelope::METHOD | Envelope::HEARTBEAT if total > MAX_FRAME as usize => {
                Err(broken(&format!("a frame of {total} bytes")))
            }
            Envelope::METHOD | Envelope::HEARTBEAT | Envelope::HEADER => {
                let Some(frame) = bytes.get_mut(..total) else {
                    return Ok(Verdict::Incomplete);
                };
                if frame.last() != Some(&Envelope::END) {
                    return Err(broken("a frame without an end"));
                }
                self.is_amqp = true;
                let payload = &mut frame[Envelope::SIZE..total - 1];
                if envelope.kind == Envelope::HEADER {
                    return self.judge_header(&envelope, payload);
                }
                if envelope.kind == Envelope::METHOD {
                    self.judge_method(envelope.channel, payload)?;
                }
                Ok(Verdict::Pass(total))
            }
            kind => Err(broken(&format!("a frame of unknown type {kind}"))),
        }
    }

    fn judge_method(&mut self, channel: u16, payload: &mut [u8]) -> io::Result<()> {
        methods::make_parsable(payload)?;
        if let Some(offered) = methods::offered_frame_max(payload) {
            // 0: any size.
            if offered != 0 {
                self.frame_max = self.frame_max.min(offered);
            }
        }
        if methods::ends_channel(payload) {
            self.oversized
                .retain(|&(oversized, _)| oversized != channel);
        }
        Ok(())
    }

    fn judge_header(&mut self, envelope: &Envelope, payload: &[u8]) -> io::Result<Verdict> {
        let Some(header) = ContentHeader::read(payload) else {
            return Err(broken("a content header that cannot be parsed"));
        };
        let total = envelope.total();
        let is_oversized = header.body_size > MAX_BODY;
        if !is_oversized && total <= self.frame_max as usize && header.is_parsable() {
            return Ok(Verdict::Pass(total));
        }
        if is_oversized {
            self.oversized
                .retain(|&(oversized, _)| oversized != envelope.channel);
            self.oversized.push((envelope.channel, header.body_size));
        }
        let reduced = envelope.frame(&header.reduced(is_oversized));
        Ok(Verdict::Replace(total, reduced))
    }

    /// Decides about a content header that is too large to be buffered.
    fn judge_huge_header(&mut self, envelope: &Envelope, bytes: &[u8]) -> io::Result<Verdict> {
        let Some(fixed) = bytes.get(Envelope::SIZE..Envelope::SIZE + ContentHeader::FIXED) else {
            return Ok(Verdict::Incomplete);
        };
        let bare = [fixed, &NO_PROPERTIES].concat();
        Ok(match self.judge_header(envelope, &bare)? {
            Verdict::Replace(_, reduced) => Verdict::Replace(envelope.total(), reduced),
            _ => Verdict::Replace(envelope.total(), envelope.frame(&bare)),
        })
    }

    fn judge_body(&mut self, envelope: &Envelope) -> io::Result<Verdict> {
        let total = envelope.total();
        let channel = envelope.channel;
        let oversized = self
            .oversized
            .iter()
            .position(|&(oversized, _)| oversized == channel);
        if let Some(index) = oversized {
            let left = &mut self.oversized[index].1;
            *left = left.saturating_sub(envelope.size as u64);
            if *left == 0 {
                self.oversized.swap_remove(index);
            }
            return Ok(Verdict::Replace(total, Vec::new()));
        }
        if total > MAX_FRAME as usize {
            return Err(broken(&format!("a frame of {total} bytes")));
        }
        Ok(Verdict::Pass(total))
    }
}
