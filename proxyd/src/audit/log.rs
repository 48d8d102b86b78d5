//! Records of what streams were found to be (logs.md §6.1).

use std::fmt;
use std::sync::Arc;

use sluice_addr::Upstream;
use sluice_telemetry::slog::{self, KV, Serializer};
use sluice_telemetry::value::Uuid;
use sluice_telemetry::{LogType, Record, keys};

use super::Flow;
use super::inspect::Found;

/// How a protocol came to be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InspectSource {
    /// By what both sides of an HTTP/1 connection have switched to.
    HttpUpgrade,
    /// By an extended CONNECT of HTTP/2.
    H2ExtendedConnect,
    /// By the bytes.
    StreamInspection,
    /// By what both sides have agreed on in their TLS handshakes.
    TlsAlpn,
}

impl InspectSource {
    fn name(self) -> &'static str {
        match self {
            Self::HttpUpgrade => "http upgrade",
            Self::H2ExtendedConnect => "h2 extended connect",
            Self::StreamInspection => "stream inspection",
            Self::TlsAlpn => "tls alpn",
        }
    }
}

/// A record of one layer of a stream.
pub(crate) struct InspectRecord {
    auditor_name: Arc<str>,
    task_id: Uuid,
    depth: usize,
    upstream: Upstream,
    source: InspectSource,
    protocol: &'static str,
}

impl Flow {
    /// Counts and writes what the current layer is found to be.
    pub(crate) fn note_found(&self, source: InspectSource, found: Found) {
        self.auditor.stats.found(found);
        self.auditor.log.log_with(|| InspectRecord {
            auditor_name: Arc::clone(&self.auditor.name),
            task_id: self.task.id,
            depth: self.depth,
            upstream: self.upstream.clone(),
            source,
            protocol: found.name(),
        });
    }
}

impl Record for InspectRecord {
    fn kind(&self) -> LogType {
        LogType::Inspect
    }

    fn message(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.protocol, self.upstream)
    }
}

impl KV for InspectRecord {
    fn serialize(&self, _: &slog::Record<'_>, out: &mut dyn Serializer) -> slog::Result {
        out.emit_str(keys::AUDITOR_NAME.into(), &self.auditor_name)?;
        out.emit_arguments(keys::TASK_ID.into(), &format_args!("{}", self.task_id))?;
        out.emit_usize(keys::DEPTH.into(), self.depth)?;
        out.emit_str(keys::SOURCE.into(), self.source.name())?;
        out.emit_str(keys::PROTOCOL.into(), self.protocol)
    }
}
