//! Pieces of decrypted streams as Wireshark's exported PDUs, one in each datagram.
//!
//! A datagram holds two headers and bytes of the stream. The outer header names the connection of the client, the inner one
//! that of the upstream, who dissects the bytes, and where in the stream they stand. [`DumpWriter`] is the sending side,
//! [`Pdu::take`] the reading one; any program that takes exported PDUs, as Wireshark's udpdump, may stand in for ours.
//!
//! A header is a list of options, each a tag and a length of two bytes and a value, without padding (others' paddings of
//! zeros are taken). All numbers are big-endian.

mod frames;
#[cfg(any(test, feature = "cases"))]
#[doc(hidden)]
pub mod properties;
mod read;
#[cfg(test)]
mod tests;
mod write;

use std::net::SocketAddr;

pub use read::{DumpError, Pdu};
pub use write::DumpWriter;

/// The dissector of HTTP/2, and that of bytes that say nothing.
const HTTP2: &str = "http2";
const DATA: &str = "data";

/// The smallest limit of a datagram that is kept to: both headers fit into it many times.
pub const MIN_PACKET_SIZE: usize = 1200;

/// The limit of a datagram where none is configured.
pub const DEFAULT_PACKET_SIZE: usize = 1480;

/// The largest datagram that UDP carries (over IPv4).
pub const MAX_PACKET_SIZE: usize = 65_507;

/// Tags of options, as in Wireshark's `exported_pdu.h`.
mod tag {
    pub(super) const END_OF_OPT: u16 = 0;
    pub(super) const DISSECTOR_NAME: u16 = 12;
    pub(super) const DISSECTOR_TABLE_NAME: u16 = 14;
    pub(super) const IPV4_SRC: u16 = 20;
    pub(super) const IPV4_DST: u16 = 21;
    pub(super) const IPV6_SRC: u16 = 22;
    pub(super) const IPV6_DST: u16 = 23;
    pub(super) const PORT_TYPE: u16 = 24;
    pub(super) const SRC_PORT: u16 = 25;
    pub(super) const DST_PORT: u16 = 26;
    pub(super) const DISSECTOR_TABLE_NAME_NUM_VAL: u16 = 32;
    pub(super) const TCP_INFO_DATA: u16 = 34;
}

/// The dissector of the outer header, which reads the inner one.
const EXPORTED_PDU: &str = "exported_pdu";

/// The port type of TCP.
const TCP: u32 = 2;

/// Length and version of the option with TCP's counters.
const TCP_INFO_LENGTH: usize = 19;
const TCP_INFO_VERSION: u16 = 1;

/// Flags of TCP in each piece: PSH and ACK.
const TCP_FLAGS: u16 = 0x0018;

/// Which way bytes went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the upstream to the client.
    ToClient,
    /// From the client to the upstream.
    ToRemote,
}

/// Both ends of a connection, seen from one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoints {
    /// Who sent it.
    pub src: SocketAddr,
    /// Who got it.
    pub dst: SocketAddr,
}

impl Endpoints {
    /// The same connection, seen from a piece of the other direction.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
        }
    }
}

/// The four ends of the two connections that a proxied stream goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Addresses {
    /// The client.
    pub client: SocketAddr,
    /// The proxy's side of the client's connection.
    pub server: SocketAddr,
    /// The proxy's side of the upstream's connection.
    pub local: SocketAddr,
    /// The upstream, or the next proxy.
    pub remote: SocketAddr,
}

impl Addresses {
    /// The client's connection for a piece that goes `direction`.
    pub fn outer(&self, direction: Direction) -> Endpoints {
        let to_remote = Endpoints {
            src: self.client,
            dst: self.server,
        };
        match direction {
            Direction::ToClient => to_remote.reversed(),
            Direction::ToRemote => to_remote,
        }
    }

    /// The upstream's connection for a piece that goes `direction`.
    pub fn inner(&self, direction: Direction) -> Endpoints {
        let to_remote = Endpoints {
            src: self.local,
            dst: self.remote,
        };
        match direction {
            Direction::ToClient => to_remote.reversed(),
            Direction::ToRemote => to_remote,
        }
    }
}

/// Who is to make sense of the bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Dissector {
    /// The dissector of this name, as `http` or `http2`.
    Name(String),
    /// Whoever Wireshark has for this TCP port.
    TcpPort(u16),
    /// Whoever Wireshark has inside of TLS for this port.
    TlsPort(u16),
}

/// Where in the stream a piece stands, as TCP would count: from 1, modulo 2^32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TcpInfo {
    /// Number of the first byte.
    pub seq: u32,
    /// Number of the byte after the last one.
    pub next_seq: u32,
    /// Number of the next byte of the other direction.
    pub ack: u32,
}
