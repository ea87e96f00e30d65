//! `weft capture`: frames at a network's tap, as pcap. It is the caller that captures, not the daemon.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use thiserror::Error;
use weft_api::id::NetworkId;
use weft_router_io::capture::{Capture, CaptureError, MAX_FRAME, file_header, frame_header};

/// While no frame comes it is looked this often whether it is enough.
const LOOK_UP: Duration = Duration::from_millis(100);

/// Why a capture does not begin, or ends.
#[derive(Debug, Error)]
pub enum Error {
    /// The kernel.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The interface went away.
    #[error("the network's tap is gone: {0}")]
    Gone(#[source] io::Error),
    /// Where the frames go.
    #[error("the capture cannot be written: {0}")]
    Write(#[source] io::Error),
}

/// Writes what passes the network's tap, each frame at once, until there are `most` frames or `enough` is set. Returns how many
/// there were. Blocks.
pub fn capture(network: NetworkId, most: u64, enough: &AtomicBool, mut to: impl Write) -> Result<u64, Error> {
    let capture = Capture::open(&network.tap_name())?;
    let mut put = |bytes: &[u8]| to.write_all(bytes).and_then(|()| to.flush()).map_err(Error::Write);
    put(&file_header())?;
    let (mut buffer, mut frames) = (vec![0; MAX_FRAME], 0);
    while frames < most && !enough.load(Ordering::Relaxed) {
        let Some((captured, len)) = capture.next(&mut buffer, LOOK_UP).map_err(Error::Gone)? else {
            continue;
        };
        let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        put(&[&frame_header(at, captured, len), &buffer[..captured]].concat())?;
        frames += 1;
    }
    Ok(frames)
}
