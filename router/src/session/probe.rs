//! Probes: a three-way echo (question, answer, close) that gives both ends round trip and loss. Each end keeps its own
//! times, so a peer can only make itself look farther away than it is.

use std::time::Duration;

use crate::drop::DropReason;

/// Bytes of a probe's body: kind, the sequence number answered, the own sequence number.
pub const PROBE_LEN: usize = 9;

/// Own probes that may still be answered; an answer to an older one is ignored.
const OUTSTANDING: usize = 8;

const QUESTION: u8 = 1;
const ANSWER: u8 = 2;
const CLOSE: u8 = 3;

/// What must be sent now that a probe was heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Heard {
    /// A question: send this answer.
    Question([u8; PROBE_LEN]),
    /// The answer to ours: send this close. Both directions work.
    Answer([u8; PROBE_LEN]),
    /// The close of ours: both directions work.
    Close,
    /// A repeated or very old one.
    Late,
}

/// One end of the echo on one connection.
#[derive(Clone, Debug, Default)]
pub struct Echo {
    next: u32,
    sent: [Option<(u32, Duration)>; OUTSTANDING],
    rtt: Option<Duration>,
    /// One bit for each of the last 32 probes that came back or were given up.
    lost: u32,
    judged: u8,
}

impl Echo {
    /// A question to send now.
    pub fn question(&mut self, now: Duration) -> [u8; PROBE_LEN] {
        body(QUESTION, 0, self.send(now))
    }

    /// What a body says, and what to send in turn.
    pub fn heard(&mut self, now: Duration, bytes: &[u8]) -> Result<Heard, DropReason> {
        let bytes: &[u8; PROBE_LEN] = bytes.try_into().map_err(|_| DropReason::ProbeGarbled)?;
        let [kind, a0, a1, a2, a3, o0, o1, o2, o3] = *bytes;
        let (answered, own) = (u32::from_be_bytes([a0, a1, a2, a3]), u32::from_be_bytes([o0, o1, o2, o3]));
        match kind {
            QUESTION => Ok(Heard::Question(body(ANSWER, own, self.send(now)))),
            ANSWER if self.came_back(now, answered) => Ok(Heard::Answer(body(CLOSE, own, 0))),
            CLOSE if self.came_back(now, answered) => Ok(Heard::Close),
            ANSWER | CLOSE => Ok(Heard::Late),
            _ => Err(DropReason::ProbeGarbled),
        }
    }

    /// The round trip, smoothed as TCP does it (RFC 6298 2.3).
    #[must_use]
    pub fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// The share of the last 32 probes that did not come back, 0 to 1.
    #[must_use]
    pub fn loss(&self) -> f32 {
        match self.judged {
            0 => 0.0,
            n => self.lost.count_ones() as f32 / f32::from(n),
        }
    }

    fn send(&mut self, now: Duration) -> u32 {
        let sequence = self.next;
        self.next = self.next.wrapping_add(1);
        let slot = &mut self.sent[sequence as usize % OUTSTANDING];
        if slot.replace((sequence, now)).is_some() {
            self.judge(true);
        }
        sequence
    }

    fn came_back(&mut self, now: Duration, sequence: u32) -> bool {
        let slot = &mut self.sent[sequence as usize % OUTSTANDING];
        let Some((_, at)) = slot.take_if(|(s, _)| *s == sequence) else { return false };
        let sample = now.saturating_sub(at);
        self.rtt = Some(self.rtt.map_or(sample, |rtt| rtt * 7 / 8 + sample / 8));
        self.judge(false);
        true
    }

    fn judge(&mut self, lost: bool) {
        self.lost = self.lost << 1 | u32::from(lost);
        self.judged = (self.judged + 1).min(32);
    }
}

fn body(kind: u8, answered: u32, own: u32) -> [u8; PROBE_LEN] {
    let mut bytes = [0; PROBE_LEN];
    bytes[0] = kind;
    bytes[1..5].copy_from_slice(&answered.to_be_bytes());
    bytes[5..].copy_from_slice(&own.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn both_ends_learn_the_round_trip() {
        let (mut a, mut b) = (Echo::default(), Echo::default());
        let question = a.question(MS);
        let Ok(Heard::Question(answer)) = b.heard(6 * MS, &question) else { panic!() };
        let Ok(Heard::Answer(close)) = a.heard(11 * MS, &answer) else { panic!() };
        assert_eq!(b.heard(16 * MS, &close), Ok(Heard::Close));
        assert_eq!((a.rtt(), b.rtt()), (Some(10 * MS), Some(10 * MS)));
        assert_eq!((a.loss(), b.loss()), (0.0, 0.0));
        assert_eq!(a.heard(20 * MS, &answer), Ok(Heard::Late), "each counts once");
    }

    #[test]
    fn what_does_not_come_back_is_loss() {
        let (mut a, mut b) = (Echo::default(), Echo::default());
        for i in 0..40 {
            let question = a.question(i * MS);
            if i % 2 == 0 {
                let Ok(Heard::Question(answer)) = b.heard(i * MS, &question) else { panic!() };
                assert!(matches!(a.heard(i * MS, &answer), Ok(Heard::Answer(_))));
            }
        }
        assert!((0.4..0.6).contains(&a.loss()), "{}", a.loss());
    }

    proptest! {
        #[test]
        fn any_bytes_are_heard_without_panic(bodies: Vec<Vec<u8>>, nine: [u8; 9]) {
            let mut echo = Echo::default();
            for body in &bodies {
                let _ = echo.heard(MS, body);
            }
            let heard = echo.heard(MS, &nine);
            prop_assert!(!matches!(heard, Ok(Heard::Answer(_) | Heard::Close)), "nothing was asked");
        }
    }
}
