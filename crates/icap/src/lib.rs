//! ICAP messages (RFC 3507), both sides of each.
//!
//! Bytes in, verdicts and bytes out: no I/O, no clock. A `parse_*` function looks at the front of a buffer: `Ok(None)` asks
//! for more bytes; an error is final. A `put` appends a message.
//!
//! | step | server | client |
//! |---|---|---|
//! | the head of a request | [`parse_request`] | [`RequestHead::put`] |
//! | the head of a response | [`ResponseHead::put`] | [`parse_response`] |
//! | what a service offers | fields of a response | [`Options::read`] |
//! | which parts of HTTP follow, and where | [`Encapsulated`] | the same |
//! | an HTTP head as a part | [`end_to_end`] | the same |
//! | bodies, previews | [`sluice_http1::ChunkScanner`], [`LAST_CHUNK_IEOF`] | the same |
//!
//! ```
//! use sluice_icap::{BodyPart, Encapsulated, Limits, Method, RequestHead, parse_request, parse_response};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let http = b"GET / HTTP/1.1\r\nHost: o.example\r\n\r\n";
//! let parts = Encapsulated { request_head: http.len() as u32, response_head: 0, body: BodyPart::None };
//! let mut wire = Vec::new();
//! RequestHead {
//!     method: Method::Reqmod,
//!     uri: "icap://icap.example/echo",
//!     host: "icap.example",
//!     authorization: None,
//!     extra: b"",
//!     allow_204: true,
//!     preview: None,
//!     encapsulated: parts,
//! }
//! .put(&mut wire);
//! wire.extend_from_slice(http);
//!
//! let request = parse_request(&wire, &Limits::default())?.expect("complete");
//! assert_eq!((request.method, request.allow_204, request.encapsulated), (Method::Reqmod, true, parts));
//! assert_eq!(&wire[request.len..][..parts.heads()], http);
//!
//! let answer = b"ICAP/1.0 204 Unmodified\r\nISTag: \"x\"\r\n\r\n";
//! assert_eq!(parse_response(answer, &Limits::default())?.expect("complete").status, 204);
//! # Ok(())
//! # }
//! ```

#![cfg_attr(not(test), warn(clippy::cast_possible_truncation, clippy::indexing_slicing))]

mod encapsulated;
mod head;
mod http;
mod options;
#[cfg(any(test, feature = "cases"))]
#[doc(hidden)]
pub mod properties;
mod request;
mod response;

pub use encapsulated::{BodyPart, Encapsulated, EncapsulatedError};
pub use head::{Field, Fields, HeadError, Limits};
pub use http::{PartError, end_to_end};
pub use options::{Options, OptionsError};
pub use request::{Method, Request, RequestError, RequestHead, parse_request};
pub use response::{Response, ResponseError, ResponseHead, parse_response, reason};

/// What ends a body within its preview (RFC 3507 §4.5).
pub const LAST_CHUNK_IEOF: &[u8] = b"0; ieof\r\n\r\n";

/// The port of `icap` (RFC 3507 §4.2).
pub const PORT: u16 = 1344;
/// The port of ICAP over TLS, by custom.
pub const TLS_PORT: u16 = 11344;
