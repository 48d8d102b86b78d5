//! Messages of the fluentd Forward protocol, version 1, in message mode: `[tag, time, {fields}]`.
//!
//! See <https://github.com/fluent/fluentd/wiki/Forward-Protocol-Specification-v1>.

use rmp::encode;

use super::{Event, Sink};
use crate::keys;

/// Writing into memory does not fail.
fn done<T, E>(result: Result<T, E>) {
    debug_assert!(result.is_ok());
}

/// Renders messages; keeps its buffer between them.
#[derive(Debug)]
pub(crate) struct Forward {
    product: &'static str,
    fields: Vec<u8>,
}

impl Forward {
    pub(crate) fn new(product: &'static str) -> Self {
        Self {
            product,
            fields: Vec::new(),
        }
    }

    /// Appends one message.
    pub(crate) fn message(&mut self, event: &Event<'_>, out: &mut Vec<u8>) -> slog::Result {
        // The map's length goes first, so the fields are counted while they are written aside.
        self.fields.clear();
        let mut map = Map {
            out: &mut self.fields,
            len: 0,
        };
        event.visit(&mut map)?;
        map.text(keys::MSG, &event.message.to_string())?;
        let len = map.len;

        done(encode::write_array_len(out, 3));
        match event.log_type {
            Some(log_type) => {
                let tag = format!("{}.{}", self.product, log_type.as_str());
                done(encode::write_str(out, &tag));
            }
            None => done(encode::write_str(out, self.product)),
        }
        // EventTime: extension type 0, seconds and nanoseconds as 32-bit big-endian numbers.
        done(encode::write_ext_meta(out, 8, 0));
        let secs = u32::try_from(event.at.unix_secs()).unwrap_or(u32::MAX);
        out.extend_from_slice(&secs.to_be_bytes());
        out.extend_from_slice(&event.at.subsec_nanos().to_be_bytes());
        done(encode::write_map_len(out, len));
        out.extend_from_slice(&self.fields);
        Ok(())
    }
}

struct Map<'a> {
    out: &'a mut Vec<u8>,
    len: u32,
}

impl Map<'_> {
    fn put<T, E>(&mut self, key: &str, value: impl FnOnce(&mut Vec<u8>) -> Result<T, E>) -> slog::Result {
        self.len += 1;
        done(encode::write_str(self.out, key));
        done(value(self.out));
        Ok(())
    }
}

impl Sink for Map<'_> {
    fn text(&mut self, key: &str, value: &str) -> slog::Result {
        if u32::try_from(value.len()).is_err() {
            // A str 32 cannot say how long this is.
            return Err(slog::Error::Other);
        }
        self.put(key, |out| encode::write_str(out, value))
    }
    fn uint(&mut self, key: &str, value: u64) -> slog::Result {
        self.put(key, |out| encode::write_uint(out, value))
    }
    fn int(&mut self, key: &str, value: i64) -> slog::Result {
        self.put(key, |out| encode::write_sint(out, value))
    }
    fn float(&mut self, key: &str, value: f64) -> slog::Result {
        self.put(key, |out| encode::write_f64(out, value))
    }
    fn bool(&mut self, key: &str, value: bool) -> slog::Result {
        self.put(key, |out| encode::write_bool(out, value))
    }
    fn absent(&mut self, key: &str) -> slog::Result {
        self.put(key, encode::write_nil)
    }
}
