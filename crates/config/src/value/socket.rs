//! Options of sockets and of connecting.

use schemars::JsonSchema;
use serde::Deserialize;

use super::sizes::ByteSize;
use super::time::Span;

/// Sizes of a socket's kernel buffers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(from = "BufferForm")]
pub struct SocketBuffer {
    /// SO_RCVBUF.
    pub recv: Option<ByteSize>,
    /// SO_SNDBUF.
    pub send: Option<ByteSize>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename = "config::shape", rename_all = "snake_case")]
#[schemars(untagged, rename = "SocketBuffer")]
enum BufferForm {
    Map(BufferMap),
    Text(ByteSize),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct BufferMap {
    #[serde(alias = "receive", alias = "read")]
    recv: Option<ByteSize>,
    #[serde(alias = "write")]
    send: Option<ByteSize>,
}

impl From<BufferForm> for SocketBuffer {
    fn from(form: BufferForm) -> Self {
        match form {
            BufferForm::Map(BufferMap { recv, send }) => Self { recv, send },
            BufferForm::Text(size) => Self {
                recv: Some(size),
                send: Some(size),
            },
        }
    }
}

/// How often and how long connecting is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TcpConnect {
    /// Tries per address family beyond the first, each address at most once.
    pub max_retry: usize,
    /// The time for one try.
    pub each_timeout: Span,
}

impl TcpConnect {
    /// What holds under two settings: the fewer tries, the shorter time.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            max_retry: self.max_retry.min(other.max_retry),
            each_timeout: self.each_timeout.min(other.each_timeout),
        }
    }
}

impl Default for TcpConnect {
    fn default() -> Self {
        Self {
            max_retry: 2,
            each_timeout: Span::secs(30),
        }
    }
}

/// Times of connecting over two address families at once (RFC 8305).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HappyEyeballs {
    /// The wait for addresses of the preferred family after those of the other came.
    #[serde(alias = "first_resolution_delay")]
    pub resolution_delay: Span,
    /// The wait for the second answer while nothing is connecting.
    pub second_resolution_timeout: Span,
    /// Addresses tried before the other family has its turn.
    pub first_address_family_count: usize,
    /// The time between the starts of two tries; from 100ms to 2s.
    #[serde(deserialize_with = "attempt_delay")]
    pub connection_attempt_delay: Span,
}

impl Default for HappyEyeballs {
    fn default() -> Self {
        Self {
            resolution_delay: Span::millis(50),
            second_resolution_timeout: Span::secs(2),
            first_address_family_count: 1,
            connection_attempt_delay: Span::millis(250),
        }
    }
}

fn attempt_delay<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Span, D::Error> {
    Span::deserialize(deserializer).map(|delay| delay.clamp(Span::millis(100), Span::secs(2)))
}

/// Probes on a connection that is otherwise silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(from = "KeepaliveForm")]
pub struct TcpKeepalive {
    /// SO_KEEPALIVE.
    pub enable: bool,
    /// TCP_KEEPIDLE: silence before the first probe.
    pub idle_time: Span,
    /// TCP_KEEPINTVL; the system's if not set.
    pub probe_interval: Option<Span>,
    /// TCP_KEEPCNT; the system's if not set.
    pub probe_count: Option<u32>,
}

impl TcpKeepalive {
    /// Probes after the default time.
    pub const ON: Self = Self {
        enable: true,
        idle_time: Span::secs(60),
        probe_interval: None,
        probe_count: None,
    };

    /// What holds under two settings: on if either says so, with the smaller of all numbers.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            enable: self.enable || other.enable,
            idle_time: self.idle_time.min(other.idle_time),
            probe_interval: least(self.probe_interval, other.probe_interval),
            probe_count: least(self.probe_count, other.probe_count),
        }
    }
}

impl Default for TcpKeepalive {
    fn default() -> Self {
        let Self { idle_time, .. } = Self::ON;
        Self {
            enable: false,
            idle_time,
            probe_interval: None,
            probe_count: None,
        }
    }
}

