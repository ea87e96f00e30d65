//! Which of our lanes a peer hears. A lane other than 0 sends from a port of its own, which a NAT or a firewall may swallow: frames
//! go by it only while a sealed probe on it was answered of late (PROTOCOL 4). A lane without frames is not asked about.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Path;
use super::probe::PROBE_LEN;

/// Between a probe of a lane and the next, and how many go unanswered before the lane is given up.
const TRY: Duration = Duration::from_millis(500);
const TRIES: u32 = 3;
/// An answer holds for so long; halfway it is asked again, if the lane has frames.
const HOLDS: Duration = Duration::from_secs(10);
/// A lane that was not answered is left alone for so long.
const REST: Duration = Duration::from_secs(30);
/// Further lanes are not asked about: their frames go by lane 0.
const MAX_LANES: usize = 15;

const QUESTION: u8 = 4;
const ANSWER: u8 = 5;

/// What must be done about a lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// Send this body on this lane.
    Ask(u8, [u8; PROBE_LEN]),
    /// Frames go by this lane from now on, or not any more.
    Hear(u8, bool),
}

/// What a probe's body says of a lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LaneProbe {
    /// The peer asks: send this answer.
    Question([u8; PROBE_LEN]),
    /// The answer to our question of this number, about this lane.
    Answer(u8, u32),
}

impl LaneProbe {
    /// Reads a probe's body; `None` if it is about something else.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let body: &[u8; PROBE_LEN] = body.try_into().ok()?;
        let [kind, lane, 0, 0, 0, a, b, c, d] = *body else { return None };
        match kind {
            QUESTION => Some(Self::Question([ANSWER, lane, 0, 0, 0, a, b, c, d])),
            ANSWER => Some(Self::Answer(lane, u32::from_be_bytes([a, b, c, d]))),
            _ => None,
        }
    }
}

/// The lanes of one connection.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    path: Option<Path>,
    lanes: BTreeMap<u8, Lane>,
    asked: u32,
}

#[derive(Debug, Default)]
struct Lane {
    heard_until: Option<Duration>,
    /// It had frames since the last answer.
    wanted: bool,
    /// Number of the last question, when the next is due, how many there were.
    asking: Option<(u32, Duration, u32)>,
    rests_until: Duration,
}

impl Lanes {
    /// Frames take this path: what was found out of another does not hold.
    pub(super) fn follow(&mut self, path: Path, steps: &mut Vec<Step>) {
        if self.path.replace(path) != Some(path) {
            let heard = self.lanes.iter().filter(|(_, s)| s.heard_until.is_some());
            steps.extend(heard.map(|(lane, _)| Step::Hear(*lane, false)));
            self.lanes.clear();
        }
    }

    /// A lane has frames for the peer.
    pub(super) fn wanted(&mut self, now: Duration, lane: u8, steps: &mut Vec<Step>) {
        let has_ports = matches!(self.path, Some(Path::Udp(_)));
        if lane == 0 || !has_ports || (self.lanes.len() == MAX_LANES && !self.lanes.contains_key(&lane)) {
            return;
        }
        let state = self.lanes.entry(lane).or_default();
        state.wanted = true;
        if state.heard_until.is_some_and(|until| until > now) {
            steps.push(Step::Hear(lane, true)); // Of other keys of the same peer.
        }
        self.tick(now, steps);
    }

    /// The peer has answered a question.
    pub(super) fn answered(&mut self, now: Duration, lane: u8, number: u32, steps: &mut Vec<Step>) {
        let Some(state) = self.lanes.get_mut(&lane) else { return };
        if state.asking.is_some_and(|(asked, ..)| asked == number) {
            *state = Lane { heard_until: Some(now + HOLDS), ..Lane::default() };
            steps.push(Step::Hear(lane, true));
        }
    }

    /// Whatever is due.
    pub(super) fn tick(&mut self, now: Duration, steps: &mut Vec<Step>) {
        for (lane, state) in &mut self.lanes {
            if state.heard_until.is_some_and(|until| until <= now) {
                state.heard_until = None;
                steps.push(Step::Hear(*lane, false));
            }
            if state.due().is_none_or(|due| due > now) {
                continue;
            }
            match state.asking {
                Some((_, _, TRIES)) => {
                    (state.asking, state.wanted, state.rests_until) = (None, false, now + REST);
                }
                asking => {
                    self.asked = self.asked.wrapping_add(1);
                    state.asking = Some((self.asked, now + TRY, asking.map_or(0, |(_, _, n)| n) + 1));
                    let [a, b, c, d] = self.asked.to_be_bytes();
                    steps.push(Step::Ask(*lane, [QUESTION, *lane, 0, 0, 0, a, b, c, d]));
                }
            }
        }
    }

    /// When something is due.
    pub(super) fn next(&self) -> Option<Duration> {
        self.lanes.values().flat_map(|lane| [lane.due(), lane.heard_until]).flatten().min()
    }
}

