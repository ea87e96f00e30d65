//! Rotation of the mesh key: each key signs its successor. The mesh's id stays the hash of the first, which tokens pin; what
//! counts is what the last of the chain has signed (PROTOCOL 1).

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::id::{MeshId, MeshKey};
use crate::sign::{Record, SignatureError, Signed};

/// The longest chain: a further rotation is refused.
pub const MAX_SUCCESSIONS: u32 = 256;

/// The next key that signs for a mesh, signed by the one before. A number is taken once: the first that comes stays.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Succession {
    /// Which mesh.
    pub mesh: MeshId,
    /// The number of the new key; the key that the mesh began with has 0.
    pub number: u32,
    /// The new key.
    pub key: MeshKey,
    /// So many roster records were signed again with it: once they are there, what no key but an older one has signed is nothing.
    pub carried: u32,
}

impl Record for Succession {
    const DOMAIN: &'static str = "weft succession 1";
}

/// A chain does not hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("key number {number} of the mesh is not signed by the one before it")]
pub struct BrokenChain {
    /// The number of the key.
    pub number: u32,
}

/// Every key that has signed for a mesh, the first first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chain {
    mesh: MeshId,
    keys: Vec<MeshKey>,
}

impl Chain {
    /// Of a mesh whose key was never rotated.
    #[must_use]
    pub fn new(first: MeshKey) -> Self {
        Self { mesh: first.id(), keys: vec![first] }
    }

    /// From the first key through all these, in order.
    pub fn verify(first: MeshKey, successions: &[Signed<Succession>]) -> Result<Self, BrokenChain> {
        let mut chain = Self::new(first);
        for signed in successions {
            let broken = |_: SignatureError| BrokenChain { number: chain.number() + 1 };
            let next = signed.verify(&chain.current().0).map_err(broken)?;
            if !chain.put(&next) {
                return Err(BrokenChain { number: chain.number() + 1 });
            }
        }
        Ok(chain)
    }

    /// Appends a key whose signature was checked; `false`: it is not the next, or one that there has been.
    pub fn put(&mut self, next: &Succession) -> bool {
        let fits = next.mesh == self.mesh
            && next.number == self.number() + 1
            && next.number <= MAX_SUCCESSIONS
            && !self.keys.contains(&next.key);
        if fits {
            self.keys.push(next.key);
        }
        fits
    }

    /// The mesh.
    #[must_use]
    pub fn mesh(&self) -> MeshId {
        self.mesh
    }

    /// The number of the key that signs now.
    #[must_use]
    pub fn number(&self) -> u32 {
        u32::try_from(self.keys.len() - 1).unwrap_or(u32::MAX)
    }

    /// The key that signs now.
    #[must_use]
    pub fn current(&self) -> MeshKey {
        self.keys[self.keys.len() - 1]
    }

    /// The key of a number.
    #[must_use]
    pub fn key(&self, number: u32) -> Option<MeshKey> {
        self.keys.get(usize::try_from(number).ok()?).copied()
    }

    /// The number of a key that signs, or has signed.
    #[must_use]
    pub fn number_of(&self, key: MeshKey) -> Option<u32> {
        self.keys.iter().position(|k| *k == key).and_then(|n| u32::try_from(n).ok())
    }

    /// Whether this chain is that one, or goes on from it.
    #[must_use]
    pub fn continues(&self, earlier: &Self) -> bool {
        self.keys.starts_with(&earlier.keys)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sign::SigningKey;

    fn key(n: u8) -> SigningKey {
        SigningKey::from_seed([n; 32])
    }

    fn public(n: u8) -> MeshKey {
        MeshKey(key(n).public())
    }

    fn succession(signer: u8, number: u32, next: u8) -> Signed<Succession> {
        key(signer).sign(&Succession { mesh: public(0).id(), number, key: public(next), carried: 0 })
    }

    proptest! {
        /// Key n is of seed n: a chain holds exactly if each is the next and signed by the one before.
        #[test]
        fn a_chain_holds_if_each_key_signed_the_next(steps in prop::collection::vec((0u8..4, 0u32..5, 0u8..5), 0..5)) {
            let signed: Vec<_> = steps.iter().map(|(s, number, next)| succession(*s, *number, *next)).collect();
            let mut keys = vec![0u8];
            let holds = steps.iter().all(|(signer, number, next)| {
                let fits = keys.last() == Some(signer) && *number as usize == keys.len() && !keys.contains(next);
                keys.push(*next);
                fits
            });
            match Chain::verify(public(0), &signed) {
                Ok(chain) => {
                    prop_assert!(holds);
                    prop_assert_eq!(chain.current(), public(keys[keys.len() - 1]));
                    prop_assert_eq!((chain.number() as usize, chain.mesh()), (steps.len(), public(0).id()));
                    prop_assert!(chain.continues(&Chain::new(public(0))) && !chain.continues(&Chain::new(public(1))));
                }
                Err(_) => prop_assert!(!holds),
            }
        }
    }

    #[test]
    fn a_successor_of_another_mesh_is_none() {
        let foreign = Succession { mesh: public(9).id(), number: 1, key: public(1), carried: 0 };
        assert_eq!(Chain::verify(public(0), &[key(0).sign(&foreign)]), Err(BrokenChain { number: 1 }));
    }
}
