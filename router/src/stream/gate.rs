//! Who may open a TCP stream to us, and how long it may take to prove itself.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::drop::DropReason;

/// A preface must be whole after this, else the stream is closed (`StreamSilent`).
pub const PREFACE_TIMEOUT: Duration = Duration::from_secs(2);
/// A stream without a finished handshake and without an authentic envelope is closed after this (`StreamUnproven`).
pub const PROOF_TIMEOUT: Duration = Duration::from_secs(10);
/// So many bytes are read of a stream that has not proven itself; with one more it is closed (`StreamUnproven`).
pub const UNPROVEN_BYTES: usize = 64 << 10;
/// A proven stream that nothing comes by for so long is closed: one that carries a session has a probe each second.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Streams that have not proven themselves, in all and of one address (IPv6: /64); further ones are closed at once (`StreamLimit`,
/// `StreamAddressLimit`).
pub const MAX_UNPROVEN: usize = 64;
/// See [`MAX_UNPROVEN`].
pub const MAX_UNPROVEN_OF_ADDRESS: usize = 4;
/// Streams in all and of one address, which may be many members' behind one NAT; further ones are closed at once as above.
pub const MAX_STREAMS: usize = 1024;
/// See [`MAX_STREAMS`].
pub const MAX_OF_ADDRESS: usize = 256;

/// The streams that others have opened, by address.
#[derive(Default, Debug)]
pub struct Gate {
    of: BTreeMap<IpAddr, Count>,
    all: Count,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Count {
    unproven: usize,
    proven: usize,
}

impl Gate {
    /// Somebody opened a stream. If it may stay, [`Self::leave`] must follow some time.
    pub fn enter(&mut self, from: IpAddr) -> Result<(), DropReason> {
        let of = self.of.get(&address(from)).copied().unwrap_or_default();
        if self.all.unproven >= MAX_UNPROVEN || self.all.streams() >= MAX_STREAMS {
            return Err(DropReason::StreamLimit);
        }
        if of.unproven >= MAX_UNPROVEN_OF_ADDRESS || of.streams() >= MAX_OF_ADDRESS {
            return Err(DropReason::StreamAddressLimit);
        }
        self.change(from, |count| count.unproven += 1);
        Ok(())
    }

    /// A stream has proven itself.
    pub fn prove(&mut self, from: IpAddr) {
        self.change(from, |count| {
            count.unproven -= 1;
            count.proven += 1;
        });
    }

    /// A stream ended.
    pub fn leave(&mut self, from: IpAddr, proven: bool) {
        self.change(from, |count| if proven { count.proven -= 1 } else { count.unproven -= 1 });
    }

    fn change(&mut self, from: IpAddr, change: impl Fn(&mut Count)) {
        let from = address(from);
        let of = self.of.entry(from).or_default();
        change(of);
        if *of == Count::default() {
            self.of.remove(&from);
        }
        change(&mut self.all);
    }
}

impl Count {
    fn streams(self) -> usize {
        self.unproven + self.proven
    }
}

/// What is counted together: an IPv4 address, an IPv6 /64.
fn address(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) & u128::MAX << 64).into()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn the_unproven_are_few_and_fewer_of_one_address() {
        let mut gate = Gate::default();
        for _ in 0..MAX_UNPROVEN_OF_ADDRESS {
            assert_eq!(gate.enter(v4(1)), Ok(()));
        }
        let mapped = IpAddr::V6(std::net::Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped());
        assert_eq!(gate.enter(mapped), Err(DropReason::StreamAddressLimit), "the same address");
        gate.prove(v4(1));
        assert_eq!(gate.enter(v4(1)), Ok(()), "one has proven itself");
        for n in 0..MAX_UNPROVEN - MAX_UNPROVEN_OF_ADDRESS {
            assert_eq!(gate.enter(v4(2 + (n / MAX_UNPROVEN_OF_ADDRESS) as u8)), Ok(()));
        }
        assert_eq!(gate.enter(v4(200)), Err(DropReason::StreamLimit));
        gate.leave(v4(2), false);
        assert_eq!(gate.enter(v4(200)), Ok(()));
    }

    #[test]
    fn the_proven_are_bounded_too_and_nothing_stays_behind() {
        let mut gate = Gate::default();
        for _ in 0..MAX_OF_ADDRESS {
            gate.enter(v4(1)).unwrap();
            gate.prove(v4(1));
        }
        assert_eq!(gate.enter(v4(1)), Err(DropReason::StreamAddressLimit));
        for _ in 0..MAX_OF_ADDRESS {
            gate.leave(v4(1), true);
        }
        assert!(gate.of.is_empty());
        assert_eq!(gate.all, Count::default());
    }
}
