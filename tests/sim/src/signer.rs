//! Who has the mesh key: what its file has, whatever becomes of the host.

use weft_api::id::MeshKey;
use weft_api::roster::{RosterRecord, Under};
use weft_api::sign::{Signed, SigningKey};
use weft_api::succession::{MAX_SUCCESSIONS, Succession};

use crate::host::{member, mesh_id, mesh_key};

/// The newest mesh key, and what all of them have signed.
pub(crate) struct Signer {
    key: SigningKey,
    pub successions: Vec<Signed<Succession>>,
    /// Under the newest.
    pub roster: Vec<Signed<RosterRecord>>,
}

impl Signer {
    /// Everybody is a member under the first key.
    pub(crate) fn new(hosts: usize) -> Self {
        Self { key: mesh_key(), successions: Vec::new(), roster: (0..hosts).map(member).collect() }
    }

    /// How often the key was rotated.
    pub(crate) fn number(&self) -> u32 {
        u32::try_from(self.successions.len()).unwrap_or(u32::MAX)
    }

    /// The next key signs everything again, as the controller does it; `false` if there have been too many.
    pub(crate) fn rotate(&mut self) -> bool {
        let number = self.number() + 1;
        if number > MAX_SUCCESSIONS {
            return false;
        }
        let mut seed = [254; 32];
        seed[..4].copy_from_slice(&number.to_be_bytes());
        let next = SigningKey::from_seed(seed);
        let carried = u32::try_from(self.roster.len()).unwrap_or(u32::MAX);
        let key = MeshKey(next.public());
        self.successions.push(self.key.sign(&Succession { mesh: mesh_id(), number, key, carried }));
        let again = |signed: &Signed<RosterRecord>| {
            let record = signed.peek().ok()?;
            let (serial, under) = (record.serial + 1, Under { key: number, carried: true });
            Some(next.sign(&RosterRecord { serial, under, ..record }))
        };
        self.roster = self.roster.iter().filter_map(again).collect();
        self.key = next;
        true
    }
}
