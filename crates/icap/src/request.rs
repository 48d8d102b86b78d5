//! Requests (RFC 3507 §4.3.2, §4.8 to §4.10).

use std::fmt;

use crate::encapsulated::{BodyPart, Encapsulated, EncapsulatedError};
use crate::head::{self, Field, Fields, HeadError, Limits, put_field};

/// A request method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// OPTIONS: what can the service do?
    Options,
    /// REQMOD: may this request go out, and in which form?
    Reqmod,
    /// RESPMOD: the same for a response.
    Respmod,
}

impl Method {
    /// As it stands in the request line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Options => "OPTIONS",
            Self::Reqmod => "REQMOD",
            Self::Respmod => "RESPMOD",
        }
    }

    /// Whether a message of this method may have these parts.
    const fn may_carry(self, parts: &Encapsulated) -> bool {
        match self {
            Self::Options => parts.heads() == 0 && matches!(parts.body, BodyPart::None | BodyPart::Options),
            Self::Reqmod => {
                parts.request_head > 0
                    && parts.response_head == 0
                    && matches!(parts.body, BodyPart::None | BodyPart::Request)
            }
            Self::Respmod => parts.response_head > 0 && matches!(parts.body, BodyPart::None | BodyPart::Response),
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The head of a request, by reference into the buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request<'b> {
    /// The method.
    pub method: Method,
    /// The URI as sent.
    pub uri: &'b str,
    /// Bytes of the head: the parts begin there.
    pub len: usize,
    /// The parts that follow.
    pub encapsulated: Encapsulated,
    /// Bytes of the body that are sent before the client waits (RFC 3507 §4.5).
    pub preview: Option<u32>,
    /// Whether 204 may be answered outside of a preview too (RFC 3507 §4.6).
    pub allow_204: bool,
    /// Whether the client keeps the connection.
    pub keep_alive: bool,
    fields: Fields<'b>,
}

impl<'b> Request<'b> {
    /// All fields.
    pub fn fields(&self) -> Fields<'b> {
        self.fields.clone()
    }

    /// The first field of this name.
    pub fn field(&self, name: &str) -> Option<Field<'b>> {
        self.fields().find(|field| field.is(name))
    }

    /// The path of the URI, which names the service: `/echo` of `icap://host/echo?mode=1`.
    pub fn path(&self) -> &'b str {
        let uri = self.uri.split(['?', '#']).next().unwrap_or_default();
        match uri.split_once("://") {
            Some((_, rest)) => rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/"),
            None => uri,
        }
    }
}

/// Parses one request head at the front of `buf`.
///
/// `Ok(None)` asks for more bytes.
///
/// # Errors
/// [`RequestError`]: answer with its status and close.
pub fn parse_request<'b>(buf: &'b [u8], limits: &Limits) -> Result<Option<Request<'b>>, RequestError> {
    let Some(head) = head::parse(buf, limits)? else {
        return Ok(None);
    };
    let (method, uri) = request_line(head.start)?;
    let mut encapsulated = None;
    let mut preview = None;
    let mut allow_204 = false;
    let mut keep_alive = true;
    for field in head.fields.clone() {
        if field.is("encapsulated") {
            if encapsulated.replace(Encapsulated::parse(field.value)?).is_some() {
                return Err(RequestError::Repeated("Encapsulated"));
            }
        } else if field.is("preview") {
            if preview.replace(field.number().ok_or(RequestError::Preview)?).is_some() {
                return Err(RequestError::Repeated("Preview"));
            }
        } else if field.is("allow") {
            allow_204 |= field.list().any(|code| code == b"204");
        } else if field.is("connection") {
            keep_alive &= !field.list().any(|option| option.eq_ignore_ascii_case(b"close"));
        }
    }
    let encapsulated = match (encapsulated, method) {
        (Some(parts), _) => parts,
        // Older clients leave it out where there is nothing to say.
        (None, Method::Options) => Encapsulated::default(),
        (None, _) => return Err(RequestError::NoEncapsulated),
    };
    if !method.may_carry(&encapsulated) {
        return Err(RequestError::Parts(method));
    }
    if encapsulated.heads() > limits.parts_max as usize {
        return Err(RequestError::PartsTooLarge);
    }
    Ok(Some(Request {
        method,
        uri,
        len: head.len,
        encapsulated,
        preview: preview.filter(|_| encapsulated.body != BodyPart::None),
        allow_204,
        keep_alive,
        fields: head.fields,
    }))
}

