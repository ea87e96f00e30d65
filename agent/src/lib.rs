//! The process on each host: ties the router, Docker and decisions together.
//!
//! | room | holds |
//! |---|---|
//! | [`state`] | the state directory: keys, `mesh.json`, `agent.redb`, the lock |
//! | [`book`] | what is given here: addresses and endpoints; what is known of the mesh |
//! | `plugin` | Docker's plugin, answered from the book |
//! | `docker` | the engine: there or away, and its list against the book |
//! | `naming` | networks that people make and remove with `docker network` |
//! | `networks` | bridge, tap, Docker network and firewall of each network, as decided |
//! | `stranded` | containers that Docker gave up on while we were away |
//! | `attach` | what Docker did not start on a network: namespaces, and this host |
//! | `blocks` | asks for blocks in advance |
//! | `leases`, `returns` | single addresses of other hosts' blocks; what is given back |
//! | `facts`, `tables`, `spread` | book -> facts; facts and decisions -> the switch's tables; who tells whom |
//! | [`deciding`] | asks who decides: the controller here, or the deciding host |
//! | `rekey` | fresh keys now, here and on other hosts |
//! | `api` | the admin socket |
//! | [`leave`], [`setup`] | leaving a mesh; founding and joining one, and what a machine must have |
//! | [`doctor`] | what usually breaks |
//! | `clock` | what time it is on other hosts |
//! | [`service`], `program` | the units of systemd; programs that are run to their end |
//! | [`run`] | `weft up` |

mod api;
mod attach;
mod blocks;
pub mod book;
pub mod capture;
mod clock;
pub mod deciding;
mod docker;
pub mod doctor;
mod facts;
pub mod firewall;
mod leases;
pub mod leave;
mod naming;
mod networks;
mod plugin;
mod program;
mod rekey;
mod returns;
pub mod run;
pub mod service;
pub mod setup;
mod socket;
mod spread;
pub mod state;
mod stranded;
pub mod tables;

pub use run::{Config, RunError, run};
