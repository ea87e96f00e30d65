//! What `make sim` measures, with sixty hosts, of which nobody has everybody for a neighbour: what changes, a death, a minute apart
//! and plain time cost.

use std::time::Duration;

use weft_sim::big::{Big, CATCH_UP, DEAD, HEALED, KNOWN, PLAIN};

const MINUTE: Duration = Duration::from_secs(60);
/// More than is promised: where datagrams are lost sessions probe relays, and say each change of path.
const LOSSY: f64 = 30_000.0;

#[test]
fn sixty_hosts_say_little_hear_soon_and_heal() {
    let mut big = Big::new(60, 10, 1);
    big.settle().unwrap();
    for loss in [0, 50] {
        big.world.underlay.weather.loss = loss;
        let sent = big.steady(MINUTE, 3);
        println!("{loss} of 1000 lost: {sent:?}");
        let bar = if loss == 0 { PLAIN } else { LOSSY };
        assert!(sent.mean < bar, "{sent:?}");
    }
    let worst = |took: Vec<Option<Duration>>| took.into_iter().map(Option::unwrap).max().unwrap();
    let known = worst(big.spread(10));
    println!("a change: {known:?}");
    assert!(known <= KNOWN, "{known:?}");
    big.world.underlay.weather.loss = 0;
    let dead = worst(big.death(3));
    println!("a death: {dead:?}");
    assert!(dead <= DEAD, "{dead:?}");
    let healed = big.part(MINUTE, 1).unwrap();
    println!("{healed:?}");
    assert!(healed.known.max(healed.reached) <= HEALED, "{healed:?}");
    assert!(healed.most <= CATCH_UP, "{healed:?}");
    assert!(healed.wrong.is_empty(), "{:?}", healed.wrong);
    assert!(healed.rests, "{healed:?}");
    assert!(big.world.broken.is_empty(), "{:?}", big.world.broken);
}
