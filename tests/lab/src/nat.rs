//! NAT boxes: machines of their own between some hosts and the underlay. They hide the hosts behind one public address
//! and drop what nobody inside has asked for.

use std::{
    ffi::OsStr,
    net::{Ipv4Addr, Ipv6Addr},
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

use crate::{
    command::{Door, Output},
    error::Error,
    machine::Machine,
    process::Process,
    state::HostState,
    switch::{self, Switch},
};

/// Boxes of a lab.
pub(crate) const MAX_BOXES: usize = 20;
/// Hosts behind one box.
pub(crate) const MAX_BEHIND: usize = 50;
/// The bridge of a box that its hosts are plugged into.
const INSIDE: &str = "inside";
/// The boxes' own number inside.
const ROUTER: u8 = 1;
/// The public addresses have numbers from here; each box has a second one, to move to.
const FIRST: usize = 210;

/// How a box chooses public ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NatKind {
    /// One public port for a socket inside, whoever it talks to (RFC 4787: endpoint-independent mapping). It is not the
    /// socket's own port. What comes in must come from whom the socket has sent to.
    Cone,
    /// Another public port for each destination, at random: nobody can foretell the next.
    Symmetric,
}

/// A box as the state file describes it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NatState {
    /// `n1`, `n2`, ...
    pub name: String,
    /// How it chooses ports.
    pub kind: NatKind,
    /// Its public address, and the one that it can move to.
    pub public: [Ipv4Addr; 2],
}

/// $1 MTU, $2 public address, $3 the underlay's router, $4 and $5 the inside addresses. Without IPv6 to the outside.
const SETUP: &str = r#"
set -e
for f in /proc/sys/net/bridge/bridge-nf-call-*; do [ ! -e "$f" ] || echo 0 >"$f"; done
echo 1 >/proc/sys/net/ipv4/ip_forward
ip link set lo up
ip link add inside mtu "$1" type bridge mcast_snooping 0
ip addr add "$4/24" dev inside
ip addr add "$5/64" dev inside nodad
ip link set inside up
ip addr add "$2/24" brd + dev eth0
ip link set eth0 up
ip route add default via "$3"
"#;

/// A range of ports, and not the port that the socket has, makes the kernel look for a mapping of that socket first.
/// What is dropped on its way in leaves no trace: else it would take the public port from the socket that sends there next.
const RULES: &str = r#"
table ip box {
    chain outwards {
        type nat hook postrouting priority srcnat
        oifname "eth0" meta l4proto { tcp, udp } masquerade to :20000-59999 RANDOM
        oifname "eth0" masquerade
    }
    chain to_box {
        type filter hook input priority filter; policy drop
        iifname != "eth0" accept
        ct state established,related accept
    }
    chain inwards {
        type filter hook forward priority filter; policy drop
        iifname "inside" oifname "eth0" accept
        ct state established,related accept
    }
}
"#;

/// The kernel forgets the mappings of an interface that goes down, a moment later. What an inside host sends to the box's own
/// public address is no mapping: its answers would go back inside.
const FORGET: &str = r#"
set -e
ip link set eth0 down
tries=0
while grep -q 'src=192\.168\.1\..* src=.* dst=192\.0\.2\.' /proc/net/nf_conntrack; do
    tries=$((tries + 1))
    [ $tries -lt 500 ] || { echo 'mappings stay' >&2; exit 1; }
    sleep 0.01
done
[ -z "$2" ] || { ip addr del "$1/24" dev eth0; ip addr add "$2/24" brd + dev eth0; }
ip link set eth0 up
ip route add default via "$3"
"#;

/// A NAT box of a lab.
#[derive(Debug)]
pub struct Nat {
    state: NatState,
    machine: Mutex<Machine>,
    mtu: u32,
}

impl NatState {
    /// The box with this index.
    pub(crate) fn new(index: usize, kind: NatKind) -> NatState {
        let public = [FIRST + index, FIRST + MAX_BOXES + index]
            .map(|n| switch::addresses(u8::try_from(n).unwrap_or(u8::MAX)).0);
        NatState { name: format!("n{}", index + 1), kind, public }
    }

