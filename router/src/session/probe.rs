//! Probes: a three-way echo (question, answer, close) that gives both ends round trip and loss of a path. Each end keeps its
//! own times, so a peer can only make itself look farther away than it is.

use std::collections::VecDeque;
use std::time::Duration;

use crate::drop::DropReason;

/// Bytes of a probe's body: kind, the sequence number answered, the own sequence number.
pub const PROBE_LEN: usize = 9;

/// Own probes along one path that may still be answered; an answer to an older one is ignored.
const OUTSTANDING: usize = 8;
/// One that was sent so much earlier than another that came back is lost.
const LATE: Duration = Duration::from_millis(500);
/// Round trips that are remembered one by one.
const RECENT: usize = 8;

const QUESTION: u8 = 1;
const ANSWER: u8 = 2;
const CLOSE: u8 = 3;
/// 4 to 7 are the probes of lanes and sizes.
const QUESTION_OF_USED: u8 = 8;

/// What a probe says. Sequence numbers are the sender's, never the same again for a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Probe {
    /// Answer this, along the path that it came by.
    Question {
        /// To be repeated in the answer.
        own: u32,
        /// Whether it comes by the path that the sender goes by.
        used: bool,
    },
    /// The answer to a question.
    Answer {
        /// The question's number.
        answered: u32,
        /// To be repeated in the close.
        own: u32,
    },
    /// The answer to an answer.
    Close {
        /// The answer's number.
        answered: u32,
    },
}

impl Probe {
    /// Reads a body.
    pub fn read(body: &[u8]) -> Result<Self, DropReason> {
        let body: &[u8; PROBE_LEN] = body.try_into().map_err(|_| DropReason::ProbeGarbled)?;
        let [kind, a0, a1, a2, a3, o0, o1, o2, o3] = *body;
        let (answered, own) = (u32::from_be_bytes([a0, a1, a2, a3]), u32::from_be_bytes([o0, o1, o2, o3]));
        match kind {
            QUESTION => Ok(Self::Question { own, used: false }),
            QUESTION_OF_USED => Ok(Self::Question { own, used: true }),
            ANSWER => Ok(Self::Answer { answered, own }),
            CLOSE => Ok(Self::Close { answered }),
            _ => Err(DropReason::ProbeGarbled),
        }
    }

    /// The body.
    #[must_use]
    pub fn bytes(self) -> [u8; PROBE_LEN] {
        let (kind, answered, own) = match self {
            Self::Question { own, used: false } => (QUESTION, 0, own),
            Self::Question { own, used: true } => (QUESTION_OF_USED, 0, own),
            Self::Answer { answered, own } => (ANSWER, answered, own),
            Self::Close { answered } => (CLOSE, answered, 0),
        };
        let mut bytes = [0; PROBE_LEN];
        bytes[0] = kind;
        bytes[1..5].copy_from_slice(&answered.to_be_bytes());
        bytes[5..].copy_from_slice(&own.to_be_bytes());
        bytes
    }
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    sequence: u32,
    at: Duration,
    /// It was sent because the one before was not answered: one silence is not many losses.
    again: bool,
}

/// One end of the echo along one path.
#[derive(Clone, Debug, Default)]
pub struct Echo {
    sent: VecDeque<Sent>,
    rtt: Option<Duration>,
    /// The last round trips, the newest last.
    recent: VecDeque<Duration>,
    /// One bit for each of the last 32 probes that came back or were given up.
    lost: u32,
}

impl Echo {
    /// A question or an answer with this number was sent, perhaps because the one before was not answered.
    pub fn sent(&mut self, now: Duration, sequence: u32, again: bool) {
        if self.sent.len() == OUTSTANDING {
            self.lose();
        }
        self.sent.push_back(Sent { sequence, at: now, again });
    }

    /// The number came back; `false` if it is none of these, or came back before.
    pub fn came_back(&mut self, now: Duration, sequence: u32) -> bool {
        let Some(at) = self.sent.iter().position(|s| s.sequence == sequence) else { return false };
        let Some(sent) = self.sent.remove(at) else { return false };
        while self.sent.front().is_some_and(|s| s.at + LATE < sent.at) {
            self.lose();
        }
        let sample = now.saturating_sub(sent.at);
        self.rtt = Some(self.rtt.map_or(sample, |rtt| rtt * 7 / 8 + sample / 8));
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(sample);
        if !sent.again {
            self.judge(false);
        }
        true
    }

    /// It is alive again, as so many round trips have shown: what was lost before does not count, nor what waited in the kernel
    /// until it was.
    pub fn renew(&mut self, rounds: usize) {
        (self.lost, self.rtt) = (0, self.recent.iter().rev().take(rounds).min().copied());
    }

    /// The round trip, smoothed as TCP does it (RFC 6298 2.3).
    #[must_use]
    pub fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// The shortest of the last round trips: what the path itself costs, without what waits on a busy host.
    #[must_use]
    pub fn shortest(&self) -> Option<Duration> {
        self.recent.iter().min().copied()
    }

    /// The share of the last 32 probes that did not come back, 0 to 1; those before the first count as good.
    #[must_use]
    pub fn loss(&self) -> f32 {
        self.lost.count_ones() as f32 / u32::BITS as f32
    }

    /// The oldest does not come back any more.
    fn lose(&mut self) {
        if self.sent.pop_front().is_some_and(|s| !s.again) {
            self.judge(true);
        }
    }

    fn judge(&mut self, lost: bool) {
        self.lost = self.lost << 1 | u32::from(lost);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn what_comes_back_is_measured_once() {
        let mut echo = Echo::default();
        echo.sent(MS, 7, false);
        assert!(!echo.came_back(5 * MS, 8), "never sent");
        assert!(echo.came_back(11 * MS, 7));
        assert!(!echo.came_back(12 * MS, 7), "each counts once");
        assert_eq!((echo.rtt(), echo.loss()), (Some(10 * MS), 0.0));
    }

    #[test]
    fn what_does_not_come_back_is_loss() {
        let mut echo = Echo::default();
        for i in 0..80 {
            echo.sent(i * LATE, i, false);
            if i % 2 == 0 {
                assert!(echo.came_back(i * LATE, i));
            }
        }
        assert!((0.4..=0.6).contains(&echo.loss()), "{}", echo.loss());
    }

    #[test]
    fn a_silence_is_one_loss_however_often_it_was_asked() {
        let mut echo = Echo::default();
        (0..40).for_each(|i| echo.sent(LATE * i / 2, i, i > 0));
        assert!(echo.came_back(LATE * 40, 39));
        assert_eq!(echo.loss(), 1.0 / 32.0);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(body: Vec<u8>, nine: [u8; 9]) {
            let _ = Probe::read(&body);
            if let Ok(probe) = Probe::read(&nine) {
                prop_assert_eq!(Probe::read(&probe.bytes()), Ok(probe));
            }
        }
    }
}
