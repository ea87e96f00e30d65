//! What a host presents of itself when a session begins: its own roster record, and the mesh keys that lead to the one that has
//! signed it. So who has not heard of it lets it in all the same, and one member's address is enough.

use std::time::Duration;

use weft_api::id::HostKey;

use super::bucket::Rate;
use super::record::{AnyRecord, News, signature};
use super::{Action, Mesh, Proof};
use crate::drop::DropReason;

/// Proofs that say something new are judged so often (`ProofsTooFast`); who is refused presents it again when it dials again.
const PROOFS: Rate = Rate { per_second: 16, burst: 64 };

impl Mesh {
    /// What this host presents. `None` while there is no record of it under the mesh key that signs now.
    #[must_use]
    pub fn proof(&self) -> Option<Proof> {
        let own = self.roster.held(self.me)?;
        let is_current = own.record.under.key == self.roster.chain().number();
        let successions = self.roster.successions().iter().map(|held| held.signed.clone()).collect();
        is_current.then(|| Proof { successions, record: own.signed.clone() })
    }

    /// The host that has proven `key` presents this. What is believed of it is stored and passed on like what a neighbour says.
    pub(super) fn presented(
        &mut self,
        now: Duration,
        key: HostKey,
        proof: &Proof,
        actions: &mut Vec<Action>,
    ) {
        if let Err(reason) = self.believe(now, key, proof, actions) {
            actions.push(Action::Count(reason, 1));
        }
        if self.roster.member(key.id()).is_none_or(|known| known.key != key) {
            actions.push(Action::Refuse(key.id()));
        }
    }

    fn believe(
        &mut self,
        now: Duration,
        key: HostKey,
        proof: &Proof,
        actions: &mut Vec<Action>,
    ) -> Result<(), DropReason> {
        let claimed = proof.record.peek().map_err(signature)?;
        if claimed.key != key {
            return Err(DropReason::ProofOfAnother);
        }
        let host = key.id();
        let knows_record = self.roster.held(host).is_some_and(|held| held.signed == proof.record);
        let knows_keys = proof.successions.len() <= self.roster.successions().len();
        if knows_record && knows_keys {
            return Ok(());
        }
        if !self.proofs.takes(now, 1, PROOFS) {
            return Err(DropReason::ProofsTooFast);
        }
        for signed in &proof.successions {
            let judged = self.roster.check_succession(&*self.notary, signed);
            if let Err(reason) = judged {
                self.succession_refused(now, None, signed, reason, actions);
            }
            let (fate, held) = judged?;
            if fate == News::New {
                self.take(now, Some(host), fate, AnyRecord::Succession(held), None);
            }
        }
        let (fate, held) = self.roster.check(&*self.notary, &proof.record)?;
        if fate == News::New {
            self.take(now, Some(host), fate, AnyRecord::Roster(held), None);
        }
        Ok(())
    }
}