    /// The addresses of the nth host behind it. They are the same behind every box, as with the boxes that people buy.
    pub(crate) fn inside(nth: usize) -> (Ipv4Addr, Ipv6Addr) {
        let number = u8::try_from(nth).unwrap_or(u8::MAX).saturating_add(ROUTER);
        (
            Ipv4Addr::new(192, 168, 1, number),
            Ipv6Addr::new(0xfd00, 0x77, 0x65, 0x66, 0, 0, 0, u16::from(number)),
        )
    }
}

impl Nat {
    pub(crate) fn start(state: NatState, switch: &Switch, mtu: u32) -> Result<Nat, Error> {
        let nat = Nat { machine: Mutex::new(Machine::start()?), state, mtu };
        let [public, _] = nat.state.public;
        switch.cable(&nat.state.name, public, &nat.machine())?;
        let (router, _) = switch::addresses(switch::GATEWAY);
        let (v4, v6) = NatState::inside(0);
        let (public, router, v4, v6) =
            (public.to_string(), router.to_string(), v4.to_string(), v6.to_string());
        nat.door().run(["sh", "-c", SETUP, "setup", &mtu.to_string(), &public, &router, &v4, &v6])?;
        let random = match nat.state.kind {
            NatKind::Cone => "",
            NatKind::Symmetric => "fully-random",
        };
        nat.door().feed(["nft", "-f", "-"], RULES.replace("RANDOM", random).as_bytes())?;
        Ok(nat)
    }

    pub(crate) fn attach(state: NatState, holder: Process, mtu: u32) -> Nat {
        Nat { state, machine: Mutex::new(Machine::attach(holder)), mtu }
    }

    /// `n1`, `n2`, ...
    pub fn name(&self) -> &str {
        &self.state.name
    }

    /// The process that holds its namespaces.
    pub fn holder(&self) -> Process {
        self.machine().holder
    }

    /// Its public address.
    pub fn addr(&self) -> Ipv4Addr {
        let [first, second] = self.state.public;
        let moved = self.exec(["ip", "-br", "addr", "show", "eth0"]).stdout.contains(&second.to_string());
        if moved { second } else { first }
    }

    /// Runs a command in the box.
    pub fn exec<I>(&self, argv: I) -> Output
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        self.door().exec(argv)
    }

    /// A command ready to run in the box.
    pub fn command<I>(&self, argv: I) -> Command
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        self.door().command(argv)
    }

    /// Forgets all mappings, as after a power failure: the next datagram from inside has another public port.
    pub fn forget(&self) -> Result<(), Error> {
        self.renew("", "")
    }

    /// Gets another public address, as from a provider each night; all mappings are forgotten.
    pub fn change_address(&self) -> Result<Ipv4Addr, Error> {
        let [first, second] = self.state.public;
        let (old, new) = if self.addr() == first { (first, second) } else { (second, first) };
        self.renew(&old.to_string(), &new.to_string())?;
        Ok(new)
    }

    fn renew(&self, old: &str, new: &str) -> Result<(), Error> {
        let (router, _) = switch::addresses(switch::GATEWAY);
        self.door().run(["sh", "-c", FORGET, "forget", old, new, &router.to_string()]).map(drop)
    }

    /// Puts a cable between the inside of the box and a host.
    pub(crate) fn plug(&self, host: &HostState, machine: &Machine) -> Result<(), Error> {
        switch::cable(&self.door(), INSIDE, &host.name, self.mtu, host.v4, machine)?;
        let (via, _) = NatState::inside(0);
        let (v4, v6) = (host.v4, host.v6);
        let up = format!(
            "addr add {v4}/24 brd + dev eth0\naddr add {v6}/64 dev eth0 nodad\nlink set eth0 up\n\
             route add default via {via}\n"
        );
        machine.door(&host.name).feed(["ip", "-batch", "-"], up.as_bytes()).map(drop)
    }

    pub(crate) fn unplug(&self, host: &str) {
        self.door().exec(["ip", "link", "del", host]);
    }

    pub(crate) fn keep(&self) -> Result<(), Error> {
        self.machine().keep()
    }

    pub(crate) fn kill(&self) {
        self.machine().kill();
    }

    fn door(&self) -> Door {
        self.machine().door(&self.state.name)
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
