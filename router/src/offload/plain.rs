//! Frames that are no superframes: who computes a checksum that is "not computed".
//!
//! That state crosses the mesh only for the frame's own outermost TCP or UDP header (PROTOCOL 8); any other open
//! checksum, of a tunnel inside or of ICMP, is computed by the sender.

use thiserror::Error;

use super::checksum::complete;
use super::vnet::{Offloads, VnetHeader};
use crate::frame::{L4Protocol, Layout};

/// The state of a frame's checksum, which travels as a flag of its chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// Nothing is left to do.
    Computed,
    /// The field of the frame's own TCP or UDP header holds the pseudo header's sum.
    NotComputed,
}

/// Why a plain frame is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PlainError {
    /// Of our own tap: the checksum to compute lies outside.
    #[error("a checksum at {start}+{offset} lies outside the frame of {len} bytes")]
    ChecksumOutside {
        /// As the tap said.
        start: u16,
        /// As the tap said.
        offset: u16,
        /// Bytes of the frame.
        len: usize,
    },
    /// Of a peer: there is no checksum that it might have left open.
    #[error("the frame says \"checksum not computed\" and has no TCP or UDP header")]
    NoChecksum,
}

/// The sender's side: readies a frame that our tap gave with `vnet` before it (not a superframe), and says what its
/// chunk must carry. `layout` is the frame's own; without one, `None`.
#[inline]
pub fn settle(vnet: &VnetHeader, layout: Option<&Layout>, frame: &mut [u8]) -> Result<Checksum, PlainError> {
    if !vnet.needs_checksum() {
        return Ok(Checksum::Computed);
    }
    let own = layout.and_then(own_checksum);
    if own == Some((vnet.csum_start, vnet.csum_offset)) {
        return Ok(Checksum::NotComputed);
    }
    finish_checksum(vnet, frame)?;
    Ok(Checksum::Computed)
}

/// Computes in place the checksum that `vnet` says is open, wherever it lies.
pub fn finish_checksum(vnet: &VnetHeader, frame: &mut [u8]) -> Result<(), PlainError> {
    let (start, offset) = (vnet.csum_start, vnet.csum_offset);
    let outside = PlainError::ChecksumOutside { start, offset, len: frame.len() };
    complete(frame, start.into(), offset.into()).ok_or(outside)
}

/// The receiver's side: the header to write before a frame from the mesh. Where our tap was not granted
/// [`Offloads::CSUM`] the checksum is computed here.
#[inline]
pub fn arrive(
    checksum: Checksum,
    layout: Option<&Layout>,
    frame: &mut [u8],
    offloads: Offloads,
) -> Result<VnetHeader, PlainError> {
    if checksum == Checksum::Computed {
        return Ok(VnetHeader::default());
    }
    let (csum_start, csum_offset) = layout.and_then(own_checksum).ok_or(PlainError::NoChecksum)?;
    let vnet = VnetHeader { flags: VnetHeader::NEEDS_CSUM, csum_start, csum_offset, ..VnetHeader::default() };
    if offloads.has(Offloads::CSUM) {
        return Ok(vnet);
    }
    finish_checksum(&vnet, frame)?;
    Ok(VnetHeader::default())
}

/// Start and offset of the checksum of the frame's outermost TCP or UDP header.
#[inline]
fn own_checksum(layout: &Layout) -> Option<(u16, u16)> {
    let l4 = layout.l4()?;
    let offset = match l4.protocol {
        L4Protocol::Tcp => 16,
        L4Protocol::Udp => 6,
    };
    Some((l4.offset, offset))
}

#[cfg(test)]
mod tests {
    use super::{Checksum, PlainError, arrive, settle};
    use crate::frame::Layout;
    use crate::offload::checksum::Sum;
    use crate::offload::vnet::{Offloads, VnetHeader};

    fn udp(payload: &[u8]) -> (VnetHeader, Vec<u8>) {
        let mut frame = Vec::new();
        let builder = etherparse::PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([1; 4], [2; 4], 9).udp(7, 8);
        builder.write(&mut frame, payload).unwrap();
        let pseudo = Sum::of(&frame[26..34]).and_u16(17).and_u16(8 + payload.len() as u16);
        frame[40..42].copy_from_slice(&pseudo.folded().to_be_bytes());
        (VnetHeader { flags: 1, csum_start: 34, csum_offset: 6, ..VnetHeader::default() }, frame)
    }

    fn computed(payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        let builder = etherparse::PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([1; 4], [2; 4], 9).udp(7, 8);
        builder.write(&mut frame, payload).unwrap();
        frame
    }

    #[test]
    fn its_own_udp_checksum_travels_open() {
        let (vnet, mut frame) = udp(b"seven b");
        let layout = Layout::parse(&frame);
        assert_eq!(settle(&vnet, layout.as_ref(), &mut frame), Ok(Checksum::NotComputed));
        assert_eq!(arrive(Checksum::NotComputed, layout.as_ref(), &mut frame, Offloads::CSUM), Ok(vnet));
        assert_eq!(frame, udp(b"seven b").1);
        let plain = arrive(Checksum::NotComputed, layout.as_ref(), &mut frame, Offloads::NONE);
        assert_eq!(plain, Ok(VnetHeader::default()));
        assert_eq!(frame, computed(b"seven b"));
    }

    #[test]
    fn any_other_checksum_is_computed_by_the_sender() {
        let (mut vnet, mut frame) = udp(b"inner header here");
        vnet.csum_start = 44;
        let layout = Layout::parse(&frame);
        assert_eq!(settle(&vnet, layout.as_ref(), &mut frame), Ok(Checksum::Computed));
        let mut expected = udp(b"inner header here").1;
        let sum = Sum::of(&expected[44..]).checksum();
        expected[50..52].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(frame, expected);
        vnet.csum_start = 60_000;
        let outside = PlainError::ChecksumOutside { start: 60_000, offset: 6, len: frame.len() };
        assert_eq!(settle(&vnet, layout.as_ref(), &mut frame), Err(outside));
    }

    #[test]
    fn a_peer_cannot_leave_open_what_is_not_there() {
        let mut arp = [0; 60];
        arp[12..14].copy_from_slice(&[8, 6]);
        let layout = Layout::parse(&arp);
        let refused = arrive(Checksum::NotComputed, layout.as_ref(), &mut arp, Offloads::ALL);
        assert_eq!(refused, Err(PlainError::NoChecksum));
    }
}
