//! Superframes: cut into pieces where they are read, glued together again where they are written.
//!
//! Sending: [`Merge`] makes a superframe of consecutive small UDP frames, [`Cut`] cuts superframes into pieces, [`plain`]
//! readies every other frame. Receiving: [`Glue`] checks pieces and makes superframes of those that arrived,
//! [`segment`] is the fallback where our tap does not take one. Nothing here allocates per frame or copies payload
//! (but `Merge`, whose payloads are small), and nothing waits: the caller flushes at the end of each batch.

pub mod checksum;
mod cut;
mod glue;
mod headers;
mod merge;
pub mod piece;
pub mod plain;
mod run;
pub mod segment;
mod vnet;

pub use cut::{Cut, CutError, CutLimits, Piece};
pub use glue::{Glue, GlueLimits, MAX_RUN_PIECES, Place, Push};
pub use headers::{HeadersError, Kind, MAX_HEADERS, MAX_PACKET};
pub use merge::{MERGE_CAPACITY, MERGE_SEGMENTS, Merge, Merged, Offer};
pub use piece::PieceError;
pub use run::{Run, Span, Write};
pub use vnet::{Gso, Offloads, VnetHeader};

#[cfg(test)]
mod tests;