impl Lane {
    /// When it is asked about next.
    fn due(&self) -> Option<Duration> {
        let halfway = self.heard_until.map(|until| until.saturating_sub(HOLDS / 2));
        match self.asking {
            Some((_, at, _)) => Some(at),
            None => self.wanted.then(|| self.rests_until.max(halfway.unwrap_or_default())),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weft_api::id::HostId;

    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn udp(last: u8) -> Path {
        Path::Udp(([192, 0, 2, last], 6783).into())
    }

    fn on_udp(last: u8) -> Lanes {
        Lanes { path: Some(udp(last)), ..Lanes::default() }
    }

    /// Lets time pass until `end`; every question is answered at once if `hears`. Returns how many were asked.
    fn run(lanes: &mut Lanes, now: &mut Duration, end: Duration, hears: bool, heard: &mut bool) -> u32 {
        let mut questions = 0;
        while let Some(at) = lanes.next().filter(|at| *at <= end) {
            *now = at.max(*now);
            let mut steps = Vec::new();
            lanes.tick(*now, &mut steps);
            while let Some(step) = steps.pop() {
                match step {
                    Step::Hear(_, yes) => *heard = yes,
                    Step::Ask(lane, body) => {
                        questions += 1;
                        let Some(LaneProbe::Question(answer)) = LaneProbe::read(&body) else { panic!() };
                        let Some(LaneProbe::Answer(answered, number)) = LaneProbe::read(&answer) else {
                            panic!()
                        };
                        assert_eq!(answered, lane);
                        if hears {
                            lanes.answered(*now, lane, number, &mut steps);
                        }
                    }
                }
            }
        }
        *now = end;
        questions
    }

    #[test]
    fn a_lane_is_used_while_it_is_answered() {
        let (mut lanes, mut now, mut heard) = (on_udp(1), S, false);
        let mut steps = Vec::new();
        lanes.wanted(now, 1, &mut steps);
        let [Step::Ask(1, body)] = steps[..] else { panic!("{steps:?}") };
        let Some(LaneProbe::Question(answer)) = LaneProbe::read(&body) else { panic!() };
        let Some(LaneProbe::Answer(1, number)) = LaneProbe::read(&answer) else { panic!() };
        steps.clear();
        lanes.answered(now, 1, number + 1, &mut steps);
        assert_eq!(steps, [], "that was not the question");
        lanes.answered(now, 1, number, &mut steps);
        assert_eq!(steps, [Step::Hear(1, true)]);

        assert_eq!(run(&mut lanes, &mut now, 8 * S, true, &mut heard), 0, "it had no more frames");
        lanes.wanted(now, 1, &mut Vec::new());
        heard = true;
        assert!(run(&mut lanes, &mut now, 10 * S, true, &mut heard) <= 1);
        assert!(heard);
        run(&mut lanes, &mut now, 60 * S, true, &mut heard);
        assert!(!heard, "nothing asked for it any more");
        assert_eq!(lanes.next(), None, "an idle lane costs nothing");
    }

    #[test]
    fn a_lane_that_is_swallowed_is_left_alone() {
        let (mut lanes, mut now, mut heard) = (on_udp(1), S, false);
        lanes.wanted(now, 3, &mut Vec::new());
        assert_eq!(run(&mut lanes, &mut now, 20 * S, false, &mut heard), TRIES - 1);
        lanes.wanted(now, 3, &mut Vec::new());
        assert_eq!(run(&mut lanes, &mut now, 30 * S, true, &mut heard), 0, "it rests");
        assert_eq!(run(&mut lanes, &mut now, 34 * S, true, &mut heard), 1);
        assert!(heard);
        let mut steps = Vec::new();
        lanes.follow(udp(1), &mut steps);
        assert_eq!(steps, [], "the same path");
        lanes.follow(udp(2), &mut steps);
        assert_eq!(steps, [Step::Hear(3, false)]);
        assert_eq!(lanes.next(), None);
        lanes.follow(Path::Relay(HostId([1; 8])), &mut steps);
        lanes.wanted(now, 3, &mut steps);
        assert_eq!(lanes.next(), None, "a relay has lanes of its own");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(body: Vec<u8>, nine: [u8; PROBE_LEN]) {
            let _ = LaneProbe::read(&body);
            let _ = LaneProbe::read(&nine);
        }

        #[test]
        fn any_lanes_are_few_and_time_goes_on(wishes in prop::collection::vec((any::<u8>(), 0u64..9_000), 0..200)) {
            let (mut lanes, mut now, mut heard) = (on_udp(1), Duration::ZERO, false);
            for (lane, pause) in wishes {
                lanes.wanted(now, lane, &mut Vec::new());
                prop_assert!(lanes.lanes.len() <= MAX_LANES);
                let end = now + Duration::from_millis(pause);
                run(&mut lanes, &mut now, end, lane % 2 == 0, &mut heard);
            }
        }
    }
}
