//! The HTTP heads that are sent back.

use sluice_http1::reason;
use sluice_icap::{PartError, end_to_end};

use crate::config::HeaderLine;

/// A head with some lines replaced or added. With `length` the body is of so many bytes.
///
/// # Errors
/// [`PartError`] if it is no HTTP head.
pub(crate) fn changed(head: &[u8], lines: &[HeaderLine], length: Option<usize>) -> Result<Vec<u8>, PartError> {
    let mut gone: Vec<&str> = lines.iter().map(|line| line.name.as_str()).collect();
    if length.is_some() {
        gone.extend(["content-length", "content-encoding", "content-md5", "etag", "digest"]);
    }
    let mut out = Vec::new();
    end_to_end(head, &gone, &mut out)?;
    let end = out
        .iter()
        .rposition(|&b| b != b'\r' && b != b'\n')
        .map_or(0, |at| at + 1);
    out.truncate(end);
    out.extend_from_slice(b"\r\n");
    for line in lines {
        out.extend_from_slice(&line.line);
    }
    if let Some(length) = length {
        out.extend_from_slice(format!("Content-Length: {length}\r\n").as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    Ok(out)
}

/// The head of a page.
pub(crate) fn page(status: u16, length: usize) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status} {}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {length}\r\n\
         Cache-Control: no-store\r\n\r\n",
        reason(status)
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_replace_those_of_the_same_name() {
        let lines = [HeaderLine {
            name: "x-a".into(),
            line: b"X-A: new\r\n".to_vec(),
        }];
        let head = b"GET / HTTP/1.1\r\nx-a: 1\r\nHost: h\r\nX-A: 2\r\nContent-Length: 9\r\n\r\n";
        let expected = &b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\nX-A: new\r\n\r\n"[..];
        assert_eq!(changed(head, &lines, None).unwrap(), expected);
        let expected = &b"GET / HTTP/1.1\r\nHost: h\r\nX-A: new\r\nContent-Length: 3\r\n\r\n"[..];
        assert_eq!(changed(head, &lines, Some(3)).unwrap(), expected);
    }
}
