//! The two-byte length before each message on a stream (RFC 7766 §8).

use bytes::{Buf, BufMut, BytesMut};

/// The shortest possible message: a header.
const HEADER: usize = 12;

/// The bytes can not be a sequence of framed messages; the stream is beyond repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The message is longer than its reader accepts.
    #[error("a message of {length} bytes is longer than the limit of {limit}")]
    TooLong {
        /// The announced length.
        length: usize,
        /// The limit that was given.
        limit: usize,
    },
    /// The message is too short to hold a header.
    #[error("a message of {length} bytes is shorter than a header")]
    TooShort {
        /// The announced length.
        length: usize,
    },
}

/// Takes one message off the front of `buf`, without its length.
///
/// `Ok(None)` asks for more bytes and consumes nothing.
///
/// # Errors
/// [`FrameError`] if the announced length is below that of a header or above `limit`; the caller closes the stream.
pub fn take_frame(buf: &mut BytesMut, limit: usize) -> Result<Option<BytesMut>, FrameError> {
    let Some(head) = buf.first_chunk::<2>() else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes(*head));
    if length > limit {
        return Err(FrameError::TooLong { length, limit });
    }
    if length < HEADER {
        return Err(FrameError::TooShort { length });
    }
    if buf.len() < length + 2 {
        buf.reserve(length + 2 - buf.len());
        return Ok(None);
    }
    buf.advance(2);
    Ok(Some(buf.split_to(length)))
}

/// Appends `message` with its length.
///
/// # Errors
/// [`FrameError::TooLong`] if the length does not fit in two bytes; nothing is appended then.
pub fn put_frame(buf: &mut BytesMut, message: &[u8]) -> Result<(), FrameError> {
    let length = message.len();
    let Ok(head) = u16::try_from(length) else {
        return Err(FrameError::TooLong {
            length,
            limit: usize::from(u16::MAX),
        });
    };
    buf.reserve(length + 2);
    buf.put_u16(head);
    buf.put_slice(message);
    Ok(())
}
