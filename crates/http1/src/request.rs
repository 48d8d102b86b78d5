//! Request heads (RFC 9112 §3, §5, §6), parsed in place and strictly.

use std::mem::MaybeUninit;
use std::str;

use httparse::{Header, Status};

use crate::body::BodyFraming;
use crate::fields::{
    Cuts, Field, Fields, Known, is, is_protected, is_token, known, list, next_line, offset, parse_length,
};
use crate::limits::{FIELDS_ON_STACK, Limits};
use crate::method::Method;
use crate::target::{Authority, Target, TargetError, is_target};

/// The versions that are spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0: no chunks, no 1xx, close by default.
    Http10,
    /// HTTP/1.1.
    Http11,
}

impl Version {
    /// As in a start line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
        }
    }
}

/// A request head, by reference into the read buffer.
#[derive(Clone, Debug)]
pub struct RequestHead<'b> {
    /// The method.
    pub method: Method<'b>,
    /// The target as sent; [`target`](Self::target) takes it apart.
    pub raw_target: &'b str,
    /// The client's version.
    pub version: Version,
    /// Bytes of the buffer that the head takes, empty lines before it included: the body starts there.
    pub len: usize,
    /// How the body is framed; never [`BodyFraming::UntilClose`].
    pub framing: BodyFraming,
    /// Whether the client wants to keep its connection (RFC 9112 §9.3).
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body. Never true of HTTP/1.0 or without a body.
    pub expect_continue: bool,
    /// Whether the client takes trailers (`TE: trailers`).
    pub te_trailers: bool,
    /// What the client wants to switch to: the Upgrade value, if `Connection: upgrade` confirms it.
    ///
    /// It goes on only if the caller says so. Pass nothing it does not know: `h2c` above all tunnels requests past it.
    pub upgrade: Option<&'b [u8]>,
    /// The Host field's value, empty if it is; `None` without the field.
    pub host: Option<&'b str>,
    /// The value of the (first) Authorization field; it goes on.
    pub authorization: Option<&'b [u8]>,
    /// The value of the only Proxy-Authorization field; it stays here.
    pub proxy_authorization: Option<&'b [u8]>,
    /// The head, from the first byte of the method to the last CRLF.
    pub(crate) head: &'b [u8],
    /// Where in `head` the fields start.
    pub(crate) fields_at: u32,
    pub(crate) host_line: Option<(u32, u32)>,
    pub(crate) cuts: Cuts,
}

impl<'b> RequestHead<'b> {
    /// Takes the target apart, by the forms that the method allows.
    ///
    /// # Errors
    /// [`TargetError`]; the request is then answered with its status.
    pub fn target(&self) -> Result<Target<'b>, TargetError> {
        Target::parse(self.method, self.raw_target)
    }

    /// Takes the Host field apart; `None` if it is absent or empty.
    ///
    /// The parser has found it well formed.
    pub fn host_authority(&self) -> Option<Authority<'b>> {
        self.host
            .filter(|host| !host.is_empty())
            .and_then(|host| Authority::parse(host).ok())
    }

    /// All fields in order, those that stay here included.
    pub fn fields(&self) -> Fields<'b> {
        Fields::new(self.head, self.fields_at, &self.cuts)
    }

    /// The first field of this name.
    pub fn field(&self, name: &str) -> Option<Field<'b>> {
        self.fields().find(|field| field.name.eq_ignore_ascii_case(name))
    }

    /// Keeps all fields of this name back from forwarding; says whether there were any.
    pub fn remove(&mut self, name: &str) -> bool {
        remove(self.head, self.fields_at, &mut self.cuts, name)
    }
}

/// Cuts every line with this name.
pub(crate) fn remove(head: &[u8], fields_at: u32, cuts: &mut Cuts, name: &str) -> bool {
    let (mut at, end, mut found) = (fields_at as usize, head.len().saturating_sub(2), false);
    while let Some(line) = next_line(head, at, end) {
        if line.name.eq_ignore_ascii_case(name.as_bytes()) {
            cuts.insert(to_u32(at), to_u32(line.end));
            found = true;
        }
        at = line.end;
    }
    found
}

