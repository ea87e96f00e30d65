//! QUIC as we use it: raw public keys both ways, over a socket that never shows quinn a real address (PROTOCOL 2). Whatever has no
//! socket and no task is open to others: `tests/sim` drives quinn's own state machines with it.
//!
//! | room | holds |
//! |---|---|
//! | [`tls`] | keys, verifiers, the two ALPNs |
//! | [`bindings`] | what virtual addresses stand for |
//! | `socket` | quinn's socket over the lanes |
//! | [`endpoint`] | quinn's settings, and the limits before a peer is known |
//! | [`secrets`] | the keys of a connection's envelopes |
//! | `packet` | which connection a QUIC packet is for |
//! | [`frames`] | length-framed messages on streams |

pub mod bindings;
pub mod endpoint;
pub mod frames;
mod packet;
pub mod secrets;
pub(crate) mod socket;
pub mod tls;
