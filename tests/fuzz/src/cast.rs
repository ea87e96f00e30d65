//! Who plays: a mesh and its members, always the same.

use std::sync::LazyLock;

use weft_api::id::{HostId, HostKey, MeshId, MeshKey};
use weft_api::roster::{Roles, RosterRecord, Standing, Under};
use weft_api::sign::{Signed, SigningKey};
use weft_api::succession::Succession;

/// Members; host 0 is the one that is tested, host 1 decides, the others only talk.
pub(crate) const HOSTS: usize = 6;

pub(crate) fn mesh_key() -> SigningKey {
    SigningKey::from_seed([255; 32])
}

pub(crate) fn mesh() -> MeshId {
    static MESH: LazyLock<MeshId> = LazyLock::new(|| MeshKey(mesh_key().public()).id());
    *MESH
}

pub(crate) fn key(n: usize) -> SigningKey {
    SigningKey::from_seed([u8::try_from(n).expect("few hosts"); 32])
}

pub(crate) fn host(n: usize) -> HostId {
    static IDS: LazyLock<Vec<HostId>> =
        LazyLock::new(|| (0..HOSTS).map(|n| HostKey(key(n).public()).id()).collect());
    IDS[n % HOSTS]
}

pub(crate) fn roster_record(n: usize) -> RosterRecord {
    RosterRecord {
        mesh: mesh(),
        key: HostKey(key(n).public()),
        name: format!("h{n}"),
        roles: Roles { controller: n == 1, ..Roles::default() },
        serial: 1,
        standing: Standing::Member,
        under: Under::default(),
    }
}

/// Everybody's record, signed.
pub(crate) fn roster() -> &'static [Signed<RosterRecord>] {
    static ROSTER: LazyLock<Vec<Signed<RosterRecord>>> =
        LazyLock::new(|| (0..HOSTS).map(|n| mesh_key().sign(&roster_record(n))).collect());
    &ROSTER
}

/// The mesh key of a number.
pub(crate) fn signer(number: u32) -> SigningKey {
    SigningKey::from_seed([255 - u8::try_from(number).expect("few keys"); 32])
}

/// The mesh key was rotated.
pub(crate) fn succession(number: u32) -> Signed<Succession> {
    let (key, carried) = (MeshKey(signer(number).public()), u32::try_from(HOSTS).expect("few hosts"));
    signer(number - 1).sign(&Succession { mesh: mesh(), number, key, carried })
}

/// A host's record, signed again after two rotations.
pub(crate) fn carried_over(n: usize) -> Signed<RosterRecord> {
    signer(2).sign(&RosterRecord { serial: 3, under: Under { key: 2, carried: true }, ..roster_record(n) })
}
