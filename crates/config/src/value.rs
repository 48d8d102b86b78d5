//! The types of single values, in every form that the configuration allows.
//!
//! One module for each family. What is written in a word or a number is a [`scalar`]; what has a short and a long form
//! is an enum of shapes (see [`SHAPE`](crate::SHAPE)) behind a struct.

mod scalar;

mod base;
mod cpu;
mod files;
mod ftp;
mod histogram;
mod hosts;
mod http;
mod inspect;
mod ip_map;
mod listen;
mod listen_udp;
mod lists;
mod matched;
mod metrics;
mod network;
mod pool;
mod quic;
mod quota;
mod redirection;
mod redis;
mod resolve;
mod sizes;
mod socket;
mod speed;
mod speed_global;
mod speed_udp;
mod text;
mod time;
mod user;
mod weighted;
mod words;

pub use base::{AsciiStr, Secret};
pub use cpu::{AffinityError, Bindings, CpuSet, SchedAffinity};
pub use files::{AbsolutePath, FilePath};
pub use ftp::{ForwardCapability, FtpClient, FtpControl, FtpTransfer};
pub use histogram::{HistogramMetrics, Quantile};
pub use hosts::{Domain, Interface, ResolveAddrError, SockAddrSpec, UpstreamAddr};
pub use http::{HttpKeepalive, HttpServerId, ProxyProtocolVersion};
pub use inspect::{
    ClientPortmap, H1Interception, H2Interception, ImapInterception, InspectAction, InspectionSizeLimit, MaybeProtocol,
    Protocol, ProtocolInspection, ServerPortmap, SmtpInterception, StreamDump, TlsCertAgent, TlsInterceptionServer,
};
pub use ip_map::IpMap;
pub use listen::{Scale, TcpListen};
pub use listen_udp::UdpListen;
pub use lists::OneOrMany;
pub use matched::HostMatched;
pub(crate) use matched::MATCH_KEYS;
pub use metrics::{NodeName, TagMap};
pub use network::{Network, PortRange, Ports};
pub use pool::ConnectionPool;
pub use quic::QuicTransport;
pub use quota::{RateQuota, Ratio};
pub use redirection::{Redirected, ResolveRedirection};
pub use redis::Redis;
pub use resolve::{PickStrategy, QueryStrategy, ResolveStrategy};
pub use sizes::{ByteSize, ByteSize32};
pub use socket::{HappyEyeballs, SocketBuffer, TcpConnect, TcpKeepalive, TcpMiscOpts, UdpMiscOpts};
pub use speed::SpeedLimitTcp;
pub use speed_global::{GlobalDatagramLimit, GlobalStreamLimit};
pub use speed_udp::SpeedLimitUdp;
pub use text::{DateTime, EgressArea, HeaderName, UrlStr};
pub use time::Span;
pub use user::User;
pub use weighted::{Weight, WeightedName, WeightedSockAddr, WeightedUpstream};
pub use words::{ForwardedHeader, PickPolicy, ProxyRequestType, RegexStr};
