//! Length-framed messages on a stream: read with a bound that is checked before anything is stored.

use quinn::{RecvStream, SendStream};
use thiserror::Error;
use weft_router::drop::DropReason;
use weft_router::session::message::{LENGTH_LEN, Message};

/// First byte of a unidirectional stream: messages of the session.
pub const STREAM_CONTROL: u8 = 1;
/// First byte of a bidirectional stream: HTTP/1.1 follows.
pub(crate) const STREAM_API: u8 = 2;

/// A frame did not come.
#[derive(Debug, Error)]
pub(crate) enum FrameError {
    /// The stream or its connection ended.
    #[error("the stream ended")]
    Ended,
    /// It is too long, or none.
    #[error("the message is garbled")]
    Garbled(DropReason),
}

/// The next frame, without its length.
pub(crate) async fn read_frame(stream: &mut RecvStream, max: usize) -> Result<Vec<u8>, FrameError> {
    let mut length = [0; LENGTH_LEN];
    stream.read_exact(&mut length).await.map_err(|_| FrameError::Ended)?;
    let length = Message::length(length, max).map_err(FrameError::Garbled)?;
    // Grows with what really comes: a length alone takes no memory.
    let mut bytes = Vec::new();
    while bytes.len() < length {
        let chunk = stream.read_chunk(length - bytes.len(), true).await.map_err(|_| FrameError::Ended)?;
        bytes.extend_from_slice(&chunk.ok_or(FrameError::Ended)?.bytes);
    }
    Ok(bytes)
}

/// The next message of a control stream.
pub(crate) async fn read_message(stream: &mut RecvStream, max: usize) -> Result<Message, FrameError> {
    let bytes = read_frame(stream, max).await?;
    Message::decode(&bytes).map_err(FrameError::Garbled)
}

/// A frame of these bytes.
pub(crate) async fn write_frame(stream: &mut SendStream, bytes: &[u8]) -> Result<(), FrameError> {
    let length = u32::try_from(bytes.len()).map_err(|_| FrameError::Garbled(DropReason::MessageGarbled))?;
    stream.write_all(&length.to_be_bytes()).await.map_err(|_| FrameError::Ended)?;
    stream.write_all(bytes).await.map_err(|_| FrameError::Ended)
}
