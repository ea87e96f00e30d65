//! Bridges of one network that are tied together outside weft, by a cable or a VLAN of the machines: a loop that no header
//! shows. Each host sends a signed frame into its own bridges; who reads another's from a bridge of its own is tied to it.
//! Between tied hosts nothing is flooded through the mesh, since it comes the other way.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use weft_api::id::{HostId, Mac, MeshId, NetworkId};
use weft_api::sign::{Record, Signed};

use crate::drop::DropReason;
use crate::frame::ETHERNET_LEN;

/// Between two frames of a host into one bridge.
pub const PROBE_EVERY: Duration = Duration::from_secs(5);
/// Without another's frame for so long it is not tied any more.
pub const TIE_LIFE: Duration = Duration::from_secs(17);
/// What is verified of one network in a second; anybody on it can make such frames.
const VERIFIED_PER_SECOND: u32 = 32;

/// Source and destination of the frames; nobody else has them.
pub(super) const SOURCE: Mac = Mac([0x02, 0x77, 0x65, 0x66, 0x74, 0x02]);
const DESTINATION: Mac = Mac([0x03, 0x77, 0x65, 0x66, 0x74, 0x02]);
/// For local experiments (IEEE 802 9.2.4).
const ETHERTYPE: u16 = 0x88b6;

/// "This bridge of this network is on this host."
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Probe {
    /// The mesh.
    pub mesh: MeshId,
    /// Whose bridge.
    pub host: HostId,
    /// The network.
    pub network: NetworkId,
    /// Rises with each frame of the host, over restarts too, so that one that was kept proves nothing later.
    pub sequence: (u64, u64),
}

impl Record for Probe {
    const DOMAIN: &'static str = "weft bridge 1";
}

/// The frame around a signed probe.
#[must_use]
pub fn frame(probe: &Signed<Probe>) -> Vec<u8> {
    let body = postcard::to_allocvec(probe).expect("records are plain data and always encode");
    [&DESTINATION.0[..], &SOURCE.0, &ETHERTYPE.to_be_bytes(), &body].concat()
}

/// The probe of a frame, unverified.
#[must_use]
pub fn read(frame: &[u8]) -> Option<Signed<Probe>> {
    postcard::take_from_bytes(frame.get(ETHERNET_LEN..)?).ok().map(|(probe, _)| probe)
}

/// Who is tied to this host, network by network.
#[derive(Default, Debug)]
pub struct Ties {
    heard: BTreeMap<(NetworkId, HostId), Heard>,
    /// Probes verified since a second began.
    verified: BTreeMap<NetworkId, (Duration, u32)>,
}

#[derive(Debug)]
struct Heard {
    at: Duration,
    sequence: (u64, u64),
}

impl Ties {
    /// Nobody.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes a probe that came out of this host's bridge of `network`. `verify` checks that it is signed by the member that
    /// it names, and of this mesh. `me` hears its own where a bridge is tied to itself, which is nobody else's matter.
    pub fn hear(
        &mut self,
        me: HostId,
        network: NetworkId,
        now: Duration,
        verify: impl FnOnce() -> Option<Probe>,
    ) -> Result<(), DropReason> {
        let (since, verified) = self.verified.entry(network).or_insert((now, 0));
        if now.saturating_sub(*since) >= Duration::from_secs(1) {
            (*since, *verified) = (now, 0);
        }
        if *verified >= VERIFIED_PER_SECOND {
            return Err(DropReason::BridgeProbeLimit);
        }
        *verified += 1;
        let probe = verify().filter(|probe| probe.network == network).ok_or(DropReason::RecordForged)?;
        let key = (network, probe.host);
        let is_new = self.heard.get(&key).is_none_or(|heard| heard.sequence < probe.sequence);
        if is_new && probe.host != me {
            self.heard.insert(key, Heard { at: now, sequence: probe.sequence });
        }
        Ok(())
    }

    /// What is of networks that are not known any more is forgotten.
    pub fn retain(&mut self, is_known: impl Fn(NetworkId) -> bool) {
        self.heard.retain(|(network, _), _| is_known(*network));
        self.verified.retain(|network, _| is_known(*network));
    }

    /// The hosts that are tied to this one now.
    #[must_use]
    pub fn tied(&self, now: Duration) -> BTreeMap<NetworkId, BTreeSet<HostId>> {
        let mut tied: BTreeMap<NetworkId, BTreeSet<HostId>> = BTreeMap::new();
        for ((network, host), heard) in &self.heard {
            if now < heard.at + TIE_LIFE {
                tied.entry(*network).or_default().insert(*host);
            }
        }
        tied
    }

    /// When the next tie ends.
    #[must_use]
    pub fn next_end(&self, now: Duration) -> Option<Duration> {
        self.heard.values().map(|heard| heard.at + TIE_LIFE).filter(|end| now < *end).min()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weft_api::sign::SigningKey;

    use super::*;

    const ME: HostId = HostId([1; 8]);
    const OTHER: HostId = HostId([2; 8]);
    const NET: NetworkId = NetworkId(7);
    const NOW: Duration = Duration::from_secs(100);

    fn probe(host: HostId, sequence: u64) -> Probe {
        Probe { mesh: MeshId([3; 32]), host, network: NET, sequence: (1, sequence) }
    }

    #[test]
    fn who_is_heard_is_tied_for_a_while() {
        let mut ties = Ties::new();
        assert_eq!(ties.hear(ME, NET, NOW, || Some(probe(OTHER, 5))), Ok(()));
        assert_eq!(ties.hear(ME, NET, NOW, || Some(probe(ME, 5))), Ok(()));
        assert_eq!(ties.tied(NOW), BTreeMap::from([(NET, BTreeSet::from([OTHER]))]));
        let later = NOW + TIE_LIFE;
        assert_eq!(ties.hear(ME, NET, later, || Some(probe(OTHER, 5))), Ok(()));
        assert!(ties.tied(later).is_empty(), "a frame that was kept proves nothing");
        assert_eq!(ties.hear(ME, NET, later, || Some(probe(OTHER, 6))), Ok(()));
        assert_eq!(ties.tied(later).len(), 1);
        ties.retain(|_| false);
        assert!(ties.tied(later).is_empty());
    }

    #[test]
    fn forgeries_are_named_and_limited() {
        let mut ties = Ties::new();
        assert_eq!(ties.hear(ME, NET, NOW, || None), Err(DropReason::RecordForged));
        let elsewhere = Probe { network: NetworkId(8), ..probe(OTHER, 1) };
        assert_eq!(ties.hear(ME, NET, NOW, || Some(elsewhere)), Err(DropReason::RecordForged));
        let looked = (0..100).filter(|_| ties.hear(ME, NET, NOW, || None) == Err(DropReason::RecordForged));
        assert_eq!(looked.count(), VERIFIED_PER_SECOND as usize - 2);
        assert_eq!(ties.hear(ME, NET, NOW, || None), Err(DropReason::BridgeProbeLimit));
        assert!(ties.tied(NOW).is_empty());
    }

    #[test]
    fn frames_go_round() {
        let key = SigningKey::from_seed([1; 32]);
        let signed = key.sign(&probe(OTHER, 3));
        let mut bytes = frame(&signed);
        bytes.extend([0; 20]);
        assert_eq!(read(&bytes).unwrap().verify(&key.public()), Ok(probe(OTHER, 3)), "padded");
    }

    proptest! {
        #[test]
        fn any_frame_is_read(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes).map(|probe| probe.peek());
        }
    }
}