/// Parses one request head at the front of `buf`.
///
/// `Ok(None)` asks for more bytes. Up to two empty lines before the head are skipped (RFC 9112 §2.2).
///
/// # Errors
/// [`RequestError`]: answer with its status and close; nothing of the request may go anywhere.
pub fn parse_request<'b>(buf: &'b [u8], limits: &Limits) -> Result<Option<RequestHead<'b>>, RequestError> {
    let Some(skipped) = skip_empty_lines(buf)? else {
        return Ok(None);
    };
    let bytes = buf.get(skipped..).unwrap_or_default();
    let mut stack = [const { MaybeUninit::<Header<'b>>::uninit() }; FIELDS_ON_STACK];
    let allowed = usize::from(limits.fields_max);
    let fitting = stack.get_mut(..allowed.min(FIELDS_ON_STACK)).unwrap_or_default();
    let mut parsed = httparse::Request::new(&mut []);
    let mut outcome = parsed.parse_with_uninit_headers(bytes, fitting);
    let mut heap = Vec::new();
    if outcome == Err(httparse::Error::TooManyHeaders) && allowed > FIELDS_ON_STACK {
        heap.resize_with(allowed, MaybeUninit::uninit);
        parsed = httparse::Request::new(&mut []);
        outcome = parsed.parse_with_uninit_headers(bytes, &mut heap);
    }
    let len = match outcome {
        Ok(Status::Complete(len)) if len <= limits.head_max as usize => len,
        Ok(Status::Complete(_)) => return Err(RequestError::TooLarge),
        Ok(Status::Partial) => return unfinished(bytes, limits).map(|()| None),
        Err(httparse::Error::Version) => return judge_version(bytes).map(|()| None),
        Err(error) => return Err(error.into()),
    };
    let (Some(method), Some(raw_target), Some(version), Some(head)) =
        (parsed.method, parsed.path, parsed.version, bytes.get(..len))
    else {
        return Err(RequestError::RequestLine);
    };
    if !head.ends_with(b"\r\n\r\n") {
        return Err(RequestError::BareLf);
    }
    if !is_target(raw_target.as_bytes()) {
        return Err(RequestError::Target);
    }
    let version = if version == 0 { Version::Http10 } else { Version::Http11 };
    let reader = Reader::new(head, version, Method::from_token(method), limits);
    let request = reader.read(parsed.headers, raw_target, skipped)?;
    Ok(Some(request))
}

/// How many bytes of empty lines to skip; `None` if it takes another byte to know.
fn skip_empty_lines(buf: &[u8]) -> Result<Option<usize>, RequestError> {
    let mut at = 0;
    for _ in 0..=MAX_EMPTY_LINES {
        match (buf.get(at), buf.get(at + 1)) {
            (None, _) | (Some(b'\r'), None) => return Ok(None),
            (Some(b'\r'), Some(b'\n')) => at += 2,
            (Some(b'\r'), _) => return Err(RequestError::BareCr),
            (Some(b'\n'), _) => return Err(RequestError::BareLf),
            _ => return Ok(Some(at)),
        }
    }
    Err(RequestError::RequestLine)
}

const MAX_EMPTY_LINES: usize = 2;

/// Whether a head that is well formed so far may go on.
fn unfinished(bytes: &[u8], limits: &Limits) -> Result<(), RequestError> {
    if bytes.len() >= limits.head_max as usize {
        return Err(RequestError::TooLarge);
    }
    for lf in memchr::memchr_iter(b'\n', bytes) {
        if lf.checked_sub(1).and_then(|before| bytes.get(before)) != Some(&b'\r') {
            return Err(RequestError::BareLf);
        }
    }
    Ok(())
}

/// Tells a version that is not spoken (505) from nonsense (400); `Ok` if it may still become either.
fn judge_version(bytes: &[u8]) -> Result<(), RequestError> {
    let mut parts = bytes.splitn(3, |&b| b == b' ');
    let text = parts.nth(2).unwrap_or_default();
    let pattern = b"HTTP/d.d\r\n";
    for (&wanted, at) in pattern.iter().zip(0..) {
        match text.get(at) {
            None => return Ok(()),
            Some(b) if b.is_ascii_digit() && wanted == b'd' => {}
            Some(&b) if b == wanted && wanted != b'd' => {}
            Some(_) => return Err(RequestError::RequestLine),
        }
    }
    Err(RequestError::Version)
}

/// Reads the fields once and gathers what they say about the message.
struct Reader<'b> {
    head: &'b [u8],
    version: Version,
    method: Method<'b>,
    require_host: bool,
    length: Option<u64>,
    coding: Coding,
    host: Option<&'b str>,
    host_line: Option<(u32, u32)>,
    close: bool,
    persist: bool,
    upgrade_option: bool,
    upgrade: Option<&'b [u8]>,
    upgrades: u8,
    expect_continue: bool,
    te_trailers: bool,
    authorization: Option<&'b [u8]>,
    proxy_authorization: Option<&'b [u8]>,
    named: Vec<&'b [u8]>,
    cuts: Cuts,
}

