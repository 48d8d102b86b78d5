//! Pieces of streams as TCP/IP packets, for tools that know no exported PDUs.
//!
//! The packets are made up: the bytes are those of the stream after decryption, the addresses those of the upstream's
//! connection, the numbers those that the dump counts. A flow begins with a handshake, so that flows of one connection
//! after the other are streams of their own.

use std::net::IpAddr;

use sluice_wire::dump::{Endpoints, TcpInfo};

const SYN: u8 = 0x02;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;

/// The longest piece of one packet, so that its length fits IPv4's header.
const MAX_PIECE: usize = 60_000;

const TCP: u8 = 6;
/// For experiments (RFC 3692): what is lost is told in packets of it.
const MARK: u8 = 253;

/// Where both directions of a flow begin to count. Readers tell a new stream from an old one by that, too.
pub(crate) fn first_seq(flow: u64) -> u32 {
    let low = u32::try_from(flow & u64::from(u32::MAX)).unwrap_or_default();
    low.wrapping_mul(0x9e37_79b1)
}

/// Gives the packets of a handshake to `send`; `endpoints` are those of a piece from the client to the upstream, `first`
/// is where both directions begin to count.
pub(crate) fn handshake(endpoints: Endpoints, first: u32, mut send: impl FnMut(&[u8])) {
    let (back, next) = (endpoints.reversed(), first.wrapping_add(1));
    send(&packet(endpoints, first, 0, SYN, &[]));
    send(&packet(back, first, next, SYN | ACK, &[]));
    send(&packet(endpoints, next, next, ACK, &[]));
}

/// Gives the packets of a piece to `send`.
pub(crate) fn piece(endpoints: Endpoints, first: u32, info: TcpInfo, data: &[u8], mut send: impl FnMut(&[u8])) {
    let mut seq = first.wrapping_add(info.seq);
    let ack = first.wrapping_add(info.ack);
    for part in data.chunks(MAX_PIECE) {
        send(&packet(endpoints, seq, ack, PSH | ACK, part));
        seq = seq.wrapping_add(u32::try_from(part.len()).unwrap_or_default());
    }
}

/// A packet that says something to people.
pub(crate) fn mark(text: &str) -> Vec<u8> {
    let zero = IpAddr::from([0, 0, 0, 0]);
    let text = text.as_bytes();
    ip(zero, zero, MARK, &text[..text.len().min(MAX_PIECE)])
}

fn packet(endpoints: Endpoints, seq: u32, ack: u32, flags: u8, data: &[u8]) -> Vec<u8> {
    let (src, dst) = one_family(endpoints);
    let mut segment = Vec::with_capacity(20 + data.len());
    segment.extend_from_slice(&endpoints.src.port().to_be_bytes());
    segment.extend_from_slice(&endpoints.dst.port().to_be_bytes());
    segment.extend_from_slice(&seq.to_be_bytes());
    segment.extend_from_slice(&ack.to_be_bytes());
    segment.extend_from_slice(&[5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]); // no options, window, checksum, urgent pointer
    segment.extend_from_slice(data);
    let length = u32::try_from(segment.len()).unwrap_or_default();
    let mut pseudo = Sum::default();
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => pseudo.add(&src.octets()).add(&dst.octets()),
        (IpAddr::V6(src), IpAddr::V6(dst)) => pseudo.add(&src.octets()).add(&dst.octets()),
        _ => &mut pseudo,
    };
    let sum = pseudo
        .add(&length.to_be_bytes())
        .add(&[0, 0, 0, TCP])
        .add(&segment)
        .get();
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    ip(src, dst, TCP, &segment)
}

fn ip(src: IpAddr, dst: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(40 + payload.len());
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let length = u16::try_from(20 + payload.len()).unwrap_or(u16::MAX);
            out.extend_from_slice(&[0x45, 0]);
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(&[0, 0, 0x40, 0, 64, protocol, 0, 0]); // not to be cut into fragments
            out.extend_from_slice(&src.octets());
            out.extend_from_slice(&dst.octets());
            let sum = Sum::default().add(&out).get();
            out[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        (src, dst) => {
            let wide = |ip: IpAddr| match ip {
                IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                IpAddr::V6(ip) => ip,
            };
            let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
            out.extend_from_slice(&[0x60, 0, 0, 0]);
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(&[protocol, 64]);
            out.extend_from_slice(&wide(src).octets());
            out.extend_from_slice(&wide(dst).octets());
        }
    }
    out.extend_from_slice(payload);
    out
}

fn one_family(endpoints: Endpoints) -> (IpAddr, IpAddr) {
    let wide = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().into(),
        wide @ IpAddr::V6(_) => wide,
    };
    let (src, dst) = (endpoints.src.ip(), endpoints.dst.ip());
    if src.is_ipv4() == dst.is_ipv4() {
        (src, dst)
    } else {
        (wide(src), wide(dst))
    }
}

/// The Internet's checksum (RFC 1071). Every part but the last has an even length.
#[derive(Default)]
struct Sum(u64);

impl Sum {
    fn add(&mut self, bytes: &[u8]) -> &mut Self {
        for pair in bytes.chunks(2) {
            let low = pair.get(1).copied().unwrap_or_default();
            self.0 += u64::from(u16::from_be_bytes([pair[0], low]));
        }
        self
    }

    fn get(&self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !u16::try_from(sum).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(src: &str, dst: &str) -> Endpoints {
        Endpoints {
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
        }
    }

    #[test]
    fn a_header_has_the_checksum_of_the_books() {
        // The example of RFC 1071, and one header that everybody knows.
        assert_eq!(
            Sum::default()
                .add(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7])
                .get(),
            0x220d
        );
        let header = [
            0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0, 0xc7,
        ];
        assert_eq!(Sum::default().add(&header).get(), 0xb861);
    }

    #[test]
    fn long_pieces_are_several_packets_that_count_on() {
        let data = vec![7; 130_000];
        let info = TcpInfo {
            seq: u32::MAX - 10,
            next_seq: 0,
            ack: 5,
        };
        for ends in [
            endpoints("10.0.0.1:1", "10.0.0.2:2"),
            endpoints("[::1]:1", "[::2]:2"),
            endpoints("10.0.0.1:1", "[::2]:2"),
        ] {
            let mut packets = Vec::new();
            piece(ends, first_seq(9), info, &data, |packet| packets.push(packet.to_vec()));
            assert_eq!(packets.len(), 3);
            let head = if packets[0][0] == 0x45 { 20 } else { 40 };
            let seq = |packet: &[u8]| u32::from_be_bytes(*packet[head + 4..].first_chunk().unwrap());
            assert_eq!(seq(&packets[1]), seq(&packets[0]).wrapping_add(60_000));
            let total: usize = packets.iter().map(|packet| packet.len() - head - 20).sum();
            assert_eq!(total, data.len());
        }
    }
}
