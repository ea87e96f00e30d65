//! What this host has too little of: blocks in advance, and the addresses that containers wait for.

use std::net::IpAddr;

use ipnet::IpNet;
use weft_api::id::{HostId, NetworkId};
use weft_api::request::WantBlock;

use super::{Book, Pages, claimant, holder};

/// So many containers wait at once for an address that is not this host's yet; a further one is refused.
const MAX_WISHES: usize = 256;

/// A container that waits for an address.
#[derive(Debug)]
pub struct Wish<'a> {
    book: &'a Book,
    wished: (NetworkId, IpNet, IpAddr),
}

impl Drop for Wish<'_> {
    fn drop(&mut self) {
        let mut pages = self.book.pages();
        let (network, _, address) = self.wished;
        if let Some(at) = pages.wished.iter().position(|wished| *wished == self.wished) {
            pages.wished.swap_remove(at);
        }
        if !pages.wished.contains(&self.wished) {
            pages.not_lent.remove(&(network, address));
        }
    }
}

/// An address to ask another host for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Borrow {
    /// Of which network.
    pub network: NetworkId,
    /// Which one.
    pub address: IpAddr,
    /// Who holds its block.
    pub holder: HostId,
}

/// Why a host has not got another block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NoBlock {
    /// In words.
    pub why: String,
    /// The deciding host has said no; otherwise it could not be asked.
    pub decided: bool,
}

impl Book {
    /// The blocks that this host should ask for: of ranges whose blocks here are half full.
    #[must_use]
    pub fn wants(&self) -> Vec<WantBlock> {
        let pages = self.pages();
        let wanting = pages.spaces.iter().filter(|(_, space)| space.wants_block());
        wanting
            .map(|((network, range), _)| pages.want(*network, *range, None))
            .chain(pages.wished.iter().filter_map(|(network, range, address)| {
                let unheld = claimant(&pages.view, *network, *range, *address).is_none();
                unheld.then(|| pages.want(*network, *range, Some(*address)))
            }))
            .collect()
    }

    /// The addresses that this host should ask the holders of their blocks for.
    #[must_use]
    pub fn borrows(&self) -> Vec<Borrow> {
        let pages = self.pages();
        let mut borrows: Vec<Borrow> = pages
            .wished
            .iter()
            .filter_map(|(network, range, address)| {
                let holder = holder(&pages.view, *network, *range, *address)?;
                let leased = claimant(&pages.view, *network, *range, *address) != Some(holder);
                let borrow = Borrow { network: *network, address: *address, holder };
                (holder != self.me && !leased).then_some(borrow)
            })
            .collect();
        borrows.sort_unstable();
        borrows.dedup();
        borrows
    }

    /// A container waits for this address, which is not this host's yet; ends with what is returned. `None`: too many wait.
    #[must_use]
    pub fn wish(&self, network: NetworkId, range: IpNet, address: IpAddr) -> Option<Wish<'_>> {
        let mut pages = self.pages();
        if pages.wished.len() >= MAX_WISHES {
            return None;
        }
        pages.wished.push((network, range, address));
        drop(pages);
        self.changed();
        Some(Wish { book: self, wished: (network, range, address) })
    }

    /// The holder of its block does not lend the address, for this reason; who waits for it is told.
    pub fn not_lent(&self, network: NetworkId, address: IpAddr, why: String) {
        let mut pages = self.pages();
        if pages.wished.iter().any(|(n, _, wished)| (*n, *wished) == (network, address)) {
            pages.not_lent.insert((network, address), why);
            drop(pages);
            self.changed();
        }
    }

    /// This host gets no further block of the range, for this reason; `None`: nothing stands against it any more. Whether that
    /// is news.
    pub fn no_block(&self, network: NetworkId, range: IpNet, reason: Option<NoBlock>) -> bool {
        let mut pages = self.pages();
        let changed = match reason {
            Some(reason) => pages.no_block.insert((network, range), reason.clone()) != Some(reason),
            None => pages.no_block.remove(&(network, range)).is_some(),
        };
        drop(pages);
        if changed {
            self.changed();
        }
        changed
    }
}

impl Pages {
    /// `have`: also what this host is giving back, or the deciding host would believe that its last answer was not heard.
    fn want(&self, network: NetworkId, range: IpNet, address: Option<IpAddr>) -> WantBlock {
        let have = self.blocks_here().filter(|(n, block)| *n == network && range.contains(block));
        WantBlock { network, range, have: have.map(|(_, block)| block).collect(), address }
    }
}
