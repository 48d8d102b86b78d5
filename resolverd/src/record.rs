//! The Resolve records.

use std::{fmt, sync::Arc, time::Duration};

use slog::{KV, Serializer};
use sluice_telemetry::{
    LogType, Record,
    keys::{self, Dur, Fields},
};
use sluice_wire::dns::Family;

use crate::{
    cache::Failure,
    resolver::{Resolver, Source},
};

/// A query that failed.
pub(crate) struct Failed {
    pub(crate) resolver: Arc<Resolver>,
    pub(crate) domain: Box<str>,
    pub(crate) family: Family,
    pub(crate) duration: Duration,
    pub(crate) source: Source,
    pub(crate) failure: Failure,
}

impl KV for Failed {
    fn serialize(&self, record: &slog::Record<'_>, out: &mut dyn Serializer) -> slog::Result {
        let row = self.failure.error.row();
        let mut fields = Fields::new(record, out);
        fields
            .put(keys::RESOLVER_TYPE, self.resolver.config.kind())?
            .put(keys::RESOLVER_NAME, &*self.resolver.name)?;
        for (key, value) in &self.resolver.log_fields {
            fields.put(key, value.as_str())?;
        }
        fields
            .put(keys::QUERY_TYPE, self.family.record_name())?
            .put(keys::DURATION, &Dur(self.duration))?
            .put(keys::RR_SOURCE, self.source.name())?
            .put(keys::ERROR_TYPE, row.error_type)?
            .put(keys::ERROR_SUBTYPE, row.error_subtype)?
            .put(keys::DOMAIN, &*self.domain)?
            .done()
    }
}

impl Record for Failed {
    fn kind(&self) -> LogType {
        LogType::Resolve
    }

    fn message(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.failure.error)?;
        if self.failure.text.is_empty() {
            Ok(())
        } else {
            write!(f, ": {}", self.failure.text)
        }
    }
}
