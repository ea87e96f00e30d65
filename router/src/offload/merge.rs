//! Consecutive small UDP frames of one flow become one UDP superframe, so that every later step is taken once.
//!
//! What comes out is, segmented again by the kernel, byte for byte what went in. One exception: IPv4 ids that are all zero
//! on frames with DF come out as 0, 1, 2 ...; of an atomic datagram the id means nothing (RFC 6864, 4.1), and Linux sends
//! zeros from unconnected sockets. Other ids must count up by one, as segmentation makes them; anything else is not merged.

use super::checksum::Sum;
use super::headers::{Headers, Kind, Part, get_u16};
use super::vnet::VnetHeader;

/// Longest superframe made here, in bytes; a frame past it starts the next.
pub const MERGE_CAPACITY: usize = 60_000;
/// Most frames in a superframe made here; cutting splits it into pieces of at most
/// [`super::piece::MAX_UDP_PIECE_SEGMENTS`].
pub const MERGE_SEGMENTS: usize = 128;

const IPV4_MIN_LEN: usize = 20;
const DONT_FRAGMENT: u16 = 0x4000;

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a frame that was not taken must be sent otherwise"]
pub enum Offer {
    /// Copied; it comes with a later [`Merge::take`].
    Taken,
    /// Not taken: it does not belong to what is held. [`Merge::take`] that, then offer again.
    Flush,
    /// Not taken: it is no frame to merge. Nothing is held, so send it as it is.
    Pass,
}

/// Frames of one flow that wait for more of it, at most until the end of the batch.
///
/// For each frame of a batch: `offer`; at [`Offer::Flush`] `take` and offer again. At the batch's end `take`. Order is
/// kept, since nothing passes what is held. One per network and lane.
#[derive(Debug)]
pub struct Merge {
    buffer: Box<[u8]>,
    held: Option<Held>,
}

/// What [`Merge::take`] gives.
#[derive(Debug)]
pub struct Merged<'m> {
    /// As if our tap had given it.
    pub vnet: VnetHeader,
    /// A superframe, or the one frame that was held, unchanged.
    pub frame: &'m mut [u8],
}

#[derive(Clone, Copy, Debug)]
struct Held {
    vnet: VnetHeader,
    headers: Headers,
    ids: Ids,
    segment: usize,
    len: usize,
    frames: usize,
    /// A shorter frame was the last that may come.
    is_closed: bool,
}

/// How the IPv4 ids of the held frames go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ids {
    Open,
    CountUp,
    Zero,
}

impl Merge {
    /// Nothing held; allocates its one buffer.
    pub fn new() -> Merge {
        Merge { buffer: vec![0; MERGE_CAPACITY].into_boxed_slice(), held: None }
    }

    /// Whether [`Merge::take`] would give something.
    pub fn is_empty(&self) -> bool {
        self.held.is_none()
    }

    /// Offers the next frame, as our tap gave it.
    #[inline]
    pub fn offer(&mut self, vnet: &VnetHeader, frame: &[u8]) -> Offer {
        match &mut self.held {
            Some(held) => {
                if !held.accepts(vnet, frame, &mut self.buffer) {
                    return Offer::Flush;
                }
            }
            None => {
                let Some(held) = Held::first(vnet, frame) else { return Offer::Pass };
                self.buffer[..frame.len()].copy_from_slice(frame);
                self.held = Some(held);
            }
        }
        Offer::Taken
    }

    /// Gives what is held.
    #[inline]
    pub fn take(&mut self) -> Option<Merged<'_>> {
        let held = self.held.take()?;
        let frame = &mut self.buffer[..held.len];
        if held.frames == 1 {
            return Some(Merged { vnet: held.vnet, frame });
        }
        let len = held.len - held.headers.len();
        let part = Part { first_segment: 0, offset: 0, len, is_last: true };
        held.headers.rewrite(&mut frame[..held.headers.len()], part);
        Some(Merged { vnet: held.headers.vnet(Some(held.segment as u16), false), frame })
    }
}

