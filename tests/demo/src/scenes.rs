//! What the demo shows: each scene is one claim, tried on real containers, and says in a few words what came of it.

use std::{
    fs,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use serde_json::Value;
use weft_lab::{BUSYBOX, Host, Lab, Mesh};

/// The network that the containers are on.
pub const NETWORK: &str = "app";
/// Bytes of the transfer.
const GIGABYTE: usize = 1_000_000_000;
/// Seconds of one throughput measurement, and of the one before it that does not count.
const SECONDS: (&str, &str) = ("5", "1");

/// A container on the network.
pub struct Container<'a> {
    host: &'a Host,
    name: &'static str,
    address: String,
}

impl<'a> Container<'a> {
    /// `docker run`, as a person types it.
    pub fn run(host: &'a Host, name: &'static str) -> anyhow::Result<Container<'a>> {
        let run = ["run", "-d", "--restart", "always", "--name", name, "--network", NETWORK, BUSYBOX];
        host.docker(run.iter().chain(&["sleep", "86400"]))?;
        let address = address(host, name)?;
        Ok(Container { host, name, address })
    }

    fn exec(&self, argv: &[&str]) -> anyhow::Result<String> {
        Ok(self.host.docker(["exec", self.name].iter().chain(argv))?)
    }

    fn start(&self, argv: &[&str]) -> anyhow::Result<()> {
        self.host.docker(["exec", "-d", self.name].iter().chain(argv))?;
        Ok(())
    }

    fn pings(&self, address: &str) -> bool {
        self.host.exec(["docker", "exec", self.name, "ping", "-c1", "-W1", address]).ok()
    }
}

