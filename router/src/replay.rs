//! The replay window of one sender lane: which counters have been seen, as far back as it reaches (RFC 6479's ring of words).

use crate::drop::DropReason;

const WORDS: usize = 65;
const WORD_BITS: u64 = u64::BITS as u64;

/// How many counters behind the highest are still told apart. Older ones are refused.
pub const WINDOW: u64 = (WORDS as u64 - 1) * WORD_BITS;

/// The window. 528 bytes.
#[derive(Clone)]
pub struct ReplayWindow {
    /// One more than the highest counter seen.
    next: u64,
    seen: [u64; WORDS],
}

impl ReplayWindow {
    /// Nothing seen.
    #[must_use]
    pub const fn new() -> Self {
        Self { next: 0, seen: [0; WORDS] }
    }

    /// Whether `counter` may still come; a look only, to spare opening what will be refused.
    #[inline]
    pub fn check(&self, counter: u64) -> Result<(), DropReason> {
        if counter >= self.next {
            Ok(())
        } else if self.next - counter > WINDOW {
            Err(DropReason::TooOld)
        } else if self.seen[word(counter)] & bit(counter) != 0 {
            Err(DropReason::Replayed)
        } else {
            Ok(())
        }
    }

    /// Notes an authentic `counter`; once only. Never call this before the tag was checked.
    ///
    /// Returns whether it is the highest so far.
    #[inline]
    pub fn accept(&mut self, counter: u64) -> Result<bool, DropReason> {
        self.check(counter)?;
        let newest = counter >= self.next;
        if newest {
            self.advance(counter);
        }
        self.seen[word(counter)] |= bit(counter);
        Ok(newest)
    }

    /// Moves the window so that `counter` is the highest; words that come in are empty.
    #[inline]
    fn advance(&mut self, counter: u64) {
        let first = if self.next == 0 { 0 } else { (self.next - 1) / WORD_BITS + 1 };
        let last = counter / WORD_BITS;
        for index in first..=last.min(first.saturating_add(WORDS as u64 - 1)) {
            self.seen[index as usize % WORDS] = 0;
        }
        self.next = counter.saturating_add(1);
    }
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self::new()
    }
}

#[inline]
fn word(counter: u64) -> usize {
    (counter / WORD_BITS) as usize % WORDS
}

#[inline]
fn bit(counter: u64) -> u64 {
    1 << (counter % WORD_BITS)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    /// The same, by a set that forgets nothing.
    #[derive(Default)]
    struct Model {
        seen: HashSet<u64>,
        highest: Option<u64>,
    }

    impl Model {
        fn accept(&mut self, counter: u64) -> Result<bool, DropReason> {
            if self.highest.is_some_and(|h| h >= counter && h - counter >= WINDOW) {
                return Err(DropReason::TooOld);
            }
            if !self.seen.insert(counter) {
                return Err(DropReason::Replayed);
            }
            let newest = self.highest.is_none_or(|h| counter > h);
            self.highest = self.highest.max(Some(counter));
            Ok(newest)
        }
    }

    /// Steps forward, mostly small, and looks back, mostly within the window.
    fn counters() -> impl Strategy<Value = Vec<u64>> {
        let step = prop_oneof![8 => 0i64..3, 4 => -70i64..70, 3 => -5000i64..5000, 1 => 0i64..100_000];
        prop::collection::vec(step, 1..400).prop_map(|steps| {
            let mut at = 0i64;
            steps
                .into_iter()
                .map(|step| {
                    at = (at + step).max(0);
                    at as u64
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn agrees_with_a_set(counters in counters()) {
            let (mut window, mut model) = (ReplayWindow::new(), Model::default());
            for counter in counters {
                let expected = model.accept(counter);
                prop_assert_eq!(window.check(counter).err(), expected.err(), "check {}", counter);
                prop_assert_eq!(window.accept(counter), expected, "accept {}", counter);
            }
        }
    }

    #[test]
    fn ends_of_the_counter() {
        let mut window = ReplayWindow::new();
        assert_eq!(window.accept(0), Ok(true));
        assert_eq!(window.accept(0), Err(DropReason::Replayed));
        assert_eq!(window.accept(u64::MAX - 1), Ok(true));
        assert_eq!(window.accept(0), Err(DropReason::TooOld));
        const { assert!(WINDOW >= 4096) };
    }
}
