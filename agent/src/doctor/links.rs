//! The other hosts: whether they are reached, what fits on the way, and what time it is there.

use weft_api::network::{MAX_MTU, MIN_MTU};
use weft_api::report::{Link, LinkState, Network, Skew};
use weft_client::Admin;

use super::Doctor;

/// What a frame needs of a datagram beside its network's MTU: on an underlay of 1500 over IPv6 (40 + 8 bytes of headers) the
/// largest MTU fits.
const AROUND_FRAME: u16 = 1500 - 48 - MAX_MTU;

/// Clocks that differ less are well enough: tokens are good for minutes or days.
const SKEW_MS: u64 = 5_000;

impl Doctor {
    /// Whether all links are up.
    pub(super) async fn links(&mut self, admin: &Admin) -> bool {
        let links = match admin.links().await {
            Ok(links) => links,
            Err(e) => {
                self.problem("links", e.message);
                return false;
            }
        };
        let down: Vec<&str> =
            links.iter().filter(|l| l.state != LinkState::Up).map(|l| l.host.as_str()).collect();
        if down.is_empty() {
            self.ok("links", format!("{} of {0} up", links.len()));
        } else {
            let hosts = down.join(", ");
            self.problem("links", format!("no link to {hosts}: see that weft up runs there, that its addresses are right (weft hosts), and that firewalls between let its port through, UDP or at least TCP"));
        }
        match admin.networks().await {
            Ok(networks) => self.mtu(&links, &networks),
            Err(e) => self.warning("mtu", format!("not looked at: {}", e.message)),
        }
        match admin.clocks().await {
            Ok(skews) => self.clock(&skews),
            Err(e) => self.warning("clock", format!("not looked at: {}", e.message)),
        }
        down.is_empty()
    }

    /// What is known to pass to each host against what the networks want to carry.
    fn mtu(&mut self, links: &[Link], networks: &[Network]) {
        let before = self.findings.len();
        for network in networks {
            let wanted = network.mtu.saturating_add(AROUND_FRAME);
            let narrow = links.iter().filter_map(|link| Some((link, link.mtu?)));
            let narrow: Vec<(&Link, u16)> = narrow.filter(|(_, datagram)| *datagram < wanted).collect();
            let Some(least) = narrow.iter().map(|(_, datagram)| *datagram).min() else { continue };
            let hosts: Vec<&str> = narrow.iter().map(|(link, _)| link.host.as_str()).collect();
            let (name, hosts, mtu) = (&network.name, hosts.join(", "), network.mtu);
            let fits = least.saturating_sub(AROUND_FRAME);
            let remedy = if fits >= MIN_MTU {
                format!("raise the MTU of the route, or make the network anew with --mtu {fits}")
            } else {
                format!("raise the MTU of the route to {} at least", u32::from(wanted) + 48)
            };
            self.warning("mtu", format!("packets of network {name} up to its MTU of {mtu} do not fit the way to {hosts}, which takes {least} bytes: TCP is cut to fit, other senders are told by ICMP or their packets travel in fragments, which costs: {remedy}"));
        }
        if self.findings.len() == before {
            self.ok("mtu", "every network's packets fit the way to every host");
        }
    }

    /// Tokens expire by the clock of the host that decides.
    fn clock(&mut self, skews: &[Skew]) {
        let is_off = |skew: &&Skew| skew.ahead_ms.unsigned_abs() > SKEW_MS.saturating_add(skew.within_ms);
        let off: Vec<String> = skews.iter().filter(is_off).map(difference).collect();
        if !off.is_empty() {
            return self.warning("clock", format!("{}: tokens expire by the clock of the host that decides, and logs of different hosts do not match: set the wrong one by NTP (timedatectl set-ntp true)", off.join(", ")));
        }
        match skews.len() {
            0 => self.ok("clock", "no other host to compare it with"),
            n => self.ok("clock", format!("as that of {n} other {}", if n == 1 { "host" } else { "hosts" })),
        }
    }
}

fn difference(skew: &Skew) -> String {
    let seconds = skew.ahead_ms.unsigned_abs().div_ceil(1000);
    let by = match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    };
    let way = if skew.ahead_ms > 0 { "ahead of" } else { "behind" };
    format!("the clock of {} is {by} {way} this host's", skew.host)
}

#[cfg(test)]
mod tests {
    use weft_api::id::{HostId, NetworkId};
    use weft_api::report::NetworkState;

    use super::super::Health;
    use super::*;

    fn doctor() -> Doctor {
        Doctor { fix: false, findings: Vec::new() }
    }

    fn link(mtu: u16) -> Link {
        Link {
            host: "h2".into(),
            id: HostId([2; 8]),
            state: LinkState::Up,
            transport: "UDP".into(),
            address: None,
            rtt_ms: None,
            loss: 0.0,
            mtu: Some(mtu),
            cipher: None,
            key_age: None,
            sent_bytes: 0,
            received_bytes: 0,
            drops: Default::default(),
        }
    }

    fn network(mtu: u16) -> Network {
        Network {
            name: "app".into(),
            id: NetworkId(1),
            subnets: Vec::new(),
            mtu,
            internal: false,
            hosts: Vec::new(),
            endpoints: 0,
            blocks: Vec::new(),
            leases: Vec::new(),
            state: NetworkState::Here,
            problem: None,
        }
    }

    #[test]
    fn a_way_that_is_too_narrow_says_which_mtu_fits() {
        let mut doctor = doctor();
        doctor.mtu(&[link(1452)], &[network(MAX_MTU)]);
        assert_eq!(doctor.findings[0].health, Health::Ok);
        doctor.mtu(&[link(1372)], &[network(1340)]);
        let says = &doctor.findings[1].says;
        assert!(says.contains("h2") && says.contains("--mtu 1304"), "{says}");
        doctor.mtu(&[link(1252)], &[network(1340)]);
        let says = &doctor.findings[2].says;
        assert!(says.contains("MTU of the route to 1456"), "{says}");
    }

    #[test]
    fn a_clock_that_is_off_is_named() {
        let skew = |ahead_ms| Skew { host: "h2".into(), ahead_ms, within_ms: 300 };
        let mut doctor = doctor();
        doctor.clock(&[]);
        doctor.clock(&[skew(5_100), skew(-20)]);
        assert!(doctor.findings.iter().all(|f| f.health == Health::Ok), "{:?}", doctor.findings);
        doctor.clock(&[skew(-3 * 3_600_000), skew(0)]);
        let says = &doctor.findings[2].says;
        assert!(says.contains("h2 is 3 h behind this host's"), "{says}");
        doctor.clock(&[skew(i64::MIN)]);
        assert_eq!(doctor.findings[3].health, Health::Warning);
    }
}
