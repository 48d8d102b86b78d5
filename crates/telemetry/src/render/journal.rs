//! The native protocol of journald: `KEY=value` lines, or a length in front of values with line feeds.
//!
//! See <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>.

use super::{Event, Sink, push};

/// Appends one datagram.
pub(crate) fn entry(event: &Event<'_>, ident: &str, out: &mut Vec<u8>) -> slog::Result {
    let mut entry = Entry { out };
    entry.number("PRIORITY", event.severity as u8)?;
    entry.text("SYSLOG_IDENTIFIER", ident)?;
    if let Some((file, line)) = event.position {
        entry.text("CODE_POSITION", &format!("{file}:{line}"))?;
    }
    event.visit(&mut entry)?;
    entry.text("MESSAGE", &event.message.to_string())
}

struct Entry<'a> {
    out: &'a mut Vec<u8>,
}

impl Entry<'_> {
    /// `key` in upper case, what is no letter or digit as `_`; journald refuses a first `_` or digit and over 64 bytes.
    fn key(&mut self, key: &str) {
        let named = key.trim_start_matches(|c: char| !c.is_ascii_alphabetic());
        let start = self.out.len();
        let upper = named.bytes().take(64).map(|byte| match byte {
            byte if byte.is_ascii_alphanumeric() => byte.to_ascii_uppercase(),
            _ => b'_',
        });
        self.out.extend(upper);
        if self.out.len() == start {
            self.out.extend_from_slice(b"FIELD");
        }
    }

    fn number(&mut self, key: &str, value: impl std::fmt::Display) -> slog::Result {
        self.key(key);
        self.out.push(b'=');
        push(self.out, value);
        self.out.push(b'\n');
        Ok(())
    }
}

impl Sink for Entry<'_> {
    fn text(&mut self, key: &str, value: &str) -> slog::Result {
        self.key(key);
        if value.contains('\n') {
            self.out.push(b'\n');
            let len = value.len() as u64;
            self.out.extend_from_slice(&len.to_le_bytes());
        } else {
            self.out.push(b'=');
        }
        self.out.extend_from_slice(value.as_bytes());
        self.out.push(b'\n');
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
