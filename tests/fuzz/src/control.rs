//! The control stream of a member, and whatever else it can make the session layer hear.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use weft_api::id::BootId;
use weft_api::roster::Cipher;
use weft_router::session::message::{LENGTH_LEN, MAX_HELLO_LEN, MAX_MESSAGE_LEN, MAX_PROOF_LEN, Message};
use weft_router::session::probe::Probe;
use weft_router::session::{
    Action, ConnectionId, Event, Hello, MAX_CONNECTIONS, MAX_EPOCHS, Path, Rekey, Remote, Sessions, Share,
    StreamId,
};

use crate::cast::{HOSTS, host};
use crate::input::{Input, with_length};

/// No event may make so much work.
const MOST_ACTIONS: usize = 512;

/// A host, those of its doings that others bring about, and what it opens envelopes with.
struct Tested {
    sessions: Sessions,
    now: Duration,
    connections: Vec<ConnectionId>,
    /// Indexes that we take envelopes under, and of which connection; what the peers may use.
    ours: Vec<(ConnectionId, u32)>,
    theirs: Vec<u32>,
}

impl Tested {
    fn tell(&mut self, event: Event<'_>) {
        let mut actions = Vec::new();
        self.sessions.handle(self.now, event, &mut actions);
        assert!(actions.len() < MOST_ACTIONS, "one event made {} actions", actions.len());
        for action in actions {
            match action {
                Action::Dial(id, ..) => self.connections.push(id),
                Action::InstallReceive(id, _, index) => {
                    assert!(self.ours.iter().all(|(_, i)| *i != index), "an index is used twice");
                    self.ours.push((id, index));
                }
                Action::InstallSend(_, _, index, _) => self.theirs.push(index),
                Action::EraseReceive(id, index) => self.ours.retain(|key| *key != (id, index)),
                Action::EraseKeys(id) => self.ours.retain(|(i, _)| *i != id),
                Action::Greet(_, hello) => drop(read(&Message::Hello(hello).encode()[LENGTH_LEN..])),
                _ => {}
            }
        }
        let most = HOSTS * MAX_CONNECTIONS * MAX_EPOCHS;
        assert!(self.ours.len() <= most, "{} receive keys", self.ours.len());
        for id in &self.connections {
            let keys = self.ours.iter().filter(|(i, _)| i == id).count();
            assert!(keys <= MAX_EPOCHS, "{keys} receive keys of one connection");
        }
        assert!(self.sessions.links().count() <= HOSTS);
    }
}

fn read(bytes: &[u8]) -> Option<Message> {
    let message = Message::decode(bytes).ok()?;
    let again = message.encode();
    if again.len() <= MAX_MESSAGE_LEN {
        assert_eq!(
            Message::decode(&again[LENGTH_LEN..]).as_ref(),
            Ok(&message),
            "what is written can be read"
        );
    }
    Some(message)
}

/// Steps: what happens, to which member or connection, what it says.
pub(crate) fn control(bytes: &[u8]) {
    let mut input = Input(bytes);
    let members: BTreeSet<_> = (0..HOSTS - 1).map(host).collect();
    let mut tested = Tested {
        sessions: Sessions::new(host(0), BootId([1; 16]), Cipher::Aegis128L, [3; 32]),
        now: Duration::ZERO,
        connections: Vec::new(),
        ours: Vec::new(),
        theirs: Vec::new(),
    };
    tested.tell(Event::Members(&members));
    let mut steps = 0;
    while !input.is_empty() && steps < 2000 {
        steps += 1;
        step(&mut tested, &mut input);
    }
}

