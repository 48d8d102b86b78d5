//! What an auditor is configured with, and what a user says about being audited.

mod tls;
mod user;

use schemars::JsonSchema;
use serde::Deserialize;
use sluice_acl::InspectPolicy;
use sluice_config::value::{
    ClientPortmap, H1Interception, H2Interception, InspectAction, ProtocolInspection, Ratio, ServerPortmap, StreamDump,
    TlsCertAgent, TlsInterceptionServer,
};
use sluice_config::{Entry, Load, NotYet, kinds};
use sluice_icap::Method;
use sluice_tls::NOTES_REQUESTS;
use sluice_tls::config::TicketerConfig;

use super::learned::LearnedBypass;
use crate::icap::IcapServiceConfig;
use sluice_tls::server::Ticketer;

pub(crate) use tls::TlsInterceptionClient;
pub(crate) use user::UserAudit;

kinds! {
    /// A node of the `auditor` section; there is one kind.
    #[derive(Debug, Clone, PartialEq)]
    pub(crate) enum AuditorKind: "auditor" untyped "auditor" {
        /// The one kind.
        Auditor(Box<AuditorConfig>) = "auditor",
    }
}

impl AuditorKind {
    pub(crate) fn config(&self) -> &AuditorConfig {
        let Self::Auditor(config) = self;
        config
    }
}

/// What an auditor is configured with. An empty one inspects, and intercepts what needs no certificate.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AuditorConfig {
    /// How the protocol of a stream is found out.
    pub(crate) protocol_inspection: ProtocolInspection,
    /// The protocols that are expected on ports of servers, beside those that are known.
    pub(crate) server_tcp_portmap: ServerPortmap,
    /// The same for ports of clients.
    pub(crate) client_tcp_portmap: ClientPortmap,
    /// Where certificates for TLS interception come from; without it TLS passes untouched.
    #[serde(alias = "tls_cert_generator")]
    pub(crate) tls_cert_agent: Option<TlsCertAgent>,
    /// Keys of session tickets for clients.
    pub(crate) tls_ticketer: Option<TicketerConfig>,
    /// The handshake with the upstream of an intercepted stream.
    pub(crate) tls_interception_client: TlsInterceptionClient,
    /// The handshake with its client.
    pub(crate) tls_interception_server: TlsInterceptionServer,
    /// Copies of intercepted streams.
    pub(crate) tls_stream_dump: Option<StreamDump>,
    /// Characters of a URI in logs.
    #[serde(alias = "uri_log_max_chars")]
    pub(crate) log_uri_max_chars: usize,
    /// HTTP/1 in intercepted streams.
    pub(crate) h1_interception: H1Interception,
    /// What is done with HTTP/2, by host.
    pub(crate) h2_inspect_policy: InspectPolicy,
    /// HTTP/2 in intercepted streams.
    pub(crate) h2_interception: H2Interception,
    /// What is done with WebSocket, by host.
    pub(crate) websocket_inspect_policy: InspectPolicy,
    /// What is done with SMTP, by host: it passes untouched if nothing is said.
    pub(crate) smtp_inspect_policy: Option<InspectPolicy>,
    /// SMTP in intercepted streams.
    #[schemars(skip)]
    pub(crate) smtp_interception: Option<NotYet>,
    /// What is done with IMAP, by host: it passes untouched if nothing is said.
    pub(crate) imap_inspect_policy: Option<InspectPolicy>,
    /// IMAP in intercepted streams.
    #[schemars(skip)]
    pub(crate) imap_interception: Option<NotYet>,
    /// The ICAP service that is asked about requests.
    pub(crate) icap_reqmod_service: Option<IcapServiceConfig>,
    /// The ICAP service that is asked about responses.
    pub(crate) icap_respmod_service: Option<IcapServiceConfig>,
    /// Where streams are detoured to.
    #[schemars(skip)]
    pub(crate) stream_detour_service: Option<NotYet>,
    /// The share of tasks that are audited.
    #[serde(alias = "application_audit_ratio")]
    pub(crate) task_audit_ratio: Ratio,
    /// What becomes of TLS to a host for which there is no certificate, while certgend gives none.
    pub(crate) on_certgend_failure: OnCertgendFailure,
    /// What becomes of copies and events while auditd takes none.
    pub(crate) on_auditd_failure: OnAuditdFailure,
    /// What is done with TLS whose upstream asks for a client certificate, by host: `intercept` goes on without one.
    pub(crate) certificate_request_policy: InspectPolicy,
    /// What is done with TLS whose client refuses the certificates of a host, by host: `intercept` or `bypass`.
    pub(crate) certificate_refusal_policy: InspectPolicy,
    /// How long TLS passes for these, and after what.
    pub(crate) learned_bypass: LearnedBypass,
}

/// See [`AuditorConfig::on_certgend_failure`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OnCertgendFailure {
    /// The stream ends.
    #[default]
    Block,
    /// It passes untouched.
    Bypass,
}

