//! The store, the signing and the API of decisions: what `weft-controller-state` decides is written to the disk first, then
//! signed, then told. The agent serves [`Controller::routes`] and spreads what [`Controller::changes`] announces.
//!
//! | room | holds |
//! |---|---|
//! | [`controller`] | the handle: one command after the other |
//! | [`store`] | `controller.redb`: events, and now and then the whole state |
//! | `rotation` | a new mesh key |
//! | `published` | the signed form of what is decided |
//! | `routes` | the HTTP API, and who may ask what |

#![forbid(unsafe_code)]

pub mod controller;
mod published;
mod rotation;
mod routes;
pub mod store;

pub use controller::{Clock, Controller, ControllerKeys, FoundError, Founding, OpenError, system_clock};
pub use rotation::{Rotation, signing_key};
