//! What can be typed after `weft mesh`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

use super::Format;

/// `weft mesh`
#[derive(Subcommand, Debug)]
pub enum MeshCommand {
    /// Give the sessions of this host fresh keys now
    #[command(
        after_help = "Examples:\n  weft mesh rekey\n  weft mesh rekey --all\n\nKeys are renewed by themselves every 10 minutes; frames go on meanwhile. weft links shows their age."
    )]
    Rekey {
        /// The sessions of every host of the mesh
        #[arg(long)]
        all: bool,
    },
    /// Carry the key that signs for the mesh to another member, so that it admits and removes members too
    #[command(subcommand)]
    Key(MeshKeyCommand),
}

/// `weft mesh key`
#[derive(Subcommand, Debug)]
pub enum MeshKeyCommand {
    /// Write the mesh key to a file, under a passphrase
    #[command(
        after_help = "Examples:\n  weft mesh key export mesh.key\n  weft mesh key export mesh.key --passphrase-file /run/secrets/weft\n\n\
            Who has the file and the passphrase can admit hosts to the mesh and remove them, for good."
    )]
    Export(MeshKeyFile),
    /// Make this host a signer by the mesh key in a file
    #[command(
        after_help = "Examples:\n  systemctl stop weft\n  weft mesh key import mesh.key\n  systemctl start weft\n\n\
            It then admits and removes members, also while the founder is away. A token is known to the signer that made it."
    )]
    Import(MeshKeyFile),
    /// Make a new key and let it sign for the mesh from now on; the old one is worth nothing any more
    #[command(
        after_help = "Examples:\n  weft mesh key rotate\n  weft mesh key rotate --json | jq -r .fingerprint\n\n\
            For when somebody may have seen the key: a host that was taken, a file and its passphrase that got lost. Hosts,\n\
            networks, containers and tokens stay as they are. Other signers import the new key: export it here, and import it\n\
            there. Run it on one signer only. Hosts that are away hear of it when they are back."
    )]
    Rotate(Format),
}

/// `weft mesh key export`, `weft mesh key import`
#[derive(ClapArgs, Debug)]
pub struct MeshKeyFile {
    /// The file
    pub file: PathBuf,
    /// A file with the passphrase [default: the variable WEFT_PASSPHRASE, or asked for on the terminal]
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}