/// See [`AuditorConfig::on_auditd_failure`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OnAuditdFailure {
    /// They are dropped and counted.
    #[default]
    Drop,
    /// The stream waits, up to a deadline, then it ends.
    Stall,
}

impl Default for AuditorConfig {
    fn default() -> Self {
        Self {
            protocol_inspection: ProtocolInspection::default(),
            server_tcp_portmap: ServerPortmap::default(),
            client_tcp_portmap: ClientPortmap::default(),
            tls_cert_agent: None,
            tls_ticketer: None,
            tls_interception_client: TlsInterceptionClient::default(),
            tls_interception_server: TlsInterceptionServer::default(),
            tls_stream_dump: None,
            log_uri_max_chars: 1024,
            h1_interception: H1Interception::default(),
            h2_inspect_policy: InspectPolicy::default(),
            h2_interception: H2Interception::default(),
            websocket_inspect_policy: InspectPolicy::default(),
            smtp_inspect_policy: None,
            smtp_interception: None,
            imap_inspect_policy: None,
            imap_interception: None,
            icap_reqmod_service: None,
            icap_respmod_service: None,
            stream_detour_service: None,
            task_audit_ratio: Ratio::ALL,
            on_certgend_failure: OnCertgendFailure::default(),
            on_auditd_failure: OnAuditdFailure::default(),
            certificate_request_policy: InspectPolicy::default(),
            certificate_refusal_policy: InspectPolicy::default(),
            learned_bypass: LearnedBypass::default(),
        }
    }
}

impl AuditorConfig {
    /// Records what does not go together, and what asks for something that is not built.
    pub(crate) fn check(&self, load: &mut Load, entry: &Entry<AuditorKind>) {
        for (key, service, method) in [
            ("icap_reqmod_service", &self.icap_reqmod_service, Method::Reqmod),
            ("icap_respmod_service", &self.icap_respmod_service, Method::Respmod),
        ] {
            if let Some(service) = service {
                service.check(load, &entry.place, key, method);
            }
        }
        let inspection = &self.protocol_inspection;
        for (key, span) in [
            ("protocol_inspection.data0_wait_timeout", inspection.data0_wait_timeout),
            ("protocol_inspection.data0_read_timeout", inspection.data0_read_timeout),
            ("h2_interception.ping_interval", self.h2_interception.ping_interval),
            ("learned_bypass.lifetime", self.learned_bypass.lifetime),
            ("learned_bypass.refusal_period", self.learned_bypass.refusal_period),
        ] {
            if span.0.is_zero() {
                load.error(&entry.place, key, "must be more than 0");
            }
        }
        if self.learned_bypass.refusals == 0 {
            load.error(&entry.place, "learned_bypass.refusals", "must be more than 0");
        }
        let (request, refusal) = (&self.certificate_request_policy, &self.certificate_refusal_policy);
        if refusal.has(InspectAction::Block) {
            let message = "a client that refuses a certificate has ended its stream: there is nothing to `block`";
            load.error(&entry.place, "certificate_refusal_policy", message);
        }
        let asks_more = request.has(InspectAction::Block) || request.has(InspectAction::Bypass);
        if asks_more && !NOTES_REQUESTS {
            let message = "`block` and `bypass` need a build with OpenSSL or Tongsuo";
            load.error(&entry.place, "certificate_request_policy", message);
        }
        let policies = [
            ("certificate_request_policy", Some(request), true),
            ("certificate_refusal_policy", Some(refusal), true),
            ("h2_inspect_policy", Some(&self.h2_inspect_policy), true),
            ("websocket_inspect_policy", Some(&self.websocket_inspect_policy), true),
            ("smtp_inspect_policy", self.smtp_inspect_policy.as_ref(), false),
            ("imap_inspect_policy", self.imap_inspect_policy.as_ref(), false),
        ];
        for (key, policy, intercepts) in policies {
            let Some(policy) = policy else { continue };
            if policy.has(InspectAction::Detour) {
                let message = "`detour` is not built yet in this version";
                load.error_with_help(
                    &entry.place,
                    key,
                    message,
                    "say `bypass` to let it pass as it is, or `block`",
                );
            }
            if !intercepts && policy.has(InspectAction::Intercept) {
                let help = "say `bypass` to let it pass as it is, or `block`; a map without `default` intercepts what no \
                            record is about";
                let message = "`intercept` is not built yet in this version";
                load.error_with_help(&entry.place, key, message, help);
            }
        }
        if let Err(error) = super::tls::connector(self, entry.place.base_dir()) {
            load.error(&entry.place, "tls_interception_client", error.to_string());
        }
        if let Some(Err(error)) = self.tls_ticketer.as_ref().map(Ticketer::new) {
            load.error(&entry.place, "tls_ticketer", error.to_string());
        }
    }

    /// Whether it has certificates of its own in files.
    pub(crate) fn reads_certificates(&self) -> bool {
        self.tls_interception_client.ca_certificate.is_some()
    }
}
