//! Heads of HTTP/2 as heads of HTTP/1.1, which services know, and what services make of these.

use h2::ext::Protocol;
use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING,
    UPGRADE,
};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, request, response};
use sluice_http1::{Awaits, BodyFraming, Field, RequestHead, Target, parse_request, put_field, reason};

use super::is_bodiless;
use crate::audit::h2::stream::StreamError;
use crate::error::TaskError;
use crate::http::adapt::{OWN, final_head};
use crate::icap::IcapError;

/// Names of fields of one connection, of which HTTP/2 knows nothing (RFC 9113 §8.2.2).
const OF_CONNECTION: [HeaderName; 6] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// A request's head as services see it. An extended CONNECT looks like the request for an Upgrade that it stands for; a
/// plain one has its target in the request line.
pub(super) fn request_text(head: &request::Parts) -> Vec<u8> {
    let method = match head.extensions.get::<Protocol>() {
        Some(_) => Method::GET.as_str(),
        None => head.method.as_str(),
    };
    let path = match (method, head.uri.authority()) {
        ("CONNECT", Some(target)) => target.as_str(),
        _ => head.uri.path_and_query().map_or("/", PathAndQuery::as_str),
    };
    let mut out = format!("{method} {path} HTTP/1.1\r\n").into_bytes();
    // A `host` beside it is the same.
    if let Some(authority) = head.uri.authority() {
        put(&mut out, &HOST, authority.as_str().as_bytes());
    }
    for (name, value) in &head.headers {
        if name != HOST && name != COOKIE {
            put(&mut out, name, value.as_bytes());
        }
    }
    // HTTP/2 may cut it into pieces (RFC 9113 §8.2.3).
    let cookies: Vec<&[u8]> = head.headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if !cookies.is_empty() {
        put(&mut out, &COOKIE, &cookies.join(&b"; "[..]));
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// A response's head as services see it.
pub(super) fn response_text(head: &response::Parts) -> Vec<u8> {
    let status = head.status.as_u16();
    let mut out = format!("HTTP/1.1 {status} {}\r\n", reason(status)).into_bytes();
    for (name, value) in &head.headers {
        put(&mut out, name, value.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// The lines of trailers.
pub(super) fn trailer_lines(trailers: &HeaderMap) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in trailers {
        put(&mut out, name, value.as_bytes());
    }
    out
}

/// Trailers of these lines. What HTTP/2 has no room for is left out.
pub(super) fn trailer_map(lines: &[u8]) -> HeaderMap {
    let mut out = HeaderMap::new();
    for line in lines.split(|&b| b == b'\n') {
        let Some(colon) = line.iter().position(|&b| b == b':') else {
            continue;
        };
        let (name, value) = line.split_at(colon);
        if let Some((name, value)) = field(name, value[1..].trim_ascii())
            && name != CONTENT_LENGTH
        {
            out.append(name, value);
        }
    }
    out
}

/// A request's head as a service wants it.
pub(super) struct Sent {
    pub(super) head: request::Parts,
    /// Bytes of its body, if its head tells.
    pub(super) length: Option<u64>,
}

/// The head that a service has made of `original`, with the fields of our own hop.
///
/// # Errors
/// [`IcapError::UnfitRequest`].
pub(super) fn adapted_request(bytes: &[u8], mut original: request::Parts, has_body: bool) -> Result<Sent, StreamError> {
    let unfit = |text: String| StreamError::from(TaskError::from(IcapError::UnfitRequest(text)));
    let head = parse_request(bytes, &OWN)
        .map_err(|error| unfit(error.to_string()))?
        .ok_or_else(|| unfit("an unfinished head".to_owned()))?;
    let is_tunnel = original.extensions.get::<Protocol>().is_some();
    let is_fit = match is_tunnel {
        true => head.method == sluice_http1::Method::Get && !has_body,
        false if original.method == Method::CONNECT => head.method.awaits() == Awaits::Connect && !has_body,
        false => head.method.awaits() != Awaits::Connect,
    };
    if !is_fit {
        return Err(unfit("another kind of request".to_owned()));
    }
    if !is_tunnel {
        original.method =
            Method::from_bytes(head.method.as_str().as_bytes()).map_err(|error| unfit(error.to_string()))?;
    }
    let mut headers = fields(head.fields());
    if !is_tunnel && original.method == Method::CONNECT {
        // Its target alone says where it goes.
        let host = headers.remove(HOST).filter(|_| original.headers.contains_key(HOST));
        headers.extend(host.map(|host| (HOST, host)));
        original.uri = Uri::try_from(head.raw_target.as_bytes()).map_err(|error| unfit(error.to_string()))?;
    } else if let Some(host) = headers.remove(HOST) {
        let authority = Authority::try_from(host.as_bytes()).map_err(|error| unfit(error.to_string()))?;
        // It was there or not (H2-07), and stays so.
        if original.headers.contains_key(HOST) {
            headers.insert(HOST, host);
        }
        original.uri = with(&original.uri, Some(authority), &head).ok_or_else(|| unfit("its target".to_owned()))?;
    } else {
        original.uri = with(&original.uri, None, &head).ok_or_else(|| unfit("its target".to_owned()))?;
    }
    headers.remove(EXPECT);
    let length = match (has_body, head.framing) {
        (true, BodyFraming::Length(length)) => Some(length),
        (false, BodyFraming::Length(_)) => Some(0),
        _ => None,
    };
    set_length(&mut headers, length);
    keep(&mut headers, &original.headers, &[PROXY_AUTHORIZATION, TE]);
    original.headers = headers;
    Ok(Sent { head: original, length })
}

/// `uri` with what a service has put into its place.
fn with(uri: &Uri, authority: Option<Authority>, head: &RequestHead<'_>) -> Option<Uri> {
    let mut parts = uri.clone().into_parts();
    if authority.is_some() {
        parts.authority = authority;
    }
    let mut path = Vec::new();
    match head.target().ok()? {
        Target::Absolute(url) => url.put_origin_form(head.method, &mut path),
        _ => path.extend_from_slice(head.raw_target.as_bytes()),
    }
    parts.path_and_query = Some(PathAndQuery::try_from(path.as_slice()).ok()?);
    Uri::from_parts(parts).ok()
}

/// A response as it goes to the client.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) has_body: bool,
    /// Bytes of its body, if its head has to tell the truth about them.
    pub(super) length: Option<u64>,
}

impl Reply {
    /// The upstream's response as it came.
    pub(super) fn unchanged(head: response::Parts, has_body: bool) -> Self {
        Self {
            status: head.status,
            headers: head.headers,
            has_body,
            length: None,
        }
    }

    /// The response whose head a service has made, to a request with this method.
    ///
    /// # Errors
    /// [`IcapError::UnfitResponse`].
    pub(super) fn new(bytes: &[u8], method: &Method, has_body: bool) -> Result<Self, StreamError> {
        let awaits = if method == Method::HEAD {
            Awaits::Head
        } else {
            Awaits::Other
        };
        let head = final_head(bytes, awaits)?;
        let status = StatusCode::from_u16(head.status)
            .map_err(|error| TaskError::from(IcapError::UnfitResponse(error.to_string())))?;
        let mut headers = fields(head.fields());
        let is_bodiless = is_bodiless(method, status);
        let length = match head.framing {
            BodyFraming::Length(length) if has_body => Some(length),
            _ => None,
        };
        if !is_bodiless {
            set_length(&mut headers, if has_body { length } else { Some(0) });
        }
        Ok(Self {
            status,
            headers,
            has_body: has_body && !is_bodiless,
            length,
        })
    }

    /// The same with what the upstream's response has told our own hop.
    pub(super) fn behind(mut self, original: &response::Parts) -> Self {
        keep(&mut self.headers, &original.headers, &[PROXY_AUTHENTICATE]);
        self
    }
}

/// Fields of a head as HTTP/2 has them. What it has no room for is left out.
fn fields<'f>(fields: impl Iterator<Item = Field<'f>>) -> HeaderMap {
    fields
        .filter_map(|line| field(line.name.as_bytes(), line.value))
        .collect()
}

fn field(name: &[u8], value: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let name = HeaderName::from_bytes(name)
        .ok()
        .filter(|name| !OF_CONNECTION.contains(name))?;
    Some((name, HeaderValue::from_bytes(value).ok()?))
}

fn set_length(headers: &mut HeaderMap, length: Option<u64>) {
    headers.remove(CONTENT_LENGTH);
    if let Some(length) = length {
        headers.insert(CONTENT_LENGTH, length.into());
    }
}

/// Copies fields that services do not see.
fn keep(headers: &mut HeaderMap, original: &HeaderMap, names: &[HeaderName]) {
    for name in names {
        headers.remove(name);
        for value in original.get_all(name) {
            headers.append(name, value.clone());
        }
    }
}

fn put(out: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
    // Both were found well formed.
    let _ = put_field(out, name.as_str(), value);
}

#[cfg(test)]
mod tests;
