//! What others have and this host lacks: who has it, when it is asked for, and of whom.

use std::collections::BTreeMap;
use std::time::Duration;

use weft_api::id::HostId;

use super::record::{Id, RecordKey};

/// Records that are waited for; ids of further ones are not noted (`IdsTooMany`). The next comparison brings them again.
const MAX_WANTS: usize = 16_384;
/// Of one record so many who have it are remembered.
const MAX_HOLDERS: usize = 4;
/// Asked of one neighbour and not answered yet.
const MAX_ASKED: usize = 128;
/// An announced record that has not come by itself after this is asked for,
pub const FETCH_AFTER: Duration = Duration::from_millis(250);
/// and after this while much comes by itself.
pub const FETCH_LATEST: Duration = Duration::from_secs(1);
/// Not answered after this: the next holder is asked.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// A neighbour that owes enough answers is looked at again after this.
const BUSY: Duration = Duration::from_millis(50);
/// Asked for so often in vain it is forgotten (`AskUnanswered`).
const MAX_TRIES: u8 = 6;

#[derive(Debug)]
struct Want {
    id: Id,
    holders: Vec<HostId>,
    due: Duration,
    latest: Duration,
    asked: Option<HostId>,
    tries: u8,
    whole: bool,
    graft: bool,
}

/// How a record is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct How {
    /// When, unless it comes by itself.
    pub due: Duration,
    /// When, though much comes by itself.
    pub latest: Duration,
    /// All of it: what differs did not hash.
    pub whole: bool,
    /// The tree has failed to bring it: who is asked pushes further ones.
    pub graft: bool,
}

#[derive(Debug, Default)]
pub(super) struct Wants {
    wants: BTreeMap<RecordKey, Want>,
    next: Option<Duration>,
}

impl Wants {
    /// `from` has this version. `false`: too many are waited for already.
    pub(super) fn hear(&mut self, from: HostId, id: Id, how: How) -> bool {
        self.next = Some(self.next.map_or(how.due, |next| next.min(how.due)));
        if let Some(want) = self.wants.get_mut(&id.key) {
            match id.order(&want.id) {
                Some(std::cmp::Ordering::Less) => {}
                Some(std::cmp::Ordering::Equal) => {
                    if !want.holders.contains(&from) && want.holders.len() < MAX_HOLDERS {
                        want.holders.push(from);
                    }
                    if want.asked.is_none() || how.whole {
                        want.due = want.due.min(how.due);
                        want.latest = want.latest.min(how.latest);
                    }
                    want.whole |= how.whole;
                }
                Some(std::cmp::Ordering::Greater) | None => *want = fresh(from, id, how),
            }
            return true;
        }
        let room = self.wants.len() < MAX_WANTS;
        if room {
            self.wants.insert(id.key.clone(), fresh(from, id, how));
        }
        room
    }

    /// A version has come. Returns who has said that it has it.
    pub(super) fn got(&mut self, id: &Id) -> Vec<HostId> {
        let Some(want) = self.wants.get(&id.key) else { return Vec::new() };
        match want.id.order(id) {
            Some(std::cmp::Ordering::Greater) => Vec::new(),
            _ => self.wants.remove(&id.key).map(|w| w.holders).unwrap_or_default(),
        }
    }

    /// The neighbour is gone.
    pub(super) fn lost(&mut self, now: Duration, host: HostId) {
        self.wants.retain(|_, want| {
            want.holders.retain(|h| *h != host);
            if want.asked == Some(host) {
                (want.asked, want.due) = (None, now);
            }
            !want.holders.is_empty()
        });
        self.next = self.wants.values().map(|w| w.due).min();
    }

    /// What to ask for now, in order; and how many were given up. Until `calm` much comes by itself.
    pub(super) fn due(&mut self, now: Duration, calm: Duration) -> (Vec<(HostId, RecordKey, How)>, usize) {
        if self.next.is_none_or(|next| next > now) {
            return (Vec::new(), 0);
        }
        let mut asked: BTreeMap<HostId, usize> = BTreeMap::new();
        for host in self.wants.values().filter(|w| w.due > now).filter_map(|w| w.asked) {
            *asked.entry(host).or_default() += 1;
        }
        let before = self.wants.len();
        for want in self.wants.values_mut().filter(|w| w.due <= now && w.tries == 0) {
            want.due = want.due.max(calm.min(want.latest));
        }
        self.wants.retain(|_, w| w.due > now || w.tries < MAX_TRIES);
        let given_up = before - self.wants.len();
        let mut asks = Vec::new();
        for (key, want) in self.wants.iter_mut().filter(|(_, w)| w.due <= now) {
            let turn = usize::from(want.tries) % want.holders.len().max(1);
            let holders = want.holders.iter().cycle().skip(turn).take(want.holders.len());
            let free = holders.copied().find(|h| asked.get(h).is_none_or(|n| *n < MAX_ASKED));
            let Some(host) = free else {
                want.due = now + BUSY;
                continue;
            };
            *asked.entry(host).or_default() += 1;
            want.asked = Some(host);
            want.tries += 1;
            want.due = now + ANSWER_WITHIN;
            let how = How { due: now, latest: now, whole: want.whole, graft: want.graft };
            asks.push((host, key.clone(), how));
        }
        self.next = self.wants.values().map(|w| w.due).min();
        (asks, given_up)
    }

