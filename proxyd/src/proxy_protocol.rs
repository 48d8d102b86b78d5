//! PROXY protocol headers that we send (wire-protocols.md §5, without TLVs).

use std::io::Write;
use std::net::{IpAddr, SocketAddr};

use sluice_config::value::ProxyProtocolVersion;

const V2_SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command PROXY.
const V2_PROXY: u8 = 0x21;
const V2_TCP4: u8 = 0x11;
const V2_TCP6: u8 = 0x21;

/// The header for a connection from `client` to `server`; `None` if they are of different address families, which the
/// protocol cannot say.
pub(crate) fn header(version: ProxyProtocolVersion, client: SocketAddr, server: SocketAddr) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(107);
    match (version, client.ip(), server.ip()) {
        (ProxyProtocolVersion::V1, from @ IpAddr::V4(_), to @ IpAddr::V4(_))
        | (ProxyProtocolVersion::V1, from @ IpAddr::V6(_), to @ IpAddr::V6(_)) => {
            let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
            write!(
                out,
                "PROXY {family} {from} {to} {} {}\r\n",
                client.port(),
                server.port()
            )
            .ok()?;
        }
        (ProxyProtocolVersion::V2, IpAddr::V4(from), IpAddr::V4(to)) => {
            out.extend_from_slice(&V2_SIGNATURE);
            out.extend_from_slice(&[V2_PROXY, V2_TCP4, 0, 12]);
            out.extend_from_slice(&from.octets());
            out.extend_from_slice(&to.octets());
            put_ports(&mut out, client, server);
        }
        (ProxyProtocolVersion::V2, IpAddr::V6(from), IpAddr::V6(to)) => {
            out.extend_from_slice(&V2_SIGNATURE);
            out.extend_from_slice(&[V2_PROXY, V2_TCP6, 0, 36]);
            out.extend_from_slice(&from.octets());
            out.extend_from_slice(&to.octets());
            put_ports(&mut out, client, server);
        }
        _ => return None,
    }
    Some(out)
}

fn put_ports(out: &mut Vec<u8>, client: SocketAddr, server: SocketAddr) {
    out.extend_from_slice(&client.port().to_be_bytes());
    out.extend_from_slice(&server.port().to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(client: &str, server: &str) -> (SocketAddr, SocketAddr) {
        (client.parse().unwrap(), server.parse().unwrap())
    }

    #[test]
    fn version_1_is_one_line() {
        let (client, server) = addresses("192.0.2.1:40000", "192.0.2.9:8080");
        let header = header(ProxyProtocolVersion::V1, client, server).unwrap();
        assert_eq!(header, b"PROXY TCP4 192.0.2.1 192.0.2.9 40000 8080\r\n");
    }

    #[test]
    fn version_2_is_binary_with_both_addresses() {
        let (client, server) = addresses("[2001:db8::1]:1", "[2001:db8::2]:258");
        let header = header(ProxyProtocolVersion::V2, client, server).unwrap();
        assert_eq!(header[..16], *b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24");
        assert_eq!(header.len(), 16 + 36);
        assert_eq!(header[48..], [0, 1, 1, 2]);
    }

    #[test]
    fn two_families_cannot_be_told() {
        let (client, server) = addresses("192.0.2.1:1", "[2001:db8::2]:2");
        assert!(header(ProxyProtocolVersion::V1, client, server).is_none());
        assert!(header(ProxyProtocolVersion::V2, client, server).is_none());
    }
}
