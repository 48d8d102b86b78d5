//! Syslog datagrams: RFC 3164, RFC 5424, and either header with a CEE body.

use std::fmt::Write as _;

use super::human::{LocalTime, push_day_and_time};
use super::json::Object;
use super::{Event, OneLine, Sink, escape, push};
use crate::keys;

/// Who the message is said to be from (RFC 5424 §6.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Facility {
    /// 3, system daemons
    Daemon = 3,
    /// 1, user-level messages
    User = 1,
}

/// Header form and what goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Header {
    /// RFC 3164, local time
    Rfc3164,
    /// RFC 5424, UTC with microseconds
    Rfc5424 {
        /// Private enterprise number in the structured data's name; not used with a CEE body.
        enterprise_id: i32,
        /// `MSGID`; `-` without.
        message_id: Option<String>,
    },
}

/// All that a syslog message's form depends on.
#[derive(Clone, Debug)]
pub(crate) struct Form {
    pub(crate) facility: Facility,
    pub(crate) header: Header,
    /// Cookie of a CEE body.
    pub(crate) cee: Option<String>,
    pub(crate) hostname: Option<String>,
    pub(crate) append_report_ts: bool,
    pub(crate) ident: String,
    pub(crate) pid: u32,
}

/// Renders datagrams.
#[derive(Debug)]
pub(crate) struct Syslog {
    form: Form,
    clock: LocalTime,
}

impl Syslog {
    pub(crate) fn new(form: Form) -> Self {
        Self {
            form,
            clock: LocalTime::default(),
        }
    }

    /// Appends one datagram.
    pub(crate) fn message(&mut self, event: &Event<'_>, out: &mut Vec<u8>) -> slog::Result {
        let pri = self.form.facility as u8 * 8 + event.severity as u8;
        match &self.form.header {
            Header::Rfc3164 => {
                push(out, format_args!("<{pri}>"));
                push_day_and_time(out, self.clock.of(event.at), ' ');
                if let Some(host) = &self.form.hostname {
                    push(out, format_args!(" {host}"));
                }
                push(out, format_args!(" {}[{}]: ", self.form.ident, self.form.pid));
                if !self.cee(event, out)? {
                    write!(OneLine(out), "{}", event.message)?;
                    self.fields(event, out, Style::Body)?;
                }
            }
            Header::Rfc5424 {
                enterprise_id,
                message_id,
            } => {
                let host = self.form.hostname.as_deref().unwrap_or("-");
                let Form { ident, pid, .. } = &self.form;
                let id = message_id.as_deref().unwrap_or("-");
                push(out, format_args!("<{pri}>1 {} {host} {ident} {pid} {id} ", event.at));
                if self.form.cee.is_some() {
                    out.extend_from_slice(b"- ");
                    self.cee(event, out)?;
                } else {
                    push(out, format_args!("[{ident}@{enterprise_id}"));
                    self.fields(event, out, Style::StructuredData)?;
                    out.extend_from_slice(b"] ");
                    write!(OneLine(out), "{}", event.message)?;
                }
            }
        }
        Ok(())
    }

    fn cee(&self, event: &Event<'_>, out: &mut Vec<u8>) -> Result<bool, slog::Error> {
        let Some(cookie) = &self.form.cee else {
            return Ok(false);
        };
        out.extend_from_slice(cookie.as_bytes());
        let mut object = Object::open(out);
        if self.form.append_report_ts {
            object.int(keys::REPORT_TS, event.at.unix_secs())?;
        }
        object.fill(event)?;
        object.close();
        Ok(true)
    }

    fn fields(&self, event: &Event<'_>, out: &mut Vec<u8>, style: Style) -> slog::Result {
        let mut params = Params { out, style };
        event.visit(&mut params)?;
        if self.form.append_report_ts {
            params.int(keys::REPORT_TS, event.at.unix_secs())?;
        }
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    /// `, key="text"`, `, key=1`
    Body,
    /// ` key="value"` (RFC 5424 §6.3.3)
    StructuredData,
}

struct Params<'a> {
    out: &'a mut Vec<u8>,
    style: Style,
}

impl Params<'_> {
    fn key(&mut self, key: &str) {
        match self.style {
            Style::Body => {
                self.out.extend_from_slice(b", ");
                self.out.extend_from_slice(key.as_bytes());
            }
            Style::StructuredData => {
                self.out.push(b' ');
                // SD-NAME: at most 32 printable ASCII characters but `=`, space, `]` and `"`.
                self.out.extend(key.bytes().take(32).map(|byte| match byte {
                    b'=' | b']' | b'"' => b'_',
                    0x21..=0x7e => byte,
                    _ => b'_',
                }));
            }
        }
        self.out.push(b'=');
    }

    fn number(&mut self, key: &str, value: impl std::fmt::Display) -> slog::Result {
        self.key(key);
        match self.style {
            Style::Body => push(self.out, value),
            Style::StructuredData => push(self.out, format_args!("\"{value}\"")),
        }
        Ok(())
    }
}

impl Sink for Params<'_> {
    fn text(&mut self, key: &str, value: &str) -> slog::Result {
        self.key(key);
        self.out.push(b'"');
        let special: &[u8] = match self.style {
            Style::Body => b"\"\\",
            Style::StructuredData => b"\"\\]",
        };
        escape(self.out, value, special);
        self.out.push(b'"');
        Ok(())
    }
    fn uint(&mut self, key: &str, value: u64) -> slog::Result {
        self.number(key, value)
    }
    fn int(&mut self, key: &str, value: i64) -> slog::Result {
        self.number(key, value)
    }
    fn float(&mut self, key: &str, value: f64) -> slog::Result {
        self.number(key, value)
    }
    fn bool(&mut self, key: &str, value: bool) -> slog::Result {
        self.number(key, value)
    }
    fn absent(&mut self, _: &str) -> slog::Result {
        Ok(())
    }
}