fn step(tested: &mut Tested, input: &mut Input<'_>) {
    let (what, which) = (input.u8() % 18, usize::from(input.u8()));
    let address = SocketAddr::from(([10, 0, 0, input.u8() % 8], 6783));
    let path = match which % 6 {
        4 => Path::Relay(host(which / 6)),
        5 => Path::Tcp(StreamId(which as u64 / 6)),
        _ => Path::Udp(address),
    };
    let connection = tested.connections.get(which % tested.connections.len().max(1)).copied();
    let connection = connection.unwrap_or(ConnectionId(which as u64));
    let ours = tested.ours.get(which % tested.ours.len().max(1)).map_or(7, |(_, index)| *index);
    let theirs = tested.theirs.get(which % tested.theirs.len().max(1)).copied().unwrap_or(7);
    match what {
        0 => {
            tested.now += Duration::from_millis(u64::from(input.u16()) * 16);
            tested.tell(Event::Tick);
        }
        1 => {
            let id = tested.sessions.new_connection();
            tested.connections.push(id);
            tested.tell(Event::Accepted(id, host(which), path));
        }
        2 => tested.tell(Event::Reached(connection, host(which))),
        3 => match read(input.bytes()) {
            Some(Message::Hello(hello)) => tested.tell(Event::Hello(connection, hello)),
            Some(Message::Rekey(said)) => tested.tell(Event::Rekey(connection, said)),
            Some(Message::Mesh(_) | Message::Seen(_) | Message::Proof(_)) | None => {}
        },
        4 => tested.tell(Event::Lost(connection, None)),
        5 => tested.tell(Event::Probe(ours, path, input.bytes())),
        6 => tested.tell(Event::Moved(ours, address, input.u16().into())),
        7 => tested.tell(Event::FirstAuthentic(ours)),
        8 => tested.tell(Event::UnknownIndex(Remote::Udp(address), input.u32())),
        9 => tested.tell(Event::Notice(theirs)),
        10 => tested.tell(Event::Worn(theirs)),
        11 => tested.tell(Event::LaneWanted(theirs, input.u8() % 64)),
        12 => tested.tell(Event::Addresses(host(which), &[path, Path::Udp(address)])),
        13 => {
            let stream = input.u8().is_multiple_of(2).then_some(StreamId(which as u64));
            tested.tell(Event::StreamOpened(host(which), address, stream));
        }
        14 => tested.tell(Event::StreamEnded(StreamId(which as u64))),
        15 => {
            tested.tell(Event::Wanted(host(which)));
            tested.tell(Event::Full(host(which)));
            tested.tell(Event::TooBig(host(which), path, input.u16(), Some(input.u16())));
        }
        16 => {
            let kept = (0..HOSTS).filter(|n| which >> n & 1 == 1).map(host).collect();
            tested.tell(Event::Keep(&kept));
            tested.tell(Event::Refused(host(which)));
        }
        _ => {
            let length = input.array();
            for max in [MAX_HELLO_LEN, MAX_PROOF_LEN, MAX_MESSAGE_LEN] {
                assert!(Message::length(length, max).map_or(true, |n| (1..=max).contains(&n)));
            }
        }
    }
}

pub(crate) fn talks() -> Vec<Vec<u8>> {
    let hello = |boot: u8, index| {
        Message::Hello(Hello {
            boot: BootId([boot; 16]),
            index,
            cipher: Cipher::Aegis128L,
            replaces: false,
            seen: Some(([10, 0, 0, 1], 6783).into()),
        })
    };
    let say = |which: u8, message: &Message| {
        [&[3, which, 1][..], &with_length(&message.encode()[LENGTH_LEN..])].concat()
    };
    let share = |epoch| Share { epoch, index: 70 + epoch, public: [9; 32] };
    let probe = |probe: Probe| [&[5, 0, 1][..], &with_length(&probe.bytes())].concat();
    let up =
        [&[1, 1, 1][..], &say(0, &hello(5, 70)), &[7, 0, 1], &probe(Probe::Question { own: 1, used: true })]
            .concat();
    let rekey = |said| say(0, &Message::Rekey(said));
    vec![
        up.clone(),
        [&up[..], &rekey(Rekey::Offer(share(1))), &[7, 1, 1], &[0, 0, 0, 4, 0]].concat(),
        [&up[..], &rekey(Rekey::Ask(1)), &rekey(Rekey::Answer(share(1))), &[6, 0, 2, 1, 0]].concat(),
        [&up[..], &[1, 1, 2], &say(1, &hello(6, 80)), &[4, 0, 0], &[0, 0, 0, 0xff, 0xff]].concat(),
        [
            &[12, 2, 3][..],
            &[0, 0, 0, 0, 1],
            &[2, 0, 1],
            &say(0, &hello(5, 70)),
            &[9, 0, 0],
            &[0, 0, 0, 0, 99],
        ]
        .concat(),
        [
            &up[..],
            &[10, 0, 0],
            &[11, 0, 0, 3],
            &probe(Probe::Answer { answered: 1, own: 2 }),
            &[8, 0, 0, 0, 0, 0, 7],
        ]
        .concat(),
    ]
}
