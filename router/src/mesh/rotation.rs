//! Rotation of the mesh key: which successions are believed, and what becomes of the records that older keys have signed. They
//! are kept until all that the new key signed again have come, so that nobody is thrown out in between; none is taken any more.

use std::sync::Arc;
use std::time::Duration;

use weft_api::id::HostId;
use weft_api::roster::RosterRecord;
use weft_api::sign::Signed;
use weft_api::succession::{Chain, MAX_SUCCESSIONS, Succession};

use super::record::{AnyRecord, Held, Id, News, Notary, RecordKey, certify, short, signature};
use super::wants::{FETCH_AFTER, How};
use super::{Action, Mesh, Roster, ToStore};
use crate::drop::DropReason;

/// The longest succession, encoded.
const MAX_SUCCESSION_LEN: usize = 128;
/// Rivals that are remembered by name; further ones are refused as well, and counted.
const MAX_RIVALS: usize = 8;

impl Roster {
    /// Whether this succession holds, and is news. Changes nothing.
    pub fn check_succession(
        &self,
        notary: &dyn Notary,
        signed: &Signed<Succession>,
    ) -> Result<(News, Arc<Held<Succession>>), DropReason> {
        if signed.bytes().len() > MAX_SUCCESSION_LEN {
            return Err(DropReason::RecordTooLong);
        }
        let claimed = signed.peek().map_err(signature)?;
        if claimed.mesh != self.mesh() {
            return Err(DropReason::RecordOfAnotherMesh);
        }
        if claimed.number == 0 || claimed.number > MAX_SUCCESSIONS {
            return Err(DropReason::RecordInvalid);
        }
        let known = self.succession(claimed.number);
        if let Some(known) = known.filter(|k| k.signed == *signed) {
            return Ok((News::Same, Arc::clone(known)));
        }
        let by = self.chain().key(claimed.number - 1).ok_or(DropReason::RecordOfLaterKey)?;
        let held = certify(notary, &by.0, signed)?;
        if known.is_some() {
            Err(DropReason::SuccessionRival)
        } else if self.chain().number_of(claimed.key).is_some() {
            Err(DropReason::RecordInvalid)
        } else {
            Ok((News::New, held))
        }
    }

    /// Takes a succession that was found to hold and to be the next.
    pub(super) fn put_succession(&mut self, held: Arc<Held<Succession>>) {
        if self.chain.put(&held.record) {
            self.successions.push(held);
        }
    }

    /// The keys that have signed.
    #[must_use]
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// Every succession, in order.
    #[must_use]
    pub fn successions(&self) -> &[Arc<Held<Succession>>] {
        &self.successions
    }

    /// The succession to the key of this number.
    pub(super) fn succession(&self, number: u32) -> Option<&Arc<Held<Succession>>> {
        self.successions.get(usize::try_from(number.checked_sub(1)?).ok()?)
    }

    /// Whose records no key but an older one has signed, once all that were signed again are here: nobody's.
    pub(super) fn leftovers(&self) -> Vec<HostId> {
        let Some(last) = self.successions.last() else { return Vec::new() };
        let (mut carried, mut old) = (0, Vec::new());
        for (host, held) in self.records() {
            if held.record.under.key < last.record.number {
                old.push(host);
            } else {
                carried += u32::from(held.record.under.carried);
            }
        }
        if carried >= last.record.carried { old } else { Vec::new() }
    }
}

impl Held<Succession> {
    pub(super) fn id(&self) -> Id {
        let number = self.record.number;
        Id { key: RecordKey::Succession(number), rank: (number.into(), 0), mark: short(self.mark) }
    }
}

impl Mesh {
    /// Successors of keys that have another one already; their signers hold an old mesh key. The first of each.
    pub fn rivals(&self) -> impl Iterator<Item = &Succession> {
        self.rivals.iter().map(|held| &held.record)
    }

