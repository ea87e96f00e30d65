//! How long `docker run -d` takes on a network of weft, and on Docker's own: a bridge, and an internal one, since whoever has a way
//! out on a network of weft has it by a second bridge of Docker's.

use std::time::Instant;

use weft_lab::{BUSYBOX, Host, Lab, Mesh};

/// Starts on each network.
const STARTS: usize = 20;

/// On what containers are started: the name of the network, and how it is made.
const NETWORKS: [(&str, &[&str]); 4] = [
    ("bridge", &["docker", "network", "create", "bridge1"]),
    ("weft", &["weft", "network", "create", "weft1"]),
    ("bridge, internal", &["docker", "network", "create", "--internal", "bridge2"]),
    ("weft, internal", &["weft", "network", "create", "--internal", "weft2"]),
];

/// Starts containers on each network in turn, and prints the medians.
pub fn run() -> anyhow::Result<()> {
    let lab = Lab::builder().hosts(2).up()?;
    let _mesh = Mesh::up(&lab, &[])?;
    let [host, _other] = lab.hosts() else { anyhow::bail!("two hosts are needed") };
    for (_, make) in NETWORKS {
        host.run(make)?;
    }
    let mut took: [Vec<f64>; NETWORKS.len()] = Default::default();
    for round in 0..=STARTS {
        for turn in 0..NETWORKS.len() {
            // Each is first as often as the others.
            let at = (turn + round) % NETWORKS.len();
            let ms = start(host, NETWORKS[at].1)?;
            // The first round pays for what is made once.
            if round > 0 {
                took[at].push(ms);
            }
        }
    }
    let medians = took.map(median);
    for ((name, _), median) in NETWORKS.iter().zip(medians) {
        println!("start {name:<16}  {median:5.0} ms, median of {STARTS}");
    }
    let [bridge, weft, inner_bridge, inner_weft] = medians;
    println!("ratio start weft/bridge {:.3}", weft / bridge);
    println!("ratio start weft/bridge, internal {:.3}", inner_weft / inner_bridge);
    Ok(())
}

/// One container, on the network that is named last; milliseconds.
fn start(host: &Host, make: &[&str]) -> anyhow::Result<f64> {
    let network = make.last().copied().unwrap_or_default();
    let start = Instant::now();
    host.docker(["run", "-d", "--name", "one", "--network", network, BUSYBOX, "sleep", "86400"])?;
    let ms = start.elapsed().as_secs_f64() * 1e3;
    host.docker(["rm", "-f", "one"])?;
    Ok(ms)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
