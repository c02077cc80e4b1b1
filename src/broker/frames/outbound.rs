//! Frames on their way from lapin to the broker. Pure: bytes in, bytes out.
//!
//! Nearly all go on as they are. Changed are a content header that holds the bytes of a correlation
//! id, and, where the broker takes smaller frames than lapin ever agrees to, the size that is agreed
//! to and the frames of bodies.

use super::properties::ContentHeader;
use super::{Envelope, methods};

/// What a connection begins with is no frame: `AMQP` and the version.
const PROTOCOL_HEADER: usize = 8;

#[derive(Debug)]
pub(super) struct Outbound {
    /// The largest frame that the broker takes.
    frame_max: u32,
    /// Bytes of the current frame that go on without a look.
    passing: usize,
    /// A frame that is to be looked at, without its end.
    held: Vec<u8>,
    /// Changed frames, to be written from this position on before anything else.
    ready: Vec<u8>,
    written: usize,
}

impl Outbound {
    pub(super) fn new(frame_max: u32) -> Self {
        Self {
            frame_max,
            passing: PROTOCOL_HEADER,
            held: Vec::new(),
            ready: Vec::new(),
            written: 0,
        }
    }

    pub(super) fn set_frame_max(&mut self, frame_max: u32) {
        self.frame_max = frame_max;
    }

    /// Bytes that are to be written before all others, until there are none.
    pub(super) fn ready(&self) -> &[u8] {
        &self.ready[self.written..]
    }

    pub(super) fn wrote_ready(&mut self, count: usize) {
        self.written += count;
        if self.written == self.ready.len() {
            self.ready.clear();
            self.written = 0;
        }
    }

    /// How many of these bytes can be written as they are. None: see [`take`](Self::take).
    pub(super) fn unchanged(&self, bytes: &[u8]) -> usize {
        if self.held.is_empty() {
            self.walk(bytes, bytes.len()).0
        } else {
            0
        }
    }

    /// So many of the bytes, not more than are [`unchanged`](Self::unchanged), were written.
    pub(super) fn wrote(&mut self, bytes: &[u8], count: usize) {
        self.passing = self.walk(bytes, count).1;
    }

    /// Takes a frame that cannot go as it is, or as much of it as is there, and returns how many bytes
    /// that were. What is to be written in its place is [`ready`](Self::ready).
    pub(super) fn take(&mut self, bytes: &[u8]) -> usize {
        let missing = match Envelope::read(&self.held) {
            Some(envelope) => envelope.total() - self.held.len(),
            None => Envelope::SIZE.saturating_sub(self.held.len()),
        };
        let taken = missing.min(bytes.len());
        self.held.extend_from_slice(&bytes[..taken]);
        if let Some(envelope) = Envelope::read(&self.held)
            && self.held.len() == envelope.total()
        {
            let frame = std::mem::take(&mut self.held);
            self.change(&envelope, frame);
        }
        taken
    }

    /// Walks over frames up to `end` as long as they can go as they are. Returns how far that is, and
    /// how much of the last frame then is still to come.
    fn walk(&self, bytes: &[u8], end: usize) -> (usize, usize) {
        let mut at = self.passing;
        while at < end {
            match Envelope::read(&bytes[at..]) {
                Some(envelope) if self.passes(&envelope, &bytes[at..]) => at += envelope.total(),
                _ => return (at, 0),
            }
        }
        (end, at - end)
    }

    fn passes(&self, envelope: &Envelope, bytes: &[u8]) -> bool {
        match envelope.kind {
            Envelope::BODY => envelope.total() <= self.frame_max as usize,
            Envelope::HEADER | Envelope::METHOD => envelope
                .payload(bytes)
                .is_some_and(|payload| !self.needs_change(envelope, payload)),
            _ => true,
        }
    }

    fn needs_change(&self, envelope: &Envelope, payload: &[u8]) -> bool {
        if envelope.kind == Envelope::HEADER {
            return ContentHeader::read(payload)
                .is_some_and(|header| header.has_correlation_bytes());
        }
        methods::agreed_frame_max(payload).is_some_and(|agreed| agreed > self.frame_max)
    }

    fn change(&mut self, envelope: &Envelope, mut frame: Vec<u8>) {
        let payload = envelope.payload(&frame).unwrap_or_default();
        match envelope.kind {
            Envelope::HEADER => {
                let changed = ContentHeader::read(payload)
                    .and_then(|header| header.with_correlation_bytes())
                    .map(|payload| envelope.frame(&payload));
                self.ready.extend_from_slice(&changed.unwrap_or(frame));
            }
            Envelope::METHOD => {
                if self.needs_change(envelope, payload) {
                    methods::agree_frame_max(&mut frame, self.frame_max);
                }
                self.ready.extend_from_slice(&frame);
            }
            Envelope::BODY if frame.len() > self.frame_max as usize => {
                let room = (self.frame_max as usize).saturating_sub(Envelope::OVERHEAD);
                for part in payload.chunks(room.max(1)) {
                    self.ready.extend_from_slice(&envelope.frame(part));
                }
            }
            _ => self.ready.extend_from_slice(&frame),
        }
    }
}
