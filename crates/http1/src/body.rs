//! Bodies, passed through by their framing (RFC 9112 §6, §7).

use crate::chunk::ChunkScanner;
use crate::limits::Limits;

/// How the end of a body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFraming {
    /// There is no body.
    None,
    /// So many bytes.
    Length(u64),
    /// Chunks, then trailers, then an empty line.
    Chunked,
    /// Everything until the connection is closed; of responses only.
    UntilClose,
}

impl BodyFraming {
    /// Whether no byte of a body follows the head.
    pub const fn is_empty(self) -> bool {
        matches!(self, Self::None | Self::Length(0))
    }
}

/// What a scan found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scan {
    /// So many bytes from the front of the slice belong to the body and may be forwarded.
    ///
    /// Less than the slice's length only if `done`: what follows is not this message's.
    pub forward: usize,
    /// Whether the body, trailers and last CRLF included, is complete with these bytes.
    pub done: bool,
}

/// Follows a body that passes through, in slices of any size.
///
/// After an error nothing more may be forwarded, and both connections are closed: the scanner fails from then on.
/// Trailing bytes of the slice that failed are never vouched for, earlier slices are.
#[derive(Clone, Debug)]
pub struct BodyScanner(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Chunked(ChunkScanner),
    Length(u64),
    UntilClose,
}

impl BodyScanner {
    /// A scanner at the start of a body framed like this.
    pub fn new(framing: BodyFraming, limits: &Limits) -> Self {
        Self(match framing {
            BodyFraming::None => Kind::Length(0),
            BodyFraming::Length(length) => Kind::Length(length),
            BodyFraming::Chunked => Kind::Chunked(ChunkScanner::new(limits)),
            BodyFraming::UntilClose => Kind::UntilClose,
        })
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`BodyError`] if they cannot belong to a body; nothing of `data` may be forwarded.
    pub fn scan(&mut self, data: &[u8]) -> Result<Scan, BodyError> {
        match &mut self.0 {
            Kind::Chunked(chunks) => chunks.scan(data),
            Kind::Length(left) => {
                let forward = data.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= forward as u64;
                Ok(Scan {
                    forward,
                    done: *left == 0,
                })
            }
            Kind::UntilClose => Ok(Scan {
                forward: data.len(),
                done: false,
            }),
        }
    }

    /// Takes payload off the front of `data`, moving `data` behind it: the body without chunk framing and trailers.
    ///
    /// Call it until it returns `None`: then `data` is used up, or the body [is done](Self::is_done) and `data` is what
    /// follows it.
    ///
    /// # Errors
    /// [`BodyError`] if the bytes cannot belong to a body.
    pub fn payload<'d>(&mut self, data: &mut &'d [u8]) -> Result<Option<&'d [u8]>, BodyError> {
        if let Kind::Chunked(chunks) = &mut self.0 {
            return chunks.payload(data);
        }
        let scan = self.scan(data)?;
        let (payload, rest) = data.split_at_checked(scan.forward).unwrap_or((data, &[]));
        *data = rest;
        Ok((!payload.is_empty()).then_some(payload))
    }

    /// Whether the body is complete. Never true of one that ends by close.
    pub const fn is_done(&self) -> bool {
        match &self.0 {
            Kind::Chunked(chunks) => chunks.is_done(),
            Kind::Length(left) => *left == 0,
            Kind::UntilClose => false,
        }
    }

    /// How many of the next bytes surely belong to the body, if that is known without looking at them: they may be
    /// spliced past the scanner and are then told by [`skip`](Self::skip). `u64::MAX` for a body that ends by close.
    pub const fn opaque(&self) -> u64 {
        match &self.0 {
            Kind::Chunked(chunks) => chunks.opaque(),
            Kind::Length(left) => *left,
            Kind::UntilClose => u64::MAX,
        }
    }

    /// Tells of `bytes` that went by unseen, at most [`opaque`](Self::opaque) many.
    pub fn skip(&mut self, bytes: u64) {
        match &mut self.0 {
            Kind::Chunked(chunks) => chunks.skip(bytes),
            Kind::Length(left) => *left = left.saturating_sub(bytes),
            Kind::UntilClose => {}
        }
    }

    /// Judges the end of the connection at this point.
    ///
    /// # Errors
    /// [`BodyError::Truncated`] if the body was not complete; the connection it was forwarded on must then be cut off,
    /// so that the receiver sees it too.
    pub const fn finish(&self) -> Result<(), BodyError> {
        match &self.0 {
            Kind::UntilClose => Ok(()),
            _ if self.is_done() => Ok(()),
            _ => Err(BodyError::Truncated),
        }
    }
}

/// Why the bytes of a body are refused. From a client: 400, if no answer has begun. From an origin: 502.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// A CR without an LF, or an LF without a CR, in a chunk-size or trailer line.
    #[error("bare CR or LF in a chunk-size or trailer line")]
    BareCrLf,
    /// A byte in a chunk extension that may not stand there, or an unfinished quoted string.
    #[error("malformed chunk extension")]
    ChunkExtension,
    /// A chunk's data is not followed by CRLF.
    #[error("chunk data are not followed by CRLF")]
    ChunkEnd,
    /// A chunk size that is empty, no hexadecimal number, or followed by something else than an extension.
    #[error("malformed chunk size")]
    ChunkSize,
    /// A chunk size that does not fit.
    #[error("chunk size overflows")]
    ChunkSizeOverflow,
    /// A trailer that would change framing, routing, authentication or coding (RFC 9110 §6.5.1).
    #[error("forbidden trailer field")]
    ForbiddenTrailer,
    /// A chunk-size or trailer line longer than [`Limits::body_line_max`].
    #[error("chunk-size or trailer line too long")]
    LineTooLong,
    /// A trailer that is no header field, or is folded.
    #[error("malformed trailer field")]
    Trailer,
    /// The trailers together, LFs not counted, are longer than [`Limits::head_max`].
    #[error("trailers too large")]
    TrailersTooLarge,
    /// The connection ended within the body.
    #[error("connection closed within the body")]
    Truncated,
}

impl BodyError {
    /// The status to answer a client whose request body is refused, if no answer has begun.
    pub const fn request_status(self) -> u16 {
        400
    }

    /// The status to answer a client for an origin whose response body is refused, if no answer has begun.
    pub const fn response_status(self) -> u16 {
        502
    }
}

#[cfg(test)]
mod tests;
