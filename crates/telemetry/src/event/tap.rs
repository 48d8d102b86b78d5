//! A second reader of audit records, beside the log.

use std::fmt;

use super::{LogType, Record};
use crate::render::{Event, Severity, Sink};
use crate::value::Timestamp;

/// Whoever hears of each audit record, whether the log has it or not. It is called where the record is made, so it must
/// be quick and may not wait.
pub trait Tap: Send + Sync {
    /// Whether it would do anything with a record now.
    fn is_open(&self) -> bool;

    /// Takes one record.
    fn take(&self, at: Timestamp, record: &dyn Record);
}

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FieldValue<'a> {
    /// A switch.
    Bool(bool),
    /// A number with a fraction.
    Float(f64),
    /// A number that may be below 0.
    Int(i64),
    /// Text.
    Text(&'a str),
    /// A number.
    Uint(u64),
}

/// Tells the fields of a record to `each`, absent ones left out, then its message as `msg`.
pub fn fields(record: &dyn Record, mut each: impl FnMut(&str, FieldValue<'_>)) {
    let write = |out: &mut dyn slog::Serializer| {
        let values = slog::b!();
        record.serialize(&slog::record!(slog::Level::Info, "", &format_args!(""), values), out)
    };
    let message = Message(record);
    let event = Event {
        at: Timestamp::default(),
        severity: Severity::Notice,
        level: "INFO",
        log_type: None::<LogType>,
        position: None,
        message: &message,
        fields: &write,
    };
    // It fails only if the sink does, and ours does not.
    let _ = event.visit(&mut Each(&mut each));
    let message = message.to_string();
    if !message.is_empty() {
        each(crate::keys::MSG, FieldValue::Text(&message));
    }
}

struct Message<'a>(&'a dyn Record);

impl fmt::Display for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.message(f)
    }
}

struct Each<'a>(&'a mut dyn FnMut(&str, FieldValue<'_>));

impl Sink for Each<'_> {
    fn text(&mut self, key: &str, value: &str) -> slog::Result {
        (self.0)(key, FieldValue::Text(value));
        Ok(())
    }
    fn uint(&mut self, key: &str, value: u64) -> slog::Result {
        (self.0)(key, FieldValue::Uint(value));
        Ok(())
    }
    fn int(&mut self, key: &str, value: i64) -> slog::Result {
        (self.0)(key, FieldValue::Int(value));
        Ok(())
    }
    fn float(&mut self, key: &str, value: f64) -> slog::Result {
        (self.0)(key, FieldValue::Float(value));
        Ok(())
    }
    fn bool(&mut self, key: &str, value: bool) -> slog::Result {
        (self.0)(key, FieldValue::Bool(value));
        Ok(())
    }
    fn absent(&mut self, _: &str) -> slog::Result {
        Ok(())
    }
}
