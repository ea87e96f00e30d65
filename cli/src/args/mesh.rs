//! What can be typed after `weft mesh`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

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
