//! A whole mesh on virtual time: the product's own session layer, mesh and switch on every host; QUIC, seals and the network between
//! them are models. No clock, no socket, no sleeping: a seed is a world.
//!
//! | room | holds |
//! |---|---|
//! | [`World`] | hosts, time, what becomes due |
//! | [`big`] | a mesh of a thousand hosts, and what it is measured by |
//! | [`onlooker`] | its facts on the disk of one real host |
//! | `host` | one host, and what its disk and its tables have |
//! | `carry` | what `router/io` does: dials, streams, envelopes, relaying |
//! | `wire` | one QUIC connection |
//! | `tcp` | one TCP stream |
//! | [`underlay`] | loss, delay, doubling, reordering, MTU, NATs, filters, cuts |
//! | [`frames`] | frames between containers, and who must get them |

pub mod big;
mod carry;
pub mod frames;
pub mod host;
pub mod onlooker;
mod queue;
pub mod random;
mod tcp;
pub mod underlay;
mod wire;
mod world;

pub use world::{Traffic, World};
