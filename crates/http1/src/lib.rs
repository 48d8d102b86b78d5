//! HTTP/1 messages, parsed in place (RFC 9112).
//!
//! Bytes in, verdicts and bytes out: no I/O, no clock, no allocation for a usual head. Strict towards clients, lenient
//! towards origins where RFC 9112 lets a proxy repair what it forwards; never lenient in framing.
//!
//! | step | start at |
//! |---|---|
//! | a head from the client | [`parse_request`], then [`RequestHead::target`] |
//! | the head for the origin | [`RequestHead::forward`] |
//! | a head from the origin | [`parse_response`] |
//! | the head for the client | [`ResponseHead::forward`] |
//! | bodies, both ways | [`BodyScanner`] |
//! | replies of our own | [`Reply`], [`put_connected`], [`CONTINUE`] |
//! | who asks | [`Credentials`] |
//!
//! ```
//! use sluice_http1::{
//!     BodyScanner, Connection, ForwardRequest, ForwardResponse, HostLine, Limits, Reply, Target, TargetLine,
//!     parse_request, parse_response,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let limits = Limits::default();
//! let mut client_buf: Vec<u8> = b"POST http://o.example:80/a?b HTTP/1.1\r\nProxy-Connection: keep-alive\r\n\
//!     Host: o.example\r\nContent-Length: 4\r\n\r\nbodyGET http://next/ HTTP/1.1\r\n".to_vec();
//!
//! // `None`: read more (and ask `Partial` before the next try). An error: `Reply::closing(error.status())`.
//! let request = parse_request(&client_buf, &limits)?.expect("complete");
//! let Target::Absolute(url) = request.target()? else { panic!("CONNECT and local requests go elsewhere") };
//! assert_eq!((url.authority.host, url.port()), ("o.example", 80));
//!
//! // Judge the body that has arrived before anything goes out: a bad chunk then gets its 400 and the origin nothing.
//! let mut body = BodyScanner::new(request.framing, &limits);
//! let scan = body.scan(&client_buf[request.len..])?;
//! assert_eq!((scan.forward, scan.done), (4, true));
//!
//! let mut upstream = Vec::new();
//! // Without a Host field, or with an empty one, the URL's authority is sent.
//! let has_host = request.host_authority().is_some();
//! let host = if has_host { HostLine::AsSent } else { HostLine::Replace(url.authority.text) };
//! request.forward(&ForwardRequest { host, ..ForwardRequest::new(TargetLine::Origin(&url)) }, &mut upstream);
//! upstream.extend_from_slice(&client_buf[request.len..request.len + scan.forward]);
//! assert_eq!(upstream, b"POST /a?b HTTP/1.1\r\nHost: o.example\r\nContent-Length: 4\r\n\r\nbody");
//!
//! // All that the response needs to know of the request; then the buffer is free.
//! let (awaits, keeps_client) = (request.method.awaits(), request.keep_alive);
//! let used = request.len + scan.forward;
//! client_buf.drain(..used);
//!
//! let origin_buf = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
//! let response = parse_response(origin_buf, &limits, awaits)?.expect("complete");
//! if response.is_interim() { /* forward it to an HTTP/1.1 client, then parse the next head */ }
//! let stays = keeps_client && !response.taints;
//! let how = ForwardResponse {
//!     connection: if stays { Connection::Implied } else { Connection::Close },
//!     extra: b"X-BD-Upstream-Id: p1\r\n",
//!     ..ForwardResponse::default()
//! };
//! let mut out = Vec::new();
//! response.forward(&how, &mut out);
//! assert_eq!(out, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-BD-Upstream-Id: p1\r\n\r\n");
//! assert!(!response.keep_alive); // so the upstream connection ends here, the client's does not
//! # Ok(())
//! # }
//! ```
//!
//! The feature `cases` brings the table of malformed and smuggling messages, with what must come of each.
//!
//! What the caller has to mind:
//! - A framing error, on either side and at any point, ends both connections.
//! - To an HTTP/1.0 client: no 1xx; a chunked body goes as [`BodyOut::UntilClose`] with [`BodyScanner::payload`] (a
//!   response that [`is_coded`](ResponseHead::is_coded) is a 502); a kept connection is told by [`Connection::KeepAlive`].
//! - [`BodyFraming::UntilClose`] closes the client's connection too, unless sent on as [`BodyOut::Chunked`].
//! - Upgrade goes on only with [`Connection::Upgrade`]; do that for protocols you know, never for `h2c`.
//! - Bytes after the end of a response make its connection unusable.

#![cfg_attr(not(test), warn(clippy::cast_possible_truncation, clippy::indexing_slicing))]

mod basic;
mod body;
#[cfg(any(test, feature = "cases"))]
pub mod cases;
mod chunk;
mod fields;
mod forward;
mod limits;
mod method;
mod partial;
#[cfg(any(test, feature = "cases"))]
pub mod properties;
mod reply;
mod request;
mod response;
mod target;

pub use basic::{Credentials, CredentialsError};
pub use body::{BodyError, BodyFraming, BodyScanner, Scan};
pub use chunk::{ChunkScanner, LAST_CHUNK, put_chunk, put_chunk_size};
pub use fields::{Field, Fields, InvalidField, put_field};
pub use forward::{BodyOut, Connection, ForwardRequest, ForwardResponse, HostLine, TargetLine};
pub use limits::Limits;
pub use method::{Awaits, Method};
pub use partial::Partial;
pub use reply::{CONTINUE, Challenge, Reply, put_basic_challenge, put_connected, reason};
pub use request::{RequestError, RequestHead, Version, parse_request};
pub use response::{ResponseError, ResponseHead, parse_response};
pub use target::{Absolute, Authority, Redacted, Scheme, Target, TargetError};
