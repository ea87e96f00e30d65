//! Which path is taken, and which is left alone.

use super::*;

const MS: Duration = Duration::from_millis(1);

fn path(last: u8) -> Path {
    Path::Udp(([192, 0, 2, last], 6783).into())
}

fn echo(paths: &mut Paths, now: Duration, path: Path, took: Duration) {
    let Ok(Probe::Question { own, .. }) = Probe::read(&paths.question(now, path)) else { unreachable!() };
    let answer = Probe::Answer { answered: own, own: 1 }.bytes();
    assert!(matches!(paths.hear(now + took, path, &answer), Ok(Heard::Answered(_))));
}

/// Probes the path in use each second, another each ten, for as long as that stays so; returns the seconds.
fn stays(used: impl Fn(u32) -> Duration, other: impl Fn(u32) -> Duration) -> u32 {
    let mut paths = Paths::default();
    paths.list(Duration::ZERO, [path(1), path(2)].into_iter());
    paths.take(Duration::ZERO, path(1));
    for second in 1..600 {
        let now = Duration::from_secs(second.into());
        echo(&mut paths, now, path(1), used(second));
        if second % 10 == 0 {
            echo(&mut paths, now, path(2), other(second));
        }
        if paths.better(now + 900 * MS, true).is_some() {
            return second;
        }
    }
    600
}

#[test]
fn what_was_silent_in_doubt_must_prove_itself_anew() {
    let stream = Path::Tcp(super::super::StreamId(1));
    let mut paths = Paths::default();
    paths.list(Duration::ZERO, [path(1), path(2), stream].into_iter());
    paths.take(Duration::ZERO, path(1));
    for n in 0..PROOFS {
        let now = MS * 10 * n;
        [path(1), path(2), stream].into_iter().for_each(|path| echo(&mut paths, now, path, MS));
    }
    let doubt = SUSPECT_AFTER + 100 * MS;
    paths.tick(doubt, true);
    paths.question(doubt, path(2));
    echo(&mut paths, doubt, stream, MS);
    let now = doubt + 2 * SUSPECT_INTERVAL;
    assert_eq!(paths.better(now, true), Some(stream));
    paths.take(now, stream);
    assert_eq!(paths.better(now + MS, true), None, "the other address was as silent");
}

#[test]
fn a_few_lost_probes_move_nobody_to_a_stream() {
    for (lost, moves) in [(6, false), (8, true)] {
        let (mut paths, stream) = (Paths::default(), Path::Tcp(super::super::StreamId(1)));
        paths.list(Duration::ZERO, [path(1), stream].into_iter());
        paths.take(Duration::ZERO, path(1));
        let mut now = Duration::ZERO;
        for n in 0..64 {
            now += PROBE_INTERVAL;
            echo(&mut paths, now, stream, MS);
            if n % (32 / lost) == 0 {
                paths.question(now, path(1));
            } else {
                echo(&mut paths, now, path(1), MS);
            }
        }
        assert_eq!(paths.better(now, true), Some(stream).filter(|_| moves), "{lost} of 32");
    }
}

#[test]
fn a_question_that_waited_for_the_link_holds_no_path_back() {
    let [relay, stream] = [Path::Relay(super::super::HostId([7; 8])), Path::Tcp(super::super::StreamId(1))];
    let mut paths = Paths::default();
    paths.list(Duration::ZERO, [relay, stream, path(1)].into_iter());
    paths.take(Duration::ZERO, relay);
    // The kernel sends it when it has found the neighbour's hardware address.
    let late = 1800 * MS;
    echo(&mut paths, Duration::ZERO, path(1), late);
    for n in 0..=PROOFS {
        [relay, stream, path(1)].into_iter().for_each(|path| echo(&mut paths, late + 10 * MS * n, path, MS));
    }
    assert_eq!(paths.better(2 * late, true), Some(path(1)), "and not the stream");
    paths.take(2 * late, stream);
    assert_eq!(paths.better(2 * late + MS, true), Some(path(1)), "nor is it left on the stream");
}

#[test]
fn what_waits_on_a_busy_host_moves_nobody() {
    let busy = |n: u32| 5 * MS + n.wrapping_mul(2_654_435_761) % 97 * MS;
    assert_eq!(stays(busy, |n| busy(n + 7)), 600);
    let at_times = |n: u32| if n.is_multiple_of(4) { 5 * MS } else { 60 * MS };
    assert_eq!(stays(at_times, |_| 5 * MS), 600, "as short at its best");
    let took = stays(|_| 40 * MS, |_| 20 * MS);
    assert!((30..60).contains(&took), "a shorter one is taken, after {took} s");
    assert!(stays(|n| if n < 100 { 5 * MS } else { 40 * MS }, |_| 20 * MS) < 120, "one that became longer");
}
