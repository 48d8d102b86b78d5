//! The ways out of the proxy. A leaf opens connections; a router only names the next escaper.

use std::collections::HashMap;
use std::sync::Arc;

use sluice_telemetry::EventLogger;
use sluice_tls::HandshakeError;

use crate::connect::{Connect, ConnectError, ConnectFailure, Opened, Path, Step};
use crate::record::{EscapeDetail, EscapeRecord};
use crate::stats::EscaperStats;
use crate::udp::{Complaints, Far, Outlet, Shape};

use direct_fixed::DirectFixed;

pub(crate) mod direct_fixed;
pub(crate) mod dummy_deny;
mod terms;

/// A way out. A new kind is one file, one variant here and one in [`crate::config::EscaperConfig`].
pub(crate) enum Escaper {
    DirectFixed(Arc<DirectFixed>),
    DummyDeny(dummy_deny::DummyDeny),
}

impl Escaper {
    /// What all kinds have in common.
    pub(crate) fn common(&self) -> &EscaperCommon {
        match self {
            Self::DirectFixed(escaper) => &escaper.common,
            Self::DummyDeny(escaper) => &escaper.common,
        }
    }

    /// Opens `req`'s upstream, or names the escaper to try next.
    async fn connect(&self, req: &Connect<'_>) -> Result<Step, ConnectFailure> {
        Ok(match self {
            Self::DirectFixed(direct) => Step::Opened(direct.connect(req).await?),
            Self::DummyDeny(deny) => return Err(deny.refuse().into()),
        })
    }

    /// Opens a way for datagrams to `req`'s upstream, and to any other target as well unless `one_target`.
    async fn open_udp(&self, req: &Connect<'_>, shape: Shape, one_target: bool) -> Result<Outlet, ConnectFailure> {
        match self {
            Self::DirectFixed(direct) if one_target => direct.connect_udp(req, shape).await,
            Self::DirectFixed(direct) => Ok(DirectFixed::roam(direct, req, shape)),
            Self::DummyDeny(deny) => Err(deny.refuse().into()),
        }
    }

    /// Whether it has a way for datagrams.
    fn carries_udp(&self) -> bool {
        match self {
            Self::DirectFixed(_) => true,
            Self::DummyDeny(_) => false,
        }
    }

    /// Whether a connection that an earlier request left may serve another one. Each new PROXY protocol header wants
    /// a connection of its own.
    fn may_reuse(&self) -> bool {
        match self {
            Self::DirectFixed(direct) => direct.proxy_protocol.is_none(),
            Self::DummyDeny(_) => false,
        }
    }
}

/// What every kind of escaper has.
pub(crate) struct EscaperCommon {
    pub(crate) name: Arc<str>,
    /// The `escaper_type` of log records.
    pub(crate) kind: &'static str,
    pub(crate) stats: Arc<EscaperStats>,
    pub(crate) log: EventLogger,
    /// Another one for every configuration that this name has had: connections of an older one are not taken up.
    pub(crate) generation: u64,
}

/// Where an escaper stands among the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct EscaperId(usize);

/// All escapers of a configuration. References among them were checked when it was read, loops included.
pub(crate) struct Escapers {
    all: Vec<Escaper>,
    by_name: HashMap<Arc<str>, EscaperId>,
}

/// A connection, and the escaper that opened it.
pub(crate) struct Connected<'a> {
    pub(crate) opened: Opened,
    pub(crate) escaper: &'a EscaperCommon,
}

/// No connection, and the escaper that gave up.
pub(crate) struct NotConnected<'a> {
    pub(crate) failure: ConnectFailure,
    pub(crate) escaper: &'a EscaperCommon,
}

impl Escapers {
    pub(crate) fn new(all: Vec<Escaper>) -> Self {
        let by_name = all
            .iter()
            .enumerate()
            .map(|(i, escaper)| (Arc::clone(&escaper.common().name), EscaperId(i)))
            .collect();
        Self { all, by_name }
    }

