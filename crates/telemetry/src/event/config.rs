//! The `log` section.

mod forms;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use sluice_addr::Host;
use sluice_config::value::{ResolveAddrError, Secret, SockAddrSpec, TcpKeepalive};
use sluice_tls::client::{Connector, SessionCache};
use sluice_tls::{BuildError, OpensslClientConfig};

use super::LogKind;
use crate::naming::Identity;
use crate::render::syslog::{Facility, Form, Header};
use crate::target::{DatagramTarget, schema_of};
use crate::transport::Target;

/// The `log` section: how each kind of event log is written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(from = "forms::LogForm")]
pub struct LogConfig {
    /// For kinds without an entry of their own; discards unless said otherwise.
    pub default: LoggerConfig,
    /// Task records.
    pub task: Option<LoggerConfig>,
    /// Escape records.
    pub escape: Option<LoggerConfig>,
    /// Resolve records.
    pub resolve: Option<LoggerConfig>,
    /// Inspect and intercept records.
    pub audit: Option<LoggerConfig>,
}

impl LogConfig {
    /// What holds for `kind`.
    pub fn of(&self, kind: LogKind) -> &LoggerConfig {
        let own = match kind {
            LogKind::Audit => &self.audit,
            LogKind::Escape => &self.escape,
            LogKind::Resolve => &self.resolve,
            LogKind::Task => &self.task,
        };
        own.as_ref().unwrap_or(&self.default)
    }

    /// Says from which folder relative paths count: that of the file the section stands in.
    pub fn set_base_dir(&mut self, base: &Path) {
        let own = [&mut self.task, &mut self.escape, &mut self.resolve, &mut self.audit];
        for logger in own.into_iter().flatten().chain([&mut self.default]) {
            if let DriverConfig::Fluentd(fluentd) = &mut logger.driver {
                base.clone_into(&mut fluentd.base_dir);
            }
        }
    }
}

/// How the loggers of one kind are written.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(from = "forms::LoggerForm")]
pub struct LoggerConfig {
    /// Where records go.
    pub driver: DriverConfig,
    /// Length of each logger's queue; 4096 by default.
    pub channel_size: usize,
    /// Writer threads; 1 by default.
    pub thread_number: usize,
    /// After the first two, an I/O error is reported once in 2^n; 10 by default, at most 16.
    pub io_error_sampling_offset: u8,
}

impl Default for LoggerConfig {
    fn default() -> Self {
        Self {
            driver: DriverConfig::default(),
            channel_size: 4096,
            thread_number: 1,
            io_error_sampling_offset: 10,
        }
    }
}

impl From<DriverConfig> for LoggerConfig {
    fn from(driver: DriverConfig) -> Self {
        Self {
            driver,
            ..Self::default()
        }
    }
}

/// Where records go.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum DriverConfig {
    /// Nowhere.
    #[default]
    Discard,
    /// A collector that speaks the fluentd Forward protocol.
    Fluentd(Box<FluentdConfig>),
    /// systemd's journal.
    Journal(JournalConfig),
    /// Standard output.
    Stdout(StdoutConfig),
    /// A syslog daemon.
    Syslog(SyslogConfig),
}

impl From<FluentdConfig> for DriverConfig {
    fn from(config: FluentdConfig) -> Self {
        Self::Fluentd(Box::new(config))
    }
}

/// The `journal` driver. It has no keys.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(from = "forms::JournalForm")]
pub struct JournalConfig {
    socket: PathBuf,
}

impl Default for JournalConfig {
    fn default() -> Self {
        Self::at("/run/systemd/journal/socket")
    }
}

impl JournalConfig {
    /// A journal that listens elsewhere.
    pub(crate) fn at(socket: impl AsRef<Path>) -> Self {
        Self {
            socket: socket.as_ref().to_owned(),
        }
    }

    pub(crate) fn target(&self) -> Target {
        Target::Unix(self.socket.clone())
    }
}

/// The `stdout` driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StdoutConfig {
    /// Layout of the lines.
    pub format: StdoutFormat,
}

/// Layout of lines on standard output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StdoutFormat {
    /// Time, level, fields sorted by name, message; coloured on a terminal.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// The `syslog` driver.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "forms::SyslogForm")]
pub struct SyslogConfig {
    /// The receiver; the system's own socket when absent.
    pub target: Option<DatagramTarget>,
    /// Header form; RFC 3164 by default.
    pub header: Header,
    /// JSON body after a CEE cookie; off by default.
    pub use_cee_log_syntax: bool,
    /// The cookie; `@cee:` by default.
    pub cee_event_flag: String,
    /// Host name in the header; off by default.
    pub emit_hostname: bool,
    /// Adds `report_ts`; off by default.
    pub append_report_ts: bool,
    /// `daemon` when configured by a map, `user` by the bare driver name.
    pub facility: Facility,
}

