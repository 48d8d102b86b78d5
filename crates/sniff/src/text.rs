//! Protocols of lines.

use crate::line::{after, either, first, holds};
use crate::{Limits, Protocol, Verdict};

/// The longest method that is taken for one; RFC 9110 knows none of more than 16 letters.
const METHOD: usize = 32;
/// Empty lines before a request (RFC 9112 §2.2), bytes.
const EMPTY_LINES: usize = 4;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes that may stand before and behind a URI until it is clear what a request is of.
pub(crate) const AROUND_URI: usize = EMPTY_LINES + METHOD + 1 + " HTTP/1.".len() + PREFACE.len();
/// The longest first line of servers without a limit of their own: POP3 and NNTP allow 512 bytes.
pub(crate) const GREETING: usize = 512;

/// HTTP/1 (RFC 9112 §3), or the preface of HTTP/2 (RFC 9113 §3.4).
pub(crate) fn http(bytes: &[u8], limits: &Limits) -> Verdict {
    match after(bytes, PREFACE) {
        Ok(_) => return Verdict::Is(Protocol::Http2),
        // `PRI` could be an extension method of HTTP/1 too; what tells them apart comes with the version.
        Err(Verdict::More) if bytes.len() > 4 => return Verdict::More,
        Err(_) => {}
    }
    match request(bytes, b"HTTP/1.", Protocol::Http1, limits) {
        Verdict::Not => either(broken_request(bytes, limits)),
        verdict => verdict,
    }
}

/// A line that is no good request, but one that servers take for it all the same (RFC 9112 §3: "lenient parsing"), with
/// white space in more places and any version or none: it must not be a way past whoever looks into HTTP.
fn broken_request(bytes: &[u8], limits: &Limits) -> Result<Verdict, Verdict> {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let skipped = bytes
        .iter()
        .take_while(|byte| is_space(byte) || matches!(byte, b'\r' | b'\n'))
        .count();
    let limit = limits.http_uri.checked_sub(skipped).ok_or(Verdict::Not)?;
    let bytes = bytes.get(skipped..).unwrap_or_default();
    let method = bytes.iter().take_while(|byte| is_token(**byte)).count();
    match bytes.get(method) {
        None if method <= METHOD => return Err(Verdict::More),
        Some(byte) if is_space(byte) && (1..=METHOD).contains(&method) => {}
        _ => return Err(Verdict::Not),
    }
    let within = bytes.get(..limit).unwrap_or(bytes);
    let names_version = |line: &[u8]| {
        let mut parts = line.windows(b" HTTP/".len());
        parts.any(|part| {
            part.split_first()
                .is_some_and(|(space, rest)| is_space(space) && rest.eq_ignore_ascii_case(b"HTTP/"))
        })
    };
    let line = match first(bytes, limit) {
        Ok(line) => line,
        Err(_) if names_version(within.split(|&byte| byte == b'\n').next().unwrap_or_default()) => within,
        Err(verdict) => return Err(verdict),
    };
    // HTTP/0.9 knew no version.
    let (method, rest) = line.split_at_checked(method).unwrap_or((line, &[]));
    let is_simple = method == b"GET" && rest.trim_ascii().starts_with(b"/");
    Ok(if names_version(line) || is_simple {
        Verdict::Is(Protocol::Http1)
    } else {
        Verdict::Not
    })
}

/// RTSP (RFC 7826 §7.1, RFC 2326 §6.1).
pub(crate) fn rtsp(bytes: &[u8], limits: &Limits) -> Verdict {
    request(bytes, b"RTSP/", Protocol::Rtsp, limits)
}

/// `METHOD URI VERSION`, where the version begins with `version`.
fn request(bytes: &[u8], version: &[u8], protocol: Protocol, limits: &Limits) -> Verdict {
    let skipped = bytes
        .iter()
        .take(EMPTY_LINES)
        .take_while(|byte| matches!(byte, b'\r' | b'\n'))
        .count();
    let line = bytes.get(skipped..).unwrap_or_default();
    let method = line.iter().take_while(|byte| is_token(**byte)).count();
    if method > METHOD {
        return Verdict::Not;
    }
    let rest = match line.get(method..) {
        None | Some([]) => return Verdict::More,
        Some([b' ', rest @ ..]) if method > 0 => rest,
        Some(_) => return Verdict::Not,
    };
    let uri = rest.iter().take_while(|byte| is_visible(**byte)).count();
    if uri > limits.http_uri {
        return Verdict::Not;
    }
    match rest.get(uri..) {
        None | Some([]) => Verdict::More,
        Some([b' ', rest @ ..]) if uri > 0 => either(after(rest, version).map(|_| Verdict::Is(protocol))),
        Some(_) => Verdict::Not,
    }
}

/// A character of a token (RFC 9110 §5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What is taken for a part of a URI: servers see bytes above ASCII too.
fn is_visible(byte: u8) -> bool {
    byte > b' ' && byte != 0x7f
}

/// The identification of either side of SSH (RFC 4253 §4.2, §5.1).
pub(crate) fn ssh(bytes: &[u8]) -> Verdict {
    let versions: [(&[u8], Protocol); 3] = [
        (b"SSH-2.0-", Protocol::Ssh),
        (b"SSH-1.99-", Protocol::Ssh),
        (b"SSH-1.", Protocol::SshLegacy),
    ];
    let mut open = Verdict::Not;
    for (start, protocol) in versions {
        match after(bytes, start) {
            // `SSH-1.9` may still become 1.99.
            Ok(_) if open == Verdict::More => return Verdict::More,
            Ok(_) => return Verdict::Is(protocol),
            Err(Verdict::More) => open = Verdict::More,
            Err(_) => {}
        }
    }
    open
}

