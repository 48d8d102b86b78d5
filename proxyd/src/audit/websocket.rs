//! WebSocket inside of intercepted connections.

use sluice_telemetry::keys::{self, Fields};
use sluice_telemetry::slog;

/// Whether an Upgrade field names WebSocket, of whatever version and among whatever else (RFC 9110 §7.8).
pub(crate) fn is_among(protocols: &[u8]) -> bool {
    protocols.split(|&b| b == b',').any(|protocol| {
        let name = protocol.split(|&b| b == b'/').next().unwrap_or_default();
        name.trim_ascii().eq_ignore_ascii_case(b"websocket")
    })
}

/// What the opening handshake of a WebSocket says (RFC 6455 §1.3), for its records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Handshake {
    /// The path and query.
    pub(crate) resource: Box<str>,
    pub(crate) origin: Option<Box<str>>,
    /// The one that the server has chosen.
    pub(crate) sub_protocol: Option<Box<str>>,
    pub(crate) version: Option<Box<str>>,
}

impl Handshake {
    pub(crate) fn put(&self, fields: &mut Fields<'_>) -> slog::Result {
        fields.put(keys::WS_RESOURCE_NAME, &*self.resource)?;
        for (key, value) in [
            (keys::WS_ORIGIN, &self.origin),
            (keys::WS_SUB_PROTOCOL, &self.sub_protocol),
            (keys::WS_VERSION, &self.version),
        ] {
            if let Some(value) = value {
                fields.put(key, &**value)?;
            }
        }
        Ok(())
    }
}
