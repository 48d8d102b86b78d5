//! What stands against the interception of a TLS stream, and what is done about it.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;
use sluice_acl::InspectPolicy;
use sluice_addr::{Host, Upstream};
use sluice_config::value::InspectAction;
use sluice_tls::HandshakeError;

use super::config::AuditorConfig;
use super::learned::{Learned, LearnedBypass, Place};
use super::stats::Registered;

/// Why a stream cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// Its client does not accept the certificates that it is shown.
    CertificateRefusal,
    /// Its upstream wants to know the client by a certificate, which we have not.
    CertificateRequest,
    /// There is no certificate for it.
    NoCertificate,
}

impl Obstacle {
    pub(super) const ALL: [Self; 3] = [Self::CertificateRefusal, Self::CertificateRequest, Self::NoCertificate];

    /// The name in metrics and in `status`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::CertificateRefusal => "certificate_refusal",
            Self::CertificateRequest => "certificate_request",
            Self::NoCertificate => "no_certificate",
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CertificateRefusal => "its client has refused the certificates for it",
            Self::CertificateRequest => "its upstream has asked for a client certificate",
            Self::NoCertificate => "there is no certificate for it",
        })
    }
}

/// What an auditor does about the peers of TLS streams that cannot live with interception.
pub(super) struct Obstacles {
    config: Config,
    /// `None` where no stream would pass for it.
    learned: Option<Arc<Learned>>,
    stats: Registered,
}

/// What a reload compares: what was learned by one is not good by another.
#[derive(PartialEq)]
struct Config {
    on_request: InspectPolicy,
    on_refusal: InspectPolicy,
    bypass: LearnedBypass,
}

/// A stream's two ends, as far as they matter here.
#[derive(Clone, Copy)]
pub(super) struct Ends<'a> {
    /// What the client's tunnel leads to.
    pub(super) upstream: &'a Upstream,
    /// The name in the client's hello.
    pub(super) name: Option<&'a Host>,
    pub(super) client: IpAddr,
}

impl Ends<'_> {
    fn place(&self) -> Place {
        Place::new(self.upstream, self.name)
    }

    fn check(&self, policy: &InspectPolicy) -> InspectAction {
        policy.check(self.name.unwrap_or(&self.upstream.host))
    }
}

impl Obstacles {
    /// What runs by `config`, with what was learned by those that are `running`.
    pub(super) fn new(config: &AuditorConfig, stats: Registered, running: Option<&Self>) -> Self {
        let config = Config {
            on_request: config.certificate_request_policy.clone(),
            on_refusal: config.certificate_refusal_policy.clone(),
            bypass: config.learned_bypass,
        };
        let same = running.filter(|old| old.config == config);
        let any = [&config.on_request, &config.on_refusal]
            .iter()
            .any(|policy| policy.has(InspectAction::Bypass));
        Self {
            learned: match same {
                Some(old) => old.learned.clone(),
                None => any.then(|| Arc::new(Learned::new(config.bypass))),
            },
            config,
            stats,
        }
    }

    /// Why a stream passes untouched, if it shall.
    pub(super) fn passes(&self, ends: Ends<'_>) -> Option<Obstacle> {
        let learned = self.learned.as_ref()?;
        learned.passes(ends.place(), ends.client, Instant::now())
    }

    /// The upstream has asked for a certificate; what is done about it.
    pub(super) fn requested(&self, ends: Ends<'_>) -> InspectAction {
        self.stats.met(Obstacle::CertificateRequest);
        let action = ends.check(&self.config.on_request);
        if let (InspectAction::Bypass, Some(learned)) = (action, &self.learned) {
            learned.asked(&ends.place(), Instant::now());
        }
        action
    }

    /// The handshake with the client is over; whether the next streams pass from now on.
    pub(super) fn greeted<T>(&self, ends: Ends<'_>, outcome: &Result<T, HandshakeError>) -> bool {
        let refused = match outcome {
            Ok(_) => false,
            Err(HandshakeError::Alert(alert)) if alert.refuses_certificate() => {
                self.stats.met(Obstacle::CertificateRefusal);
                true
            }
            // Whatever it is, it is not what the certificate says.
            Err(_) => return false,
        };
        let Some(learned) = &self.learned else { return false };
        if ends.check(&self.config.on_refusal) != InspectAction::Bypass {
            return false;
        }
        if !refused {
            learned.accepted(ends.place(), ends.client);
            return false;
        }
        learned.refused(ends.place(), ends.client, Instant::now())
    }

    /// What passes at the moment, for `status`.
    pub(super) fn status(&self) -> Option<Value> {
        Some(self.learned.as_ref()?.status(Instant::now()))
    }
}
