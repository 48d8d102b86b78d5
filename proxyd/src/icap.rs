//! Adapting messages by an ICAP service (RFC 3507).
//!
//! A [`Service`] is one service that is asked, as an auditor's `icap_reqmod_service` or `icap_respmod_service` names it;
//! [`Service::adapt`] asks it about one message. The message comes as a head and a [`BodySource`], whatever protocol it
//! was sent in, and goes on as an [`Adapted`]: unchanged, changed, or with an answer in its stead. Bodies are passed on as
//! they come, while the service is still being sent the rest; what is held is the preview, or a small body that is there
//! as a whole.
//!
//! Connections are kept for each thread ([`pool`]), what the service offers is asked for when it is not known or its time
//! is over ([`service`]). Where it cannot be reached, `bypass` decides; whatever goes wrong later fails the message.

mod away;
mod body;
mod config;
mod connection;
mod error;
mod exchange;
mod pool;
mod service;
#[cfg(test)]
mod tests;
mod upload;

pub(crate) use body::{Body, BodySource, Flow};
pub(crate) use config::IcapServiceConfig;
pub(crate) use error::IcapError;
pub(crate) use exchange::{Adapted, Ask, Verdict};
pub(crate) use service::{Service, ServiceError};

use std::path::Path;
use std::sync::Arc;

use sluice_icap::Method;
use sluice_lifecycle::Tasks;

use crate::error::TaskError;

use crate::audit::Witness;

/// The services of one auditor.
#[derive(Debug, Clone, Default)]
pub(crate) struct Services {
    pub(crate) reqmod: Option<Arc<Service>>,
    pub(crate) respmod: Option<Arc<Service>>,
}

impl Services {
    /// Builds them; files are looked for in `base`, and what they say is told to `witness`.
    ///
    /// # Errors
    /// [`ServiceError`] of the first that cannot be built.
    pub(crate) fn new(
        reqmod: Option<&IcapServiceConfig>,
        respmod: Option<&IcapServiceConfig>,
        base: &Path,
        witness: Option<&Witness>,
    ) -> Result<Self, ServiceError> {
        let build = |config: Option<&IcapServiceConfig>, method| {
            config
                .map(|config| Service::new(config, method, base, witness.cloned()))
                .transpose()
        };
        Ok(Self {
            reqmod: build(reqmod, Method::Reqmod)?,
            respmod: build(respmod, Method::Respmod)?,
        })
    }

    /// Asks what becomes of a request, if there is a service for requests.
    ///
    /// # Errors
    /// As [`Service::adapt`].
    pub(crate) async fn reqmod<S: BodySource>(
        &self,
        ask: &Ask<'_>,
        body: Option<S>,
        tasks: &Tasks,
    ) -> Result<Adapted<S>, TaskError> {
        adapt(self.reqmod.as_ref(), ask, body, tasks).await
    }

    /// The same for a response.
    ///
    /// # Errors
    /// As [`Service::adapt`].
    pub(crate) async fn respmod<S: BodySource>(
        &self,
        ask: &Ask<'_>,
        body: Option<S>,
        tasks: &Tasks,
    ) -> Result<Adapted<S>, TaskError> {
        adapt(self.respmod.as_ref(), ask, body, tasks).await
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.reqmod.is_none() && self.respmod.is_none()
    }
}

async fn adapt<S: BodySource>(
    service: Option<&Arc<Service>>,
    ask: &Ask<'_>,
    body: Option<S>,
    tasks: &Tasks,
) -> Result<Adapted<S>, TaskError> {
    match service {
        Some(service) => Box::pin(service.adapt(ask, body, tasks)).await,
        None => Ok(Adapted::untouched(body)),
    }
}
