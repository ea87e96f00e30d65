//! Frames for a host without a session: they wait in the lane, and leave by name if they do not leave in order.

use weft_router::waiting::MAX_WAIT;

use super::*;

/// The tables of a side, as if there were no session.
fn without_session(side: &Side, number: u8) {
    let networks = HashMap::from([(NETWORK, Arc::new(table(number)))]);
    side.lane.set_tables(Arc::new(Tables { networks, ..Tables::default() }));
}

#[test]
fn what_comes_before_the_session_waits_for_it_in_order() {
    let mut pair = Pair::new(Cipher::Aegis128L);
    without_session(&pair.a, 0);
    let frames: Vec<_> = (0..70).map(|n| udp(mac(1), &bytes(100 + n))).collect();
    let (vnet, large) = superframe(&bytes(3000), 1000);
    pair.a.write(vnet, &large);
    frames.iter().for_each(|frame| pair.a.write(VnetHeader::default(), frame));
    assert!(matches!(pair.a.event(), LaneEvent::Wanted { host: B }), "the first frame asks for a session");
    pair.a.drops(&[(DropReason::WaitingFull, 7)]);
    pair.a.set_table(table(0));
    let mut came = Vec::new();
    while came.iter().map(Vec::len).sum::<usize>() < 3000 {
        pair.give(&pair.b, &pair.take());
        pair.b.tap.set_read_timeout(Some(SILENCE)).unwrap();
        while let Some((_, frame)) = pair.b.read_or_nothing() {
            came.push(frame[54..].to_vec());
        }
    }
    assert_eq!(came.concat(), large[54..], "the superframe comes first");
    let mut came = Vec::new();
    while came.len() < 63 {
        pair.give(&pair.b, &pair.take());
        while let Some((_, frame)) = pair.b.read_or_nothing() {
            came.push(frame);
        }
    }
    assert_eq!(came, frames[..63]);
    pair.b.drops(&[]);
}

#[test]
fn what_waits_for_who_cannot_be_reached_is_dropped_by_name() {
    let pair = Pair::new(Cipher::Aegis128L);
    without_session(&pair.a, 0);
    (0..3).for_each(|_| pair.a.write(VnetHeader::default(), &udp(mac(1), b"waits")));
    eventually("all have come in", || {
        pair.a.lane.give_up(B);
        pair.a.lane.drops().get(DropReason::NotReached) == 3
    });
    pair.a.set_table(table(0));
    pair.a.write(VnetHeader::default(), &udp(mac(1), b"has a session"));
    pair.give(&pair.b, &pair.take());
    assert_eq!(pair.b.read().1, udp(mac(1), b"has a session"));
    pair.a.drops(&[(DropReason::NotReached, 3)]);
}

#[test]
fn what_waits_too_long_is_dropped_by_name() {
    let pair = Pair::new(Cipher::Aegis128L);
    without_session(&pair.a, 0);
    pair.a.write(VnetHeader::default(), &udp(mac(1), b"waits"));
    let since = Instant::now();
    eventually_within(4 * PATIENCE, "dropped though nothing wakes the lane", || {
        pair.a.lane.drops().get(DropReason::WaitedTooLong) == 1
    });
    assert!(since.elapsed() >= MAX_WAIT, "{:?}", since.elapsed());
}