impl<'b> Reader<'b> {
    fn new(head: &'b [u8], version: Version, method: Method<'b>, limits: &Limits) -> Self {
        Self {
            head,
            version,
            method,
            require_host: limits.require_host,
            length: None,
            coding: Coding::None,
            host: None,
            host_line: None,
            close: false,
            persist: false,
            upgrade_option: false,
            upgrade: None,
            upgrades: 0,
            expect_continue: false,
            te_trailers: false,
            authorization: None,
            proxy_authorization: None,
            named: Vec::new(),
            cuts: Cuts::default(),
        }
    }

    fn read(
        mut self,
        headers: &[Header<'b>],
        raw_target: &'b str,
        skipped: usize,
    ) -> Result<RequestHead<'b>, RequestError> {
        let block_end = self.head.len().saturating_sub(2);
        let mut starts = headers.iter().map(|header| offset(self.head, header.name.as_bytes()));
        let fields_at = starts.next().unwrap_or(block_end);
        let mut start = fields_at;
        self.check_line_end(start)?;
        for header in headers {
            let end = starts.next().unwrap_or(block_end);
            // httparse takes a bare LF for a line end.
            self.check_line_end(end)?;
            if let Some(known) = known(header.name.as_bytes()) {
                self.field(known, header.value, (to_u32(start), to_u32(end)))?;
            }
            start = end;
        }
        if !self.named.is_empty() {
            self.cut_named(headers, block_end);
        }
        let framing = self.framing()?;
        if self.require_host && self.host.is_none() && self.version == Version::Http11 {
            return Err(RequestError::MissingHost);
        }
        let is_http11 = self.version == Version::Http11;
        Ok(RequestHead {
            method: self.method,
            raw_target,
            version: self.version,
            len: skipped + self.head.len(),
            framing,
            keep_alive: !self.close && (is_http11 || self.persist),
            expect_continue: self.expect_continue && is_http11 && !framing.is_empty(),
            te_trailers: self.te_trailers && is_http11,
            upgrade: self
                .upgrade
                .filter(|_| self.upgrade_option && is_http11 && self.upgrades == 1),
            host: self.host,
            authorization: self.authorization,
            proxy_authorization: self.proxy_authorization,
            head: self.head,
            fields_at: to_u32(fields_at),
            host_line: self.host_line,
            cuts: self.cuts,
        })
    }

    fn check_line_end(&self, end: usize) -> Result<(), RequestError> {
        match self.head.get(end.saturating_sub(2)..end) {
            Some(b"\r\n") => Ok(()),
            _ => Err(RequestError::BareLf),
        }
    }

    /// Takes note of one field and cuts its line if it does not go on as it is.
    fn field(&mut self, known: Known, value: &'b [u8], line: (u32, u32)) -> Result<(), RequestError> {
        let goes_on = match known {
            Known::Authorization => {
                self.authorization.get_or_insert(value);
                true
            }
            Known::Connection | Known::ProxyConnection => {
                self.connection(value)?;
                false
            }
            Known::ContentLength => {
                let length = parse_length(value).ok_or(RequestError::ContentLength)?;
                if self.length.replace(length).is_some() {
                    return Err(RequestError::RepeatedContentLength);
                }
                false
            }
            Known::Expect => {
                self.expect_continue |= is(value, b"100-continue");
                // We forward as HTTP/1.1, where it would mean something that the client did not say.
                self.version == Version::Http11
            }
            Known::Host => {
                self.host(value, line)?;
                true
            }
            Known::HopByHop => false,
            Known::ProxyAuthorization => {
                if self.proxy_authorization.replace(value).is_some() {
                    return Err(RequestError::RepeatedProxyAuthorization);
                }
                false
            }
            Known::Te => {
                self.te_trailers |= list(value).any(|coding| is(coding, b"trailers"));
                false
            }
            Known::TransferEncoding => {
                self.transfer_encoding(value)?;
                false
            }
            Known::Upgrade => {
                self.upgrade = Some(value);
                self.upgrades = self.upgrades.saturating_add(1);
                false
            }
        };
        if !goes_on {
            self.cuts.push(line.0, line.1);
        }
        Ok(())
    }

