//! What the session layer wants, carried out: dials, closes, keys, probes, and which connection a host's frames go by.

use weft_api::id::HostId;
use weft_router::session::message::Message;
use weft_router::session::{Action, ConnectionId, Event, Hello, Path, Rekey, Remote, Why};

use super::super::connection;
use super::{Engine, State, close};
use crate::lane::{Aim, ControlChunk};

impl Engine {
    pub(in crate::node) fn event(&self, state: &mut State, event: Event<'_>) {
        let mut actions = Vec::new();
        state.sessions.handle(self.start.elapsed(), event, &mut actions);
        let (mut tables, mut links) = (false, false);
        for action in actions {
            tracing::trace!(?action);
            links |= matches!(action, Action::LinkUp(_) | Action::LinkDown(_) | Action::SetPath(..));
            tables |= self.act(state, action);
        }
        if links {
            self.tell_links(state);
        }
        if tables {
            self.publish(state);
        }
        self.touched.notify_one();
    }

    /// Carries out one action; whether the lane's tables have changed.
    fn act(&self, state: &mut State, action: Action) -> bool {
        match action {
            Action::Dial(id, host, path) => self.dial(state, id, host, path),
            Action::Close(id, why) => self.close(state, id, why),
            Action::InstallReceive(id, _, index) => self.install_receive(state, id, index),
            Action::Greet(id, hello) => self.greet(state, id, hello),
            Action::InstallSend(id, _, index, path) => return self.install_send(state, id, index, path),
            Action::Use(host, id) => return self.use_connection(state, host, id),
            Action::Unuse(host) => {
                self.store.disconnected(host);
                return state.tables.sends.remove(&host).is_some();
            }
            Action::Unreached(host) => self.lane.give_up(host),
            Action::EraseKeys(id) => return self.erase(state, id),
            Action::AskRekey(id, epoch) => self.tell(state, id, Message::Rekey(Rekey::Ask(epoch))),
            Action::TellSeen(id, address) => self.tell(state, id, Message::Seen(address)),
            Action::OfferKeys(id, epoch, index) => self.offer_keys(state, id, epoch, index),
            Action::NextChain(id, theirs) => self.next_chain(state, id, &theirs),
            Action::AnswerKeys(id, epoch, index) => self.answer_keys(state, id, epoch, index),
            Action::EraseReceive(id, index) => {
                self.erase_receive(state, id, index);
                return true;
            }
            Action::SetPath(id, path) => self.set_path(state, id, path),
            Action::OpenStream(host, address) => self.open_stream(host, address),
            Action::Probe(id, path, body, answer) => {
                if let Some(send) = state.send_epoch(id) {
                    let body = body.to_vec();
                    let chunk = if answer { ControlChunk::Answer(body) } else { ControlChunk::Probe(body) };
                    self.lane.send_aimed(send, chunk, Aim { path: Some(path), ..Aim::default() });
                }
            }
            Action::ProbeSize(id, path, body, size) => {
                if let Some(send) = state.send_epoch(id) {
                    let aim = Aim { path: Some(path), datagram: Some(size), ..Aim::default() };
                    self.lane.send_aimed(send, ControlChunk::Probe(body.to_vec()), aim);
                }
            }
            Action::SetSize(id, size, settled) => {
                if let Some(send) = state.send_epoch(id) {
                    tracing::debug!(
                        host = self.store.name(send.host()),
                        size,
                        settled,
                        "the longest datagram"
                    );
                    send.set_size(size, settled);
                }
            }
            Action::ProbeLane(id, lane, body) => {
                if let Some(send) = state.send_epoch(id) {
                    let aim = Aim { lane, ..Aim::default() };
                    self.lane.send_aimed(send, ControlChunk::Probe(body.to_vec()), aim);
                }
            }
            Action::UseLane(id, lane, heard) => {
                if let Some(send) = state.send_epoch(id) {
                    send.set_heard(lane, heard);
                }
            }
            Action::Notice(to, index) => {
                if let Err(error) = self.lane.send_notice(to, index) {
                    tracing::debug!(?to, %error, "notice not sent");
                }
            }
            Action::LinkUp(host) => {
                tracing::info!(host = self.store.name(host), "link up");
            }
            Action::LinkDown(host) => {
                tracing::info!(host = self.store.name(host), "link down");
            }
            Action::Count(reason) => self.drops.count(reason),
        }
        false
    }

    fn dial(&self, state: &mut State, id: ConnectionId, host: HostId, path: Path) {
        let Some(engine) = self.itself.upgrade().filter(|_| !state.stopping) else { return };
        tracing::debug!(host = self.store.name(host), ?path, "dialling");
        let task = tokio::spawn(connection::dial(engine, id, path.to(host)));
        state.dials.insert(id, task.abort_handle());
    }

    fn close(&self, state: &mut State, id: ConnectionId, why: Why) {
        if let Some(dial) = state.dials.remove(&id) {
            dial.abort();
        }
        if let Some(live) = state.live.get_mut(&id) {
            tracing::debug!(host = self.store.name(live.host), ?why, "closing a connection");
            live.closed = true;
            close(&live.connection, why);
            if live.keys.is_none() {
                state.live.remove(&id);
            }
        }
    }

    /// The session layer has found the host in the roster, by its id.
    fn greet(&self, state: &mut State, id: ConnectionId, hello: Hello) {
        let Some(live) = state.live.get(&id) else { return };
        if self.store.member(live.key).is_none() {
            return close(&live.connection, Why::NotAMember);
        }
        if let Some(Remote::Tcp(stream)) = self.socket.remote(live.held.address()) {
            self.tcp.prove(stream);
        }
        live.greeted.notify_one();
        self.tell(state, id, Message::Hello(hello));
    }
}
