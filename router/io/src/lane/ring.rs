//! The receive buffers: a ring, so that pieces may lie in one while the next datagrams come into another.

use std::ops::Range;

use weft_router::offload::Span;

/// Buffers. A superframe of the longest kind comes in at most three.
const SLOTS: usize = 8;
/// What UDP_GRO puts together is never longer.
pub(super) const SLOT_LEN: usize = 65_536;

pub(super) struct Ring {
    slots: Vec<Box<[u8]>>,
    current: usize,
    /// How many slots before the current one are still needed.
    held: usize,
}

impl Ring {
    pub(super) fn new() -> Self {
        Self {
            slots: (0..SLOTS).map(|_| vec![0; SLOT_LEN].into_boxed_slice()).collect(),
            current: 0,
            held: 0,
        }
    }

    /// The number of the buffer that is being received into.
    #[inline]
    pub(super) fn current(&self) -> usize {
        self.current
    }

    /// The buffer to receive into.
    #[inline]
    pub(super) fn slot(&mut self) -> &mut [u8] {
        &mut self.slots[self.current]
    }

    /// Puts `buffer`, of the same length, in the place of the one to receive into, which is handed out.
    #[inline]
    pub(super) fn exchange(&mut self, buffer: Box<[u8]>) -> Box<[u8]> {
        debug_assert_eq!(buffer.len(), SLOT_LEN);
        std::mem::replace(&mut self.slots[self.current], buffer)
    }

    #[inline]
    pub(super) fn bytes(&self, slot: usize, range: Range<usize>) -> &[u8] {
        &self.slots[slot][range]
    }

    #[inline]
    pub(super) fn span(&self, span: Span) -> &[u8] {
        &self.slots[span.buffer as usize][span.range()]
    }

    /// Nothing received before is needed any more.
    #[inline]
    pub(super) fn release(&mut self) {
        self.held = 0;
    }

    /// Goes on to another buffer, because what lies in this one is still needed. `false` if there is none to go on to.
    #[inline]
    pub(super) fn advance(&mut self) -> bool {
        if self.held + 1 == SLOTS {
            return false;
        }
        self.held += 1;
        self.current = (self.current + 1) % SLOTS;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_overwrites_what_is_held() {
        let mut ring = Ring::new();
        let mut used = vec![ring.current()];
        while ring.advance() {
            assert!(!used.contains(&ring.current()));
            used.push(ring.current());
        }
        assert_eq!(used.len(), SLOTS);
        ring.release();
        assert!(ring.advance());
    }
}
