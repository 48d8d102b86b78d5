//! Malformed, smuggling and merely unusual messages, each with the exact answer or forwarding it must get.
//!
//! One table for the unit tests of this crate and for the end-to-end tests of a daemon that uses it. The origin server is
//! called [`ORIGIN`] in targets and Host fields, and nowhere else: put its real `address:port` there in what is sent and
//! in what is expected. No length in any message depends on it.
//!
//! The daemon is taken to work like the example in the crate's documentation, with default [`Limits`](crate::Limits): it
//! adds no lines, keeps the upstream connection, keeps the Host field (an empty one counts as absent) and takes it from
//! the URL where there is none, drops Upgrade, and looks at the body bytes that came with a head before that head goes on.

/// What stands for the origin's `address:port`.
pub const ORIGIN: &str = "o.test";

/// Bytes from a client, all sent at once.
#[derive(Clone, Debug)]
pub struct RequestCase {
    /// A sentence.
    pub name: &'static str,
    /// The regressions that it guards against.
    pub covers: &'static [&'static str],
    /// What the client sends.
    pub client: Vec<u8>,
    /// What must come of it.
    pub expect: RequestExpect,
}

/// What must come of a client's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestExpect {
    /// The origin gets exactly these bytes, or no connection at all if the request is not for it.
    Forward(Vec<u8>),
    /// The client gets this status and the connection is closed; the origin gets no byte.
    Refuse(u16),
}

/// Bytes from an origin, all sent at once after it has read a request.
#[derive(Clone, Debug)]
pub struct ResponseCase {
    /// A sentence.
    pub name: &'static str,
    /// The regressions that it guards against.
    pub covers: &'static [&'static str],
    /// The method of the client's request, which is HTTP/1.1 and has no body.
    pub method: &'static str,
    /// What the origin sends.
    pub origin: Vec<u8>,
    /// Whether the origin closes its connection then.
    pub closes: bool,
    /// What must come of it.
    pub expect: ResponseExpect,
}

/// What must come of an origin's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResponseExpect {
    /// The client gets 502; the upstream connection is closed.
    BadGateway,
    /// The client gets exactly these bytes.
    Forward {
        /// They.
        client: Vec<u8>,
        /// Whether the client's connection takes another request.
        keeps_client: bool,
        /// Whether the upstream connection takes another request.
        keeps_upstream: bool,
    },
}

/// All cases of requests.
pub fn requests() -> Vec<RequestCase> {
    let refused = [REFUSED_FRAMING, REFUSED_SYNTAX, REFUSED_LINES, REFUSED_TARGETS].concat();
    let refused = refused.into_iter().map(|(name, covers, status, client)| RequestCase {
        name,
        covers,
        client: client.to_vec(),
        expect: RequestExpect::Refuse(status),
    });
    let chunks = REFUSED_CHUNKS.iter().map(|&(name, covers, body)| RequestCase {
        name,
        covers,
        client: [CHUNKED_REQUEST, body].concat(),
        expect: RequestExpect::Refuse(400),
    });
    let forwarded = FORWARDED.iter().map(|&(name, covers, client, origin)| RequestCase {
        name,
        covers,
        client: client.to_vec(),
        expect: RequestExpect::Forward(origin.to_vec()),
    });
    refused.chain(chunks).chain(forwarded).chain(large_requests()).collect()
}

