//! Response heads (RFC 9112 §4, §5, §6.3), parsed in place; what old servers send is put right on the way.

use std::borrow::Cow;
use std::mem::MaybeUninit;
use std::ops::Range;

use httparse::{Header, ParserConfig, Status};

use crate::body::BodyFraming;
use crate::fields::{Cuts, Field, Fields, Known, is, is_protected, is_token, known, list, offset, parse_length};
use crate::limits::{FIELDS_ON_STACK, Limits};
use crate::method::Awaits;
use crate::request::{Version, remove, to_u32};

/// A response head, by reference into the read buffer (or into a copy, if it had to be put right).
#[derive(Clone, Debug)]
pub struct ResponseHead<'b> {
    /// The status code, 100 to 999.
    pub status: u16,
    /// The origin's version.
    pub version: Version,
    /// Bytes of the buffer that the head takes: the body starts there.
    pub len: usize,
    /// How the body is framed.
    pub framing: BodyFraming,
    /// Whether the upstream connection can take another request once the body is complete.
    pub keep_alive: bool,
    /// Whether the framing was contradictory or not as asked for (Transfer-Encoding beside Content-Length, in HTTP/1.0, or
    /// more than `chunked`): neither the upstream's nor the client's connection may be used again (RFC 9112 §6.3).
    pub taints: bool,
    /// Whether the body has transfer codings beneath the framing: it can only be passed on as it is, to an HTTP/1.1
    /// client. We never ask for that.
    pub is_coded: bool,
    /// The Content-Length of an answer to HEAD or of a 304: what a GET would have brought.
    pub declared_length: Option<u64>,
    head: Cow<'b, [u8]>,
    fields_at: u32,
    reason: Range<usize>,
    upgrade: Option<Range<usize>>,
    cuts: Cuts,
}

impl<'b> ResponseHead<'b> {
    fn new(head: Cow<'b, [u8]>, len: usize, status: u16, version: Version, facts: Facts) -> Self {
        let line_end = memchr::memchr(b'\r', &head).unwrap_or(0);
        Self {
            status,
            version,
            len,
            framing: facts.framing,
            keep_alive: facts.keep_alive,
            taints: facts.taints,
            is_coded: facts.is_coded,
            declared_length: facts.declared_length,
            head,
            fields_at: facts.fields_at,
            reason: REASON_AT.min(line_end)..line_end,
            upgrade: facts.upgrade,
            cuts: facts.cuts,
        }
    }

    /// The reason phrase, maybe empty.
    pub fn reason(&self) -> &[u8] {
        self.head.get(self.reason.clone()).unwrap_or_default()
    }

    /// What the connection switches to: the Upgrade value of a 101.
    pub fn upgrade(&self) -> Option<&[u8]> {
        self.upgrade.clone().and_then(|range| self.head.get(range))
    }

    /// Whether another head follows for the same request: 1xx, but not 101.
    pub const fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }

    /// All fields in order, those that stay here included.
    pub fn fields(&self) -> Fields<'_> {
        Fields::new(&self.head, self.fields_at, &self.cuts)
    }

    /// The first field of this name.
    pub fn field(&self, name: &str) -> Option<Field<'_>> {
        self.fields().find(|field| field.name.eq_ignore_ascii_case(name))
    }

    /// Keeps all fields of this name back from forwarding; says whether there were any.
    pub fn remove(&mut self, name: &str) -> bool {
        remove(&self.head, self.fields_at, &mut self.cuts, name)
    }

    /// Appends the field lines that go on.
    pub(crate) fn put_fields(&self, out: &mut Vec<u8>) {
        self.cuts.copy_kept(
            &self.head,
            self.fields_at as usize,
            self.head.len().saturating_sub(2),
            out,
        );
    }

    /// Bytes of the head as it was received, about what forwarding it takes.
    pub(crate) fn size(&self) -> usize {
        self.head.len()
    }
}

/// Where the reason starts: after `HTTP/1.1 200 `.
const REASON_AT: usize = 13;

