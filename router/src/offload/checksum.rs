//! The Internet checksum (RFC 1071), four bytes at a time.

/// A ones' complement sum. It is kept in the machine's byte order, which the sum does not mind, and swapped once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// The sum of `bytes`; an odd last byte counts as if a zero followed.
    #[inline]
    pub fn of(bytes: &[u8]) -> Sum {
        Sum::default().and(bytes)
    }

    /// Adds `bytes`. Only the last part of what is summed may have an odd length.
    #[inline]
    pub fn and(self, bytes: &[u8]) -> Sum {
        // 2^32 words of 32 bit fit: no carry is lost below 16 GiB.
        let (words, rest) = bytes.as_chunks::<4>();
        let sum: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        Sum(self.0 + sum + u64::from(u32::from_ne_bytes(last)))
    }

    /// Adds one 16-bit field given as a number.
    #[inline]
    pub fn and_u16(self, value: u16) -> Sum {
        Sum(self.0 + u64::from(value.to_be()))
    }

    /// The sum in 16 bits: what a checksum field holds while the rest is "not computed".
    #[inline]
    pub fn folded(self) -> u16 {
        let mut sum = self.0;
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::from_be(sum as u16)
    }

    /// What belongs into the checksum field.
    #[inline]
    pub fn checksum(self) -> u16 {
        !self.folded()
    }

    /// The same, never 0, which in UDP means "no checksum"; 0xffff is the same number in ones' complement.
    #[inline]
    pub fn checksum_not_zero(self) -> u16 {
        match self.checksum() {
            0 => 0xffff,
            sum => sum,
        }
    }
}

/// Computes a checksum that was left open: everything from `start` to the end of `frame` is summed, the field's own
/// content (the pseudo header's sum) included, and the result stored `offset` bytes behind `start`. `None`, with
/// nothing changed, if that field is not inside the frame.
pub fn complete(frame: &mut [u8], start: usize, offset: usize) -> Option<()> {
    let covered = frame.get_mut(start..)?;
    let sum = Sum::of(covered).checksum_not_zero();
    covered.get_mut(offset..)?.first_chunk_mut().map(|field| *field = sum.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_assert_eq, proptest};

    use super::{Sum, complete};

    #[test]
    fn example_of_rfc_1071() {
        assert_eq!(Sum::of(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]).folded(), 0xddf2);
    }

    #[test]
    fn a_field_outside_changes_nothing() {
        let mut frame = [1, 2, 3, 4];
        assert_eq!(complete(&mut frame, 2, 1), None);
        assert_eq!(complete(&mut frame, 5, 0), None);
        assert_eq!(frame, [1, 2, 3, 4]);
    }

    proptest! {
        #[test]
        fn agrees_with_the_textbook(bytes in prop::collection::vec(any::<u8>(), 0..200), extra in any::<u16>()) {
            let mut sum = u64::from(extra);
            for pair in bytes.chunks(2) {
                sum += u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
            }
            while sum > 0xffff {
                sum = (sum & 0xffff) + (sum >> 16);
            }
            prop_assert_eq!(Sum::of(&bytes).and_u16(extra).folded(), sum as u16);
        }
    }
}
