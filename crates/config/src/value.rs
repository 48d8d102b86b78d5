//! The types of single values, in every form that the configuration allows.
//!
//! One module for each family. What is written in a word or a number is a [`scalar`]; what has a short and a long form
//! is an enum of shapes (see [`SHAPE`](crate::SHAPE)) behind a struct.

mod scalar;

mod base;
mod files;
mod hosts;
mod http;
mod listen;
mod lists;
mod metrics;
mod network;
mod redirection;
mod resolve;
mod sizes;
mod socket;
mod speed;
mod time;
mod words;

pub use base::{AsciiStr, Secret};
pub use files::FilePath;
pub use hosts::{Domain, Interface, ResolveAddrError, SockAddrSpec, UpstreamAddr};
pub use http::{HttpKeepalive, HttpServerId, ProxyProtocolVersion};
pub use listen::{Scale, TcpListen};
pub use lists::OneOrMany;
pub use metrics::{NodeName, TagMap};
pub use network::{Network, PortRange, Ports};
pub use redirection::{Redirected, ResolveRedirection};
pub use resolve::{PickStrategy, QueryStrategy, ResolveStrategy};
pub use sizes::{ByteSize, ByteSize32};
pub use socket::{HappyEyeballs, SocketBuffer, TcpConnect, TcpKeepalive, TcpMiscOpts, UdpMiscOpts};
pub use speed::SpeedLimitTcp;
pub use time::Span;
pub use words::{ForwardedHeader, PickPolicy, ProxyRequestType, RegexStr};