/// Parses one response head at the front of `buf`, the answer to a request with a method that `awaits` it.
///
/// `Ok(None)` asks for more bytes. What RFC 9112 lets a proxy repair is repaired in a copy: whitespace before a colon is
/// removed, a folded line becomes one line, a bare LF that ends a line becomes CRLF.
///
/// # Errors
/// [`ResponseError`]: answer the client with 502 and close both connections.
pub fn parse_response<'b>(
    buf: &'b [u8],
    limits: &Limits,
    awaits: impl Into<Awaits>,
) -> Result<Option<ResponseHead<'b>>, ResponseError> {
    if matches!(buf.first(), Some(b'\r' | b'\n')) {
        return Err(ResponseError::StatusLine);
    }
    let mut lenient = ParserConfig::default();
    lenient
        .allow_spaces_after_header_name_in_responses(true)
        .allow_obsolete_multiline_headers_in_responses(true);
    let mut stack = [const { MaybeUninit::<Header<'b>>::uninit() }; FIELDS_ON_STACK];
    let allowed = usize::from(limits.fields_max);
    let fitting = stack.get_mut(..allowed.min(FIELDS_ON_STACK)).unwrap_or_default();
    let mut parsed = httparse::Response::new(&mut []);
    let mut outcome = lenient.parse_response_with_uninit_headers(&mut parsed, buf, fitting);
    let mut heap = Vec::new();
    if outcome == Err(httparse::Error::TooManyHeaders) && allowed > FIELDS_ON_STACK {
        heap.resize_with(allowed, MaybeUninit::uninit);
        parsed = httparse::Response::new(&mut []);
        outcome = lenient.parse_response_with_uninit_headers(&mut parsed, buf, &mut heap);
    }
    let len = match outcome {
        Ok(Status::Complete(len)) if len <= limits.head_max as usize => len,
        Ok(Status::Partial) if buf.len() < limits.head_max as usize => return Ok(None),
        Ok(_) => return Err(ResponseError::TooLarge),
        Err(error) => return Err(error.into()),
    };
    let (Some(status @ 100..), Some(version), Some(head)) = (parsed.code, parsed.version, buf.get(..len)) else {
        return Err(ResponseError::StatusLine);
    };
    let version = if version == 0 { Version::Http10 } else { Version::Http11 };
    let message = Message {
        status,
        version,
        awaits: awaits.into(),
    };
    if is_clean(head, parsed.headers) {
        let facts = message.read(head, parsed.headers)?;
        return Ok(Some(ResponseHead::new(
            Cow::Borrowed(head),
            len,
            status,
            version,
            facts,
        )));
    }
    let (copy, places) = put_right(head, parsed.headers);
    let slice = |range: &Range<usize>| copy.get(range.clone()).unwrap_or_default();
    let headers: Vec<_> = places
        .iter()
        .map(|[name, value]| Header {
            name: str::from_utf8(slice(name)).unwrap_or_default(),
            value: slice(value),
        })
        .collect();
    let facts = message.read(&copy, &headers)?;
    Ok(Some(ResponseHead::new(Cow::Owned(copy), len, status, version, facts)))
}

/// Whether each line of the head is one line, ends in CRLF and has no whitespace before its colon.
fn is_clean(head: &[u8], headers: &[Header<'_>]) -> bool {
    // Of `n` fields, the status line and the empty line; one more belongs to a folded line.
    memchr::memchr_iter(b'\n', head).count() == headers.len() + 2
        && head.ends_with(b"\r\n\r\n")
        && headers.iter().all(|header| {
            let at = offset(head, header.name.as_bytes());
            head.get(at.saturating_sub(2)..at) == Some(b"\r\n") && head.get(at + header.name.len()) == Some(&b':')
        })
}

/// A clean copy of the head, and where in it each name and value stands.
fn put_right(head: &[u8], headers: &[Header<'_>]) -> (Vec<u8>, Vec<[Range<usize>; 2]>) {
    let mut copy = Vec::with_capacity(head.len() + headers.len() + 4);
    let status_line = head.split(|&b| b == b'\n').next().unwrap_or_default();
    copy.extend_from_slice(status_line.strip_suffix(b"\r").unwrap_or(status_line));
    copy.extend_from_slice(b"\r\n");
    let mut places = Vec::with_capacity(headers.len());
    for header in headers {
        let name = copy.len()..copy.len() + header.name.len();
        copy.extend_from_slice(header.name.as_bytes());
        copy.extend_from_slice(b": ");
        let value_at = copy.len();
        for piece in header
            .value
            .split(|&b| b == b'\n')
            .map(<[u8]>::trim_ascii)
            .filter(|piece| !piece.is_empty())
        {
            if copy.len() > value_at {
                copy.push(b' ');
            }
            copy.extend_from_slice(piece);
        }
        places.push([name, value_at..copy.len()]);
        copy.extend_from_slice(b"\r\n");
    }
    copy.extend_from_slice(b"\r\n");
    (copy, places)
}

/// What the fields of a response say; offsets only, so that it can be kept with the bytes.
struct Facts {
    framing: BodyFraming,
    keep_alive: bool,
    taints: bool,
    is_coded: bool,
    declared_length: Option<u64>,
    fields_at: u32,
    upgrade: Option<Range<usize>>,
    cuts: Cuts,
}

/// What is known before the fields are read.
#[derive(Clone, Copy)]
struct Message {
    status: u16,
    version: Version,
    awaits: Awaits,
}

impl Message {
    fn read(self, head: &[u8], headers: &[Header<'_>]) -> Result<Facts, ResponseError> {
        let has_body = match self.awaits {
            Awaits::Head => false,
            Awaits::Connect if (200..300).contains(&self.status) => false,
            _ => self.status >= 200 && self.status != 204 && self.status != 304,
        };
        let mut reader = Reader {
            head,
            ..Reader::default()
        };
        reader.fields(headers)?;
        if has_body && matches!(reader.coding, Coding::Other | Coding::OtherThenChunked) {
            // The receiver has to know these codings, so their lines go on as they are.
            reader = Reader {
                head,
                keeps_coding: true,
                ..Reader::default()
            };
            reader.fields(headers)?;
        }
        let framing = match (has_body, reader.coding, reader.length) {
            (false, ..) => BodyFraming::None,
            (_, Coding::Chunked | Coding::OtherThenChunked, _) => BodyFraming::Chunked,
            (_, Coding::Other, _) => BodyFraming::UntilClose,
            (_, Coding::None, Length::Absent) => BodyFraming::UntilClose,
            (_, Coding::None, Length::Given(length)) => BodyFraming::Length(length),
            (_, Coding::None, Length::Malformed) => return Err(ResponseError::ContentLength),
            (_, Coding::None, Length::Differing) => return Err(ResponseError::DifferingContentLength),
        };
        let declared_length = match reader.length {
            Length::Given(length)
                if reader.coding == Coding::None && (self.awaits == Awaits::Head || self.status == 304) =>
            {
                Some(length).filter(|_| self.status >= 200 && self.status != 204)
            }
            _ => None,
        };
        let fields_at = match headers.first() {
            Some(first) => offset(head, first.name.as_bytes()),
            None => head.len().saturating_sub(2),
        };
        let is_http11 = self.version == Version::Http11;
        let is_chunked_only = reader.coding == Coding::Chunked && reader.length == Length::Absent && is_http11;
        let taints = has_body && reader.coding != Coding::None && !is_chunked_only;
        let persists = !reader.close && (is_http11 || reader.persist);
        Ok(Facts {
            framing,
            keep_alive: persists && !taints && framing != BodyFraming::UntilClose,
            taints,
            is_coded: reader.keeps_coding,
            declared_length,
            fields_at: to_u32(fields_at),
            upgrade: reader.upgrade.filter(|_| self.status == 101),
            cuts: reader.cuts,
        })
    }
}

/// What the Content-Length lines so far say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Length {
    #[default]
    Absent,
    Differing,
    Given(u64),
    Malformed,
}

/// What the Transfer-Encoding lines so far say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Coding {
    #[default]
    None,
    Chunked,
    Other,
    OtherThenChunked,
}

/// Reads the fields once and gathers what they say about the message.
#[derive(Default)]
struct Reader<'h> {
    head: &'h [u8],
    /// Whether Transfer-Encoding lines go on as they are.
    keeps_coding: bool,
    length: Length,
    coding: Coding,
    close: bool,
    persist: bool,
    upgrade: Option<Range<usize>>,
    named: Vec<&'h [u8]>,
    cuts: Cuts,
}

impl<'h> Reader<'h> {
    fn fields(&mut self, headers: &[Header<'h>]) -> Result<(), ResponseError> {
        let block_end = self.head.len().saturating_sub(2);
        for (header, next) in headers.iter().zip(1..) {
            if let Some(known) = known(header.name.as_bytes())
                && !self.goes_on(known, header.value)?
            {
                let (start, end) = self.line(header, headers.get(next), block_end);
                self.cuts.push(start, end);
            }
        }
        if !self.named.is_empty() {
            for (header, next) in headers.iter().zip(1..) {
                if self
                    .named
                    .iter()
                    .any(|name| name.eq_ignore_ascii_case(header.name.as_bytes()))
                {
                    let (start, end) = self.line(header, headers.get(next), block_end);
                    self.cuts.insert(start, end);
                }
            }
        }
        Ok(())
    }

    fn line(&self, header: &Header<'_>, next: Option<&Header<'_>>, block_end: usize) -> (u32, u32) {
        let end = next.map_or(block_end, |next| offset(self.head, next.name.as_bytes()));
        (to_u32(offset(self.head, header.name.as_bytes())), to_u32(end))
    }

    /// Takes note of one field; says whether its line goes on as it is.
    fn goes_on(&mut self, known: Known, value: &'h [u8]) -> Result<bool, ResponseError> {
        match known {
            Known::Connection | Known::ProxyConnection => self.connection(value)?,
            Known::ContentLength => self.content_length(value),
            Known::HopByHop | Known::ProxyAuthorization | Known::Te => {}
            Known::TransferEncoding => {
                self.transfer_encoding(value)?;
                return Ok(self.keeps_coding);
            }
            Known::Upgrade => {
                let at = offset(self.head, value);
                self.upgrade = Some(at..at + value.len());
            }
            Known::Authorization | Known::Expect | Known::Host => return Ok(true),
        }
        Ok(false)
    }

    fn connection(&mut self, value: &'h [u8]) -> Result<(), ResponseError> {
        for option in list(value) {
            match option {
                _ if is(option, b"close") => self.close = true,
                _ if is(option, b"keep-alive") => self.persist = true,
                _ if is(option, b"upgrade") || !is_token(option) || is_protected(option) => {}
                _ if self.named.len() == MAX_NAMED => return Err(ResponseError::Connection),
                _ => self.named.push(option),
            }
        }
        Ok(())
    }

    /// Several lengths count as one if they are the same number (RFC 9112 §6.3).
    fn content_length(&mut self, value: &[u8]) {
        let mut elements = 0;
        for element in value.split(|&b| b == b',') {
            elements += 1;
            self.length = match (self.length, parse_length(element.trim_ascii())) {
                (Length::Malformed, _) | (_, None) => Length::Malformed,
                (Length::Absent, Some(length)) => Length::Given(length),
                (Length::Given(before), Some(length)) if before == length => Length::Given(length),
                (Length::Given(_) | Length::Differing, Some(_)) => Length::Differing,
            };
        }
        if elements > MAX_NAMED {
            self.length = Length::Malformed;
        }
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), ResponseError> {
        let mut empty = true;
        for coding in list(value) {
            empty = false;
            let is_chunked = is(coding, b"chunked");
            self.coding = match self.coding {
                Coding::None if is_chunked => Coding::Chunked,
                Coding::Other if is_chunked => Coding::OtherThenChunked,
                Coding::None | Coding::Other => Coding::Other,
                // Chunked is applied once, and last.
                Coding::Chunked | Coding::OtherThenChunked if is_chunked => {
                    return Err(ResponseError::TransferEncoding);
                }
                Coding::Chunked | Coding::OtherThenChunked => Coding::Other,
            };
        }
        if empty {
            Err(ResponseError::TransferEncoding)
        } else {
            Ok(())
        }
    }
}

/// The most fields that Connection may name; each is compared with each field.
const MAX_NAMED: usize = 32;

/// Why a response head is refused. The client gets 502, and both connections are closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// A CR that no LF follows.
    #[error("bare CR in the response head")]
    BareCr,
    /// Connection names too many fields.
    #[error("too many options in the response's Connection field")]
    Connection,
    /// Content-Length is not digits alone, or does not fit 64 bits.
    #[error("malformed Content-Length field in the response")]
    ContentLength,
    /// Several Content-Length values that differ.
    #[error("differing Content-Length fields in the response")]
    DifferingContentLength,
    /// A field name that is no token, or a line without a colon.
    #[error("malformed header field name in the response")]
    FieldName,
    /// A control byte in a field value.
    #[error("control byte in a header field value of the response")]
    FieldValue,
    /// The first line is no status line.
    #[error("malformed status line")]
    StatusLine,
    /// More fields than [`Limits::fields_max`].
    #[error("too many header fields in the response")]
    TooManyFields,
    /// A head of more than [`Limits::head_max`] bytes.
    #[error("response head too large")]
    TooLarge,
    /// Transfer-Encoding is empty or has `chunked` twice.
    #[error("malformed Transfer-Encoding field in the response")]
    TransferEncoding,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    #[error("unsupported HTTP version in the response")]
    Version,
}

impl ResponseError {
    /// The HTTP status to answer the client.
    pub const fn status(self) -> u16 {
        502
    }
}

impl From<httparse::Error> for ResponseError {
    fn from(error: httparse::Error) -> Self {
        match error {
            httparse::Error::HeaderName => Self::FieldName,
            httparse::Error::HeaderValue => Self::FieldValue,
            httparse::Error::NewLine => Self::BareCr,
            httparse::Error::Status | httparse::Error::Token => Self::StatusLine,
            httparse::Error::TooManyHeaders => Self::TooManyFields,
            httparse::Error::Version => Self::Version,
        }
    }
}

#[cfg(test)]
mod tests;
