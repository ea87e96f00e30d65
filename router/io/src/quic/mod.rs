//! QUIC as we use it: raw public keys both ways, over a socket that never shows quinn a real address (PROTOCOL 2).
//!
//! | room | holds |
//! |---|---|
//! | [`tls`] | keys, verifiers, the two ALPNs |
//! | [`socket`] | virtual addresses, bare and enveloped packets |
//! | [`endpoint`] | quinn's settings, and the limits before a peer is known |
//! | `packet` | which connection a QUIC packet is for |
//! | [`frames`] | length-framed messages on streams |

pub(crate) mod endpoint;
pub(crate) mod frames;
mod packet;
pub(crate) mod socket;
pub(crate) mod tls;
