//! The chunked coding (RFC 9112 §7.1).

use crate::body::{BodyError, Scan};
use crate::fields::{is_tchar, is_value_byte};
use crate::limits::Limits;

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
    ieof: Ieof,
    /// Trailer lines with their CRLFs, if they are wanted.
    kept: Option<Vec<u8>>,
}

/// How far the extension of the current size line is `ieof` (RFC 3507 §4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ieof {
    /// So many letters of it have come.
    Letters(u8),
    /// It is another one.
    Other,
    /// It was there, whatever follows.
    Seen,
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
            ieof: Ieof::Letters(0),
            kept: None,
        }
    }

    /// A scanner that keeps the trailers for [`trailers`](Self::trailers).
    pub fn keeping_trailers(limits: &Limits) -> Self {
        Self {
            kept: Some(Vec::new()),
            ..Self::new(limits)
        }
    }

    /// The trailer lines so far, each with its CRLF; none unless they are kept.
    pub fn trailers(&self) -> &[u8] {
        self.kept.as_deref().unwrap_or_default()
    }

    /// Whether the last chunk says that the body ended within an ICAP preview: `0; ieof` (RFC 3507 §4.5).
    pub const fn is_ieof(&self) -> bool {
        self.is_done() && matches!(self.ieof, Ieof::Seen)
    }

    /// Whether the last CRLF has been seen.
    pub const fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// What is left of the current chunk's data; see [`BodyScanner::opaque`](crate::BodyScanner::opaque).
    pub const fn opaque(&self) -> u64 {
        match self.state {
            State::Data => self.left,
            _ => 0,
        }
    }

    /// Tells of `bytes` that went by unseen; see [`BodyScanner::skip`](crate::BodyScanner::skip).
    pub fn skip(&mut self, bytes: u64) {
        if self.state == State::Data {
            self.left = self.left.saturating_sub(bytes);
            if self.left == 0 {
                self.state = State::DataCr;
            }
        }
    }

    /// Takes the next bytes; see [`BodyScanner::scan`](crate::BodyScanner::scan).
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

    /// Takes payload off the front of `data`; see [`BodyScanner::payload`](crate::BodyScanner::payload).
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
                self.ieof = Ieof::Letters(0);
                self.size_digit(byte, 0)
            }
            State::Size(digits) => match byte {
                b'\r' => self.count_line_byte().map(|()| State::SizeLf),
                b';' => self.count_line_byte().map(|()| State::ExtensionStart),
                _ => self.size_digit(byte, digits),
            },
            State::ExtensionStart | State::Extension | State::ExtensionQuoted | State::ExtensionEscaped => {
                self.note_ieof(byte);
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
                    _ if is_value_byte(byte) => {
                        self.keep(byte);
                        Ok(State::TrailerValue)
                    }
                    _ => Err(BodyError::Trailer),
                }
            }
            State::TrailerLf if byte == b'\n' => {
                if let Some(kept) = &mut self.kept {
                    kept.extend_from_slice(b"\r\n");
                }
                Ok(State::TrailerStart)
            }
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

    /// Follows the extension's name.
    fn note_ieof(&mut self, byte: u8) {
        self.ieof = match (self.ieof, byte) {
            (Ieof::Seen, _) => Ieof::Seen,
            _ if matches!(self.state, State::ExtensionQuoted | State::ExtensionEscaped) => Ieof::Other,
            (Ieof::Letters(4), b'\r' | b';' | b' ' | b'\t') => Ieof::Seen,
            (_, b';') => Ieof::Letters(0),
            (Ieof::Letters(0), b' ' | b'\t') => Ieof::Letters(0),
            (Ieof::Letters(n), _) if b"ieof".get(usize::from(n)) == Some(&byte) => Ieof::Letters(n + 1),
            _ => Ieof::Other,
        };
    }

    fn keep(&mut self, byte: u8) {
        if let Some(kept) = &mut self.kept {
            kept.push(byte);
        }
    }

    fn trailer_name(&mut self, byte: u8) -> Result<State, BodyError> {
        self.count_trailer_byte()?;
        self.keep(byte);
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
