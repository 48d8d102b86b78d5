//! How the `log` section is written.

use std::borrow::Cow;
use std::net::IpAddr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};
use sluice_addr::Host;
use sluice_config::Misfit;
use sluice_config::value::{AsciiStr, Secret, SockAddrSpec, Span, TcpKeepalive};
use sluice_tls::OpensslClientConfig;

use super::{DriverConfig, FluentdConfig, JournalConfig, LogConfig, LoggerConfig, StdoutConfig, SyslogConfig};
use crate::render::syslog::{Facility, Header};
use crate::target::{EitherMap, Placed, UdpForm, UnixForm, last_target};

/// Where a syslog server listens (RFC 5426 §3.3).
const SYSLOG_PORT: u16 = 514;

/// An integer from `LOW` to `HIGH`.
struct Count<const LOW: usize, const HIGH: usize>(usize);

/// Length of a queue.
type Queue = Count<1, { 1 << 20 }>;
/// Writer threads of one driver.
type Threads = Count<1, 64>;
/// Exponent of the sampling of I/O errors.
type Sampling = Count<0, 16>;
/// Records that are kept for a collector.
type Retries = Count<0, { 1 << 16 }>;

impl<'de, const LOW: usize, const HIGH: usize> Deserialize<'de> for Count<LOW, HIGH> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = usize::deserialize(deserializer)?;
        if (LOW..=HIGH).contains(&value) {
            return Ok(Self(value));
        }
        let expected = format!("an integer from {LOW} to {HIGH}");
        let found = de::Unexpected::Unsigned(value as u64);
        Err(de::Error::invalid_value(found, &expected.as_str()))
    }
}

impl<const LOW: usize, const HIGH: usize> JsonSchema for Count<LOW, HIGH> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Count{LOW}To{HIGH}").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "integer", "minimum": LOW, "maximum": HIGH})
    }
}

/// A driver's name alone: all its defaults.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum DriverName {
    Discard,
    Fluentd,
    Journal,
    Stdout,
    Syslog,
}

