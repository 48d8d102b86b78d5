//! The four-byte length before each message on a stream.

use bytes::{Buf, BufMut, BytesMut};

/// The longest message on a stream.
pub const MAX_FRAME: usize = 65_536;

/// The bytes can not be a sequence of messages; the stream is beyond repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The message is empty.
    #[error("a message without a byte")]
    Empty,
    /// The message is longer than [`MAX_FRAME`].
    #[error("a message of {length} bytes is longer than the limit of {MAX_FRAME}")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
}

/// Takes one message off the front of `buf`, without its length.
///
/// `Ok(None)` asks for more bytes and consumes nothing.
///
/// # Errors
/// [`FrameError`] if the announced length is 0 or above [`MAX_FRAME`]; the caller closes the stream.
pub fn take_frame(buf: &mut BytesMut) -> Result<Option<BytesMut>, FrameError> {
    let Some(head) = buf.first_chunk::<4>() else {
        return Ok(None);
    };
    let length = usize::try_from(u32::from_be_bytes(*head)).unwrap_or(usize::MAX);
    if length > MAX_FRAME {
        return Err(FrameError::TooLong { length });
    }
    if length == 0 {
        return Err(FrameError::Empty);
    }
    if buf.len() < length + 4 {
        buf.reserve(length + 4 - buf.len());
        return Ok(None);
    }
    buf.advance(4);
    Ok(Some(buf.split_to(length)))
}

/// Appends what `write` appends, with its length before it.
///
/// # Errors
/// [`FrameError::TooLong`] if it is longer than [`MAX_FRAME`]; nothing is appended then.
pub(super) fn put_frame(buf: &mut BytesMut, write: impl FnOnce(&mut BytesMut)) -> Result<(), FrameError> {
    let start = buf.len();
    buf.put_u32(0);
    write(buf);
    let length = buf.len() - start - 4;
    match u32::try_from(length) {
        Ok(head) if length <= MAX_FRAME => {
            if let Some(place) = buf.get_mut(start..start + 4) {
                place.copy_from_slice(&head.to_be_bytes());
            }
            Ok(())
        }
        _ => {
            buf.truncate(start);
            Err(FrameError::TooLong { length })
        }
    }
}
