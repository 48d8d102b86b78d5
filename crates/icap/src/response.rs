//! Responses (RFC 3507 §4.3.3).

use crate::encapsulated::{Encapsulated, EncapsulatedError};
use crate::head::{self, Field, Fields, HeadError, Limits, decimal, put_field};

/// The head of a response, by reference into the buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response<'b> {
    /// The status code, 100 to 599.
    pub status: u16,
    /// The reason phrase, maybe empty.
    pub reason: &'b str,
    /// Bytes of the head: the parts begin there.
    pub len: usize,
    /// The parts that follow, if it says so.
    pub encapsulated: Option<Encapsulated>,
    /// Whether the server keeps the connection.
    pub keep_alive: bool,
    fields: Fields<'b>,
}

impl<'b> Response<'b> {
    /// All fields.
    pub fn fields(&self) -> Fields<'b> {
        self.fields.clone()
    }

    /// The first field of this name.
    pub fn field(&self, name: &str) -> Option<Field<'b>> {
        self.fields().find(|field| field.is(name))
    }
}

/// Parses one response head at the front of `buf`.
///
/// `Ok(None)` asks for more bytes.
///
/// # Errors
/// [`ResponseError`]: the connection is of no more use.
pub fn parse_response<'b>(buf: &'b [u8], limits: &Limits) -> Result<Option<Response<'b>>, ResponseError> {
    let Some(head) = head::parse(buf, limits)? else {
        return Ok(None);
    };
    let (status, reason) = status_line(head.start)?;
    let mut encapsulated = None;
    let mut keep_alive = true;
    for field in head.fields.clone() {
        if field.is("encapsulated") {
            if encapsulated.replace(Encapsulated::parse(field.value)?).is_some() {
                return Err(ResponseError::RepeatedEncapsulated);
            }
        } else if field.is("connection") {
            keep_alive &= !field.list().any(|option| option.eq_ignore_ascii_case(b"close"));
        }
    }
    if encapsulated.is_some_and(|parts| parts.heads() > limits.parts_max as usize) {
        return Err(ResponseError::PartsTooLarge);
    }
    Ok(Some(Response {
        status,
        reason,
        len: head.len,
        encapsulated,
        keep_alive,
        fields: head.fields,
    }))
}

fn status_line(line: &str) -> Result<(u16, &str), ResponseError> {
    let rest = line.strip_prefix("ICAP/1.").ok_or(ResponseError::StatusLine)?;
    let (minor, rest) = rest.split_once(' ').ok_or(ResponseError::StatusLine)?;
    if minor != "0" {
        return Err(ResponseError::Version);
    }
    let (code, reason) = rest.split_once(' ').unwrap_or((rest, ""));
    let status = decimal(code.as_bytes())
        .filter(|_| code.len() == 3)
        .and_then(|status| u16::try_from(status).ok())
        .filter(|status| (100..600).contains(status))
        .ok_or(ResponseError::StatusLine)?;
    Ok((status, reason))
}

/// Why a response is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// The `Encapsulated` field.
    #[error(transparent)]
    Encapsulated(#[from] EncapsulatedError),
    /// The head.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// HTTP heads of more than [`Limits::parts_max`] bytes.
    #[error("the HTTP heads in the ICAP response are too large")]
    PartsTooLarge,
    /// Two `Encapsulated` fields.
    #[error("more than one Encapsulated field in the ICAP response")]
    RepeatedEncapsulated,
    /// The first line is no status line.
    #[error("malformed ICAP status line")]
    StatusLine,
    /// Another version than 1.0.
    #[error("unsupported ICAP version in the response")]
    Version,
}

/// A response head to send. All texts must be free of line ends.
#[derive(Clone, Copy, Debug)]
pub struct ResponseHead<'a> {
    /// The status code.
    pub status: u16,
    /// The `ISTag`, without quotes.
    pub istag: &'a str,
    /// More lines, each with its CRLF.
    pub extra: &'a [u8],
    /// Whether the connection is closed afterwards.
    pub close: bool,
    /// The parts that follow.
    pub encapsulated: Option<Encapsulated>,
}