impl From<DriverName> for DriverConfig {
    fn from(name: DriverName) -> Self {
        match name {
            DriverName::Discard => Self::Discard,
            DriverName::Fluentd => FluentdConfig::default().into(),
            DriverName::Journal => Self::Journal(JournalConfig::default()),
            DriverName::Stdout => Self::Stdout(StdoutConfig::default()),
            DriverName::Syslog => Self::Syslog(SyslogConfig {
                facility: Facility::User,
                ..SyslogConfig::default()
            }),
        }
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename = "config::shape", rename_all = "snake_case")]
#[schemars(untagged, rename = "LogConfig")]
pub(super) enum LogForm {
    Str(DriverName),
    Map(Box<LogMap>),
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LogMap {
    /// For kinds without an entry of their own; of `default`, `syslog` and `fluentd` the last one counts.
    default: Option<Placed<LoggerConfig>>,
    /// In place of `default: {syslog: …}`.
    syslog: Option<Placed<SyslogConfig>>,
    /// In place of `default: {fluentd: …}`.
    fluentd: Option<Placed<FluentdConfig>>,
    /// Task records.
    task: Option<LoggerConfig>,
    /// Escape records.
    escape: Option<LoggerConfig>,
    /// Resolve records.
    resolve: Option<LoggerConfig>,
    /// Inspect and intercept records.
    audit: Option<LoggerConfig>,
}

impl From<LogForm> for LogConfig {
    fn from(form: LogForm) -> Self {
        let map = match form {
            LogForm::Str(name) => {
                return Self {
                    default: DriverConfig::from(name).into(),
                    ..Self::default()
                };
            }
            LogForm::Map(map) => *map,
        };
        let syslog = map.syslog.map(|it| it.map(|it| DriverConfig::Syslog(it).into()));
        let fluentd = map.fluentd.map(|it| it.map(|it| DriverConfig::from(it).into()));
        Self {
            default: Placed::last([map.default, syslog, fluentd]).unwrap_or_default(),
            task: map.task,
            escape: map.escape,
            resolve: map.resolve,
            audit: map.audit,
        }
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename = "config::shape", rename_all = "snake_case")]
#[schemars(untagged, rename = "LoggerConfig")]
pub(super) enum LoggerForm {
    Str(DriverName),
    Map(Box<LoggerMap>),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LoggerMap {
    /// Of several drivers the last one counts; of none, records are discarded.
    journal: Option<Placed<JournalConfig>>,
    syslog: Option<Placed<SyslogConfig>>,
    fluentd: Option<Placed<FluentdConfig>>,
    stdout: Option<Placed<StdoutConfig>>,
    /// Length of each logger's queue.
    #[serde(alias = "channel_size")]
    async_channel_size: Queue,
    /// Writer threads.
    #[serde(alias = "thread_number")]
    async_thread_number: Threads,
    /// After the first two, an I/O error is reported once in 2^n.
    io_error_sampling_offset: Sampling,
}

impl Default for LoggerMap {
    fn default() -> Self {
        let LoggerConfig {
            channel_size,
            thread_number,
            io_error_sampling_offset,
            ..
        } = LoggerConfig::default();
        Self {
            journal: None,
            syslog: None,
            fluentd: None,
            stdout: None,
            async_channel_size: Count(channel_size),
            async_thread_number: Count(thread_number),
            io_error_sampling_offset: Count(usize::from(io_error_sampling_offset)),
        }
    }
}

impl From<LoggerForm> for LoggerConfig {
    fn from(form: LoggerForm) -> Self {
        let map = match form {
            LoggerForm::Str(name) => return DriverConfig::from(name).into(),
            LoggerForm::Map(map) => *map,
        };
        let driver = Placed::last([
            map.journal.map(|it| it.map(DriverConfig::Journal)),
            map.syslog.map(|it| it.map(DriverConfig::Syslog)),
            map.fluentd.map(|it| it.map(DriverConfig::from)),
            map.stdout.map(|it| it.map(DriverConfig::Stdout)),
        ]);
        Self {
            driver: driver.unwrap_or_default(),
            channel_size: map.async_channel_size.0,
            thread_number: map.async_thread_number.0,
            // At most 16.
            io_error_sampling_offset: u8::try_from(map.io_error_sampling_offset.0).unwrap_or(u8::MAX),
        }
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename = "config::shape", rename_all = "snake_case")]
#[schemars(untagged, rename = "JournalConfig")]
pub(super) enum JournalForm {
    Null,
    Map(Nothing),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

impl From<JournalForm> for JournalConfig {
    fn from(form: JournalForm) -> Self {
        match form {
            JournalForm::Null | JournalForm::Map(Nothing {}) => Self::default(),
        }
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename = "config::shape", rename_all = "snake_case")]
#[schemars(untagged, rename = "SyslogConfig")]
pub(super) enum SyslogForm {
    Null,
    Map(Box<SyslogMap>),
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SyslogMap {
    /// The path of the receiver's socket; of the three targets the last one counts, without one it is the system's.
    #[serde(alias = "backend_unix")]
    target_unix: Option<Placed<UnixForm>>,
    #[serde(alias = "backend_udp")]
    target_udp: Option<Placed<UdpForm>>,
    #[serde(alias = "backend")]
    target: Option<Placed<EitherMap>>,
    /// RFC 5424 in place of RFC 3164.
    format_rfc5424: Option<Rfc5424Form>,
    /// JSON body after a CEE cookie.
    #[serde(alias = "use_cls")]
    use_cee_log_syntax: bool,
    /// The cookie; `@cee:` by default.
    #[serde(alias = "cee_cookie")]
    cee_event_flag: Option<AsciiStr>,
    /// Host name in the header.
    emit_hostname: bool,
    /// Adds `report_ts`.
    append_report_ts: bool,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename = "config::shape", rename_all = "snake_case")]
#[schemars(untagged, rename = "Rfc5424")]
enum Rfc5424Form {
    Int(i32),
    Str(String),
    Map(Rfc5424Map),
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Rfc5424Map {
    /// Private enterprise number in the name of the structured data.
    enterprise_id: i32,
    /// `MSGID`, at most 32 printable ASCII characters.
    message_id: Option<String>,
}

impl TryFrom<SyslogForm> for SyslogConfig {
    type Error = Misfit;

