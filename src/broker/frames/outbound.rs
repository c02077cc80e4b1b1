//! Filters frames from lapin to the broker. Pure: bytes in, bytes out.
//!
//! Most frames pass unchanged. Content headers with the bytes of a correlation id are rewritten. If the broker
//! accepts only smaller frames than lapin ever agrees to, so are `connection.tune-ok` and the frames of bodies.

use super::properties::ContentHeader;
use super::{Envelope, methods};

/// Bytes of the protocol header, `AMQP` and the version, which precedes the first frame.
const PROTOCOL_HEADER: usize = 8;

/// The state of the filter in the direction of the broker.
#[derive(Debug)]
pub(super) struct Outbound {
    /// The largest frame that the broker accepts.
    frame_max: u32,
    /// Bytes of the current frame that pass without inspection.
    passing: usize,
    /// The start of an incomplete frame that must be inspected.
    pending: Vec<u8>,
    /// Rewritten frames, to be written before anything else, from `written` on.
    ready: Vec<u8>,
    written: usize,
}

impl Outbound {
    pub(super) fn new(frame_max: u32) -> Self {
        Self {
            frame_max,
            passing: PROTOCOL_HEADER,
            pending: Vec::new(),
            ready: Vec::new(),
            written: 0,
        }
    }

    pub(super) fn set_frame_max(&mut self, frame_max: u32) {
        self.frame_max = frame_max;
    }

    /// Bytes to be written before all others.
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

    /// How many of these bytes can be written unchanged; if 0, call [`take`](Self::take).
    pub(super) fn unchanged(&self, bytes: &[u8]) -> usize {
        if self.pending.is_empty() {
            self.walk(bytes, bytes.len()).0
        } else {
            0
        }
    }

    /// Records that `count` of these bytes were written, at most [`unchanged`](Self::unchanged) ones.
    pub(super) fn wrote(&mut self, bytes: &[u8], count: usize) {
        self.passing = self.walk(bytes, count).1;
    }

    /// Takes the available bytes of a frame that must be rewritten, and returns their number. Its replacement
    /// becomes [`ready`](Self::ready).
    pub(super) fn take(&mut self, bytes: &[u8]) -> usize {
        let missing = match Envelope::read(&self.pending) {
            Some(envelope) => envelope.total() - self.pending.len(),
            None => Envelope::SIZE.saturating_sub(self.pending.len()),
        };
        let taken = missing.min(bytes.len());
        self.pending.extend_from_slice(&bytes[..taken]);
        if let Some(envelope) = Envelope::read(&self.pending)
            && self.pending.len() == envelope.total()
        {
            let frame = std::mem::take(&mut self.pending);
            self.change(&envelope, frame);
        }
        taken
    }

    /// Walks over frames that can pass unchanged, up to `end`. Returns the position reached, and the bytes of the
    /// last frame beyond `end`.
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
