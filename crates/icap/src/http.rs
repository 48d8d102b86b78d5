//! HTTP heads as parts of ICAP messages (RFC 3507 §4.4.2).

/// Names of fields that belong to one hop, whether or not `Connection` says so.
const HOP_BY_HOP: [&[u8]; 8] = [
    b"connection",
    b"keep-alive",
    b"proxy-authenticate",
    b"proxy-authorization",
    b"proxy-connection",
    b"te",
    b"transfer-encoding",
    b"upgrade",
];

/// Fields that `Connection` cannot make hop-by-hop: without them the message would be another one.
const PROTECTED: [&[u8]; 5] = [b"content-length", b"host", b"cookie", b"authorization", b"content-type"];

/// The most options of `Connection` that are minded.
const MAX_OPTIONS: usize = 32;

/// Appends an HTTP head without the fields that belong to one hop, and without those named in `also` (in lower case).
///
/// `head` is a start line, fields, and the empty line. For heads that go into an ICAP message, and for those that come
/// out of one, whose body is in ICAP's chunks whatever they say. Everything else goes on byte by byte, line ends included:
/// the HTTP parser judges it.
///
/// # Errors
/// [`PartError`] if it has not the shape of a head.
pub fn end_to_end(head: &[u8], also: &[&str], out: &mut Vec<u8>) -> Result<(), PartError> {
    if !head.ends_with(b"\n\r\n") && !head.ends_with(b"\n\n") {
        return Err(PartError::Unfinished);
    }
    let mut named: Vec<&[u8]> = Vec::new();
    let fields = || head.split_inclusive(|&b| b == b'\n').skip(1);
    for (name, value) in fields().filter_map(split) {
        if name.eq_ignore_ascii_case(b"connection") {
            let options = value.split(|&b| b == b',').map(<[u8]>::trim_ascii);
            for option in options.filter(|option| !is_any(option, &PROTECTED)) {
                if named.len() == MAX_OPTIONS {
                    return Err(PartError::Connection);
                }
                named.push(option);
            }
        }
    }
    let mut lines = head.split_inclusive(|&b| b == b'\n');
    out.reserve(head.len());
    out.extend_from_slice(lines.next().unwrap_or_default());
    let mut left_out = false;
    let mut ended = false;
    for line in lines {
        if ended {
            return Err(PartError::Two);
        }
        ended = matches!(line, b"\r\n" | b"\n");
        let is_folded = matches!(line.first(), Some(b' ' | b'\t'));
        if !is_folded {
            left_out = split(line).is_some_and(|(name, _)| {
                is_any(name, &HOP_BY_HOP)
                    || is_any(name, &named)
                    || also.iter().any(|also| name.eq_ignore_ascii_case(also.as_bytes()))
            });
        }
        if !left_out || ended {
            out.extend_from_slice(line);
        }
    }
    Ok(())
}

/// Name and value of a field's line.
fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = memchr::memchr(b':', line)?;
    let (name, value) = line.split_at_checked(colon)?;
    Some((name.trim_ascii(), value.get(1..)?.trim_ascii()))
}

fn is_any(name: &[u8], names: &[&[u8]]) -> bool {
    names.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// Why bytes are no HTTP head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartError {
    /// `Connection` names too many fields.
    #[error("too many options in the Connection field of an encapsulated head")]
    Connection,
    /// More follows its empty line.
    #[error("an encapsulated head goes on behind its end")]
    Two,
    /// It does not end in an empty line.
    #[error("an encapsulated head without an end")]
    Unfinished,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cleaned(head: &str, also: &[&str]) -> Result<String, PartError> {
        let mut out = Vec::new();
        end_to_end(head.as_bytes(), also, &mut out).map(|()| String::from_utf8(out).unwrap())
    }

    #[test]
    fn fields_of_one_hop_stay_behind() {
        let head = "GET / HTTP/1.1\r\nHost: a\r\nConnection: X-Mine, close\r\nTE: trailers\r\nx-mine: 1\r\nX-Other: 2\r\n\
                    Transfer-Encoding: chunked\r\nUpgrade: h2c\r\nVia: 1.1 b\r\n\r\n";
        assert_eq!(
            cleaned(head, &[]).unwrap(),
            "GET / HTTP/1.1\r\nHost: a\r\nX-Other: 2\r\nVia: 1.1 b\r\n\r\n"
        );
        assert_eq!(
            cleaned(head, &["via"]).unwrap(),
            "GET / HTTP/1.1\r\nHost: a\r\nX-Other: 2\r\n\r\n"
        );
    }

    #[test]
    fn connection_cannot_take_away_what_makes_the_message() {
        let head = "GET / HTTP/1.1\r\nHost: a\r\nConnection: host, content-length\r\nContent-Length: 1\r\n\r\n";
        assert_eq!(
            cleaned(head, &[]).unwrap(),
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n"
        );
    }

    #[test]
    fn a_folded_line_goes_with_its_field() {
        let head = "HTTP/1.1 200 OK\r\nKeep-Alive: a\r\n b\r\nX: c\r\n d\r\n\r\n";
        assert_eq!(cleaned(head, &[]).unwrap(), "HTTP/1.1 200 OK\r\nX: c\r\n d\r\n\r\n");
    }

    #[test]
    fn what_is_no_single_head_is_refused() {
        assert_eq!(
            cleaned("GET / HTTP/1.1\r\nHost: a\r\n", &[]),
            Err(PartError::Unfinished)
        );
        assert_eq!(cleaned("", &[]), Err(PartError::Unfinished));
        assert_eq!(
            cleaned("GET / HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n", &[]),
            Err(PartError::Two)
        );
        let many = format!("GET / HTTP/1.1\r\nConnection: {}\r\n\r\n", "a,".repeat(40));
        assert_eq!(cleaned(&many, &[]), Err(PartError::Connection));
    }
}