fn request_line(line: &str) -> Result<(Method, &str), RequestError> {
    let mut words = line.split(' ');
    let (Some(method), Some(uri), Some(version), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(RequestError::RequestLine);
    };
    if uri.is_empty() || !method.bytes().all(head::is_tchar) {
        return Err(RequestError::RequestLine);
    }
    match version.strip_prefix("ICAP/") {
        Some("1.0") => {}
        Some(_) => return Err(RequestError::Version),
        None => return Err(RequestError::RequestLine),
    }
    let method = [Method::Options, Method::Reqmod, Method::Respmod]
        .into_iter()
        .find(|known| known.as_str() == method)
        .ok_or(RequestError::Method)?;
    Ok((method, uri))
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The `Encapsulated` field.
    #[error(transparent)]
    Encapsulated(#[from] EncapsulatedError),
    /// The head.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// A method that is not known.
    #[error("unknown ICAP method")]
    Method,
    /// REQMOD or RESPMOD without `Encapsulated`.
    #[error("the request has no Encapsulated field")]
    NoEncapsulated,
    /// Parts that do not belong to the method.
    #[error("parts that {0} does not have")]
    Parts(Method),
    /// HTTP heads of more than [`Limits::parts_max`] bytes.
    #[error("the HTTP heads are too large")]
    PartsTooLarge,
    /// `Preview` is no number.
    #[error("malformed Preview field")]
    Preview,
    /// A field twice that may be there once.
    #[error("more than one {0} field")]
    Repeated(&'static str),
    /// The first line is no request line.
    #[error("malformed ICAP request line")]
    RequestLine,
    /// Another version than 1.0.
    #[error("unsupported ICAP version")]
    Version,
}

impl RequestError {
    /// The status to answer with.
    pub const fn status(self) -> u16 {
        match self {
            Self::Method => 405,
            Self::Version => 505,
            _ => 400,
        }
    }
}

/// A request head to send. All texts must be free of line ends.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// The method.
    pub method: Method,
    /// The service.
    pub uri: &'a str,
    /// The `Host` field: with a port that is not the default one, with brackets around IPv6.
    pub host: &'a str,
    /// The `Authorization` field.
    pub authorization: Option<&'a str>,
    /// More lines, each with its CRLF; make them with [`sluice_http1::put_field`].
    pub extra: &'a [u8],
    /// Whether 204 is understood outside of a preview.
    pub allow_204: bool,
    /// Bytes of the body that are sent as a preview.
    pub preview: Option<u32>,
    /// The parts that follow.
    pub encapsulated: Encapsulated,
}

impl RequestHead<'_> {
    /// Appends it.
    pub fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.method.as_str().as_bytes());
        out.push(b' ');
        out.extend_from_slice(self.uri.as_bytes());
        out.extend_from_slice(b" ICAP/1.0\r\n");
        put_field(out, "Host", self.host.as_bytes());
        if let Some(authorization) = self.authorization {
            put_field(out, "Authorization", authorization.as_bytes());
        }
        out.extend_from_slice(self.extra);
        if self.allow_204 {
            put_field(out, "Allow", b"204");
        }
        put_field(out, "Encapsulated", self.encapsulated.to_string().as_bytes());
        if let Some(preview) = self.preview {
            put_field(out, "Preview", preview.to_string().as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Option<Request<'_>>, RequestError> {
        parse_request(text.as_bytes(), &Limits::default())
    }

    #[test]
    fn the_example_of_the_rfc_is_understood() {
        let text = "RESPMOD icap://icap.example.org/satisf?mode=x ICAP/1.0\r\nHost: icap.example.org\r\n\
                    Encapsulated: req-hdr=0, res-hdr=137, res-body=296\r\nPreview: 1024\r\nAllow: 206, 204\r\n\r\n";
        let request = parsed(text).unwrap().unwrap();
        assert_eq!((request.method, request.path()), (Method::Respmod, "/satisf"));
        assert_eq!(
            (request.encapsulated.request_head, request.encapsulated.response_head),
            (137, 159)
        );
        assert_eq!(
            (request.preview, request.allow_204, request.keep_alive),
            (Some(1024), true, true)
        );
        assert_eq!(request.len, text.len());
        assert_eq!(request.field("HOST").unwrap().value, b"icap.example.org");
    }

    #[test]
    fn what_is_sent_is_understood() {
        let encapsulated = Encapsulated {
            request_head: 20,
            response_head: 0,
            body: BodyPart::Request,
        };
        let mut out = Vec::new();
        RequestHead {
            method: Method::Reqmod,
            uri: "icap://[::1]/x",
            host: "[::1]",
            authorization: Some("Basic dTpw"),
            extra: b"X-Client-IP: 192.0.2.1\r\n",
            allow_204: false,
            preview: Some(0),
            encapsulated,
        }
        .put(&mut out);
        assert_eq!(
            out,
            b"REQMOD icap://[::1]/x ICAP/1.0\r\nHost: [::1]\r\nAuthorization: Basic dTpw\r\nX-Client-IP: 192.0.2.1\r\n\
              Encapsulated: req-hdr=0, req-body=20\r\nPreview: 0\r\n\r\n"
        );
        let request = parse_request(&out, &Limits::default()).unwrap().unwrap();
        assert_eq!(
            (request.encapsulated, request.preview, request.path()),
            (encapsulated, Some(0), "/x")
        );
    }

    #[test]
    fn options_needs_no_encapsulated_field_and_the_others_do() {
        assert!(
            parsed("OPTIONS icap://h ICAP/1.0\r\n\r\n")
                .unwrap()
                .is_some_and(|r| r.path() == "/")
        );
        assert_eq!(
            parsed("REQMOD icap://h/s ICAP/1.0\r\n\r\n"),
            Err(RequestError::NoEncapsulated)
        );
    }

    #[test]
    fn what_cannot_be_served_has_its_status() {
        let with = |line: &str, fields: &str| {
            let text = format!("{line}\r\n{fields}\r\n");
            parsed(&text)
                .map(|request| request.is_some())
                .map_err(RequestError::status)
        };
        assert_eq!(with("LOGMOD icap://h/s ICAP/1.0", ""), Err(405));
        assert_eq!(with("OPTIONS icap://h/s ICAP/2.0", ""), Err(505));
        assert_eq!(with("OPTIONS icap://h/s HTTP/1.1", ""), Err(400));
        assert_eq!(with("OPTIONS  ICAP/1.0", ""), Err(400));
        let line = "REQMOD icap://h/s ICAP/1.0";
        assert_eq!(with(line, "Encapsulated: res-hdr=0, null-body=3\r\n"), Err(400));
        assert_eq!(with(line, "Encapsulated: req-hdr=0, res-body=3\r\n"), Err(400));
        assert_eq!(with(line, "Encapsulated: req-hdr=0, null-body=131073\r\n"), Err(400));
        let two = "Encapsulated: req-hdr=0, null-body=3\r\nEncapsulated: req-hdr=0, null-body=4\r\n";
        assert_eq!(with(line, two), Err(400));
        assert_eq!(
            with(line, "Encapsulated: req-hdr=0, req-body=3\r\nPreview: -1\r\n"),
            Err(400)
        );
    }
}
