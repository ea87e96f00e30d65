//! `weft capture`: frames of a network as pcap, to a file or to whatever reads the pipe.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, bail};
use weft_agent::capture::capture;
use weft_client::Admin;

use crate::Done;
use crate::args::Capture;

pub async fn run(admin: &Admin, args: Capture) -> Done {
    let network = admin.network(&args.network).await?;
    let most = args.count.unwrap_or(u64::MAX);
    let to: Box<dyn Write + Send> = match &args.write {
        Some(file) if file.as_os_str() != "-" => {
            Box::new(File::create(file).with_context(|| format!("cannot write {}", file.display()))?)
        }
        _ if std::io::stdout().is_terminal() => bail!(
            "frames are no text for a terminal: weft capture {0} -w FILE, or weft capture {0} | tcpdump -r -",
            args.network
        ),
        _ => Box::new(std::io::stdout()),
    };
    let enough = Arc::new(AtomicBool::new(false));
    let interrupted = Arc::clone(&enough);
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            interrupted.store(true, Ordering::Relaxed);
        }
    });
    let frames = tokio::task::spawn_blocking(move || capture(network.id, most, &enough, to)).await??;
    eprintln!("{frames} frames of {}", network.name);
    Ok(ExitCode::SUCCESS)
}
