//! A whole mesh on virtual time: the product's own session layer, mesh and switch on every host; the network between them is a model,
//! QUIC and seals too, unless [`World::use_quinn`] says otherwise. No clock, no socket, no sleeping: a seed is a world.
//!
//! | room | holds |
//! |---|---|
//! | [`World`] | hosts, time, what becomes due |
//! | [`big`] | a mesh of a thousand hosts, and what it is measured by |
//! | [`onlooker`] | its facts on the disk of one real host |
//! | `host` | one host, and what its disk and its tables have |
//! | `signer` | the mesh key, and what it has signed |
//! | `lives` | hosts come up, say what is true of them, move, die |
//! | `carry` | what `router/io` does: envelopes, relaying |
//! | `keys` | connections and their keys |
//! | `datagram` | what travels, how long it is, what it is for |
//! | `model` | QUIC as a model |
//! | `wire` | one connection of it |
//! | `quic` | QUIC itself: quinn without its sockets |
//! | `sealed` | envelopes and relaying, byte by byte |
//! | `tcp` | one TCP stream |
//! | [`underlay`] | loss, delay, doubling, reordering, MTU, NATs, filters, cuts |
//! | [`decided`] | what the hosts of a world have decided |
//! | [`frames`] | frames between containers, and who must get them |

pub mod big;
mod carry;
mod datagram;
pub mod decided;
pub mod frames;
pub mod host;
mod keys;
mod lives;
mod model;
pub mod onlooker;
mod queue;
mod quic;
pub mod random;
mod sealed;
mod signer;
mod tcp;
pub mod underlay;
mod wire;
mod world;

pub use datagram::Traffic;
pub use world::World;
