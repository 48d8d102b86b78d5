//! From a record to bytes: one function per layout, no I/O.

pub(crate) mod human;
pub(crate) mod journal;
pub(crate) mod json;
pub(crate) mod msgpack;
pub(crate) mod syslog;

use std::fmt::{self, Write as _};

use slog::{Key, Serializer};

use crate::event::LogType;
use crate::value::Timestamp;

/// How grave a record is, by its number in RFC 5424 §6.2.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Severity {
    Critical = 2,
    Error = 3,
    Warning = 4,
    Notice = 5,
    Info = 6,
    Debug = 7,
}

/// One record on its way out, from a task or from the process log.
pub(crate) struct Event<'a> {
    pub(crate) at: Timestamp,
    pub(crate) severity: Severity,
    /// Level as a person reads it.
    pub(crate) level: &'static str,
    /// Kind of an event record; `None` in the process log.
    pub(crate) log_type: Option<LogType>,
    /// Code position, in the process log.
    pub(crate) position: Option<(&'a str, u32)>,
    pub(crate) message: &'a dyn fmt::Display,
    /// Writes all fields.
    pub(crate) fields: &'a dyn Fn(&mut dyn Serializer) -> slog::Result,
}

impl Event<'_> {
    /// Hands each field to `sink`.
    pub(crate) fn visit(&self, sink: &mut dyn Sink) -> slog::Result {
        (self.fields)(&mut Visit {
            sink,
            scratch: String::new(),
        })
    }
}

/// Takes the fields of one record in the types that formats tell apart.
pub(crate) trait Sink {
    fn text(&mut self, key: &str, value: &str) -> slog::Result;
    fn uint(&mut self, key: &str, value: u64) -> slog::Result;
    fn int(&mut self, key: &str, value: i64) -> slog::Result;
    fn float(&mut self, key: &str, value: f64) -> slog::Result;
    fn bool(&mut self, key: &str, value: bool) -> slog::Result;
    fn absent(&mut self, key: &str) -> slog::Result;
}

/// Brings slog's many value types down to the six of [`Sink`].
struct Visit<'a> {
    sink: &'a mut dyn Sink,
    scratch: String,
}

macro_rules! emit {
    ($($name:ident($type:ty) => $to:ident;)*) => {
        $(fn $name(&mut self, key: Key, value: $type) -> slog::Result {
            self.sink.$to(key.as_ref(), value.into())
        })*
    };
}

impl Serializer for Visit<'_> {
    emit! {
        emit_bool(bool) => bool;
        emit_u8(u8) => uint;
        emit_u16(u16) => uint;
        emit_u32(u32) => uint;
        emit_u64(u64) => uint;
        emit_i8(i8) => int;
        emit_i16(i16) => int;
        emit_i32(i32) => int;
        emit_i64(i64) => int;
        emit_f32(f32) => float;
        emit_f64(f64) => float;
    }

    fn emit_usize(&mut self, key: Key, value: usize) -> slog::Result {
        self.sink.uint(key.as_ref(), value as u64)
    }

    fn emit_isize(&mut self, key: Key, value: isize) -> slog::Result {
        self.sink.int(key.as_ref(), value as i64)
    }

    fn emit_str(&mut self, key: Key, value: &str) -> slog::Result {
        self.sink.text(key.as_ref(), value)
    }

    fn emit_none(&mut self, key: Key) -> slog::Result {
        self.sink.absent(key.as_ref())
    }

    fn emit_arguments(&mut self, key: Key, value: &fmt::Arguments<'_>) -> slog::Result {
        if let Some(text) = value.as_str() {
            return self.sink.text(key.as_ref(), text);
        }
        self.scratch.clear();
        self.scratch.write_fmt(*value)?;
        self.sink.text(key.as_ref(), &self.scratch)
    }
}

/// Appends `value` as `Display` shows it.
pub(crate) fn push(out: &mut Vec<u8>, value: impl fmt::Display) {
    use std::io::Write as _;
    // Writing to a vector cannot fail.
    let _ = write!(out, "{value}");
}

/// Lets text be written to a byte vector with control characters escaped, so that no peer can start a line of its own.
pub(crate) struct OneLine<'a>(pub(crate) &'a mut Vec<u8>);

impl fmt::Write for OneLine<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        escape(self.0, text, &[]);
        Ok(())
    }
}

/// Appends `text` with control characters as `\n`, `\t` or `\u{..}`, and a backslash before each byte of `special`.
pub(crate) fn escape(out: &mut Vec<u8>, text: &str, special: &[u8]) {
    let mut rest = text.as_bytes();
    while let Some(at) = rest
        .iter()
        .position(|byte| *byte < 0x20 || *byte == 0x7f || special.contains(byte))
    {
        let (plain, tail) = rest.split_at(at);
        out.extend_from_slice(plain);
        let (byte, tail) = tail.split_first().unwrap_or((&0, &[]));
        match byte {
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            byte if special.contains(byte) => out.extend_from_slice(&[b'\\', *byte]),
            byte => push(out, format_args!("\\u{{{byte:x}}}")),
        }
        rest = tail;
    }
    out.extend_from_slice(rest);
}