/// The smaller of two values, of which either may be absent.
fn least<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename = "config::shape", rename_all = "snake_case")]
#[schemars(untagged, rename = "TcpKeepalive")]
enum KeepaliveForm {
    Map(KeepaliveMap),
    Bool(bool),
    Other(Span),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct KeepaliveMap {
    enable: bool,
    idle_time: Span,
    probe_interval: Option<Span>,
    probe_count: Option<u32>,
}

impl Default for KeepaliveMap {
    fn default() -> Self {
        let TcpKeepalive {
            enable,
            idle_time,
            probe_interval,
            probe_count,
        } = TcpKeepalive::default();
        Self {
            enable,
            idle_time,
            probe_interval,
            probe_count,
        }
    }
}

impl From<KeepaliveForm> for TcpKeepalive {
    fn from(form: KeepaliveForm) -> Self {
        match form {
            KeepaliveForm::Map(KeepaliveMap {
                enable,
                idle_time,
                probe_interval,
                probe_count,
            }) => Self {
                enable,
                idle_time,
                probe_interval,
                probe_count,
            },
            KeepaliveForm::Bool(enable) => Self {
                enable,
                ..Self::default()
            },
            KeepaliveForm::Other(idle_time) => Self { idle_time, ..Self::ON },
        }
    }
}

/// Options of a TCP socket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TcpMiscOpts {
    /// TCP_NODELAY; each user of this type says what not set means.
    pub no_delay: Option<bool>,
    /// TCP_MAXSEG.
    #[serde(alias = "mss")]
    pub max_segment_size: Option<u16>,
    /// IP_TTL.
    #[serde(alias = "ttl")]
    pub time_to_live: Option<u8>,
    /// IPV6_UNICAST_HOPS.
    pub hop_limit: Option<u8>,
    /// IP_TOS.
    #[serde(alias = "tos")]
    pub type_of_service: Option<u8>,
    /// IPV6_TCLASS.
    pub traffic_class: Option<u8>,
    /// TCP_CONGESTION.
    pub congestion_control: Option<String>,
    /// SO_MARK.
    #[serde(alias = "mark")]
    pub netfilter_mark: Option<u32>,
}

impl TcpMiscOpts {
    /// What holds under two settings: no delay if either says so, the smaller sizes and hops, `later` for the rest.
    #[must_use]
    pub fn with(self, later: Self) -> Self {
        Self {
            no_delay: self.no_delay.max(later.no_delay),
            max_segment_size: least(self.max_segment_size, later.max_segment_size),
            time_to_live: least(self.time_to_live, later.time_to_live),
            hop_limit: least(self.hop_limit, later.hop_limit),
            type_of_service: later.type_of_service.or(self.type_of_service),
            traffic_class: later.traffic_class.or(self.traffic_class),
            congestion_control: later.congestion_control.or(self.congestion_control),
            netfilter_mark: later.netfilter_mark.or(self.netfilter_mark),
        }
    }
}

/// Options of a UDP socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UdpMiscOpts {
    /// IP_TTL.
    #[serde(alias = "ttl")]
    pub time_to_live: Option<u8>,
    /// IPV6_UNICAST_HOPS.
    pub hop_limit: Option<u8>,
    /// IP_TOS.
    #[serde(alias = "tos")]
    pub type_of_service: Option<u8>,
    /// IPV6_TCLASS.
    pub traffic_class: Option<u8>,
    /// SO_MARK.
    #[serde(alias = "mark")]
    pub netfilter_mark: Option<u32>,
}

