//! Segmentation in software, as the kernel does it: for taps that do not take superframes, and for UDP that no piece
//! can hold.

use super::checksum::Sum;
use super::cut::{CutError, Superframe};
use super::headers::{Headers, MAX_HEADERS, Part};
use super::plain::Checksum;
use super::vnet::VnetHeader;

/// Gives each segment of a superframe in order as (header for a tap, headers, payload), headers and payload to be put
/// one behind the other. With [`Checksum::Computed`] checksums are completed. Returns how many there were.
///
/// Like the kernel: the IPv4 id counts up, CWR stays on the first, PSH and FIN on the last, and the length of the frame,
/// not what its IP header says, tells where the last one ends.
pub fn each(
    vnet: &VnetHeader,
    frame: &[u8],
    checksum: Checksum,
    mut write: impl FnMut(VnetHeader, &[u8], &[u8]),
) -> Result<usize, CutError> {
    let Superframe { headers: shape, gso_size, payload_len } = Superframe::check(vnet, frame)?;
    let (headers, payload) = frame.split_at(shape.len());
    let whole = Superheader { shape, gso_size, len: payload_len, first_segment: 0, offset: 0, is_last: true };
    let mut own = [0; MAX_HEADERS];
    let segments = payload.chunks(gso_size.into());
    let count = segments.len();
    for (index, segment) in segments.enumerate() {
        let vnet = whole.segment(headers, index, segment, checksum, &mut own);
        write(vnet, &own[..shape.len()], segment);
    }
    Ok(count)
}

/// The headers of a superframe, or of a run of its segments, with what they must still be told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Superheader {
    pub shape: Headers,
    pub gso_size: u16,
    /// Bytes of payload.
    pub len: usize,
    /// Segments of the original superframe before this.
    pub first_segment: u16,
    /// Bytes of the original superframe before this.
    pub offset: u32,
    /// Whether this has the original's end.
    pub is_last: bool,
}

impl Superheader {
    /// Puts `headers` right, the original's, so that they head this.
    pub fn rewrite(&self, headers: &mut [u8]) {
        let Superheader { first_segment, offset, len, is_last, .. } = *self;
        self.shape.rewrite(headers, Part { first_segment, offset, len, is_last });
    }

    pub fn segments(&self) -> usize {
        self.len.div_ceil(self.gso_size.into())
    }

    /// Writes the headers of segment `index`, counted from the first of this, into `out`. `headers` are those that
    /// [`Superheader::rewrite`] has put right.
    pub fn segment(
        &self,
        headers: &[u8],
        index: usize,
        payload: &[u8],
        checksum: Checksum,
        out: &mut [u8; MAX_HEADERS],
    ) -> VnetHeader {
        let own = &mut out[..self.shape.len()];
        own.copy_from_slice(headers);
        let part = Part {
            first_segment: index as u16,
            offset: (index * usize::from(self.gso_size)) as u32,
            len: payload.len(),
            is_last: index + 1 == self.segments(),
        };
        self.shape.rewrite(own, part);
        match checksum {
            Checksum::NotComputed => self.shape.vnet(None, false),
            Checksum::Computed => {
                let l4 = usize::from(self.shape.l4);
                let at = l4 + usize::from(self.shape.kind.checksum_offset());
                let sum = Sum::of(&own[l4..]).and(payload);
                let sum = if self.shape.kind.is_tcp() { sum.checksum() } else { sum.checksum_not_zero() };
                own[at..at + 2].copy_from_slice(&sum.to_be_bytes());
                VnetHeader::default()
            }
        }
    }
}
