//! Rotation of the mesh key (PROTOCOL 1): the old key signs the new, which signs every record again in the same step; and what
//! becomes of records of different keys that say different things.

use weft_api::decision::Decision;
use weft_api::id::HostKey;
use weft_api::roster::{Roles, RosterRecord, Standing, Under};
use weft_api::sign::Signed;
use weft_api::succession::{MAX_SUCCESSIONS, Succession};

use crate::event::Event;
use crate::refusal::Refusal;
use crate::state::State;

impl State {
    /// The number of the mesh key that this signer holds.
    #[must_use]
    pub fn key_number(&self) -> u32 {
        u32::try_from(self.successions().len()).unwrap_or(u32::MAX)
    }

    /// Whether what this host signs with the mesh key counts: it is a signer, by the key that it holds.
    #[must_use]
    pub fn signs(&self, me: &HostKey) -> bool {
        self.record(me).is_some_and(|own| own.roles.signer && own.under.key == self.key_number())
    }

    pub(crate) fn rotate(&self, succession: Signed<Succession>, by: HostKey) -> Result<Vec<Event>, Refusal> {
        if self.key_number() >= MAX_SUCCESSIONS {
            return Err(Refusal::TooManyRotations);
        }
        Ok(vec![Event::Rotated { succession, by }])
    }

    /// This signer takes the key that signs now; `roster`: what that key has signed. What is known here and was not carried over
    /// by it, hosts that were admitted here unheard, is signed anew.
    pub(crate) fn renew(
        &self,
        successions: Vec<Signed<Succession>>,
        roster: Vec<RosterRecord>,
        key: HostKey,
    ) -> Result<Vec<Event>, Refusal> {
        let mut next = self.clone();
        let mut events = vec![Event::KeyTaken(successions)];
        next.apply(&events[0]);
        let heard = next.hear(roster, Vec::<Decision>::new());
        heard.iter().for_each(|event| next.apply(event));
        events.extend(heard);
        let number = next.key_number();
        let mut left: Vec<RosterRecord> = next
            .roster()
            .filter(|r| r.key != key && r.under.key < number)
            .map(|r| signed_anew(r.clone(), number))
            .collect();
        let own = next.record(&key).filter(|r| r.standing == Standing::Member).ok_or(Refusal::NotAMember)?;
        left.push(appointed(own.clone(), number));
        events.extend(left.into_iter().map(Event::Enrolled));
        Ok(events)
    }

    /// What a record that was heard makes of the one known here; `None`: nothing new. `removed` is final at a signer whatever key
    /// has signed it, and what an older key than its own has signed it signs anew.
    pub(crate) fn merged(&self, heard: RosterRecord) -> Option<RosterRecord> {
        let number = self.key_number();
        let Some(ours) = self.record(&heard.key) else {
            return Some(if heard.under.key < number { signed_anew(heard, number) } else { heard });
        };
        let serial = ours.serial.max(heard.serial).saturating_add(1);
        match (ours.standing, heard.standing) {
            (Standing::Removed, Standing::Member) => (heard.under.key > ours.under.key)
                .then(|| RosterRecord { serial, under: heard.under, ..ours.clone() }),
            (Standing::Member, Standing::Removed) if heard.under.key < ours.under.key => {
                Some(RosterRecord { serial, under: ours.under, ..heard })
            }
            _ => (heard.rank() > ours.rank()).then_some(heard),
        }
    }
}

/// A signer's own record.
pub(crate) fn appointed(own: RosterRecord, number: u32) -> RosterRecord {
    let roles = Roles { signer: true, ..own.roles };
    RosterRecord { serial: own.serial + u64::from(roles != own.roles), roles, ..signed_anew(own, number) }
}

/// Under the key of this number; as it is if that has signed it.
fn signed_anew(record: RosterRecord, number: u32) -> RosterRecord {
    if record.under.key >= number {
        return record;
    }
    let under = Under { key: number, carried: false };
    RosterRecord { serial: record.serial.saturating_add(1), under, ..record }
}
