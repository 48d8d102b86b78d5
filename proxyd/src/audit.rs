//! Looking inside of tunnels: which are looked into, what they turn out to be, and what is done with them.
//!
//! A server has an [`Auditor`] or none. A tunnel of a server with one goes to [`inspect::start`], which spawns a relay if
//! nobody looks into it, else an inspection. An inspection of one layer ends in a relay, in the end of the task, or in
//! an interception, whose inner stream is inspected again. A [`Flow`] goes with it from layer to layer.
//! `ARCHITECTURE.md` follows a request through all of it.
//!
//! | | |
//! |---|---|
//! | what a layer is, and what is done with it | [`inspect`], by the ports of [`protocol`]; [`refusal`] |
//! | opening one | [`layer`], by [`tls`] (with [`leaf`], [`obstacle`], [`learned`]), [`h1`], [`h2`], [`websocket`] |
//! | what is written of it | [`log`] and [`intercept`]: records; [`record`] and [`told`]: what auditd is told; [`dump`]: the bytes |

mod config;
mod dump;
pub(crate) mod h1;
pub(crate) mod h2;
pub(crate) mod inspect;
pub(crate) mod intercept;
mod layer;
pub(crate) mod leaf;
mod learned;
mod log;
mod obstacle;
mod protocol;
mod record;
mod redial;
mod refusal;
mod stats;
mod table;
pub(crate) mod tls;
mod told;
mod websocket;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use sluice_acl::InspectPolicy;
use sluice_addr::Upstream;
use sluice_config::value::{InspectAction, Ratio};
use sluice_io::Stream;
use sluice_sniff::Protocol;
use sluice_telemetry::{EventLogger, warn};

use crate::icap::Services;
use crate::task::Task;
use crate::user::Permit;
use crate::worker::Worker;
use dump::Dump;
use h1::H1Interception;
use protocol::Ports;
use tls::TlsInterception;
pub(crate) use tls::{SetUpError, Surroundings};

pub(crate) use config::{AuditorConfig, AuditorKind, UserAudit};
pub(crate) use log::InspectSource;
pub(crate) use record::Recording;
pub(crate) use redial::Way;
pub(crate) use stats::Registered;
pub(crate) use told::{Said, Witness};

/// A node of the `auditor` section at work.
pub(crate) struct Auditor {
    pub(crate) name: Arc<str>,
    pub(crate) config: AuditorConfig,
    /// Where inspect and intercept records go.
    pub(crate) log: EventLogger,
    /// The group's auditd.
    pub(crate) recording: Option<Arc<Recording>>,
    /// Where copies of what is inside of TLS go.
    dump: Option<Dump>,
    pub(crate) stats: Registered,
    ports: Ports,
    limits: sluice_sniff::Limits,
    /// `None`: TLS passes as it is.
    pub(crate) tls: Option<TlsInterception>,
    h1: H1Interception,
    /// What adapts messages, of forward proxies too.
    pub(crate) icap: Services,
}

impl Auditor {
    /// What runs by `config`, after the auditor of that name that is `running`; files with relative names are looked for
    /// in `base`.
    ///
    /// # Errors
    /// [`SetUpError`] of interception.
    pub(crate) fn new(
        (name, base): (&str, &Path),
        config: &AuditorConfig,
        (log, stats): (EventLogger, Registered),
        around: &Surroundings,
        running: Option<&Self>,
    ) -> Result<Self, SetUpError> {
        let sizes = config.protocol_inspection.data0_size_limit;
        let running = running.and_then(|running| running.tls.as_ref());
        let (reqmod, respmod) = (&config.icap_reqmod_service, &config.icap_respmod_service);
        let witness = around.recording.as_ref().map(|recording| Witness {
            recording: Arc::clone(recording),
            auditor: name.into(),
            uri_max: config.log_uri_max_chars,
        });
        let icap = Services::new(reqmod.as_ref(), respmod.as_ref(), base, witness.as_ref())?;
        if config.tls_stream_dump.is_some() && config.tls_cert_agent.is_none() {
            warn!("`tls_stream_dump` copies nothing, since no TLS is opened without `tls_cert_agent`"; "auditor" => name);
        }
        Ok(Self {
            tls: TlsInterception::new(config, base, (around, &stats), running)?,
            h1: H1Interception::new(config, icap.clone()),
            icap,
            name: name.into(),
            config: config.clone(),
            log,
            dump: Dump::new(config, around).map_err(SetUpError::Dump)?,
            recording: around.recording.clone(),
            stats,
            ports: Ports::new(&config.server_tcp_portmap, &config.client_tcp_portmap),
            limits: sluice_sniff::Limits {
                ftp_greeting: sizes.ftp_greeting_msg.as_usize(),
                http_uri: sizes.http_request_uri.as_usize(),
                imap_greeting: sizes.imap_greeting_msg.as_usize(),
                ldap_request: sizes.ldap_request_msg.as_usize(),
                nats_info: sizes.nats_info_line.as_usize(),
            },
        })
    }

