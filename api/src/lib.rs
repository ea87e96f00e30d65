//! The words that every other crate shares: identifiers, what hosts sign for each other (roster, facts, decisions),
//! and the requests and reports of the admin API. Pure: bytes and values only.
//!
//! | room | holds |
//! |---|---|
//! | [`id`] | host, mesh, network and token identifiers, MAC addresses |
//! | [`sign`] | Ed25519 keys and [`sign::Signed`] |
//! | [`roster`], [`fact`], [`decision`] | the three kinds of signed record that travel between hosts |
//! | [`succession`] | who signs the roster after the mesh key was rotated |
//! | [`token`] | the text that lets a host join |
//! | [`network`] | the noun `network` and its rules |
//! | [`request`], [`report`], [`error`] | the admin API: what is asked, what is answered, what went wrong |

#![forbid(unsafe_code)]

pub mod decision;
pub mod error;
pub mod fact;
pub mod id;
pub mod network;
pub mod report;
pub mod request;
pub mod roster;
pub mod sign;
pub mod succession;
pub mod token;
