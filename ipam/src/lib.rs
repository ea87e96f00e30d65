//! Which address, to whom: ranges, the blocks that a range is cut into, and the addresses inside a host's blocks.
//! Pure. The controller decides with it which block belongs to which host; each agent, which address to which container.
//!
//! | room | holds |
//! |---|---|
//! | [`range`] | reading and checking a CIDR, its gateway, overlaps |
//! | [`pool`] | the ranges that are taken when nobody names one |
//! | [`block`] | how a range is cut, and which block is free |
//! | [`space`] | the addresses of one host in one range |

#![forbid(unsafe_code)]

pub mod block;
pub mod pool;
pub mod range;
pub mod space;