    /// Draws whether one more stream is inspected.
    fn takes_stream(&self, permit: Option<&Permit>) -> bool {
        let ratio = match permit.map(|permit| permit.user.config.audit) {
            None => self.config.task_audit_ratio,
            Some(user) if user.enable_protocol_inspection => {
                user.task_audit_ratio.unwrap_or(self.config.task_audit_ratio)
            }
            Some(_) => return false,
        };
        draw(ratio)
    }

    /// Draws whether one more request of a forward proxy is adapted. Here inspection need not be on for the user.
    pub(crate) fn adapts_request(&self, permit: Option<&Permit>) -> bool {
        let of_user = permit.and_then(|permit| permit.user.config.audit.task_audit_ratio);
        !self.icap.is_empty() && draw(of_user.unwrap_or(self.config.task_audit_ratio))
    }

    /// What stands in `status` of copies that do not go to auditd.
    pub(crate) fn copies(&self) -> Option<serde_json::Value> {
        self.dump.as_ref()?.status()
    }

    /// What is done with a stream of `protocol` to a host, if there is a choice.
    fn policy(&self, protocol: Protocol, upstream: &Upstream) -> Option<InspectAction> {
        let (_, policy) = self.policy_of(protocol)?;
        Some(policy.check(&upstream.host))
    }

    /// What decides on a stream of `protocol` to a host, if there is a choice: `h2_inspect_policy.child_match:intercept`.
    fn rule(&self, protocol: Protocol, upstream: &Upstream) -> Option<String> {
        let (policy_key, policy) = self.policy_of(protocol)?;
        let (action, key) = policy.find(&upstream.host);
        Some(format!("{policy_key}.{key}:{}", action.name()))
    }

    /// The policy for a protocol, with its key.
    fn policy_of(&self, protocol: Protocol) -> Option<(&'static str, &InspectPolicy)> {
        let config = &self.config;
        Some(match protocol {
            Protocol::Http2 => ("h2_inspect_policy", &config.h2_inspect_policy),
            Protocol::Imap => ("imap_inspect_policy", config.imap_inspect_policy.as_ref()?),
            Protocol::Smtp => ("smtp_inspect_policy", config.smtp_inspect_policy.as_ref()?),
            Protocol::Websocket => ("websocket_inspect_policy", &config.websocket_inspect_policy),
            _ => return None,
        })
    }
}

/// Whether this one belongs to the share.
fn draw(ratio: Ratio) -> bool {
    // A number below 1, so that all means all; most auditors take all, and need no number.
    ratio >= Ratio::ALL || fastrand::f64() < ratio.get()
}

/// An audited task on its way through the layers of its stream.
pub(crate) struct Flow {
    pub(crate) task: Task,
    pub(crate) auditor: Arc<Auditor>,
    pub(crate) worker: Arc<Worker>,
    /// Where the innermost known tunnel leads.
    pub(crate) upstream: Upstream,
    /// How the outermost one got there.
    pub(crate) way: Way,
    /// How many layers have been opened: 0 where the client's tunnel begins.
    pub(crate) depth: usize,
    /// The upstream's local and remote address, of a tunnel that has no socket of its own.
    pub(crate) shared: Option<[SocketAddr; 2]>,
}

impl Flow {
    fn user(&self) -> Option<UserAudit> {
        self.task.permit().map(|permit| permit.user.config.audit)
    }
}

/// An upstream connection: what it has sent already, and its escaper's limit.
pub(crate) type UpstreamEnd = (Stream, Vec<u8>, Option<sluice_config::value::SpeedLimitTcp>);