impl Default for Merge {
    fn default() -> Merge {
        Merge::new()
    }
}

impl Held {
    fn first(vnet: &VnetHeader, frame: &[u8]) -> Option<Held> {
        if !vnet.needs_checksum() || vnet.is_superframe() || frame.len() > MERGE_CAPACITY {
            return None;
        }
        let headers = Headers::of(frame).ok()?;
        let ip_len = usize::from(headers.l4 - headers.ip);
        let is_bare = match headers.kind {
            Kind::Udp4 => ip_len == IPV4_MIN_LEN,
            Kind::Udp6 => ip_len == 40,
            Kind::Tcp4 | Kind::Tcp6 => false,
        };
        let segment = frame.len() - headers.len();
        if !is_bare || segment == 0 || !open_checksum_and_lengths(vnet, &headers, frame) {
            return None;
        }
        Some(Held {
            vnet: *vnet,
            headers,
            ids: Ids::Open,
            segment,
            len: frame.len(),
            frames: 1,
            is_closed: false,
        })
    }

    /// Appends the payload of `frame` if its headers are those held, but for lengths, id and checksums.
    fn accepts(&mut self, vnet: &VnetHeader, frame: &[u8], buffer: &mut [u8]) -> bool {
        let (start, ip, l4) =
            (self.headers.len(), usize::from(self.headers.ip), usize::from(self.headers.l4));
        let fits = frame.len() > start && frame.len() <= start + self.segment;
        if self.is_closed || !fits || vnet.is_superframe() || !vnet.needs_checksum() {
            return false;
        }
        let payload = &frame[start..];
        let end = self.len + payload.len();
        if self.frames == MERGE_SEGMENTS || end > buffer.len() {
            return false;
        }
        let same = |from: usize, to: usize| frame[from..to] == buffer[from..to];
        let is_same_flow = match self.headers.kind {
            Kind::Udp4 => same(0, ip + 2) && same(ip + 6, ip + 10) && same(ip + 12, l4 + 4),
            _ => same(0, ip + 4) && same(ip + 6, l4 + 4),
        };
        if !is_same_flow || !open_checksum_and_lengths(vnet, &self.headers, frame) {
            return false;
        }
        if self.headers.kind == Kind::Udp4 {
            let Some(ids) =
                self.next_ids(get_u16(buffer, ip + 4), get_u16(frame, ip + 4), get_u16(frame, ip + 6))
            else {
                return false;
            };
            self.ids = ids;
        }
        buffer[self.len..end].copy_from_slice(payload);
        self.len = end;
        self.frames += 1;
        self.is_closed = payload.len() < self.segment;
        true
    }

    fn next_ids(&self, first: u16, id: u16, fragment_field: u16) -> Option<Ids> {
        if self.ids != Ids::Zero && id == first.wrapping_add(self.frames as u16) {
            Some(Ids::CountUp)
        } else if self.ids != Ids::CountUp && first == 0 && id == 0 && fragment_field & DONT_FRAGMENT != 0 {
            Some(Ids::Zero)
        } else {
            None
        }
    }
}

/// Whether segmentation would make these lengths and checksums: the UDP checksum is open, the IP one right, and nothing lies
/// behind the datagram.
#[inline]
fn open_checksum_and_lengths(vnet: &VnetHeader, headers: &Headers, frame: &[u8]) -> bool {
    let (ip, l4) = (usize::from(headers.ip), usize::from(headers.l4));
    let ip_ok = match headers.kind {
        Kind::Udp4 => {
            usize::from(get_u16(frame, ip + 2)) == frame.len() - ip
                && Sum::of(&frame[ip..l4]).folded() == 0xffff
        }
        _ => usize::from(get_u16(frame, ip + 4)) == frame.len() - l4,
    };
    let csum = (headers.l4, headers.kind.checksum_offset());
    ip_ok
        && usize::from(get_u16(frame, l4 + 4)) == frame.len() - l4
        && (vnet.csum_start, vnet.csum_offset) == csum
}