impl ResponseHead<'_> {
    /// Appends it.
    pub fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("ICAP/1.0 {} {}\r\n", self.status, reason(self.status)).as_bytes());
        put_field(out, "ISTag", format!("\"{}\"", self.istag).as_bytes());
        out.extend_from_slice(self.extra);
        if self.close {
            put_field(out, "Connection", b"close");
        }
        if let Some(parts) = &self.encapsulated {
            put_field(out, "Encapsulated", parts.to_string().as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// The reason phrase of a status code (RFC 3507 §4.3.3).
pub const fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        200 => "OK",
        201 => "Created",
        204 => "No Modifications Needed",
        206 => "Partial Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "ICAP Service Not Found",
        405 => "Method Not Allowed For Service",
        408 => "Request Timeout",
        413 => "Request Entity Too Large",
        418 => "Bad Composition",
        500 => "Server Error",
        501 => "Method Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Overloaded",
        505 => "ICAP Version Not Supported",
        _ => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BodyPart;

    fn parsed(text: &str) -> Result<Option<Response<'_>>, ResponseError> {
        parse_response(text.as_bytes(), &Limits::default())
    }

    #[test]
    fn the_example_of_the_rfc_is_understood() {
        let text = "ICAP/1.0 200 OK\r\nDate: Mon, 10 Jan 2000  09:55:21 GMT\r\nServer: ICAP-Server-Software/1.0\r\n\
                    ISTag: \"W3E4R7U9-L2E4-2\"\r\nEncapsulated: req-hdr=0, null-body=231\r\n\r\n";
        let response = parsed(text).unwrap().unwrap();
        assert_eq!(
            (response.status, response.reason, response.len),
            (200, "OK", text.len())
        );
        assert_eq!(response.encapsulated.map(|parts| parts.request_head), Some(231));
        assert!(response.keep_alive);
    }

    #[test]
    fn what_is_sent_is_understood() {
        let parts = Encapsulated {
            request_head: 0,
            response_head: 7,
            body: BodyPart::Response,
        };
        let mut out = Vec::new();
        ResponseHead {
            status: 200,
            istag: "t",
            extra: b"X-A: b\r\n",
            close: true,
            encapsulated: Some(parts),
        }
        .put(&mut out);
        assert_eq!(
            out,
            b"ICAP/1.0 200 OK\r\nISTag: \"t\"\r\nX-A: b\r\nConnection: close\r\nEncapsulated: res-hdr=0, res-body=7\r\n\r\n"
        );
        let response = parse_response(&out, &Limits::default()).unwrap().unwrap();
        assert_eq!((response.encapsulated, response.keep_alive), (Some(parts), false));
    }

    #[test]
    fn a_reason_may_be_missing() {
        assert_eq!(parsed("ICAP/1.0 100\r\n\r\n").unwrap().unwrap().status, 100);
        assert_eq!(
            parsed("ICAP/1.0 204 No Content needed\r\n\r\n")
                .unwrap()
                .unwrap()
                .reason,
            "No Content needed"
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "HTTP/1.1 200 OK\r\n\r\n",
            "ICAP/1.0\r\n\r\n",
            "ICAP/1.0 20 OK\r\n\r\n",
            "ICAP/1.0 0200 OK\r\n\r\n",
            "ICAP/1.0 999 OK\r\n\r\n",
            "ICAP/1.0 +20 OK\r\n\r\n",
        ] {
            assert_eq!(parsed(text), Err(ResponseError::StatusLine), "{text}");
        }
        assert_eq!(parsed("ICAP/1.1 200 OK\r\n\r\n"), Err(ResponseError::Version));
        let two = "ICAP/1.0 200 OK\r\nEncapsulated: null-body=0\r\nEncapsulated: null-body=0\r\n\r\n";
        assert_eq!(parsed(two), Err(ResponseError::RepeatedEncapsulated));
    }
}