    /// A successor that does not hold: who sent it is asked for what is missing before it; a rival is remembered.
    pub(super) fn succession_refused(
        &mut self,
        now: Duration,
        from: Option<HostId>,
        signed: &Signed<Succession>,
        reason: DropReason,
        actions: &mut Vec<Action>,
    ) {
        match reason {
            DropReason::RecordOfLaterKey => {
                let Ok(claimed) = signed.peek() else { return };
                let id = Id {
                    key: RecordKey::Succession(claimed.number),
                    rank: (claimed.number.into(), 0),
                    mark: short(Held::mark_of(signed)),
                };
                self.ask_after_the_key(now, from, id);
            }
            DropReason::SuccessionRival => {
                let mark = Held::mark_of(signed);
                let Ok(record) = signed.peek() else { return };
                if self.rivals.len() < MAX_RIVALS && !self.rivals.iter().any(|r| r.mark == mark) {
                    self.rivals.push(Held { record, signed: signed.clone(), mark });
                    actions.push(Action::Changed(super::Changed { roster: true, ..Default::default() }));
                }
                let known = self.roster.succession(record_number(signed)).map(|held| held.id());
                self.correct(now, from, known);
            }
            _ => {}
        }
    }

    /// A record that another mesh key has signed than the one that signs now.
    pub(super) fn of_another_key(
        &mut self,
        now: Duration,
        from: Option<HostId>,
        signed: &Signed<RosterRecord>,
        reason: DropReason,
    ) {
        let Ok(claimed) = signed.peek() else { return };
        let host = claimed.key.id();
        match reason {
            DropReason::RecordOfLaterKey => {
                let mark = short(Held::mark_of(signed));
                self.ask_after_the_key(
                    now,
                    from,
                    Id { key: RecordKey::Roster(host), rank: claimed.rank(), mark },
                );
            }
            DropReason::RecordOfOldKey => {
                let successor =
                    self.roster.succession(claimed.under.key.saturating_add(1)).map(|held| held.id());
                self.correct(now, from, successor);
                let known = self.roster.held(host).map(|held| held.id());
                self.correct(now, from, known);
            }
            _ => {}
        }
    }

    /// Asks for the next succession, and for the record that cannot be judged before it.
    fn ask_after_the_key(&mut self, now: Duration, from: Option<HostId>, id: Id) {
        let Some(from) = from else { return };
        let next = self.roster.chain().number() + 1;
        let succession = Id { key: RecordKey::Succession(next), rank: (next.into(), 0), mark: 0 };
        if id.key != succession.key {
            self.wants.hear(from, succession, How { due: now, latest: now, whole: false, graft: false });
        }
        let (due, latest) = (now + FETCH_AFTER, now + FETCH_AFTER);
        self.wants.hear(from, id, How { due, latest, whole: false, graft: false });
    }

    /// What is announced, and known not to count: a rival that was refused, or an older key's record of an unknown host.
    pub(super) fn is_void(&mut self, now: Duration, from: HostId, id: &Id) -> bool {
        match id.key {
            RecordKey::Succession(_) => self.rivals.iter().any(|held| held.id() == *id),
            RecordKey::Roster(host) => {
                let number = self.roster.chain().number();
                let void = id.rank.0 >> 1 < u64::from(number) && self.roster.held(host).is_none();
                if void {
                    let last = self.roster.succession(number).map(|held| held.id());
                    self.correct(now, Some(from), last);
                }
                void
            }
            RecordKey::Decision(_) | RecordKey::Facts(_) => false,
        }
    }

    /// Forgets what only an older key has signed, as soon as all that the new one signed again has come.
    pub(super) fn forget_leftovers(&mut self) {
        for host in self.roster.leftovers() {
            if let Some(held) = self.roster.held(host).cloned() {
                self.unknow(&AnyRecord::Roster(held));
                self.desk.write(ToStore::RosterGone(host));
            }
            if let Some(said) = self.facts.get(host).cloned() {
                self.unknow(&AnyRecord::Facts(said));
            }
            self.desk.write(ToStore::FactsGone(host));
        }
    }
}

fn record_number(signed: &Signed<Succession>) -> u32 {
    signed.peek().map_or(0, |record| record.number)
}
