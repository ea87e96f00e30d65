//! One stream at work. Reading and writing do not wait for each other: what cannot be written waits in the stream's queue, which
//! drops by name when it is full.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::{Instant, timeout_at};
use weft_router::drop::DropReason;
use weft_router::stream::gate::{IDLE_TIMEOUT, PROOF_TIMEOUT, UNPROVEN_BYTES};
use weft_router::stream::whole_records;

use super::{Place, Tcp};
use crate::lane::{Records, StreamQueue};

/// Trains written by one call.
const TRAINS: usize = 4;

impl Tcp {
    /// Reads and writes until the stream ends. `place`: somebody else has opened it.
    pub(super) async fn carry(&self, mut socket: TcpStream, stream: &Arc<StreamQueue>, place: Option<Place>) {
        let foreign = place.is_some();
        let (read, write) = socket.split();
        let why = tokio::select! {
            why = self.read(read, stream, place) => why,
            error = write_all(write, stream) => {
                tracing::debug!(peer = %stream.peer(), %error, "a TCP stream cannot be written any more");
                None
            }
        };
        self.lane.streams().remove(stream.id());
        tracing::debug!(peer = %stream.peer(), ?why, "a TCP stream ended");
        if let Some(why) = why.filter(|_| foreign) {
            self.drops.count(why);
        }
    }

    /// Until the end; the reason, if the other end is to blame.
    async fn read(
        &self,
        mut socket: ReadHalf<'_>,
        stream: &Arc<StreamQueue>,
        mut place: Option<Place>,
    ) -> Option<DropReason> {
        let mut buffer = self.lane.streams().buffer();
        let (begun, mut filled, mut bytes) = (Instant::now(), 0, 0);
        loop {
            let proven = stream.is_proven();
            if let Some(place) = place.as_mut().filter(|_| proven) {
                place.prove();
            }
            let patience = if proven { Instant::now() + IDLE_TIMEOUT } else { begun + PROOF_TIMEOUT };
            let came = match timeout_at(patience, socket.read(&mut buffer[filled..])).await {
                Ok(Ok(0) | Err(_)) => return (bytes == 0).then_some(DropReason::StreamSilent),
                Ok(Ok(came)) => came,
                Err(_) if proven => return None,
                Err(_) if stream.is_proven() => continue,
                Err(_) => return Some(DropReason::StreamUnproven),
            };
            (filled, bytes) = (filled + came, bytes + came);
            if bytes > UNPROVEN_BYTES && !stream.is_proven() {
                return Some(DropReason::StreamUnproven);
            }
            let whole = match whole_records(&buffer[..filled]) {
                Ok(0) => continue,
                Ok(whole) => whole,
                Err(reason) => return Some(reason),
            };
            let mut next = self.lane.streams().buffer();
            let rest = filled - whole;
            next[..rest].copy_from_slice(&buffer[whole..filled]);
            let full = std::mem::replace(&mut buffer, next);
            filled = rest;
            if !self.lane.deliver(Records { stream: Arc::clone(stream), buffer: full, len: whole }).await {
                return None;
            }
        }
    }
}

/// Writes what is queued, several trains by one call.
async fn write_all(mut socket: WriteHalf<'_>, stream: &StreamQueue) -> io::Error {
    let (mut trains, mut written) = (VecDeque::with_capacity(TRAINS), 0);
    loop {
        while trains.len() < TRAINS
            && let Some(train) = stream.try_next()
        {
            trains.push_back(train);
        }
        if trains.is_empty() {
            stream.wait().await;
            continue;
        }
        let slices: Vec<IoSlice<'_>> = trains
            .iter()
            .enumerate()
            .map(|(n, train): (usize, &Vec<u8>)| IoSlice::new(&train[if n == 0 { written } else { 0 }..]))
            .collect();
        match socket.write_vectored(&slices).await {
            Ok(0) => return io::ErrorKind::WriteZero.into(),
            Ok(n) => written += n,
            Err(error) => return error,
        }
        while let Some(len) = trains.front().map(Vec::len).filter(|len| *len <= written) {
            written -= len;
            trains.pop_front();
        }
    }
}
