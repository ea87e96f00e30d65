//! `mesh.json`: which member of which mesh this host is. Readable by people; the keys are in files of their own.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use weft_api::id::{HostId, HostKey, MeshKey};
use weft_api::roster::MeshRecord;

/// The layout of the file; another one is not read.
const FORMAT: u32 = 1;

/// This host's place in its mesh, and what the person who put it there chose.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Identity {
    format: u32,
    /// The mesh.
    pub mesh: MeshRecord,
    /// The key that signs the roster.
    pub mesh_key: MeshKey,
    /// This host's name.
    pub host: String,
    /// This host's public key.
    pub key: HostKey,
    /// It made the mesh, signs and decides.
    pub founder: bool,
    /// It holds the mesh key too, and admits and removes members, but decides nothing else.
    #[serde(default)]
    pub signer: bool,
    /// The UDP port.
    pub port: u16,
    /// Where others can reach it, if not at the addresses of its interfaces.
    pub advertise: Vec<IpAddr>,
    /// Who was asked to join, and where: dialled first.
    pub dial: Vec<(HostId, SocketAddr)>,
}

impl Identity {
    /// A member that has not been asked anything further.
    #[must_use]
    pub fn new(mesh: MeshRecord, mesh_key: MeshKey, host: String, key: HostKey, port: u16) -> Self {
        let (advertise, dial) = (Vec::new(), Vec::new());
        Self {
            format: FORMAT,
            mesh,
            mesh_key,
            host,
            key,
            founder: false,
            signer: false,
            port,
            advertise,
            dial,
        }
    }

    /// This host.
    #[must_use]
    pub fn id(&self) -> HostId {
        self.key.id()
    }

    pub(super) fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Reads the file; what is wrong with it otherwise.
    pub(super) fn from_json(text: &str) -> Result<Self, String> {
        let identity: Self = serde_json::from_str(text).map_err(|e| e.to_string())?;
        if identity.format != FORMAT {
            return Err(format!("it has format {}, this weft reads {FORMAT}", identity.format));
        }
        if identity.mesh_key.id() != identity.mesh.mesh {
            return Err("its mesh id is not that of its mesh key".into());
        }
        Ok(identity)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Identity;

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in ".{0,200}") {
            prop_assert!(Identity::from_json(&text).is_err());
        }
    }
}
