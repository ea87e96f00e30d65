//! Taps, bridges, sockets, lanes and QUIC: what has a file descriptor or a thread. Nothing is decided here.

pub mod activation;
pub mod bridge;
pub mod capture;
pub mod join;
pub mod lane;
pub mod node;
pub mod quic;
mod sys;
pub mod tables;
pub mod tap;
mod tcp;