    fn try_from(form: SyslogForm) -> Result<Self, Misfit> {
        let map = match form {
            SyslogForm::Null => return Ok(Self::default()),
            SyslogForm::Map(map) => *map,
        };
        let default = Self::default();
        let header = match map.format_rfc5424 {
            None => Header::Rfc3164,
            Some(form) => {
                let (enterprise_id, message_id) = match form {
                    Rfc5424Form::Int(enterprise_id) => (enterprise_id, None),
                    Rfc5424Form::Str(message_id) => (0, Some(message_id)),
                    Rfc5424Form::Map(map) => (map.enterprise_id, map.message_id),
                };
                // RFC 5424 §6: 1*32PRINTUSASCII
                let printable =
                    |id: &String| (1..=32).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
                if !message_id.as_ref().is_none_or(printable) {
                    let message = "expected a message id of 1 to 32 printable ASCII characters without space";
                    return Err(Misfit::at("format_rfc5424", message));
                }
                Header::Rfc5424 {
                    enterprise_id,
                    message_id,
                }
            }
        };
        Ok(Self {
            target: last_target(map.target_unix, map.target_udp, map.target, SYSLOG_PORT),
            header,
            use_cee_log_syntax: map.use_cee_log_syntax,
            cee_event_flag: map
                .cee_event_flag
                .map_or(default.cee_event_flag, |flag| flag.to_string()),
            emit_hostname: map.emit_hostname,
            append_report_ts: map.append_report_ts,
            facility: Facility::Daemon,
        })
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename = "config::shape", rename_all = "snake_case")]
#[schemars(untagged, rename = "FluentdConfig")]
pub(super) enum FluentdForm {
    Null,
    Str(SockAddrSpec),
    Map(Box<FluentdMap>),
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FluentdMap {
    /// The collector; `127.0.0.1:24224` by default.
    #[serde(alias = "addr")]
    address: Option<SockAddrSpec>,
    /// Local address.
    #[serde(alias = "bind")]
    bind_ip: Option<IpAddr>,
    /// Secret of the handshake; without it there is no handshake.
    shared_key: Option<Secret<String>>,
    /// Sent if the collector asks for it.
    username: String,
    /// Sent, hashed, if the collector asks for it.
    password: Secret<String>,
    /// Name of this host in the handshake; the machine's own by default.
    hostname: Option<String>,
    /// TCP keepalive; on after 60s by default.
    tcp_keepalive: Option<TcpKeepalive>,
    /// TLS to the collector.
    #[serde(alias = "tls")]
    tls_client: Option<OpensslClientConfig>,
    /// Name to verify; the host of `address` by default.
    tls_name: Option<Host>,
    /// For TCP connect, TLS and handshake together; 10s by default.
    connect_timeout: Option<Span>,
    /// Pause after a failed connect; 10s by default.
    connect_delay: Option<Span>,
    /// For one write; 1s by default.
    write_timeout: Option<Span>,
    /// Longest stay of a record in the write buffer; 100ms by default.
    flush_interval: Option<Span>,
    /// Records kept while the collector cannot be reached; 10 by default.
    retry_queue_len: Option<Retries>,
}

impl TryFrom<FluentdForm> for FluentdConfig {
    type Error = Misfit;

    fn try_from(form: FluentdForm) -> Result<Self, Misfit> {
        let default = Self::default();
        let map = match form {
            FluentdForm::Null => return Ok(default),
            FluentdForm::Str(address) => return Ok(Self { address, ..default }),
            FluentdForm::Map(map) => *map,
        };
        let time = |key, given: Option<Span>, default| match given {
            Some(Span(time)) if time.is_zero() => Err(Misfit::at(key, "expected a time longer than 0")),
            Some(Span(time)) => Ok(time),
            None => Ok(default),
        };
        if map.tls_client.is_none() && map.tls_name.is_some() {
            return Err(Misfit::at("tls_name", "there is no `tls_client` that would verify it"));
        }
        Ok(Self {
            address: map.address.unwrap_or(default.address),
            bind_ip: map.bind_ip,
            shared_key: map.shared_key,
            username: map.username,
            password: map.password,
            hostname: map.hostname,
            tcp_keepalive: map.tcp_keepalive.unwrap_or(default.tcp_keepalive),
            tls_client: map.tls_client,
            tls_name: map.tls_name,
            base_dir: default.base_dir,
            connect_timeout: time("connect_timeout", map.connect_timeout, default.connect_timeout)?,
            connect_delay: map.connect_delay.map_or(default.connect_delay, |time| time.0),
            write_timeout: time("write_timeout", map.write_timeout, default.write_timeout)?,
            flush_interval: map.flush_interval.map_or(default.flush_interval, |time| time.0),
            retry_queue_len: map.retry_queue_len.map_or(default.retry_queue_len, |count| count.0),
        })
    }
}
