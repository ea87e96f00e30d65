//! The controller from outside: asked over its routes in this process, with a real file under it.

#![cfg(test)]

mod desk;
mod http;
mod rotation;
mod signer;
mod store;