    pub(super) fn next(&self) -> Option<Duration> {
        self.next
    }
}

fn fresh(from: HostId, id: Id, how: How) -> Want {
    let How { due, latest, whole, graft } = how;
    Want { id, holders: vec![from], due, latest, asked: None, tries: 0, whole, graft }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: HostId = HostId([1; 8]);
    const B: HostId = HostId([2; 8]);
    const CALM: Duration = Duration::ZERO;

    fn id(n: u8, rank: u64) -> Id {
        Id { key: RecordKey::Facts(HostId([n; 8])), rank: (rank, 0), mark: 1 }
    }

    fn how(ms: u64) -> How {
        let due = Duration::from_millis(ms);
        How { due, latest: due + FETCH_LATEST, whole: false, graft: true }
    }

    #[test]
    fn what_does_not_come_is_asked_for_in_turn_and_given_up_in_the_end() {
        let mut wants = Wants::default();
        assert!(wants.hear(A, id(1, 5), how(250)) && wants.hear(B, id(1, 5), how(260)));
        assert!(wants.due(Duration::from_millis(249), CALM).0.is_empty());
        let (mut now, mut asked) = (Duration::from_millis(250), Vec::new());
        loop {
            let (asks, given_up) = wants.due(now, CALM);
            asked.extend(asks.into_iter().map(|(host, ..)| host));
            if given_up > 0 {
                break;
            }
            now = wants.next().unwrap();
        }
        assert_eq!(asked, [A, B, A, B, A, B]);
        assert_eq!((wants.wants.len(), wants.next()), (0, None));
    }

    #[test]
    fn what_has_come_or_lost_its_holder_is_not_asked_for() {
        let mut wants = Wants::default();
        wants.hear(A, id(1, 5), how(0));
        wants.hear(A, id(2, 5), how(0));
        wants.hear(B, id(2, 6), how(0));
        assert_eq!(wants.got(&id(1, 7)), [A]);
        assert!(wants.got(&id(2, 5)).is_empty(), "a newer one is waited for");
        wants.lost(Duration::ZERO, A);
        let (asks, _) = wants.due(Duration::ZERO, CALM);
        assert_eq!(
            asks.iter().map(|(host, key, _)| (*host, key.clone())).collect::<Vec<_>>(),
            [(B, id(2, 6).key)]
        );
        wants.lost(Duration::ZERO, B);
        assert_eq!(wants.wants.len(), 0);
    }

    #[test]
    fn while_much_comes_by_itself_less_is_asked_for() {
        let mut wants = Wants::default();
        wants.hear(A, id(1, 5), how(250));
        let (now, calm) = (Duration::from_millis(250), Duration::from_millis(600));
        assert!(wants.due(now, calm).0.is_empty());
        assert_eq!(wants.next(), Some(calm));
        assert!(wants.due(calm, calm * 100).0.is_empty());
        assert_eq!(wants.next(), Some(now + FETCH_LATEST), "but then it is");
        assert_eq!(wants.due(now + FETCH_LATEST, calm * 100).0.len(), 1);
    }

    #[test]
    fn a_neighbour_owes_only_so_many_answers() {
        let mut wants = Wants::default();
        let many = |n: u32| {
            let [a, b, ..] = n.to_le_bytes();
            Id { key: RecordKey::Facts(HostId([a, b, 0, 0, 0, 0, 0, 0])), rank: (1, 1), mark: 1 }
        };
        for n in 0..20_000u32 {
            assert_eq!(wants.hear(A, many(n), how(0)), n < 16_384);
        }
        assert_eq!(wants.due(Duration::ZERO, CALM).0.len(), MAX_ASKED);
        wants.got(&many(0));
        assert_eq!(wants.due(BUSY, CALM).0.len(), 1);
    }
}