/// The first frame of a STOMP client (STOMP 1.2).
pub(crate) fn stomp(bytes: &[u8]) -> Verdict {
    let starts: [&[u8]; 4] = [b"CONNECT\n", b"CONNECT\r\n", b"STOMP\n", b"STOMP\r\n"];
    let mut open = Verdict::Not;
    for start in starts {
        match after(bytes, start) {
            Ok(_) => return Verdict::Is(Protocol::Stomp),
            Err(Verdict::More) => open = Verdict::More,
            Err(_) => {}
        }
    }
    open
}

/// A reply of three digits (RFC 959 §4.2, RFC 5321 §4.2), one of `codes`: the text behind it on the first line.
fn reply<'a>(bytes: &'a [u8], codes: &[&[u8; 3]], limit: usize) -> Result<&'a [u8], Verdict> {
    if !codes.iter().any(|code| code.iter().zip(bytes).all(|(a, b)| a == b)) {
        return Err(Verdict::Not);
    }
    match bytes.get(3) {
        None | Some(b' ' | b'-' | b'\r' | b'\n') => {}
        Some(_) => return Err(Verdict::Not),
    }
    Ok(first(bytes, limit)?.get(4..).unwrap_or_default())
}

/// The greeting of an FTP server where one is expected (RFC 959 §5.4).
pub(crate) fn ftp(bytes: &[u8], limits: &Limits) -> Verdict {
    either(reply(bytes, &[b"220", b"120", b"421"], limits.ftp_greeting).map(|_| Verdict::Is(Protocol::Ftp)))
}

/// The greeting of an SMTP server where one is expected (RFC 5321 §4.3.2).
pub(crate) fn smtp(bytes: &[u8], limits: &Limits) -> Verdict {
    either(reply(bytes, &[b"220", b"554", b"421"], limits.ftp_greeting).map(|_| Verdict::Is(Protocol::Smtp)))
}

/// The greeting of an FTP or SMTP server on any port: it has to say which.
pub(crate) fn ftp_or_smtp(bytes: &[u8], limits: &Limits) -> Verdict {
    either(reply(bytes, &[b"220"], limits.ftp_greeting).map(|text| {
        if holds(text, b"SMTP") {
            Verdict::Is(Protocol::Smtp)
        } else if holds(text, b"FTP") {
            Verdict::Is(Protocol::Ftp)
        } else {
            Verdict::Not
        }
    }))
}

/// The greeting of an NNTP server (RFC 3977 §5.1).
pub(crate) fn nntp(bytes: &[u8], protocol: Protocol) -> Verdict {
    let codes: [&[u8; 3]; 4] = [b"200", b"201", b"400", b"502"];
    either(reply(bytes, &codes, GREETING).map(|_| Verdict::Is(protocol)))
}

/// The greeting of a POP3 server (RFC 1939 §4).
pub(crate) fn pop3(bytes: &[u8]) -> Verdict {
    let rest = match after(bytes, b"+OK") {
        Ok(rest) => rest,
        Err(verdict) => return verdict,
    };
    match rest.first() {
        None => Verdict::More,
        Some(b' ' | b'\r' | b'\n') => either(first(bytes, GREETING).map(|_| Verdict::Is(Protocol::Pop3))),
        Some(_) => Verdict::Not,
    }
}

/// The greeting of an IMAP server (RFC 9051 §7.1); its words are in any case.
pub(crate) fn imap(bytes: &[u8], limits: &Limits) -> Verdict {
    let rest = match after(bytes, b"* ") {
        Ok(rest) => rest,
        Err(verdict) => return verdict,
    };
    let words: [&[u8]; 3] = [b"OK", b"PREAUTH", b"BYE"];
    let possible = |word: &&&[u8]| {
        let n = word.len().min(rest.len());
        rest.iter().zip(**word).take(n).all(|(a, b)| a.eq_ignore_ascii_case(b))
    };
    let Some(word) = words.iter().find(possible) else {
        return Verdict::Not;
    };
    match rest.get(word.len()) {
        None | Some(b' ' | b'\r' | b'\n') => {
            either(first(bytes, limits.imap_greeting).map(|_| Verdict::Is(Protocol::Imap)))
        }
        Some(_) => Verdict::Not,
    }
}

/// The `INFO` of a NATS server: a JSON object on one line.
pub(crate) fn nats(bytes: &[u8], limits: &Limits) -> Verdict {
    let rest = match after(bytes, b"INFO ") {
        Ok(rest) => rest,
        Err(verdict) => return verdict,
    };
    match rest.iter().find(|byte| !matches!(byte, b' ' | b'\t')) {
        None if bytes.len() >= limits.nats_info => return Verdict::Not,
        None => return Verdict::More,
        Some(b'{') => {}
        Some(_) => return Verdict::Not,
    }
    either(first(bytes, limits.nats_info).map(|line| {
        if line.trim_ascii_end().ends_with(b"}") {
            Verdict::Is(Protocol::Nats)
        } else {
            Verdict::Not
        }
    }))
}
