//! Lines for people and for simple tools: time, level, fields sorted by name, the message last.

use std::fmt::Write as _;
use std::ops::Range;

use time::{OffsetDateTime, UtcOffset};

use super::{Event, OneLine, Sink, escape, push};
use crate::value::Timestamp;

const RESET: &str = "\x1b[0m";
const BOLD: &str = "\x1b[1m";

/// Shows times in the local zone; asks for its offset once a quarter of an hour, the grid on which offsets change.
#[derive(Debug, Default)]
pub(crate) struct LocalTime {
    known: Option<(i64, UtcOffset)>,
}

impl LocalTime {
    pub(crate) fn of(&mut self, at: Timestamp) -> OffsetDateTime {
        let quarter = at.unix_secs().div_euclid(900);
        let utc = at.utc();
        let offset = match self.known {
            Some((known, offset)) if known == quarter => offset,
            _ => {
                let offset = UtcOffset::local_offset_at(utc).unwrap_or(UtcOffset::UTC);
                self.known = Some((quarter, offset));
                offset
            }
        };
        utc.to_offset(offset)
    }
}

/// Appends `Nov 22 10:00:00`; `pad` stands before a day of one digit.
pub(crate) fn push_day_and_time(out: &mut Vec<u8>, at: OffsetDateTime, pad: char) {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let month = usize::from(u8::from(at.month())).saturating_sub(1);
    push(out, MONTHS.get(month).unwrap_or(&"Jan"));
    out.push(b' ');
    if at.day() < 10 {
        push(out, pad);
    }
    let (hour, minute, second) = at.to_hms();
    push(out, format_args!("{} {hour:02}:{minute:02}:{second:02}", at.day()));
}

/// Renders lines; keeps its buffers between them.
#[derive(Debug, Default)]
pub(crate) struct Human {
    terminal: bool,
    clock: LocalTime,
    text: Vec<u8>,
    fields: Vec<(Range<usize>, Range<usize>)>,
}

impl Human {
    /// `terminal`: colours, and `k=v` in place of `k: v`.
    pub(crate) fn new(terminal: bool) -> Self {
        Self {
            terminal,
            ..Self::default()
        }
    }

    /// Appends one line of an event log: the message comes last, `()` when empty.
    pub(crate) fn event(&mut self, event: &Event<'_>, out: &mut Vec<u8>) -> slog::Result {
        self.head(event, out);
        self.collect(event)?;
        let text = &self.text;
        self.fields.sort_by(|a, b| slice(text, &a.0).cmp(slice(text, &b.0)));
        for field in &self.fields {
            self.field(field, out);
            out.push(b',');
        }
        out.push(b' ');
        let start = out.len();
        write!(OneLine(out), "{}", event.message)?;
        if out.len() == start {
            out.extend_from_slice(b"()");
        }
        out.push(b'\n');
        Ok(())
    }

    /// Appends one line of the process log: code position, message, then the fields.
    pub(crate) fn process(&mut self, event: &Event<'_>, out: &mut Vec<u8>) -> slog::Result {
        self.head(event, out);
        if let Some((file, line)) = event.position {
            push(out, format_args!(" [{file}:{line}]"));
        }
        out.push(b' ');
        write!(OneLine(out), "{}", event.message)?;
        self.collect(event)?;
        // slog hands the fields of its macros over last first.
        for field in self.fields.iter().rev() {
            out.push(b',');
            self.field(field, out);
        }
        out.push(b'\n');
        Ok(())
    }

    fn head(&mut self, event: &Event<'_>, out: &mut Vec<u8>) {
        push_day_and_time(out, self.clock.of(event.at), '0');
        let millis = event.at.subsec_nanos() / 1_000_000;
        push(out, format_args!(".{millis:03} "));
        if self.terminal {
            let colour = match event.level {
                "CRIT" | "ERRO" => "\x1b[31m",
                "WARN" => "\x1b[33m",
                "DEBG" | "TRCE" => "\x1b[36m",
                _ => "\x1b[32m",
            };
            push(out, format_args!("{colour}{}{RESET}", event.level));
        } else {
            push(out, event.level);
        }
    }

    fn collect(&mut self, event: &Event<'_>) -> slog::Result {
        self.text.clear();
        self.fields.clear();
        event.visit(&mut Collect {
            text: &mut self.text,
            fields: &mut self.fields,
        })
    }

    fn field(&self, (key, value): &(Range<usize>, Range<usize>), out: &mut Vec<u8>) {
        out.push(b' ');
        if self.terminal {
            out.extend_from_slice(BOLD.as_bytes());
        }
        out.extend_from_slice(slice(&self.text, key));
        if self.terminal {
            out.extend_from_slice(RESET.as_bytes());
            out.push(b'=');
        } else {
            out.extend_from_slice(b": ");
        }
        out.extend_from_slice(slice(&self.text, value));
    }
}

fn slice<'a>(text: &'a [u8], range: &Range<usize>) -> &'a [u8] {
    text.get(range.clone()).unwrap_or_default()
}

struct Collect<'a> {
    text: &'a mut Vec<u8>,
    fields: &'a mut Vec<(Range<usize>, Range<usize>)>,
}

impl Collect<'_> {
    fn put(&mut self, key: &str, value: impl FnOnce(&mut Vec<u8>)) -> slog::Result {
        let start = self.text.len();
        self.text.extend_from_slice(key.as_bytes());
        let middle = self.text.len();
        value(self.text);
        self.fields.push((start..middle, middle..self.text.len()));
        Ok(())
    }
}

impl Sink for Collect<'_> {
    fn text(&mut self, key: &str, value: &str) -> slog::Result {
        self.put(key, |out| escape(out, value, &[]))
    }
    fn uint(&mut self, key: &str, value: u64) -> slog::Result {
        self.put(key, |out| push(out, value))
    }
    fn int(&mut self, key: &str, value: i64) -> slog::Result {
        self.put(key, |out| push(out, value))
    }
    fn float(&mut self, key: &str, value: f64) -> slog::Result {
        self.put(key, |out| push(out, value))
    }
    fn bool(&mut self, key: &str, value: bool) -> slog::Result {
        self.put(key, |out| push(out, value))
    }
    fn absent(&mut self, _: &str) -> slog::Result {
        Ok(())
    }
}
