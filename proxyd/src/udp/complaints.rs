//! What cannot be sent, in the escape log.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sluice_addr::Upstream;
use sluice_io::throttle::Quota;
use sluice_telemetry::EventLogger;
use sluice_telemetry::value::Uuid;
use tokio::time::Instant;

use super::Far;
use crate::connect::{ConnectError, Path};
use crate::escaper::EscaperCommon;
use crate::record::{EscapeDetail, EscapeRecord};

/// The `UdpSendto` records of one task: a few in a second, so that a client that sends into the void fills no log.
pub(crate) struct Complaints {
    escaper_type: &'static str,
    escaper_name: Arc<str>,
    log: EventLogger,
    task_id: Uuid,
    quota: Quota,
}

impl Complaints {
    pub(crate) fn new(escaper: &EscaperCommon, task_id: Uuid) -> Self {
        Self {
            escaper_type: escaper.kind,
            escaper_name: Arc::clone(&escaper.name),
            log: escaper.log.clone(),
            task_id,
            quota: Quota::new(Duration::from_millis(200), 5),
        }
    }

    /// A datagram to `far` could not be sent.
    pub(crate) fn tell(&self, far: &Far, local: Option<SocketAddr>, reason: &'static str, why: impl ToString) {
        if !self.log.enabled() || !self.quota.take(Instant::now()) {
            return;
        }
        let (upstream, peer) = match far {
            Far::Address(peer) => (Upstream::from(*peer), Some(*peer)),
            Far::Name(upstream) => ((**upstream).clone(), None),
        };
        self.log.log(EscapeRecord {
            escaper_type: self.escaper_type,
            escaper_name: Arc::clone(&self.escaper_name),
            task_id: self.task_id,
            upstream,
            path: Path {
                local,
                peer,
                ..Path::default()
            },
            detail: EscapeDetail::UdpSendto { reason },
            message: why.to_string(),
        });
    }
}

impl ConnectError {
    /// The `reason` of a `UdpSendto` record (logs.md §4); `None` for what is no affair of sending.
    pub(crate) fn sendto_reason(&self) -> Option<&'static str> {
        match self {
            Self::ForbiddenAddress { .. } => Some("ForbiddenTargetIpAddress"),
            Self::ForbiddenFamily { .. } => Some("AddressNotSupported"),
            Self::NoAddress { .. } | Self::Resolve { .. } => Some("DomainNotResolved"),
            Self::Socket { .. } => Some("NoListenSocket"),
            Self::Connect { .. } | Self::ConnectTimeout { .. } => Some("SendFailed"),
            Self::MethodUnavailable { .. } => None,
            Self::ProxyProtocolEncode { .. } | Self::ProxyProtocolWrite { .. } => Some("InternalServerError"),
        }
    }
}
