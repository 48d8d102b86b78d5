//! The Mint records.

use std::fmt;
use std::time::Duration;

use slog::{KV, Serializer};
use sluice_telemetry::{
    LogType, Record,
    keys::{self, Dur, Fields},
};
use sluice_wire::mint::{Service, Usage};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::keys::KeyKind;
use crate::mint::Asker;

/// A certificate was made.
pub(crate) struct Made {
    pub(crate) host: String,
    pub(crate) service: Service,
    pub(crate) usage: Usage,
    pub(crate) serial: Vec<u8>,
    pub(crate) fingerprint: [u8; 32],
    pub(crate) key: KeyKind,
    /// Seconds since 1970.
    pub(crate) not_after: i64,
    pub(crate) asker: Asker,
    pub(crate) fallback: Vec<&'static str>,
    pub(crate) duration: Duration,
}

impl KV for Made {
    fn serialize(&self, record: &slog::Record<'_>, out: &mut dyn Serializer) -> slog::Result {
        let not_after = OffsetDateTime::from_unix_timestamp(self.not_after).ok();
        let not_after = not_after.and_then(|time| time.format(&Rfc3339).ok());
        let fallback = Some(self.fallback.join(" ")).filter(|fallback| !fallback.is_empty());
        Fields::new(record, out)
            .put(keys::HOST, self.host.as_str())?
            .put(keys::SERVICE, self.service.name())?
            .put(keys::USAGE, self.usage.name())?
            .put(keys::SERIAL, hex(&self.serial).as_str())?
            .put(keys::FINGERPRINT, hex(&self.fingerprint).as_str())?
            .put(keys::KEY_TYPE, self.key.name())?
            .put(keys::NOT_AFTER, &not_after)?
            .show(keys::ASKER, self.asker)?
            .put(keys::FALLBACK, &fallback)?
            .put(keys::DURATION, &Dur(self.duration))?
            .done()
    }
}

impl Record for Made {
    fn kind(&self) -> LogType {
        LogType::Mint
    }

    fn message(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

/// Bytes in hexadecimal, as `openssl x509 -serial -fingerprint` shows them but for the colons.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}