    pub(crate) fn id(&self, name: &str) -> Option<EscaperId> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn get(&self, id: EscaperId) -> &Escaper {
        &self.all[id.0]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Escaper> {
        self.all.iter()
    }

    /// The escaper that a kept connection for `start` would belong to, if such a connection may be used at all.
    pub(crate) fn reusable(&self, start: EscaperId) -> Option<&EscaperCommon> {
        let escaper = self.get(start);
        escaper.may_reuse().then(|| escaper.common())
    }

    /// Opens a connection, from escaper to escaper until one has it or fails. A failure is logged here.
    pub(crate) async fn connect(&self, start: EscaperId, req: &Connect<'_>) -> Result<Connected<'_>, NotConnected<'_>> {
        let escaper = self.get(start);
        let common = escaper.common();
        common.stats.mine().task_total.add(1);
        match escaper.connect(req).await {
            Ok(Step::Opened(opened)) => Ok(Connected {
                opened,
                escaper: common,
            }),
            Err(failure) => {
                common.log_failure(req, &failure);
                Err(NotConnected {
                    failure,
                    escaper: common,
                })
            }
        }
    }

    /// Whether datagrams that begin their way at `start` can leave.
    ///
    /// # Errors
    /// `MethodUnavailable`.
    pub(crate) fn carries_udp(&self, start: EscaperId) -> Result<(), ConnectError> {
        let escaper = self.get(start);
        if escaper.carries_udp() {
            Ok(())
        } else {
            Err(unavailable(escaper.common()))
        }
    }

    /// Opens a way for datagrams to `req`'s upstream, and to any other target as well unless `one_target`. A failure is
    /// logged here.
    pub(crate) async fn open_udp(
        &self,
        start: EscaperId,
        req: &Connect<'_>,
        shape: Shape,
        one_target: bool,
    ) -> Result<(Outlet, &EscaperCommon), NotConnected<'_>> {
        let escaper = self.get(start);
        let common = escaper.common();
        common.stats.mine().task_total.add(1);
        match escaper.open_udp(req, shape, one_target).await {
            Ok(outlet) => Ok((outlet, common)),
            Err(failure) => {
                if let Some(reason) = failure.error.sendto_reason() {
                    let far = Far::Name(Arc::new(req.upstream.clone()));
                    Complaints::new(common, req.task_id).tell(&far, failure.path.local, reason, &failure.error);
                }
                Err(NotConnected {
                    failure,
                    escaper: common,
                })
            }
        }
    }
}

impl EscaperCommon {
    /// Logs that TLS with the upstream of `req` did not come about.
    pub(crate) fn log_tls_failure(&self, req: &Connect<'_>, path: &Path, error: &HandshakeError) {
        if self.log.enabled() {
            self.log.log(EscapeRecord {
                escaper_type: self.kind,
                escaper_name: Arc::clone(&self.name),
                task_id: req.task_id,
                upstream: req.upstream.clone(),
                path: path.clone(),
                detail: EscapeDetail::TlsHandshake {
                    tls_name: req.upstream.host.to_string(),
                    application: "HttpForward",
                },
                message: error.to_string(),
            });
        }
    }

    fn log_failure(&self, req: &Connect<'_>, failure: &ConnectFailure) {
        if self.log.enabled() {
            self.log.log(EscapeRecord {
                escaper_type: self.kind,
                escaper_name: Arc::clone(&self.name),
                task_id: req.task_id,
                upstream: req.upstream.clone(),
                path: (*failure.path).clone(),
                detail: EscapeDetail::TcpConnect {
                    reason: failure.error.escape_reason(),
                },
                message: failure.error.to_string(),
            });
        }
    }
}

/// The error for a request that the escaper does not know how to carry.
pub(crate) fn unavailable(escaper: &EscaperCommon) -> ConnectError {
    ConnectError::MethodUnavailable {
        escaper: Arc::clone(&escaper.name),
    }
}