type Refused = (&'static str, &'static [&'static str], u16, &'static [u8]);
type Forwarded = (&'static str, &'static [&'static str], &'static [u8], &'static [u8]);

const REFUSED_FRAMING: &[Refused] = &[
    (
        "Content-Length before Transfer-Encoding",
        &["H1-05"],
        400,
        b"POST http://o.test/ HTTP/1.1\r\nHost: o.test\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX",
    ),
    (
        "Transfer-Encoding before Content-Length, a request hidden in the body",
        &["H1-05"],
        400,
        b"POST http://o.test/ HTTP/1.1\r\nHost: o.test\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n\
          5c\r\nGET /hidden HTTP/1.1\r\nHost: o.test\r\n\r\n0\r\n\r\n",
    ),
    (
        "Transfer-Encoding beside Content-Length 0",
        &["H1-05"],
        400,
        b"POST http://o.test/ HTTP/1.1\r\nHost: o.test\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n",
    ),
    (
        "two different lengths",
        &[],
        400,
        b"POST http://o.test/ HTTP/1.1\r\nHost: o.test\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\nhello",
    ),
    (
        "the same length twice",
        &[],
        400,
        b"POST http://o.test/ HTTP/1.1\r\nHost: o.test\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    ),
    ("a list of lengths", &[], 400, b"POST http://o.test/ HTTP/1.1\r\nContent-Length: 5, 5\r\n\r\nhello"),
    ("a length with a plus sign", &[], 400, b"POST http://o.test/ HTTP/1.1\r\nContent-Length: +5\r\n\r\nhello"),
    ("a negative length", &[], 400, b"POST http://o.test/ HTTP/1.1\r\nContent-Length: -5\r\n\r\nhello"),
    ("a hexadecimal length", &[], 400, b"POST http://o.test/ HTTP/1.1\r\nContent-Length: 0x5\r\n\r\nhello"),
    ("a length with a space in it", &[], 400, b"POST http://o.test/ HTTP/1.1\r\nContent-Length: 1 0\r\n\r\nhello"),
    ("a length with a decimal point", &[], 400, b"POST http://o.test/ HTTP/1.1\r\nContent-Length: 5.0\r\n\r\nhello"),
    ("a length in quotes", &[], 400, b"POST http://o.test/ HTTP/1.1\r\nContent-Length: \"5\"\r\n\r\nhello"),
    ("an empty length", &[], 400, b"POST http://o.test/ HTTP/1.1\r\nContent-Length: \r\n\r\nhello"),
    (
        "a length of 2^64",
        &[],
        400,
        b"POST http://o.test/ HTTP/1.1\r\nContent-Length: 18446744073709551616\r\n\r\nhello",
    ),
    (
        "a length in Arabic digits",
        &[],
        400,
        b"POST http://o.test/ HTTP/1.1\r\nContent-Length: \xd9\xa5\r\n\r\nhello",
    ),
    (
        "a length folded over two lines",
        &[],
        400,
        b"POST http://o.test/ HTTP/1.1\r\nContent-Length: 1\r\n 0\r\n\r\nhelloworld",
    ),
    (
        "whitespace before the colon of Content-Length",
        &[],
        400,
        b"POST http://o.test/ HTTP/1.1\r\nContent-Length\t: 5\r\n\r\nhello",
    ),
    (
        "Transfer-Encoding without chunked",
        &[],
        400,
        b"POST http://o.test/ HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\nhello",
    ),
    (
        "Transfer-Encoding identity",
        &[],
        400,
        b"POST http://o.test/ HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\nhello",
    ),
    (
        "another coding beneath chunked",
        &[],
        501,
        b"POST http://o.test/ HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "an unknown coding beneath chunked, on two lines",
        &[],
        501,
        b"POST http://o.test/ HTTP/1.1\r\nTransfer-Encoding: cow\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked is not the last coding",
        &[],
        400,
        b"POST http://o.test/ HTTP/1.1\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked twice",
        &[],
        400,
        b"POST http://o.test/ HTTP/1.1\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked twice, on two lines",
        &[],
        400,
        b"POST http://o.test/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked with a letter before it",
        &[],
        400,
        b"POST http://o.test/ HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked in quotes",
        &[],
        400,
        b"POST http://o.test/ HTTP/1.1\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked with a parameter",
        &[],
        400,
        b"POST http://o.test/ HTTP/1.1\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked with a space in it",
        &[],
        400,
        b"POST http://o.test/ HTTP/1.1\r\nTransfer-Encoding: chunk ed\r\n\r\n0\r\n\r\n",
    ),
    ("an empty Transfer-Encoding", &[], 400, b"POST http://o.test/ HTTP/1.1\r\nTransfer-Encoding:\r\n\r\n"),
    ("a Transfer-Encoding of commas", &[], 400, b"POST http://o.test/ HTTP/1.1\r\nTransfer-Encoding: ,,\r\n\r\n"),
    (
        "Transfer-Encoding in HTTP/1.0",
        &[],
        400,
        b"POST http://o.test/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "a vertical tab before chunked",
        &[],
        400,
        b"POST http://o.test/ HTTP/1.1\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "a NUL after chunked",
        &[],
        400,
        b"POST http://o.test/ HTTP/1.1\r\nTransfer-Encoding: chunked\0\r\n\r\n0\r\n\r\n",
    ),
    (
        "whitespace before the colon of Transfer-Encoding",
        &[],
        400,
        b"POST http://o.test/ HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "a vertical tab before the colon of Transfer-Encoding",
        &[],
        400,
        b"POST http://o.test/ HTTP/1.1\r\nTransfer-Encoding\x0b: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "Transfer-Encoding folded onto its second line",
        &[],
        400,
        b"POST http://o.test/ HTTP/1.1\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "Transfer-Encoding as the folded second line of another field",
        &[],
        400,
        b"POST http://o.test/ HTTP/1.1\r\nX: y\r\n Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    ),
    (
        "Transfer-Encoding behind a bare LF",
        &[],
        400,
        b"POST http://o.test/ HTTP/1.1\r\nX: y\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    ),
    (
        "Transfer-Encoding behind a bare CR",
        &[],
        400,
        b"POST http://o.test/ HTTP/1.1\r\nX: y\rTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    ),
    (
        "a NUL in the name Transfer-Encoding",
        &[],
        400,
        b"POST http://o.test/ HTTP/1.1\r\nTransfer\0-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    ("TRACE with a body", &[], 400, b"TRACE http://o.test/ HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"),
    ("CONNECT with a length", &[], 400, b"CONNECT o.test HTTP/1.1\r\nHost: o.test\r\nContent-Length: 5\r\n\r\nhello"),
    (
        "CONNECT with chunks",
        &[],
        400,
        b"CONNECT o.test HTTP/1.1\r\nHost: o.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
];

const REFUSED_SYNTAX: &[Refused] = &[
    (
        "a folded field",
        &[],
        400,
        b"GET http://o.test/ HTTP/1.1\r\nX: a\r\n\tb\r\n\r\n",
    ),
    (
        "whitespace before the first field",
        &[],
        400,
        b"GET http://o.test/ HTTP/1.1\r\n X: a\r\n\r\n",
    ),
    (
        "a space before a colon",
        &[],
        400,
        b"GET http://o.test/ HTTP/1.1\r\nX : a\r\n\r\n",
    ),
    (
        "a line without a colon",
        &[],
        400,
        b"GET http://o.test/ HTTP/1.1\r\nX\r\n\r\n",
    ),
    (
        "an empty field name",
        &[],
        400,
        b"GET http://o.test/ HTTP/1.1\r\n: a\r\n\r\n",
    ),
    (
        "a space in a field name",
        &[],
        400,
        b"GET http://o.test/ HTTP/1.1\r\nX Y: a\r\n\r\n",
    ),
    (
        "a parenthesis in a field name",
        &[],
        400,
        b"GET http://o.test/ HTTP/1.1\r\nX(Y: a\r\n\r\n",
    ),
    (
        "a field name that is not ASCII",
        &[],
        400,
        b"GET http://o.test/ HTTP/1.1\r\n\xc3\xa4: a\r\n\r\n",
    ),
    (
        "a NUL in a value",
        &[],
        400,
        b"GET http://o.test/ HTTP/1.1\r\nX: a\0b\r\n\r\n",
    ),
    (
        "a DEL in a value",
        &[],
        400,
        b"GET http://o.test/ HTTP/1.1\r\nX: a\x7fb\r\n\r\n",
    ),
    (
        "an escape in a value",
        &[],
        400,
        b"GET http://o.test/ HTTP/1.1\r\nX: \x1b[31m\r\n\r\n",
    ),
    (
        "a bare CR in a value",
        &[],
        400,
        b"GET http://o.test/ HTTP/1.1\r\nX: a\rb\r\n\r\n",
    ),
    (
        "a CR at the end of a value",
        &[],
        400,
        b"GET http://o.test/ HTTP/1.1\r\nX: a\r\r\n\r\n",
    ),
    (
        "a bare LF in a value",
        &[],
        400,
        b"GET http://o.test/ HTTP/1.1\r\nX: a\nY: b\r\n\r\n",
    ),
    (
        "a bare LF ends the request line",
        &[],
        400,
        b"GET http://o.test/ HTTP/1.1\nX: a\r\n\r\n",
    ),
    (
        "a bare LF ends the head",
        &[],
        400,
        b"GET http://o.test/ HTTP/1.1\r\nX: a\r\n\n",
    ),
    (
        "bare LF all over",
        &[],
        400,
        b"GET http://o.test/ HTTP/1.1\nHost: o.test\n\n",
    ),
    (
        "a CR before the CRLF of the empty line",
        &[],
        400,
        b"GET http://o.test/ HTTP/1.1\r\nX: a\r\n\r\r\n",
    ),
    (
        "a hidden request behind a bare CR",
        &[],
        400,
        b"GET http://o.test/ HTTP/1.1\r\nX: a\r\rGET /hidden HTTP/1.1\r\n\r\n",
    ),
    (
        "two Host fields",
        &[],
        400,
        b"GET http://o.test/ HTTP/1.1\r\nHost: o.test\r\nHost: o.test\r\n\r\n",
    ),
    (
        "two Host fields that differ",
        &[],
        400,
        b"GET http://o.test/ HTTP/1.1\r\nHost: o.test\r\nhost: evil\r\n\r\n",
    ),
    (
        "two empty Host fields",
        &["H1-18"],
        400,
        b"GET http://o.test/ HTTP/1.1\r\nHost:\r\nHost:\r\n\r\n",
    ),
    (
        "a space in Host",
        &[],
        400,
        b"GET http://o.test/ HTTP/1.1\r\nHost: o.test evil\r\n\r\n",
    ),
    (
        "a list in Host",
        &[],
        400,
        b"GET http://o.test/ HTTP/1.1\r\nHost: o.test, evil\r\n\r\n",
    ),
    (
        "userinfo in Host",
        &[],
        400,
        b"GET http://o.test/ HTTP/1.1\r\nHost: u@o.test\r\n\r\n",
    ),
    (
        "a path in Host",
        &[],
        400,
        b"GET http://o.test/ HTTP/1.1\r\nHost: o.test/x\r\n\r\n",
    ),
    (
        "a URL in Host",
        &[],
        400,
        b"GET http://o.test/ HTTP/1.1\r\nHost: http://o.test\r\n\r\n",
    ),
    (
        "a bad port in Host",
        &[],
        400,
        b"GET http://o.test/ HTTP/1.1\r\nHost: a:b\r\n\r\n",
    ),
    (
        "a port alone in Host",
        &[],
        400,
        b"GET http://o.test/ HTTP/1.1\r\nHost: :80\r\n\r\n",
    ),
    (
        "a broken IPv6 address in Host",
        &["H1-19"],
        400,
        b"GET http://o.test/ HTTP/1.1\r\nHost: [::1\r\n\r\n",
    ),
    (
        "an IPv6 address without brackets in Host",
        &["H1-19"],
        400,
        b"GET http://o.test/ HTTP/1.1\r\nHost: ::1\r\n\r\n",
    ),
    (
        "a Host that is not ASCII",
        &[],
        400,
        b"GET http://o.test/ HTTP/1.1\r\nHost: \xc3\xa4\r\n\r\n",
    ),
    (
        "a Connection option with a space in it",
        &[],
        400,
        b"GET http://o.test/ HTTP/1.1\r\nConnection: a b\r\n\r\n",
    ),
    (
        "two Proxy-Authorization fields",
        &[],
        400,
        b"GET http://o.test/ HTTP/1.1\r\nProxy-Authorization: Basic Og==\r\nProxy-Authorization: Basic YTpi\r\n\r\n",
    ),
];

const REFUSED_LINES: &[Refused] = &[
    (
        "HTTP/2.0 is not spoken",
        &[],
        505,
        b"GET http://o.test/ HTTP/2.0\r\n\r\n",
    ),
    ("the HTTP/2 preface", &[], 505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    (
        "HTTP/1.2 is not spoken",
        &[],
        505,
        b"GET http://o.test/ HTTP/1.2\r\n\r\n",
    ),
    (
        "HTTP/0.9 is not spoken",
        &[],
        505,
        b"GET http://o.test/ HTTP/0.9\r\n\r\n",
    ),
    (
        "a request line without a version",
        &[],
        400,
        b"GET http://o.test/\r\n\r\n",
    ),
    (
        "a version in lower case",
        &[],
        400,
        b"GET http://o.test/ http/1.1\r\n\r\n",
    ),
    (
        "a version with two digits after the dot",
        &[],
        400,
        b"GET http://o.test/ HTTP/1.10\r\n\r\n",
    ),
    (
        "a version with two digits before the dot",
        &[],
        400,
        b"GET http://o.test/ HTTP/11.1\r\n\r\n",
    ),
    (
        "a version without a dot",
        &[],
        400,
        b"GET http://o.test/ HTTP/11\r\n\r\n",
    ),
    (
        "a version of another protocol",
        &[],
        400,
        b"GET http://o.test/ RTSP/1.0\r\n\r\n",
    ),
    (
        "a space after the version",
        &[],
        400,
        b"GET http://o.test/ HTTP/1.1 \r\n\r\n",
    ),
    (
        "something after the version",
        &[],
        400,
        b"GET http://o.test/ HTTP/1.1 x\r\n\r\n",
    ),
    (
        "two spaces before the target",
        &[],
        400,
        b"GET  http://o.test/ HTTP/1.1\r\n\r\n",
    ),
    (
        "two spaces after the target",
        &[],
        400,
        b"GET http://o.test/  HTTP/1.1\r\n\r\n",
    ),
    (
        "a tab before the target",
        &[],
        400,
        b"GET\thttp://o.test/ HTTP/1.1\r\n\r\n",
    ),
    (
        "a space before the method",
        &[],
        400,
        b" GET http://o.test/ HTTP/1.1\r\n\r\n",
    ),
    (
        "a method that is no token",
        &[],
        400,
        b"GE(T http://o.test/ HTTP/1.1\r\n\r\n",
    ),
    (
        "three empty lines first",
        &[],
        400,
        b"\r\n\r\n\r\nGET http://o.test/ HTTP/1.1\r\n\r\n",
    ),
    ("a bare LF first", &[], 400, b"\nGET http://o.test/ HTTP/1.1\r\n\r\n"),
    ("a bare CR first", &[], 400, b"\rGET http://o.test/ HTTP/1.1\r\n\r\n"),
    (
        "a ClientHello",
        &[],
        400,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ),
];

const REFUSED_TARGETS: &[Refused] = &[
    (
        "a space in the target",
        &[],
        400,
        b"GET http://o.test/a b HTTP/1.1\r\n\r\n",
    ),
    (
        "a tab in the target",
        &[],
        400,
        b"GET http://o.test/a\tb HTTP/1.1\r\n\r\n",
    ),
    (
        "a NUL in the target",
        &[],
        400,
        b"GET http://o.test/\0 HTTP/1.1\r\n\r\n",
    ),
    (
        "a DEL in the target",
        &[],
        400,
        b"GET http://o.test/\x7f HTTP/1.1\r\n\r\n",
    ),
    (
        "a bare CR in the target",
        &[],
        400,
        b"GET http://o.test/\rx HTTP/1.1\r\n\r\n",
    ),
    (
        "a target that is not ASCII",
        &[],
        400,
        b"GET http://o.test/\xc3\xa4 HTTP/1.1\r\n\r\n",
    ),
    (
        "a fragment in the target",
        &[],
        400,
        b"GET http://o.test/#a HTTP/1.1\r\n\r\n",
    ),
    (
        "a scheme that is not forwarded",
        &[],
        501,
        b"GET gopher://o.test/ HTTP/1.1\r\n\r\n",
    ),
    ("a URN", &[], 501, b"GET urn:isbn:0 HTTP/1.1\r\n\r\n"),
    (
        "one slash after the scheme",
        &[],
        400,
        b"GET http:/o.test/ HTTP/1.1\r\n\r\n",
    ),
    (
        "no host in the URL",
        &[],
        400,
        b"GET http:///x HTTP/1.1\r\nHost: o.test\r\n\r\n",
    ),
    (
        "a port without a host",
        &[],
        400,
        b"GET http://:80/ HTTP/1.1\r\nHost: o.test\r\n\r\n",
    ),
    (
        "a URL of its scheme alone",
        &[],
        400,
        b"GET http:// HTTP/1.1\r\nHost: o.test\r\n\r\n",
    ),
    (
        "a port above 65535",
        &[],
        400,
        b"GET http://h.test:65536/ HTTP/1.1\r\n\r\n",
    ),
    ("port 0", &[], 400, b"GET http://h.test:0/ HTTP/1.1\r\n\r\n"),
    (
        "a port that is no number",
        &[],
        400,
        b"GET http://h.test:8o/ HTTP/1.1\r\n\r\n",
    ),
    (
        "a port with a sign",
        &[],
        400,
        b"GET http://h.test:+80/ HTTP/1.1\r\n\r\n",
    ),
    ("two at signs", &[], 400, b"GET http://a@evil@o.test/ HTTP/1.1\r\n\r\n"),
    (
        "a backslash in the authority",
        &[],
        400,
        b"GET http://evil\\@o.test/ HTTP/1.1\r\n\r\n",
    ),
    (
        "a percent sign in the host",
        &[],
        400,
        b"GET http://o%2etest/ HTTP/1.1\r\n\r\n",
    ),
    (
        "an unclosed bracket",
        &["H1-19"],
        400,
        b"GET http://[::1/ HTTP/1.1\r\n\r\n",
    ),
    (
        "letters behind a bracket",
        &["H1-19"],
        400,
        b"GET http://[::1]x/ HTTP/1.1\r\n\r\n",
    ),
    (
        "a name in brackets",
        &["H1-19"],
        400,
        b"GET http://[o.test]/ HTTP/1.1\r\n\r\n",
    ),
    (
        "a zone in an IPv6 address",
        &["H1-19"],
        400,
        b"GET http://[fe80::1%25eth0]/ HTTP/1.1\r\n\r\n",
    ),
    ("authority-form for GET", &[], 400, b"GET h.test:80 HTTP/1.1\r\n\r\n"),
    ("a bare name for GET", &[], 400, b"GET o.test HTTP/1.1\r\n\r\n"),
    (
        "asterisk-form for GET",
        &[],
        400,
        b"GET * HTTP/1.1\r\nHost: o.test\r\n\r\n",
    ),
    ("CONNECT to a URL", &[], 400, b"CONNECT http://o.test/ HTTP/1.1\r\n\r\n"),
    (
        "CONNECT to a path",
        &[],
        400,
        b"CONNECT / HTTP/1.1\r\nHost: o.test\r\n\r\n",
    ),
    ("CONNECT to an asterisk", &[], 400, b"CONNECT * HTTP/1.1\r\n\r\n"),
    ("CONNECT to port 0", &[], 400, b"CONNECT h.test:0 HTTP/1.1\r\n\r\n"),
    (
        "CONNECT with a path behind the port",
        &[],
        400,
        b"CONNECT h.test:443/ HTTP/1.1\r\n\r\n",
    ),
    (
        "CONNECT with userinfo",
        &[],
        400,
        b"CONNECT u@h.test:443 HTTP/1.1\r\n\r\n",
    ),
    (
        "CONNECT to an IPv6 address without brackets",
        &["H1-19"],
        400,
        b"CONNECT ::1:443 HTTP/1.1\r\n\r\n",
    ),
];

const CHUNKED_REQUEST: &[u8] = b"POST http://o.test/ HTTP/1.1\r\nHost: o.test\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Bodies that are refused with 400 behind [`CHUNKED_REQUEST`], with 502 behind [`CHUNKED_RESPONSE`].
const REFUSED_CHUNKS: &[(&str, &[&str], &[u8])] = &[
    (
        "a chunk size of 2^64",
        &["H1-04"],
        b"10000000000000000\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "a chunk size of 2^64 - 1",
        &["H1-04"],
        b"ffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "a chunk size of 2^63",
        &["H1-04"],
        b"8000000000000000\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "a chunk size that wraps to 5 in 64 bits",
        &["H1-04"],
        b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "a chunk size of seventeen digits",
        &["H1-04"],
        b"00000000000000005\r\nhello\r\n0\r\n\r\n",
    ),
    ("a negative chunk size", &["H1-04"], b"-1\r\nhello\r\n0\r\n\r\n"),
    ("a chunk size with a plus sign", &["H1-04"], b"+1\r\nh\r\n0\r\n\r\n"),
    ("an empty chunk size", &["H1-04"], b"\r\nhello\r\n0\r\n\r\n"),
    (
        "an extension without a chunk size",
        &["H1-04"],
        b";a=b\r\nhello\r\n0\r\n\r\n",
    ),
    ("a chunk size with a prefix", &["H1-04"], b"0x5\r\nhello\r\n0\r\n\r\n"),
    (
        "a chunk size with an underscore",
        &["H1-04"],
        b"1_0\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "a chunk size that is no hexadecimal number",
        &["H1-04"],
        b"g\r\nhello\r\n0\r\n\r\n",
    ),
    ("a space before a chunk size", &["H1-04"], b" 5\r\nhello\r\n0\r\n\r\n"),
    ("a space after a chunk size", &["H1-04"], b"5 \r\nhello\r\n0\r\n\r\n"),
    (
        "a space before an extension",
        &["H1-04"],
        b"5 ;a=b\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "a tab after the last chunk's size",
        &["H1-04"],
        b"5\r\nhello\r\n0\t\r\n\r\n",
    ),
    ("a bare LF after a chunk size", &[], b"5\nhello\r\n0\r\n\r\n"),
    ("a bare CR after a chunk size", &[], b"5\rhello\r\n0\r\n\r\n"),
    (
        "a second chunk size that is bad",
        &["H1-04"],
        b"5\r\nhello\r\n-1\r\n\r\n",
    ),
    ("a chunk longer than its size", &[], b"5\r\nhello!\r\n0\r\n\r\n"),
    ("a bare LF after chunk data", &[], b"5\r\nhello\n0\r\n\r\n"),
    ("a bare CR after chunk data", &[], b"5\r\nhello\r0\r\n\r\n"),
    ("nothing after chunk data", &[], b"5\r\nhello0\r\n\r\n"),
    (
        "two bytes that are no CRLF after chunk data",
        &[],
        b"5\r\nhelloXX0\r\n\r\n",
    ),
    ("a bare LF in an extension", &[], b"5;a\nhello\r\n0\r\n\r\n"),
    ("a bare CR in an extension", &[], b"5;a\rb\r\nhello\r\n0\r\n\r\n"),
    ("a control byte in an extension", &[], b"5;a=\x01\r\nhello\r\n0\r\n\r\n"),
    ("an extension without a name", &[], b"5;\r\nhello\r\n0\r\n\r\n"),
    (
        "a quoted extension without an end",
        &[],
        b"5;a=\"b\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "a line end within a quoted extension",
        &[],
        b"5;a=\"\r\n0\r\n\r\nGET /hidden HTTP/1.1\r\n\r\n\"\r\n",
    ),
    ("a bare LF ends the trailers", &["H1-02"], b"0\r\nX: a\r\n\n"),
    ("a bare LF ends a trailer", &["H1-02"], b"0\r\nX: a\n\r\n"),
    ("a bare CR in a trailer", &["H1-02"], b"0\r\nX: a\rb\r\n\r\n"),
    ("a bare LF ends the body", &["H1-02"], b"0\r\n\n"),
    ("a bare CR ends the body", &["H1-02"], b"0\r\n\rX"),
    ("a NUL in a trailer", &["H1-02"], b"0\r\nX: \0\r\n\r\n"),
    ("a folded trailer", &["H1-02"], b"0\r\nX: a\r\n b\r\n\r\n"),
    ("a space before a trailer's colon", &["H1-02"], b"0\r\nX : a\r\n\r\n"),
    ("a trailer without a colon", &["H1-02"], b"0\r\nX\r\n\r\n"),
    ("a trailer without a name", &["H1-02"], b"0\r\n: a\r\n\r\n"),
    (
        "a Content-Length in the trailers",
        &["H1-02"],
        b"0\r\nContent-Length: 5\r\n\r\n",
    ),
    (
        "a Transfer-Encoding in the trailers",
        &["H1-02"],
        b"0\r\nX: a\r\ntransfer-encoding: chunked\r\n\r\n",
    ),
    ("a Host in the trailers", &["H1-02"], b"0\r\nHOST: evil\r\n\r\n"),
    (
        "an Authorization in the trailers",
        &["H1-02"],
        b"0\r\nAuthorization: Basic Og==\r\n\r\n",
    ),
    (
        "a request in place of the trailers",
        &["H1-02"],
        b"0\r\nGET /hidden HTTP/1.1\r\nHost: o.test\r\n\r\n",
    ),
];

const FORWARDED: &[Forwarded] = &[
    (
        "a plain request",
        &[],
        b"GET http://o.test/a?b=c HTTP/1.1\r\nHost: o.test\r\nUser-Agent: x\r\nAccept: */*\r\n\r\n",
        b"GET /a?b=c HTTP/1.1\r\nHost: o.test\r\nUser-Agent: x\r\nAccept: */*\r\n\r\n",
    ),
    (
        "two empty lines first",
        &[],
        b"\r\n\r\nGET http://o.test/ HTTP/1.1\r\nHost: o.test\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: o.test\r\n\r\n",
    ),
    (
        "a URL without a path",
        &[],
        b"GET http://o.test HTTP/1.1\r\nHost: o.test\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: o.test\r\n\r\n",
    ),
    (
        "a URL with a query and no path",
        &[],
        b"GET http://o.test?a HTTP/1.1\r\nHost: o.test\r\n\r\n",
        b"GET /?a HTTP/1.1\r\nHost: o.test\r\n\r\n",
    ),
    (
        "OPTIONS on a URL without a path",
        &["H1-01"],
        b"OPTIONS http://o.test HTTP/1.1\r\nHost: o.test\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: o.test\r\n\r\n",
    ),
    (
        "OPTIONS on a URL with a path",
        &["H1-01"],
        b"OPTIONS http://o.test/ HTTP/1.1\r\nHost: o.test\r\n\r\n",
        b"OPTIONS / HTTP/1.1\r\nHost: o.test\r\n\r\n",
    ),
    (
        "OPTIONS on a URL with a query and no path",
        &["H1-01"],
        b"OPTIONS http://o.test?a HTTP/1.1\r\nHost: o.test\r\n\r\n",
        b"OPTIONS /?a HTTP/1.1\r\nHost: o.test\r\n\r\n",
    ),
    (
        "what browsers leave unescaped",
        &[],
        b"GET http://o.test/a|b?q={\"x\":[1,<2>]}^`\\ HTTP/1.1\r\nHost: o.test\r\n\r\n",
        b"GET /a|b?q={\"x\":[1,<2>]}^`\\ HTTP/1.1\r\nHost: o.test\r\n\r\n",
    ),
    (
        "a scheme in upper case",
        &[],
        b"GET HTTP://o.test/ HTTP/1.1\r\nHost: o.test\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: o.test\r\n\r\n",
    ),
    (
        "userinfo is not passed on",
        &[],
        b"GET http://user:pass@o.test/ HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: o.test\r\n\r\n",
    ),
    ("no Host field", &[], b"GET http://o.test/ HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: o.test\r\n\r\n"),
    (
        "an empty Host field counts as absent",
        &["H1-18"],
        b"GET http://o.test/ HTTP/1.1\r\nX: a\r\nHost:\r\nY: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: o.test\r\nX: a\r\nY: b\r\n\r\n",
    ),
    (
        "another Host than the URL's stays",
        &["H1-22"],
        b"GET http://o.test/ HTTP/1.1\r\nX: a\r\nHost: other.test:81\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: a\r\nHost: other.test:81\r\n\r\n",
    ),
    (
        "an IPv6 address in Host",
        &["H1-19"],
        b"GET http://o.test/ HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n",
    ),
    (
        "hop-by-hop fields stay here",
        &["H1-08"],
        b"GET http://o.test/ HTTP/1.1\r\nHost: o.test\r\nProxy-Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n\
          A: 1\r\nTE: gzip\r\nProxy-Authorization: Basic YTpi\r\nConnection: keep-alive\r\nB: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: o.test\r\nA: 1\r\nB: 2\r\n\r\n",
    ),
    (
        "Connection names more fields, on two lines, in any case",
        &["H1-08"],
        b"GET http://o.test/ HTTP/1.1\r\nX-Foo: 1\r\nHost: o.test\r\nConnection: Keep-Alive, x-FOO\r\nX-Bar: 2\r\n\
          connection: CLOSE , X-Baz,, X-None\r\nX-Baz: 3\r\nx-foo: 4\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: o.test\r\nX-Bar: 2\r\n\r\n",
    ),
    (
        "Connection cannot name what the message means",
        &["H1-08"],
        b"POST http://o.test/ HTTP/1.1\r\nHost: o.test\r\nConnection: host, content-length, authorization, cookie\r\n\
          Authorization: Basic YTpi\r\nCookie: a=b\r\nContent-Length: 5\r\n\r\nhello",
        b"POST / HTTP/1.1\r\nHost: o.test\r\nAuthorization: Basic YTpi\r\nCookie: a=b\r\nContent-Length: 5\r\n\r\nhello",
    ),
    (
        "Connection names Transfer-Encoding",
        &["H1-08"],
        b"POST http://o.test/ HTTP/1.1\r\nHost: o.test\r\nConnection: transfer-encoding\r\n\
          Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: o.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "several fields of one name stay, in order",
        &["H1-07"],
        b"GET http://o.test/ HTTP/1.1\r\nHost: o.test\r\nVia: 1.1 a\r\nX: y\r\nvia: 1.1 b\r\nVIA: 1.0 c\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: o.test\r\nVia: 1.1 a\r\nX: y\r\nvia: 1.1 b\r\nVIA: 1.0 c\r\n\r\n",
    ),
    (
        "values stay byte for byte",
        &[],
        b"GET http://o.test/ HTTP/1.1\r\nHost: o.test\r\nA:  \t x\ty \r\nB:\r\nC:c\r\nD: \xe4\xff\r\n!#$%&'*+-.^_`|~0: :\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: o.test\r\nA:  \t x\ty \r\nB:\r\nC:c\r\nD: \xe4\xff\r\n!#$%&'*+-.^_`|~0: :\r\n\r\n",
    ),
    (
        "a body by length, Host last",
        &[],
        b"POST http://o.test/ HTTP/1.1\r\nContent-Length: 5\r\nContent-Type: text/plain\r\nHost: o.test\r\n\r\nhello",
        b"POST / HTTP/1.1\r\nContent-Type: text/plain\r\nHost: o.test\r\nContent-Length: 5\r\n\r\nhello",
    ),
    (
        "a length with zeros before it is written anew",
        &[],
        b"POST http://o.test/ HTTP/1.1\r\nHost: o.test\r\nContent-Length: 0005\r\n\r\nhello",
        b"POST / HTTP/1.1\r\nHost: o.test\r\nContent-Length: 5\r\n\r\nhello",
    ),
    (
        "an empty body",
        &[],
        b"POST http://o.test/ HTTP/1.1\r\nHost: o.test\r\nContent-Length: 0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: o.test\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "GET with a body",
        &[],
        b"GET http://o.test/ HTTP/1.1\r\nHost: o.test\r\nContent-Length: 5\r\n\r\nhello",
        b"GET / HTTP/1.1\r\nHost: o.test\r\nContent-Length: 5\r\n\r\nhello",
    ),
    (
        "chunks with extensions and trailers",
        &["H1-02", "H1-03"],
        b"POST http://o.test/ HTTP/1.1\r\nHost: o.test\r\nTransfer-Encoding: CHUNKED\r\nTrailer: X, Y\r\n\r\n\
          5;a;b=c;d=\"e;\\\"\"\r\nhello\r\n00A\r\n0123456789\r\n0;last\r\nX: 1\r\nY:\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: o.test\r\nTrailer: X, Y\r\nTransfer-Encoding: chunked\r\n\r\n\
          5;a;b=c;d=\"e;\\\"\"\r\nhello\r\n00A\r\n0123456789\r\n0;last\r\nX: 1\r\nY:\r\n\r\n",
    ),
    (
        "chunk data that look like a request",
        &["H1-03"],
        b"POST http://o.test/ HTTP/1.1\r\nHost: o.test\r\nTransfer-Encoding: chunked\r\n\r\n\
          19\r\n0\r\n\r\nGET /x HTTP/1.1\r\n\r\n0\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: o.test\r\nTransfer-Encoding: chunked\r\n\r\n\
          19\r\n0\r\n\r\nGET /x HTTP/1.1\r\n\r\n0\r\n0\r\n\r\n",
    ),
    (
        "a body that looks like a request, with Negotiate",
        &["H1-24"],
        b"POST http://o.test/ HTTP/1.1\r\nHost: o.test\r\nAuthorization: Negotiate YII=\r\nContent-Length: 20\r\n\r\n\
          GET /x HTTP/1.1\r\n\r\n\n",
        b"POST / HTTP/1.1\r\nHost: o.test\r\nAuthorization: Negotiate YII=\r\nContent-Length: 20\r\n\r\n\
          GET /x HTTP/1.1\r\n\r\n\n",
    ),
    (
        "TE trailers goes on, other codings do not",
        &["H1-02"],
        b"GET http://o.test/ HTTP/1.1\r\nHost: o.test\r\nTE: gzip, trailers\r\nConnection: TE\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: o.test\r\nConnection: TE\r\nTE: trailers\r\n\r\n",
    ),
    (
        "Upgrade without its Connection option stays here",
        &[],
        b"GET http://o.test/ HTTP/1.1\r\nHost: o.test\r\nUpgrade: websocket\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: o.test\r\n\r\n",
    ),
    (
        "an h2c upgrade stays here",
        &[],
        b"GET http://o.test/ HTTP/1.1\r\nHost: o.test\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\
          Connection: Upgrade, HTTP2-Settings\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: o.test\r\n\r\n",
    ),
    (
        "an HTTP/1.0 request goes on as HTTP/1.1",
        &[],
        b"POST http://o.test/ HTTP/1.0\r\nHost: o.test\r\nConnection: keep-alive\r\nExpect: 100-continue\r\n\
          Content-Length: 5\r\n\r\nhello",
        b"POST / HTTP/1.1\r\nHost: o.test\r\nContent-Length: 5\r\n\r\nhello",
    ),
    (
        "an extension method",
        &[],
        b"get http://o.test/ HTTP/1.1\r\nHost: o.test\r\n\r\n",
        b"get / HTTP/1.1\r\nHost: o.test\r\n\r\n",
    ),
];

/// Requests at the limits of what is held.
fn large_requests() -> Vec<RequestCase> {
    let with_fields =
        |lines: String| format!("GET http://o.test/ HTTP/1.1\r\nHost: o.test\r\n{lines}\r\n").into_bytes();
    let forwarded = |lines: String| format!("GET / HTTP/1.1\r\nHost: o.test\r\n{lines}\r\n").into_bytes();
    let refuse = |name, client| RequestCase {
        name,
        covers: &[],
        client,
        expect: RequestExpect::Refuse(431),
    };
    let many = |count: usize| (0..count).map(|n| format!("X-{n}: y\r\n")).collect::<String>();
    let chunks = |body: String| [CHUNKED_REQUEST, body.as_bytes()].concat();
    let bad_body = |name, body| RequestCase {
        name,
        covers: &["H1-02"],
        client: chunks(body),
        expect: RequestExpect::Refuse(400),
    };
    vec![
        refuse(
            "a head of more than 64 KiB",
            with_fields(format!("X: {}\r\n", "y".repeat(65536))),
        ),
        refuse(
            "a target of more than 64 KiB",
            format!("GET http://o.test/{}", "y".repeat(65536)).into_bytes(),
        ),
        refuse("more than 512 fields", with_fields(many(512))),
        RequestCase {
            name: "500 fields",
            covers: &[],
            client: with_fields(many(500)),
            expect: RequestExpect::Forward(forwarded(many(500))),
        },
        bad_body(
            "a chunk extension of more than 8192 bytes",
            format!("5;a={}\r\nhello\r\n0\r\n\r\n", "y".repeat(8192)),
        ),
        bad_body(
            "a trailer of more than 8192 bytes",
            format!("0\r\nX: {}\r\n\r\n", "y".repeat(8192)),
        ),
        bad_body(
            "trailers of more than 64 KiB",
            format!("0\r\n{}\r\n", format!("X: {}\r\n", "y".repeat(8000)).repeat(9)),
        ),
    ]
}

/// All cases of responses.
pub fn responses() -> Vec<ResponseCase> {
    let refused = REFUSED_RESPONSES
        .iter()
        .map(|&(name, covers, origin)| (name, covers, origin.to_vec()));
    let chunks = REFUSED_CHUNKS
        .iter()
        .map(|&(name, covers, body)| (name, covers, [CHUNKED_RESPONSE, body].concat()));
    let bad = refused.chain(chunks).map(|(name, covers, origin)| ResponseCase {
        name,
        covers,
        method: "GET",
        origin,
        closes: false,
        expect: ResponseExpect::BadGateway,
    });
    let good = FORWARDED_RESPONSES
        .iter()
        .map(|&(name, covers, method, end, origin, client)| ResponseCase {
            name,
            covers,
            method,
            origin: origin.to_vec(),
            closes: matches!(end, End::Close),
            expect: ResponseExpect::Forward {
                client: client.to_vec(),
                keeps_client: matches!(end, End::KeepBoth | End::KeepClient),
                keeps_upstream: matches!(end, End::KeepBoth),
            },
        });
    bad.chain(good).collect()
}

const CHUNKED_RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

const REFUSED_RESPONSES: &[(&str, &[&str], &[u8])] = &[
    ("another protocol answers", &[], b"220 mail.test ESMTP\r\n"),
    (
        "a response in HTTP/2.0",
        &[],
        b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a status of two digits",
        &[],
        b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a status of four digits",
        &[],
        b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a status below 100",
        &[],
        b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "an empty line before the response",
        &[],
        b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a control byte in the reason",
        &[],
        b"HTTP/1.1 200 O\x01K\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a bare CR in the reason",
        &[],
        b"HTTP/1.1 200 O\rK\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a bare CR in a value of a response",
        &[],
        b"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a NUL in a value of a response",
        &[],
        b"HTTP/1.1 200 OK\r\nX: \0\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a line without a colon in a response",
        &[],
        b"HTTP/1.1 200 OK\r\nX\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a space in a field name of a response",
        &[],
        b"HTTP/1.1 200 OK\r\nX Y: a\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "whitespace before the first field of a response",
        &[],
        b"HTTP/1.1 200 OK\r\n X: a\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a signed length in a response",
        &[],
        b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
    ),
    (
        "an empty length in a response",
        &[],
        b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nhello",
    ),
    (
        "two lengths that differ",
        &[],
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    ),
    (
        "a list of lengths that differ",
        &[],
        b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nhello",
    ),
    (
        "chunked twice in a response",
        &[],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "an empty Transfer-Encoding in a response",
        &[],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\n",
    ),
];

/// What becomes of the connections.
#[derive(Clone, Copy)]
enum End {
    /// The origin closes, and so does the proxy.
    Close,
    /// The proxy closes both.
    CloseBoth,
    KeepBoth,
    KeepClient,
}

type ForwardedResponse = (
    &'static str,
    &'static [&'static str],
    &'static str,
    End,
    &'static [u8],
    &'static [u8],
);

const FORWARDED_RESPONSES: &[ForwardedResponse] = &[
    (
        "a plain response",
        &[],
        "GET",
        End::KeepBoth,
        b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 5\r\nX: y\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nServer: x\r\nX: y\r\nContent-Length: 5\r\n\r\nhello",
    ),
    (
        "a chunked response with trailers",
        &["H1-02"],
        "GET",
        End::KeepBoth,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: A\r\n\r\n5\r\nhello\r\n0\r\nA: 1\r\nB: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTrailer: A\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: 1\r\nB: 2\r\n\r\n",
    ),
    (
        "HEAD with a length",
        &["H1-09"],
        "HEAD",
        End::KeepBoth,
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
    ),
    (
        "HEAD without a length",
        &["H1-09"],
        "HEAD",
        End::KeepBoth,
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
    ),
    (
        "HEAD with chunks announced",
        &["H1-09"],
        "HEAD",
        End::KeepBoth,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
    ),
    (
        "204 with codings",
        &["H1-09"],
        "GET",
        End::KeepBoth,
        b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
    ),
    (
        "204 with a length",
        &["H1-09"],
        "GET",
        End::KeepBoth,
        b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
    ),
    (
        "304 with a length",
        &["H1-09"],
        "GET",
        End::KeepBoth,
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: \"a\"\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 5\r\n\r\n",
    ),
    (
        "304 without a length",
        &["H1-09"],
        "GET",
        End::KeepBoth,
        b"HTTP/1.1 304 Not Modified\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\n\r\n",
    ),
    (
        "an interim response with a length",
        &["H1-09"],
        "GET",
        End::KeepBoth,
        b"HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    ),
    (
        "Transfer-Encoding beats Content-Length",
        &[],
        "GET",
        End::CloseBoth,
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "a Transfer-Encoding that does not end in chunked",
        &["H1-06"],
        "GET",
        End::Close,
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: gzip\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nConnection: close\r\n\r\nhello",
    ),
    (
        "a coding after chunked",
        &["H1-06"],
        "GET",
        End::Close,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\nContent-Length: 3\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\nConnection: close\r\n\r\nhello",
    ),
    (
        "a coding beneath chunked",
        &[],
        "GET",
        End::CloseBoth,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nX: y\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nX: y\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n",
    ),
    (
        "Transfer-Encoding in an HTTP/1.0 response",
        &[],
        "GET",
        End::CloseBoth,
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "a body that ends by close",
        &["H1-10"],
        "GET",
        End::Close,
        b"HTTP/1.1 200 OK\r\nX: y\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nX: y\r\nConnection: close\r\n\r\nhello",
    ),
    (
        "an HTTP/1.0 response",
        &[],
        "GET",
        End::KeepClient,
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    ),
    (
        "an HTTP/1.0 response that keeps its connection",
        &[],
        "GET",
        End::KeepBoth,
        b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    ),
    (
        "a response that closes its connection",
        &["H1-08"],
        "GET",
        End::KeepClient,
        b"HTTP/1.1 200 OK\r\nX-Foo: a\r\nContent-Length: 5\r\nConnection: X-Foo\r\nConnection: CLOSE\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    ),
    (
        "the same length twice in a response",
        &[],
        "GET",
        End::KeepBoth,
        b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\nContent-Length: 05\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    ),
    (
        "whitespace before a colon is removed",
        &[],
        "GET",
        End::KeepBoth,
        b"HTTP/1.1 200 OK\r\nX \t: y\r\nContent-Length : 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 5\r\n\r\nhello",
    ),
    (
        "a folded line becomes one",
        &[],
        "GET",
        End::KeepBoth,
        b"HTTP/1.1 200 OK\r\nX: a  \r\n\t b\r\n  c\r\nY:\r\n d\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nX: a b c\r\nY: d\r\nContent-Length: 5\r\n\r\nhello",
    ),
    (
        "bare LF at line ends becomes CRLF",
        &[],
        "GET",
        End::KeepBoth,
        b"HTTP/1.1 200 OK\nX: y\nContent-Length: 5\n\nhello",
        b"HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 5\r\n\r\nhello",
    ),
    (
        "several Set-Cookie fields stay, in order",
        &["H1-07"],
        "GET",
        End::KeepBoth,
        b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nVia: 1.1 x\r\nset-cookie: b=2\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nVia: 1.1 x\r\nset-cookie: b=2\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "hop-by-hop fields of a response stay here",
        &["H1-08"],
        "GET",
        End::KeepBoth,
        b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\
          Proxy-Connection: keep-alive\r\nA: 1\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: 1\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a reason that is not ASCII",
        &[],
        "GET",
        End::KeepBoth,
        b"HTTP/1.1 404 Pas trouv\xe9\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 404 Pas trouv\xe9\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "no reason",
        &[],
        "GET",
        End::KeepBoth,
        b"HTTP/1.1 299\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 299 \r\nContent-Length: 0\r\n\r\n",
    ),
];