impl UdpMiscOpts {
    /// What holds under two settings: the smaller hops, `later` for the rest.
    #[must_use]
    pub fn with(self, later: Self) -> Self {
        Self {
            time_to_live: least(self.time_to_live, later.time_to_live),
            hop_limit: least(self.hop_limit, later.hop_limit),
            type_of_service: later.type_of_service.or(self.type_of_service),
            traffic_class: later.traffic_class.or(self.traffic_class),
            netfilter_mark: later.netfilter_mark.or(self.netfilter_mark),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::scalar::decode;

    #[test]
    fn buffers_are_one_size_or_two() {
        let both = SocketBuffer {
            recv: Some(ByteSize::kib(64)),
            send: Some(ByteSize::kib(64)),
        };
        assert_eq!(decode("64KiB"), Ok(both));
        assert_eq!(decode("65536"), Ok(both));
        assert_eq!(decode("{receive: 65536, write: 64KiB}"), Ok(both));
        assert_eq!(decode("{}"), Ok(SocketBuffer::default()));
        for yaml in ["[]", "{rcv: 1}", "1.5", "true"] {
            assert!(decode::<SocketBuffer>(yaml).is_err(), "{yaml}");
        }
        assert!(decode::<SocketBuffer>("{read: 1, recv: 2}").is_err());
    }

    #[test]
    fn one_key_leaves_the_other_defaults() {
        // CFG-07
        let connect = TcpConnect {
            max_retry: 0,
            ..TcpConnect::default()
        };
        assert_eq!(decode("{max-retry: 0}"), Ok(connect));
        let eyeballs = HappyEyeballs {
            resolution_delay: Span::secs(1),
            ..HappyEyeballs::default()
        };
        assert_eq!(decode("{first_resolution_delay: 1}"), Ok(eyeballs));
    }

    #[test]
    fn the_delay_between_tries_is_kept_in_bounds() {
        let delay = |yaml| decode::<HappyEyeballs>(yaml).unwrap().connection_attempt_delay;
        assert_eq!(delay("{connection_attempt_delay: 10ms}"), Span::millis(100));
        assert_eq!(delay("{connection_attempt_delay: 1m}"), Span::secs(2));
        assert_eq!(delay("{}"), Span::millis(250));
    }

    #[test]
    fn keepalive_is_a_switch_a_time_or_a_map() {
        for (yaml, expected) in [
            ("true", TcpKeepalive::ON),
            ("false", TcpKeepalive::default()),
            (
                "10",
                TcpKeepalive {
                    idle_time: Span::secs(10),
                    ..TcpKeepalive::ON
                },
            ),
            ("{}", TcpKeepalive::default()),
            (
                "{enable: yes, probe-count: '3'}",
                TcpKeepalive {
                    probe_count: Some(3),
                    ..TcpKeepalive::ON
                },
            ),
        ] {
            assert_eq!(decode::<TcpKeepalive>(yaml), Ok(expected), "{yaml}");
        }
        for yaml in ["yes", "[]", "~", "{idle: 5}"] {
            assert!(decode::<TcpKeepalive>(yaml).is_err(), "{yaml}");
        }
    }

    #[test]
    fn two_keepalives_add_up() {
        let user = TcpKeepalive {
            idle_time: Span::secs(10),
            probe_count: Some(5),
            ..TcpKeepalive::default()
        };
        let both = TcpKeepalive {
            probe_count: Some(3),
            ..TcpKeepalive::ON
        }
        .or(user);
        assert_eq!(
            both,
            TcpKeepalive {
                idle_time: Span::secs(10),
                probe_count: Some(3),
                ..TcpKeepalive::ON
            }
        );
    }

    #[test]
    fn socket_options_have_short_names() {
        let options = decode::<TcpMiscOpts>("{no_delay: on, mss: 1400, ttl: 64, tos: 0x10, mark: 7}").unwrap();
        assert_eq!(
            (options.no_delay, options.max_segment_size, options.netfilter_mark),
            (Some(true), Some(1400), Some(7))
        );
        let options = decode::<UdpMiscOpts>("{hop_limit: 3, traffic-class: 1}").unwrap();
        assert_eq!((options.hop_limit, options.traffic_class), (Some(3), Some(1)));
        assert!(decode::<UdpMiscOpts>("{mss: 1400}").is_err());
        assert!(decode::<TcpMiscOpts>("{ttl: 256}").is_err());
    }

    #[test]
    fn later_socket_options_win_or_narrow() {
        let first = TcpMiscOpts {
            no_delay: Some(true),
            hop_limit: Some(9),
            netfilter_mark: Some(1),
            ..Default::default()
        };
        let later = TcpMiscOpts {
            no_delay: Some(false),
            hop_limit: Some(12),
            netfilter_mark: Some(2),
            ..Default::default()
        };
        let both = first.with(later);
        assert_eq!(
            (both.no_delay, both.hop_limit, both.netfilter_mark),
            (Some(true), Some(9), Some(2))
        );
        let first = UdpMiscOpts {
            time_to_live: Some(9),
            type_of_service: Some(1),
            ..Default::default()
        };
        let later = UdpMiscOpts {
            time_to_live: Some(12),
            netfilter_mark: Some(2),
            ..Default::default()
        };
        let both = first.with(later);
        assert_eq!(
            (both.time_to_live, both.type_of_service, both.netfilter_mark),
            (Some(9), Some(1), Some(2))
        );
    }
}
