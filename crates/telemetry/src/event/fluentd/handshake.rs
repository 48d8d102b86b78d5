//! The handshake of the Forward protocol: HELO, PING, PONG with a shared key and, if asked for, a user.

use std::io::{self, Read as _, Write as _};
use std::time::{Duration, Instant};

use rmp::Marker;
use rmp::encode;
use sha2::{Digest as _, Sha512};

use super::stream::Stream;

/// Longest message taken from the collector.
const MAX_MESSAGE: usize = 16 * 1024;
/// Deepest nesting taken from the collector.
const MAX_DEPTH: usize = 4;

/// What this side proves itself with.
pub(super) struct Credentials {
    pub(super) shared_key: String,
    pub(super) username: String,
    pub(super) password: String,
    pub(super) hostname: String,
}

/// Why the handshake failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    #[error("the collector does not know the shared key: its digest is wrong")]
    Digest,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the collector sent something else than {0}")]
    Unexpected(&'static str),
    #[error("the collector refuses: {0}")]
    Refused(String),
    #[error("the collector's message is longer than {MAX_MESSAGE} bytes")]
    TooLong,
    #[error("no randomness for the salt")]
    Random,
}

/// Runs the client's side over `stream`.
pub(super) fn run(stream: &mut Stream, credentials: &Credentials, deadline: Instant) -> Result<(), HandshakeError> {
    let mut reader = Reader {
        stream,
        deadline,
        buffer: Vec::new(),
    };
    let helo = Helo::parse(reader.message()?)?;

    let salt = getrandom::u64()
        .and_then(|high| Ok((high, getrandom::u64()?)))
        .map(|(high, low)| format!("{high:016x}{low:016x}"))
        .map_err(|_| HandshakeError::Random)?;
    let ping = put_ping(credentials, &helo, &salt);
    reader.send(&ping)?;

    let pong = reader.message()?;
    check_pong(pong, credentials, &helo, &salt)
}

fn hex_digest(parts: &[&[u8]]) -> String {
    let mut hash = Sha512::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the collector opens with.
struct Helo {
    nonce: Vec<u8>,
    /// Salt of the password; empty when no user is asked for.
    auth: Vec<u8>,
}

impl Helo {
    fn parse(message: Value) -> Result<Self, HandshakeError> {
        let unexpected = HandshakeError::Unexpected("a HELO");
        let Value::Array(parts) = message else {
            return Err(unexpected);
        };
        let mut parts = parts.into_iter();
        let (Some(Value::Bytes(kind)), Some(Value::Map(options))) = (parts.next(), parts.next()) else {
            return Err(unexpected);
        };
        if kind != b"HELO" {
            return Err(unexpected);
        }
        let mut helo = Self {
            nonce: Vec::new(),
            auth: Vec::new(),
        };
        for option in options {
            match option {
                (Value::Bytes(key), Value::Bytes(value)) if key == b"nonce" => helo.nonce = value,
                (Value::Bytes(key), Value::Bytes(value)) if key == b"auth" => helo.auth = value,
                _ => {}
            }
        }
        Ok(helo)
    }
}

/// `["PING", hostname, salt, digest, username, password digest]`
fn put_ping(credentials: &Credentials, helo: &Helo, salt: &str) -> Vec<u8> {
    let digest = hex_digest(&[
        salt.as_bytes(),
        credentials.hostname.as_bytes(),
        &helo.nonce,
        credentials.shared_key.as_bytes(),
    ]);
    let (username, password) = if helo.auth.is_empty() {
        ("", String::new())
    } else {
        let username = credentials.username.as_str();
        let password = hex_digest(&[&helo.auth, username.as_bytes(), credentials.password.as_bytes()]);
        (username, password)
    };
    let mut ping = Vec::new();
    // Writing into memory does not fail.
    let _ = encode::write_array_len(&mut ping, 6);
    let parts = ["PING", &credentials.hostname, salt, &digest, username, &password];
    for part in parts {
        let _ = encode::write_str(&mut ping, part);
    }
    ping
}

/// `["PONG", accepted, reason, hostname, digest]`
fn check_pong(message: Value, credentials: &Credentials, helo: &Helo, salt: &str) -> Result<(), HandshakeError> {
    let unexpected = HandshakeError::Unexpected("a PONG");
    let Value::Array(parts) = message else {
        return Err(unexpected);
    };
    let [
        Value::Bytes(kind),
        Value::Bool(accepted),
        Value::Bytes(reason),
        Value::Bytes(host),
        Value::Bytes(digest),
    ] = parts.as_slice()
    else {
        return Err(unexpected);
    };
    if kind != b"PONG" {
        return Err(unexpected);
    }
    if !accepted {
        let reason = String::from_utf8_lossy(reason).into_owned();
        return Err(HandshakeError::Refused(reason));
    }
    let expected = hex_digest(&[salt.as_bytes(), host, &helo.nonce, credentials.shared_key.as_bytes()]);
    if expected.as_bytes() != digest.as_slice() {
        return Err(HandshakeError::Digest);
    }
    Ok(())
}

/// Reads whole messages until a deadline.
struct Reader<'a> {
    stream: &'a mut Stream,
    deadline: Instant,
    buffer: Vec<u8>,
}

