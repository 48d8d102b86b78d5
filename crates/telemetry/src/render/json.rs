//! One JSON object of a record's fields, absent ones left out.

use super::{Event, Sink, push};
use crate::keys;

/// Appends `{"time":"…","key":value,…,"msg":"…"}` and a line feed.
pub(crate) fn line(event: &Event<'_>, out: &mut Vec<u8>) -> slog::Result {
    let mut object = Object::open(out);
    object.key("time");
    object.string(&event.at.to_string());
    object.fill(event)?;
    object.close();
    out.push(b'\n');
    Ok(())
}

/// An object that is being written.
pub(crate) struct Object<'a> {
    out: &'a mut Vec<u8>,
    any: bool,
}

impl<'a> Object<'a> {
    pub(crate) fn open(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, any: false }
    }

    /// Writes the record's fields, then its message as `msg`.
    pub(crate) fn fill(&mut self, event: &Event<'_>) -> slog::Result {
        event.visit(self)?;
        self.text(keys::MSG, &event.message.to_string())
    }

    pub(crate) fn close(self) {
        self.out.push(b'}');
    }

    fn string(&mut self, text: &str) {
        // A string into a vector: neither side can fail.
        let _ = serde_json::to_writer(&mut *self.out, text);
    }

    fn key(&mut self, key: &str) {
        if self.any {
            self.out.push(b',');
        }
        self.any = true;
        self.string(key);
        self.out.push(b':');
    }

    fn show(&mut self, key: &str, value: impl std::fmt::Display) -> slog::Result {
        self.key(key);
        push(self.out, value);
        Ok(())
    }
}

impl Sink for Object<'_> {
    fn text(&mut self, key: &str, value: &str) -> slog::Result {
        self.key(key);
        self.string(value);
        Ok(())
    }
    fn uint(&mut self, key: &str, value: u64) -> slog::Result {
        self.show(key, value)
    }
    fn int(&mut self, key: &str, value: i64) -> slog::Result {
        self.show(key, value)
    }
    fn float(&mut self, key: &str, value: f64) -> slog::Result {
        if value.is_finite() {
            self.show(key, value)
        } else {
            // JSON has no number for infinity.
            self.text(key, &value.to_string())
        }
    }
    fn bool(&mut self, key: &str, value: bool) -> slog::Result {
        self.show(key, value)
    }
    fn absent(&mut self, _: &str) -> slog::Result {
        Ok(())
    }
}