    fn host(&mut self, value: &'b [u8], line: (u32, u32)) -> Result<(), RequestError> {
        let text = str::from_utf8(value).map_err(|_| RequestError::Host)?;
        if !text.is_empty() && Authority::parse(text).is_err() {
            return Err(RequestError::Host);
        }
        if self.host.replace(text).is_some() {
            return Err(RequestError::RepeatedHost);
        }
        self.host_line = Some(line);
        Ok(())
    }

    /// A Connection (or Proxy-Connection) line: options, each of which may also name a hop-by-hop field (H1-08).
    fn connection(&mut self, value: &'b [u8]) -> Result<(), RequestError> {
        for option in list(value) {
            match option.len() {
                5 if is(option, b"close") => self.close = true,
                10 if is(option, b"keep-alive") => self.persist = true,
                7 if is(option, b"upgrade") => self.upgrade_option = true,
                2 if is(option, b"te") => {}
                _ if !is_token(option) => return Err(RequestError::Connection),
                // Removing any of these on a client's word would change what the message is.
                _ if is_protected(option) => {}
                _ if self.named.len() == MAX_NAMED => return Err(RequestError::Connection),
                _ => self.named.push(option),
            }
        }
        Ok(())
    }

    /// Cuts the fields that Connection names.
    fn cut_named(&mut self, headers: &[Header<'b>], block_end: usize) {
        let mut starts = headers
            .iter()
            .map(|header| offset(self.head, header.name.as_bytes()))
            .peekable();
        for header in headers {
            let (Some(start), end) = (starts.next(), starts.peek().copied().unwrap_or(block_end)) else {
                return;
            };
            if self
                .named
                .iter()
                .any(|name| name.eq_ignore_ascii_case(header.name.as_bytes()))
            {
                self.cuts.insert(to_u32(start), to_u32(end));
            }
        }
    }

    /// A Transfer-Encoding line.
    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), RequestError> {
        if self.version == Version::Http10 {
            return Err(RequestError::TransferEncodingInHttp10);
        }
        let mut empty = true;
        for coding in list(value) {
            empty = false;
            match self.coding {
                _ if !is_token(coding) => return Err(RequestError::TransferEncoding),
                // Nothing may follow `chunked`, itself included.
                Coding::Chunked | Coding::OtherThenChunked => return Err(RequestError::TransferEncoding),
                Coding::None if is(coding, b"chunked") => self.coding = Coding::Chunked,
                Coding::Other if is(coding, b"chunked") => self.coding = Coding::OtherThenChunked,
                Coding::None | Coding::Other => self.coding = Coding::Other,
            }
        }
        if empty {
            Err(RequestError::TransferEncoding)
        } else {
            Ok(())
        }
    }

    fn framing(&self) -> Result<BodyFraming, RequestError> {
        let framing = match (self.coding, self.length) {
            (Coding::None, Some(length)) => BodyFraming::Length(length),
            (Coding::None, None) => BodyFraming::None,
            (_, Some(_)) => return Err(RequestError::LengthAndTransferEncoding),
            (Coding::Chunked, None) => BodyFraming::Chunked,
            (Coding::Other, None) => return Err(RequestError::TransferEncoding),
            (Coding::OtherThenChunked, None) => return Err(RequestError::UnknownTransferCoding),
        };
        // What follows a CONNECT head is tunnel data to one program and a body to another (RFC 9110 §9.3.6, §9.3.8).
        if matches!(self.method, Method::Connect | Method::Trace) && !framing.is_empty() {
            return Err(RequestError::BodyForbidden);
        }
        Ok(framing)
    }
}

/// What the Transfer-Encoding lines so far say. Only `Chunked` can be forwarded (RFC 9112 §6.1, §6.3, §11.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    None,
    Chunked,
    Other,
    OtherThenChunked,
}

