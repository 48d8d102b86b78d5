//! Bodies, passed through by their framing (RFC 9112 §6, §7).

use crate::fields::{is_tchar, is_value_byte};
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
            Kind::Chunked(chunks) => match chunks.state {
                State::Data => chunks.left,
                _ => 0,
            },
            Kind::Length(left) => *left,
            Kind::UntilClose => u64::MAX,
        }
    }

    /// Tells of `bytes` that went by unseen, at most [`opaque`](Self::opaque) many.
    pub fn skip(&mut self, bytes: u64) {
        match &mut self.0 {
            Kind::Chunked(chunks) => {
                if matches!(chunks.state, State::Data) {
                    chunks.left = chunks.left.saturating_sub(bytes);
                    if chunks.left == 0 {
                        chunks.state = State::DataCr;
                    }
                }
            }
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

/// Follows a chunked body byte by byte (RFC 9112 §7.1), strictly.
///
/// A size is one to sixteen hexadecimal digits below 2^63, directly followed by CRLF or `;`.
#[derive(Clone, Debug)]
pub struct ChunkScanner {
    state: State,
    /// In `Size`: the size so far. In `Data`: what is left of the chunk.
    left: u64,
    /// Bytes of the current line.
    line: u32,
    /// Bytes of all trailer lines.
    trailers: u32,
    /// The start of the current trailer's name in lower case, and its whole length.
    name: [u8; LONGEST_FORBIDDEN],
    name_len: u8,
    line_max: u32,
    trailers_max: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the first digit of a size.
    SizeStart,
    /// After this many digits.
    Size(u8),
    /// After a `;`, before the extension's name.
    ExtensionStart,
    Extension,
    ExtensionQuoted,
    ExtensionEscaped,
    /// After the CR of a size line.
    SizeLf,
    Data,
    /// After the data of a chunk.
    DataCr,
    DataLf,
    /// At the start of a trailer line.
    TrailerStart,
    TrailerName,
    TrailerValue,
    /// After the CR of a trailer line.
    TrailerLf,
    /// After the CR of the last line.
    EndLf,
    Done,
    Failed(BodyError),
}

/// Names that a trailer may not have.
const FORBIDDEN: &[&[u8]] = &[
    b"authorization",
    b"connection",
    b"content-encoding",
    b"content-length",
    b"content-range",
    b"content-type",
    b"expect",
    b"host",
    b"keep-alive",
    b"max-forwards",
    b"proxy-authenticate",
    b"proxy-authorization",
    b"proxy-connection",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
];
const LONGEST_FORBIDDEN: usize = 19;

impl ChunkScanner {
    /// A scanner before the first chunk.
    pub fn new(limits: &Limits) -> Self {
        Self {
            state: State::SizeStart,
            left: 0,
            line: 0,
            trailers: 0,
            name: [0; LONGEST_FORBIDDEN],
            name_len: 0,
            line_max: limits.body_line_max,
            trailers_max: limits.head_max,
        }
    }

    /// Whether the last CRLF has been seen.
    pub const fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Takes the next bytes; see [`BodyScanner::scan`].
    ///
    /// # Errors
    /// [`BodyError`]; nothing of `data` may be forwarded.
    pub fn scan(&mut self, data: &[u8]) -> Result<Scan, BodyError> {
        let mut rest = data;
        while self.payload(&mut rest)?.is_some() {}
        Ok(Scan {
            forward: data.len() - rest.len(),
            done: self.is_done(),
        })
    }

    /// Takes payload off the front of `data`; see [`BodyScanner::payload`].
    ///
    /// # Errors
    /// [`BodyError`] if the bytes cannot belong to a chunked body.
    pub fn payload<'d>(&mut self, data: &mut &'d [u8]) -> Result<Option<&'d [u8]>, BodyError> {
        loop {
            match self.state {
                State::Data => {
                    let take = data.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
                    if take == 0 {
                        return Ok(None);
                    }
                    self.left -= take as u64;
                    if self.left == 0 {
                        self.state = State::DataCr;
                    }
                    let (payload, rest) = data.split_at_checked(take).unwrap_or((data, &[]));
                    *data = rest;
                    return Ok(Some(payload));
                }
                State::Done => return Ok(None),
                State::Failed(error) => return Err(error),
                _ => {
                    let Some((&byte, rest)) = data.split_first() else {
                        return Ok(None);
                    };
                    self.state = match self.step(byte) {
                        Ok(next) => next,
                        Err(error) => {
                            self.state = State::Failed(error);
                            return Err(error);
                        }
                    };
                    *data = rest;
                }
            }
        }
    }

    /// The state after one byte of framing.
    fn step(&mut self, byte: u8) -> Result<State, BodyError> {
        match self.state {
            State::SizeStart => {
                self.line = 0;
                self.left = 0;
                self.size_digit(byte, 0)
            }
            State::Size(digits) => match byte {
                b'\r' => self.count_line_byte().map(|()| State::SizeLf),
                b';' => self.count_line_byte().map(|()| State::ExtensionStart),
                _ => self.size_digit(byte, digits),
            },
            State::ExtensionStart | State::Extension | State::ExtensionQuoted | State::ExtensionEscaped => {
                self.extension(byte)
            }
            State::SizeLf => match byte {
                b'\n' if self.left > 0 => Ok(State::Data),
                b'\n' => Ok(State::TrailerStart),
                _ => Err(BodyError::BareCrLf),
            },
            State::DataCr if byte == b'\r' => Ok(State::DataLf),
            State::DataLf if byte == b'\n' => Ok(State::SizeStart),
            State::DataCr | State::DataLf => Err(BodyError::ChunkEnd),
            State::TrailerStart if byte == b'\r' => Ok(State::EndLf),
            State::TrailerStart => {
                self.line = 0;
                self.name_len = 0;
                self.trailer_name(byte)
            }
            State::TrailerName => self.trailer_name(byte),
            State::TrailerValue => {
                self.count_trailer_byte()?;
                match byte {
                    b'\r' => Ok(State::TrailerLf),
                    b'\n' => Err(BodyError::BareCrLf),
                    _ if is_value_byte(byte) => Ok(State::TrailerValue),
                    _ => Err(BodyError::Trailer),
                }
            }
            State::TrailerLf if byte == b'\n' => Ok(State::TrailerStart),
            State::EndLf if byte == b'\n' => Ok(State::Done),
            State::TrailerLf | State::EndLf => Err(BodyError::BareCrLf),
            State::Data | State::Done => Ok(self.state),
            State::Failed(error) => Err(error),
        }
    }

    fn size_digit(&mut self, byte: u8, digits: u8) -> Result<State, BodyError> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            b'\n' => return Err(BodyError::BareCrLf),
            _ => return Err(BodyError::ChunkSize),
        };
        // Below 2^63, so that a receiver with a signed size reads the same number; at most sixteen digits, so that one
        // with a fixed number of them does.
        if digits >= 16 || self.left >> 59 != 0 {
            return Err(BodyError::ChunkSizeOverflow);
        }
        self.count_line_byte()?;
        self.left = self.left << 4 | u64::from(digit);
        Ok(State::Size(digits + 1))
    }

    /// A byte of a chunk extension (RFC 9112 §7.1.1).
    fn extension(&mut self, byte: u8) -> Result<State, BodyError> {
        self.count_line_byte()?;
        match (self.state, byte) {
            (State::ExtensionQuoted, b'"') => Ok(State::Extension),
            (State::ExtensionQuoted, b'\\') => Ok(State::ExtensionEscaped),
            (State::ExtensionQuoted | State::ExtensionEscaped, _) if is_value_byte(byte) => Ok(State::ExtensionQuoted),
            (_, b'\n') => Err(BodyError::BareCrLf),
            (State::ExtensionStart, b' ' | b'\t') => Ok(State::ExtensionStart),
            (State::ExtensionStart, _) if is_tchar(byte) => Ok(State::Extension),
            (State::Extension, b'\r') => Ok(State::SizeLf),
            (State::Extension, b';') => Ok(State::ExtensionStart),
            (State::Extension, b'"') => Ok(State::ExtensionQuoted),
            (State::Extension, b'=' | b' ' | b'\t') => Ok(State::Extension),
            (State::Extension, _) if is_tchar(byte) => Ok(State::Extension),
            _ => Err(BodyError::ChunkExtension),
        }
    }

    fn trailer_name(&mut self, byte: u8) -> Result<State, BodyError> {
        self.count_trailer_byte()?;
        match byte {
            b':' if self.name_len == 0 => Err(BodyError::Trailer),
            b':' if self.is_forbidden() => Err(BodyError::ForbiddenTrailer),
            b':' => Ok(State::TrailerValue),
            b'\n' => Err(BodyError::BareCrLf),
            _ if is_tchar(byte) => {
                if let Some(slot) = self.name.get_mut(usize::from(self.name_len)) {
                    *slot = byte.to_ascii_lowercase();
                }
                // A longer name is no forbidden one, however much longer it is.
                self.name_len = self.name_len.saturating_add(1);
                Ok(State::TrailerName)
            }
            _ => Err(BodyError::Trailer),
        }
    }

    fn is_forbidden(&self) -> bool {
        self.name
            .get(..usize::from(self.name_len))
            .is_some_and(|name| FORBIDDEN.contains(&name))
    }

    fn count_line_byte(&mut self) -> Result<(), BodyError> {
        self.line = self.line.saturating_add(1);
        // One byte is kept for the LF.
        if self.line >= self.line_max {
            Err(BodyError::LineTooLong)
        } else {
            Ok(())
        }
    }

    fn count_trailer_byte(&mut self) -> Result<(), BodyError> {
        self.count_line_byte()?;
        self.trailers += 1;
        if self.trailers > self.trailers_max {
            Err(BodyError::TrailersTooLarge)
        } else {
            Ok(())
        }
    }
}

/// What ends a chunked body without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Appends `payload` as one chunk; nothing if it is empty, since that would end the body.
pub fn put_chunk(out: &mut Vec<u8>, payload: &[u8]) {
    if payload.is_empty() {
        return;
    }
    put_chunk_size(out, payload.len() as u64);
    out.extend_from_slice(payload);
    out.extend_from_slice(b"\r\n");
}

/// Appends the size line of a chunk, for use in a vectored write; CRLF follows the payload.
pub fn put_chunk_size(out: &mut Vec<u8>, size: u64) {
    let digits = ((67 - size.leading_zeros()) / 4).max(1);
    for place in (0..digits).rev() {
        let digit = (size >> (place * 4)) & 0xf;
        out.push(*b"0123456789abcdef".get(digit as usize).unwrap_or(&b'0'));
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests;
