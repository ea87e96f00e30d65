//! The arrows between the book, the node and the controller: what the mesh says goes into the book, what this host has goes
//! out as facts, both together become the switch's tables, and what is decided here is spread.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use weft_api::fact::{FactVersion, Item};
use weft_api::id::{HostId, NetworkId};
use weft_api::network::Network;
use weft_router_io::bridge::Bridges;
use weft_router_io::node::{HostFacts, MeshView, Node, Persist, StoredRecord};

use crate::book::Book;
use crate::deciding::Controller;
use crate::facts::{Machine, items, reachable_at};
use crate::networks::Present;
use crate::state::{Identity, Ledger};
use crate::tables::Tables;

/// The machine's addresses and routes are looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The disk, for the node.
pub struct Disk(pub Arc<Ledger>);

impl Persist for Disk {
    fn save(&self, records: &[StoredRecord]) -> io::Result<()> {
        self.0.save(records).map_err(io::Error::other)
    }
}

/// Mesh -> book.
pub async fn into_book(book: Arc<Book>, node: Node) {
    let mut view = node.view();
    loop {
        let now = Arc::clone(&view.borrow_and_update());
        book.learn(now);
        if view.changed().await.is_err() {
            return;
        }
    }
}

/// Mesh -> controller: what was said in its name, which a disk that was restored from a backup has forgotten.
pub async fn into_controller(controller: Arc<dyn Controller>, node: Node) {
    let mut view = node.view();
    let mut heard = Arc::<MeshView>::default();
    loop {
        let now = Arc::clone(&view.borrow_and_update());
        if now.roster != heard.roster || now.decisions != heard.decisions {
            let (controller, said) = (Arc::clone(&controller), Arc::clone(&now));
            match tokio::task::spawn_blocking(move || hear(controller.as_ref(), &said)).await {
                Ok(()) => heard = now,
                Err(e) => tracing::warn!(error = %e, "hearing the mesh died"),
            }
        }
        if view.changed().await.is_err() {
            return;
        }
    }
}

/// Lets the controller adopt what it has forgotten.
pub fn hear(controller: &dyn Controller, view: &MeshView) {
    match controller.hear(&view.roster, &view.decisions) {
        Ok(0) => {}
        Ok(events) => tracing::warn!(events, "the mesh knew more of our decisions than we: adopted"),
        Err(e) => tracing::warn!(error = %e, "what the mesh knows could not be adopted"),
    }
}

/// Controller -> mesh.
pub async fn decisions(controller: Arc<dyn Controller>, node: Node) {
    let mut changes = controller.changes();
    loop {
        changes.mark_unchanged();
        let asked = Arc::clone(&controller);
        let said = move || {
            let signed = asked.signs().then(|| (asked.successions(), asked.roster()));
            (signed.unwrap_or_default(), asked.decisions())
        };
        match tokio::task::spawn_blocking(said).await {
            Ok(((successions, roster), decisions)) => {
                node.insert_successions(successions);
                node.insert_roster(roster);
                node.insert_decisions(decisions);
            }
            Err(e) => tracing::warn!(error = %e, "the controller did not say what it has decided"),
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Book and machine -> facts and tables; facts -> controller.
pub async fn out_of_book(
    identity: Identity,
    book: Arc<Book>,
    node: Node,
    bridges: Bridges,
    mut present: watch::Receiver<Present>,
    controller: Option<Arc<dyn Controller>>,
) {
    let mut changes = book.changes();
    let mut machine = Machine::default();
    let mut look = tokio::time::interval(LOOK_EVERY);
    let mut observed = BTreeMap::new();
    let mut heard = node.groups();
    let mut tables = Tables::default();
    loop {
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            changed = present.changed() => if changed.is_err() { return },
            changed = heard.changed() => if changed.is_err() { return },
            _ = look.tick() => {
                if let Some(now) = look_at(&bridges, &identity).await && now != machine {
                    tracing::info!(addresses = ?now.addresses, routes = now.routes.len(), "this machine's addresses");
                    tell_addresses(controller.as_ref(), &now).await;
                    machine = now;
                }
            }
        }
        let ready = present.borrow_and_update().ready.clone();
        let (view, endpoints) = (book.view(), book.endpoints());
        let groups = heard.borrow_and_update().clone();
        node.publish(items(&machine, &ready, &endpoints, &groups, &book.pins()));
        let networks = book.networks();
        let here: Vec<&Network> = networks.iter().filter(|network| ready.contains(&network.id)).collect();
        if tables.learn(book.me(), &here, Arc::clone(&view), &endpoints, &groups) {
            node.set_networks(tables.all());
        }
        if let Some(controller) = &controller {
            // The controller may be writing to its disk.
            tokio::task::block_in_place(|| observe(controller.as_ref(), &view, &mut observed));
        }
    }
}

async fn look_at(bridges: &Bridges, identity: &Identity) -> Option<Machine> {
    let (interfaces, routes) = (bridges.host_addresses().await, bridges.host_routes().await);
    match (interfaces, routes) {
        (Ok(interfaces), Ok(routes)) => {
            Some(Machine { addresses: reachable_at(&identity.advertise, &interfaces, identity.port), routes })
        }
        (Err(e), _) | (_, Err(e)) => {
            tracing::warn!(error = %e, "the addresses and routes of this machine cannot be read");
            None
        }
    }
}

async fn tell_addresses(controller: Option<&Arc<dyn Controller>>, machine: &Machine) {
    let Some(controller) = controller.cloned() else { return };
    let addresses = machine.addresses.clone();
    let told = tokio::task::spawn_blocking(move || controller.set_addresses(addresses)).await;
    if let Ok(Err(e)) = told {
        tracing::warn!(error = %e, "where this host can be asked could not be decided");
    }
}

/// What each host says, if it says something new.
fn observe(controller: &dyn Controller, view: &MeshView, observed: &mut BTreeMap<HostId, FactVersion>) {
    for (host, HostFacts { version, items }) in view.facts.iter() {
        if observed.insert(*host, *version) == Some(*version) {
            continue;
        }
        let mut endpoints: BTreeMap<NetworkId, usize> = BTreeMap::new();
        let mut routes = Vec::new();
        for item in items.decoded() {
            match item {
                Item::Endpoint(endpoint) => *endpoints.entry(endpoint.network).or_default() += 1,
                Item::Route(route) => routes.push(route),
                _ => {}
            }
        }
        controller.observe(*host, routes, endpoints);
    }
    observed.retain(|host, _| view.facts.contains_key(host));
}