/// Every container reaches every other.
pub fn pings(all: &[Container<'_>]) -> anyhow::Result<String> {
    let pairs: Vec<_> = all
        .iter()
        .flat_map(|from| all.iter().map(move |to| (from, to)))
        .filter(|(from, to)| from.name != to.name)
        .collect();
    for (from, to) in &pairs {
        let answered = within(Duration::from_secs(5), || from.pings(&to.address));
        ensure!(answered.is_some(), "{} does not reach {} at {}", from.name, to.name, to.address);
    }
    Ok(format!("{} of {} answered", pairs.len(), pairs.len()))
}

/// A file goes from one container to another and is the same there.
pub fn transfer(from: &Container<'_>, to: &Container<'_>) -> anyhow::Result<String> {
    let make = format!(
        "mkdir /tmp/www && head -c {GIGABYTE} /dev/urandom >/tmp/www/file && sha256sum </tmp/www/file"
    );
    let sent = from.exec(&["sh", "-c", &make])?;
    from.exec(&["httpd", "-p", "8080", "-h", "/tmp/www"])?;
    let start = Instant::now();
    let fetch = format!("wget -q -O - http://{}:8080/file | sha256sum", from.address);
    let came = to.exec(&["sh", "-c", &fetch])?;
    let seconds = start.elapsed().as_secs_f64();
    from.exec(&["rm", "-r", "/tmp/www"])?;
    ensure!(sent == came, "SHA-256 of what was sent: {sent}, of what came: {came}");
    let sum: String = came.chars().take(8).collect();
    Ok(format!("1 GB in {seconds:.1} s, SHA-256 {sum}... at both ends"))
}

/// One stream through weft, and one through the kernel's VXLAN beside it.
pub fn throughput(lab: &Lab, from: &Container<'_>, to: &Container<'_>) -> anyhow::Result<String> {
    let [near, far] = lab.vxlan(from.host.name(), to.host.name())?;
    let containers = (from.host.container_pid(from.name)?, to.host.container_pid(to.name)?);
    let through_weft = stream((from.host, containers.0), (to.host, containers.1), &to.address)?;
    let through_vxlan = stream((from.host, near.pid), (to.host, far.pid), &far.address.to_string())?;
    Ok(format!(
        "weft, sealed: {through_weft:.1} Gbit/s; kernel VXLAN, open: {through_vxlan:.1} Gbit/s ({:.0} %)",
        100.0 * through_weft / through_vxlan
    ))
}

/// A known text goes through weft: whoever listens on the underlay does not find it, who listens in the container does.
pub fn secrecy(lab: &Lab, from: &Container<'_>, to: &Container<'_>) -> anyhow::Result<String> {
    let secret = fs::read_to_string("/proc/sys/kernel/random/uuid").context("cannot make a secret")?;
    let secret = format!("the secret is {}", secret.trim());
    let pid = to.host.container_pid(to.name)?;
    let inside = to.host.capture_in_netns_of(pid, &interface(to, pid)?)?;
    let underlay = lab.underlay_capture()?;
    // A listener whose own input has ended would end the connection before all has come.
    to.start(&["sh", "-c", "sleep 60 | nc -l -p 7100 >/tmp/got"])?;
    let listens =
        within(Duration::from_secs(5), || to.exec(&["sh", "-c", "netstat -tln | grep -q :7100"]).is_ok());
    ensure!(listens.is_some(), "nobody listens in {}", to.name);
    from.exec(&["sh", "-c", &format!("yes '{secret}' | head -n 100 | nc {} 7100", to.address)])?;
    let text = vec![&secret[..]; 100].join("\n");
    let came = within(Duration::from_secs(5), || to.exec(&["cat", "/tmp/got"]).is_ok_and(|got| got == text));
    let (underlay, inside) = (underlay.stop()?, inside.stop()?);
    ensure!(came.is_some(), "the text did not arrive");
    let holds = |pcap: &weft_lab::Pcap| -> anyhow::Result<bool> {
        let bytes = fs::read(&pcap.path).with_context(|| format!("cannot read {}", pcap.path.display()))?;
        Ok(bytes.windows(secret.len()).any(|window| window == secret.as_bytes()))
    };
    ensure!(
        underlay.captured > 0 && underlay.dropped == 0,
        "the underlay's capture is not complete: {underlay:?}"
    );
    ensure!(holds(&inside)?, "the search does not even find the text in {}'s own capture", to.name);
    ensure!(!holds(&underlay)?, "the text is readable on the underlay");
    Ok(format!("{} frames captured, text in none; found at {}'s own interface", underlay.captured, to.name))
}

/// The power of a host fails, and comes back.
pub fn power(mesh: &mut Mesh<'_>, lost: &Container<'_>, other: &Container<'_>) -> anyhow::Result<String> {
    lost.host.kill();
    sleep(Duration::from_secs(1));
    ensure!(!other.pings(&lost.address), "{} answers though {} is off", lost.name, lost.host.name());
    let start = Instant::now();
    lost.host.boot()?;
    mesh.restart(lost.host.name())?;
    lost.host.engine_start()?;
    let back = within(Duration::from_secs(60), || other.pings(&lost.address));
    ensure!(back.is_some(), "{} is not back at {} within 60 s", lost.name, lost.address);
    let seconds = start.elapsed().as_secs_f64();
    let now = address(lost.host, lost.name)?;
    ensure!(now == lost.address, "{} had {} and now has {now}", lost.name, lost.address);
    Ok(format!("{} answers at {now} again, {seconds:.1} s after the power came back", lost.name))
}

/// Gbit/s of one TCP stream between two network namespaces.
fn stream(from: (&Host, i32), to: (&Host, i32), address: &str) -> anyhow::Result<f64> {
    let log = format!("iperf3-{address}.log");
    let server = ["iperf3", "-s", "-B", address, "--forceflush"];
    let mut server = to.0.spawn_in_netns_of(to.1, server, &log)?;
    ensure!(server.wait_log("Server listening", Duration::from_secs(5)), "iperf3: {}", server.log_text());
    let mut report = Value::Null;
    let mut run = |seconds: &str| {
        let out = from.0.exec_in_netns_of(from.1, ["iperf3", "-c", address, "-t", seconds, "-J"]);
        report = serde_json::from_str(&out.stdout).unwrap_or_default();
        out.ok() && report.get("error").is_none()
    };
    // The server may need a moment until it takes the next run.
    let done =
        [SECONDS.1, SECONDS.0].map(|seconds| within(Duration::from_secs(10), || run(seconds)).is_some());
    server.kill9();
    ensure!(done == [true, true], "iperf3 to {address} failed: {report}");
    let bits = report.pointer("/end/sum_received/bits_per_second").and_then(Value::as_f64);
    Ok(bits.context("iperf3 says no bits_per_second")? / 1e9)
}

fn address(host: &Host, name: &str) -> anyhow::Result<String> {
    let format = format!("{{{{(index .NetworkSettings.Networks \"{NETWORK}\").IPAddress}}}}");
    Ok(host.docker(["inspect", "-f", &format, name])?)
}

/// The interface that has the container's address.
fn interface(container: &Container<'_>, pid: i32) -> anyhow::Result<String> {
    let list = container.host.exec_in_netns_of(pid, ["ip", "-br", "-4", "addr"]).stdout;
    let line = list.lines().find(|line| line.contains(&format!(" {}/", container.address)));
    let name = line.and_then(|line| line.split(['@', ' ']).next()).map(str::to_owned);
    name.with_context(|| format!("no interface with {} in {}:\n{list}", container.address, container.name))
}

/// Asks again and again until the answer is yes; how long that took, if it was not too long.
fn within(limit: Duration, mut asked: impl FnMut() -> bool) -> Option<Duration> {
    let start = Instant::now();
    while start.elapsed() < limit {
        if asked() {
            return Some(start.elapsed());
        }
        sleep(Duration::from_millis(100));
    }
    None
}
