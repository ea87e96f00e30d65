//! Decisions as a pure function: a [`Command`] and what the [`World`] looks like become [`Event`]s or a [`Refusal`], and events
//! become the next [`State`]. Nothing here stores, signs, or looks at a clock; the crate around it does.
//!
//! | room | holds |
//! |---|---|
//! | [`state`] | what is decided: roster, tokens, networks, blocks, leases; reading it and applying events |
//! | [`command`], [`event`], [`refusal`] | what can be asked, what comes of it, why not |
//! | [`hold`] | ranges held for networks that Docker is about to name |
//! | `member`, `rotation`, `token`, `network`, `block`, `lease` | the rules, one room for each kind of thing |

#![forbid(unsafe_code)]

mod block;
pub mod command;
pub mod event;
pub mod hold;
mod lease;
mod member;
mod network;
pub mod refusal;
mod rotation;
pub mod state;
mod token;

pub use command::{Command, Observed, World};
pub use event::Event;
pub use hold::Hold;
pub use refusal::Refusal;
pub use state::State;

impl State {
    /// What comes of a command, or why nothing does. Does not change the state: [`State::apply`] the events once they are
    /// stored. No events mean that what was asked for holds already.
    pub fn decide(&self, world: &World, command: Command) -> Result<Vec<Event>, Refusal> {
        match command {
            Command::Found { mesh, key, name, addresses } => self.found(mesh, key, name, addresses),
            Command::Appoint { mesh, successions, roster, key } => {
                self.appoint(mesh, successions, roster, key)
            }
            Command::Rotate { succession, by } => self.rotate(succession, by),
            Command::Renew { successions, roster, key } => self.renew(successions, roster, key),
            Command::Place { host, addresses } => self.place(host, addresses),
            Command::NewToken { id, key, once, valid_secs } => {
                self.new_token(world.now, id, key, once, valid_secs)
            }
            Command::RemoveToken { id } => self.remove_token(&id),
            Command::Join { wish } => self.join(world.now, &wish),
            Command::RemoveHost { name } => self.remove_host(&name),
            Command::Goodbye { goodbye } => self.goodbye(&goodbye),
            Command::CreateNetwork(wish) => self.create_network(world, wish),
            Command::RemoveNetwork { name } => self.remove_network(world, &name),
            Command::GrantBlock { host, want } => self.grant_block(host, &want),
            Command::Lend { host, loan } => self.lend(host, &loan),
            Command::GiveUp { host, what } => self.give_up(host, what),
            Command::Hear { roster, decisions } => Ok(self.hear(roster, decisions)),
        }
    }
}