impl Default for SyslogConfig {
    fn default() -> Self {
        Self {
            target: None,
            header: Header::Rfc3164,
            use_cee_log_syntax: false,
            cee_event_flag: "@cee:".to_owned(),
            emit_hostname: false,
            append_report_ts: false,
            facility: Facility::Daemon,
        }
    }
}

impl SyslogConfig {
    pub(crate) fn target(&self) -> Result<Target, ResolveAddrError> {
        self.target
            .as_ref()
            .map_or_else(|| Ok(system_syslog()), DatagramTarget::resolve)
    }

    pub(crate) fn form(&self, identity: &Identity) -> Form {
        Form {
            facility: self.facility,
            header: self.header.clone(),
            cee: self.use_cee_log_syntax.then(|| self.cee_event_flag.clone()),
            hostname: self.emit_hostname.then(hostname),
            append_report_ts: self.append_report_ts,
            ident: identity.product.product().to_owned(),
            pid: identity.pid,
        }
    }
}

/// The system's syslog socket.
pub(crate) fn system_syslog() -> Target {
    let known = ["/dev/log", "/var/run/syslog", "/var/run/log"];
    let there = known.into_iter().find(|path| Path::new(path).exists());
    Target::Unix(there.unwrap_or("/dev/log").into())
}

/// The machine's name, as the kernel knows it.
pub(crate) fn hostname() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    // It stands between spaces in a header.
    name.replace(|c: char| c.is_whitespace() || c.is_control(), "-")
}

/// The `fluentd` driver: Forward protocol, version 1.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "forms::FluentdForm")]
pub struct FluentdConfig {
    /// The collector; `127.0.0.1:24224` by default.
    pub address: SockAddrSpec,
    /// Local address.
    pub bind_ip: Option<IpAddr>,
    /// Secret of the handshake; without it there is no handshake.
    pub shared_key: Option<Secret<String>>,
    /// Sent if the collector asks for it.
    pub username: String,
    /// Sent, hashed, if the collector asks for it.
    pub password: Secret<String>,
    /// Name of this host in the handshake; the machine's own when absent.
    pub hostname: Option<String>,
    /// TCP keepalive; on after 60 s of silence by default.
    pub tcp_keepalive: TcpKeepalive,
    /// TLS to the collector; off by default.
    pub tls_client: Option<OpensslClientConfig>,
    /// Name to verify; the host of `address` when absent.
    pub tls_name: Option<Host>,
    /// Folder from which relative paths in `tls_client` count; see [`LogConfig::set_base_dir`].
    pub base_dir: PathBuf,
    /// For TCP connect, TLS and handshake together; 10 s by default.
    pub connect_timeout: Duration,
    /// Pause after a failed connect; 10 s by default.
    pub connect_delay: Duration,
    /// For one write; what it was about is dropped. 1 s by default.
    pub write_timeout: Duration,
    /// Longest stay of a record in the write buffer; 100 ms by default.
    pub flush_interval: Duration,
    /// Records kept while the collector cannot be reached; 10 by default.
    pub retry_queue_len: usize,
}

impl Default for FluentdConfig {
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 24224)).into(),
            bind_ip: None,
            shared_key: None,
            username: String::new(),
            password: Secret::default(),
            hostname: None,
            tcp_keepalive: TcpKeepalive::ON,
            tls_client: None,
            tls_name: None,
            base_dir: PathBuf::new(),
            connect_timeout: Duration::from_secs(10),
            connect_delay: Duration::from_secs(10),
            write_timeout: Duration::from_secs(1),
            flush_interval: Duration::from_millis(100),
            retry_queue_len: 10,
        }
    }
}

impl FluentdConfig {
    /// The TLS client and the name that it verifies.
    pub(crate) fn connector(&self) -> Result<Option<(Connector, Host)>, BuildError> {
        let Some(config) = &self.tls_client else {
            return Ok(None);
        };
        let connector = Connector::build(config, &self.base_dir, SessionCache::OneSite)?;
        let name = self.tls_name.clone().unwrap_or_else(|| match &self.address {
            SockAddrSpec::Addr(addr) => Host::Ip(addr.ip()),
            SockAddrSpec::Name(host, _) => Host::Domain(host.clone()),
        });
        Ok(Some((connector, name)))
    }
}

schema_of! {
    LogConfig => forms::LogForm;
    LoggerConfig => forms::LoggerForm;
    JournalConfig => forms::JournalForm;
    SyslogConfig => forms::SyslogForm;
    FluentdConfig => forms::FluentdForm;
}

#[cfg(test)]
mod tests;