/// The most fields that Connection may name; each is compared with each field.
const MAX_NAMED: usize = 32;

/// An offset within a head, which is never longer than [`Limits::head_max`], a `u32`.
pub(crate) fn to_u32(offset: usize) -> u32 {
    u32::try_from(offset).unwrap_or(u32::MAX)
}

/// Why a request head is refused; [`status`](Self::status) is the answer, and the connection is closed after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// A CR that no LF follows.
    #[error("bare CR in the request head")]
    BareCr,
    /// An LF that no CR precedes.
    #[error("bare LF in the request head")]
    BareLf,
    /// CONNECT or TRACE with a body.
    #[error("request body where the method allows none")]
    BodyForbidden,
    /// A Connection option that is no token, or too many that name fields.
    #[error("malformed Connection field")]
    Connection,
    /// A Content-Length that is not digits alone, or does not fit 64 bits.
    #[error("malformed Content-Length field")]
    ContentLength,
    /// A field name that is no token: whitespace before the colon, obs-fold, no colon, control bytes.
    #[error("malformed header field name")]
    FieldName,
    /// A control byte in a field value.
    #[error("control byte in a header field value")]
    FieldValue,
    /// A Host field that is not `host[:port]`.
    #[error("malformed Host field")]
    Host,
    /// Both Content-Length and Transfer-Encoding (RFC 9112 §6.1).
    #[error("both Content-Length and Transfer-Encoding")]
    LengthAndTransferEncoding,
    /// No Host field, and [`Limits::require_host`] is set.
    #[error("no Host field")]
    MissingHost,
    /// Several Content-Length fields, or a list in one.
    #[error("repeated Content-Length field")]
    RepeatedContentLength,
    /// Several Host fields.
    #[error("repeated Host field")]
    RepeatedHost,
    /// Several Proxy-Authorization fields.
    #[error("repeated Proxy-Authorization field")]
    RepeatedProxyAuthorization,
    /// The first line is no request line.
    #[error("malformed request line")]
    RequestLine,
    /// A byte in the target that may not stand there.
    #[error("bad byte in the request target")]
    Target,
    /// More fields than [`Limits::fields_max`]: 431.
    #[error("too many header fields")]
    TooManyFields,
    /// A head of more than [`Limits::head_max`] bytes: 431.
    #[error("request head too large")]
    TooLarge,
    /// Transfer-Encoding does not end in `chunked`, or has it twice.
    #[error("malformed Transfer-Encoding field")]
    TransferEncoding,
    /// Transfer-Encoding in an HTTP/1.0 request (RFC 9112 §6.1).
    #[error("Transfer-Encoding in an HTTP/1.0 request")]
    TransferEncodingInHttp10,
    /// Another transfer coding beneath `chunked`: 501.
    #[error("unsupported transfer coding")]
    UnknownTransferCoding,
    /// Neither HTTP/1.0 nor HTTP/1.1: 505.
    #[error("unsupported HTTP version")]
    Version,
}

impl RequestError {
    /// The HTTP status to answer.
    pub const fn status(self) -> u16 {
        match self {
            Self::TooManyFields | Self::TooLarge => 431,
            Self::UnknownTransferCoding => 501,
            Self::Version => 505,
            Self::BareCr
            | Self::BareLf
            | Self::BodyForbidden
            | Self::Connection
            | Self::ContentLength
            | Self::FieldName
            | Self::FieldValue
            | Self::Host
            | Self::LengthAndTransferEncoding
            | Self::MissingHost
            | Self::RepeatedContentLength
            | Self::RepeatedHost
            | Self::RepeatedProxyAuthorization
            | Self::RequestLine
            | Self::Target
            | Self::TransferEncoding
            | Self::TransferEncodingInHttp10 => 400,
        }
    }
}

impl From<httparse::Error> for RequestError {
    fn from(error: httparse::Error) -> Self {
        match error {
            httparse::Error::HeaderName => Self::FieldName,
            httparse::Error::HeaderValue => Self::FieldValue,
            httparse::Error::NewLine => Self::BareCr,
            httparse::Error::Status | httparse::Error::Token => Self::RequestLine,
            httparse::Error::TooManyHeaders => Self::TooManyFields,
            httparse::Error::Version => Self::Version,
        }
    }
}

#[cfg(test)]
mod tests;
