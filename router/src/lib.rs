//! The data plane and the mesh, pure: bytes and times come in, bytes and verdicts go out.

pub mod chunk;
pub mod drop;
pub mod envelope;
pub mod fragment;
pub mod frame;
pub mod join;
pub mod mesh;
pub mod offload;
pub mod relay;
pub mod replay;
pub mod seal;
pub mod session;
pub mod stream;
pub mod switch;
pub mod waiting;