impl Reader<'_> {
    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(left)
    }

    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let left = self.left()?;
        self.stream.set_timeout(left)?;
        self.stream.write_all(message)
    }

    fn message(&mut self) -> Result<Value, HandshakeError> {
        let mut chunk = [0; 1024];
        loop {
            if let Some((value, used)) = take_value(&self.buffer)? {
                self.buffer.drain(..used);
                return Ok(value);
            }
            if self.buffer.len() >= MAX_MESSAGE {
                return Err(HandshakeError::TooLong);
            }
            let left = self.left()?;
            self.stream.set_timeout(left)?;
            let read = self.stream.read(&mut chunk)?;
            if read == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            self.buffer.extend_from_slice(chunk.get(..read).unwrap_or_default());
        }
    }
}

/// As much of msgpack as the handshake needs.
#[derive(Debug, PartialEq)]
enum Value {
    Array(Vec<Self>),
    Bool(bool),
    /// A str or a bin: collectors use either for binary strings.
    Bytes(Vec<u8>),
    Map(Vec<(Self, Self)>),
    /// A number, nil or an extension.
    Other,
}

/// Takes one value off the front of `buf`; `None` asks for more bytes.
fn take_value(buf: &[u8]) -> Result<Option<(Value, usize)>, HandshakeError> {
    let mut cursor = Cursor { buf, at: 0 };
    match cursor.value(0) {
        Ok(value) => Ok(Some((value, cursor.at))),
        Err(Stop::More) => Ok(None),
        Err(Stop::TooLong) => Err(HandshakeError::TooLong),
        Err(Stop::Malformed) => Err(HandshakeError::Unexpected("msgpack")),
    }
}

enum Stop {
    Malformed,
    More,
    TooLong,
}

struct Cursor<'a> {
    buf: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn bytes(&mut self, len: usize) -> Result<&'a [u8], Stop> {
        if len > MAX_MESSAGE {
            return Err(Stop::TooLong);
        }
        let bytes = self.buf.get(self.at..self.at + len).ok_or(Stop::More)?;
        self.at += len;
        Ok(bytes)
    }

    /// A big-endian length of `size` bytes.
    fn len(&mut self, size: usize) -> Result<usize, Stop> {
        let bytes = self.bytes(size)?;
        Ok(bytes.iter().fold(0, |len, byte| (len << 8) | usize::from(*byte)))
    }

    fn value(&mut self, depth: usize) -> Result<Value, Stop> {
        if depth > MAX_DEPTH {
            return Err(Stop::Malformed);
        }
        let byte = self.bytes(1)?.first().copied().unwrap_or_default();
        let skip = match Marker::from_u8(byte) {
            Marker::FixPos(_) | Marker::FixNeg(_) | Marker::Null => 0,
            Marker::False => return Ok(Value::Bool(false)),
            Marker::True => return Ok(Value::Bool(true)),
            Marker::U8 | Marker::I8 => 1,
            Marker::U16 | Marker::I16 | Marker::FixExt1 => 2,
            Marker::FixExt2 => 3,
            Marker::U32 | Marker::I32 | Marker::F32 => 4,
            Marker::FixExt4 => 5,
            Marker::U64 | Marker::I64 | Marker::F64 => 8,
            Marker::FixExt8 => 9,
            Marker::FixExt16 => 17,
            Marker::Ext8 => self.len(1)? + 1,
            Marker::Ext16 => self.len(2)? + 1,
            Marker::Ext32 => self.len(4)?.saturating_add(1),
            Marker::FixStr(len) => return self.text(usize::from(len)),
            Marker::Str8 | Marker::Bin8 => return self.sized(1, Self::text),
            Marker::Str16 | Marker::Bin16 => return self.sized(2, Self::text),
            Marker::Str32 | Marker::Bin32 => return self.sized(4, Self::text),
            Marker::FixArray(len) => return self.array(usize::from(len), depth),
            Marker::Array16 => return self.sized(2, |it, len| it.array(len, depth)),
            Marker::Array32 => return self.sized(4, |it, len| it.array(len, depth)),
            Marker::FixMap(len) => return self.map(usize::from(len), depth),
            Marker::Map16 => return self.sized(2, |it, len| it.map(len, depth)),
            Marker::Map32 => return self.sized(4, |it, len| it.map(len, depth)),
            Marker::Reserved => return Err(Stop::Malformed),
        };
        self.bytes(skip)?;
        Ok(Value::Other)
    }

    fn sized(
        &mut self,
        size: usize,
        then: impl FnOnce(&mut Self, usize) -> Result<Value, Stop>,
    ) -> Result<Value, Stop> {
        let len = self.len(size)?;
        if len > MAX_MESSAGE {
            return Err(Stop::TooLong);
        }
        then(self, len)
    }

    fn text(&mut self, len: usize) -> Result<Value, Stop> {
        Ok(Value::Bytes(self.bytes(len)?.to_vec()))
    }

    fn array(&mut self, len: usize, depth: usize) -> Result<Value, Stop> {
        let items = (0..len).map(|_| self.value(depth + 1));
        Ok(Value::Array(items.collect::<Result<_, _>>()?))
    }

    fn map(&mut self, len: usize, depth: usize) -> Result<Value, Stop> {
        let items = (0..len).map(|_| Ok((self.value(depth + 1)?, self.value(depth + 1)?)));
        Ok(Value::Map(items.collect::<Result<_, _>>()?))
    }
}
