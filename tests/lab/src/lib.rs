//! Several Docker hosts on one machine: real engines, real namespaces, one underlay switch that can be cut.
//! A lab host looks like a machine, so what is tested is what a person types. Links no product crate.
//!
//! ```no_run
//! let lab = weft_lab::Lab::builder().hosts(3).up()?;
//! let h1 = lab.host("h1");
//! println!("{}", h1.run(["docker", "version"])?);
//! lab.cut("h1", "h3")?;
//! # Ok::<(), weft_lab::Error>(())
//! ```

mod bare;
mod cleanup;
mod command;
mod engine;
mod error;
mod host;
mod image;
mod lab;
mod machine;
mod mesh;
mod nat;
mod possible;
mod process;
mod state;
mod switch;
mod thaw;

pub use bare::{BRIDGE, Bare};
pub use cleanup::{end, end_all, end_stale};
pub use command::{Daemon, Output, Signal};
pub use error::Error;
pub use host::{Host, IfaceCounters};
pub use image::{BUSYBOX, ImageFile, busybox};
pub use lab::{Builder, Lab};
pub use mesh::Mesh;
pub use nat::{Nat, NatKind, NatState};
pub use possible::{possible, skip};
pub use process::Process;
pub use state::{HostState, LabState, list};
pub use switch::{Capture, Pcap};
