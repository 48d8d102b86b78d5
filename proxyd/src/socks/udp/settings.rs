//! How a server takes the datagrams of its clients.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use sluice_addr::Host;
use sluice_config::value::{IpMap, PortRange, SpeedLimitUdp, UdpMiscOpts};
use sluice_io::udp::{Socket, batch_size};
use sluice_socks::udp::MAX_HEADER;
use sluice_socks::v5::UdpClient;
use sluice_sys::udp::UdpBind;

use crate::config::udp_options;
use crate::server::socks_proxy::SocksProxyConfig;
use crate::udp::Shape;

/// The most ports of a range that are tried for one socket.
const MOST_TRIES: u32 = 1024;

/// What a `socks_proxy` is configured with for datagrams.
pub(crate) struct UdpSettings {
    pub(crate) several_targets: bool,
    pub(crate) initial_timeout: Duration,
    pub(crate) shape: Shape,
    pub(crate) yield_size: u64,
    pub(crate) limit: Option<SpeedLimitUdp>,
    /// The addresses that clients are told.
    pub(crate) echo: IpMap,
    v4: Vec<Ipv4Addr>,
    v6: Vec<Ipv6Addr>,
    ports: Option<PortRange>,
    options: UdpMiscOpts,
}

impl UdpSettings {
    pub(crate) fn new(config: &SocksProxyConfig) -> Self {
        let packet_size = config.udp_relay_packet_size.as_usize().clamp(512, 65_536);
        Self {
            several_targets: config.use_udp_associate,
            initial_timeout: config.udp_client_initial_timeout.0,
            shape: Shape {
                batch: batch_size(config.udp_relay_batch_size, packet_size + MAX_HEADER),
                packet_size,
                buffer: config.udp_socket_buffer,
            },
            yield_size: config.udp_relay_yield_size.0.max(256 << 10),
            limit: config.udp_sock_speed_limit.filter(|limit| !limit.is_off()),
            echo: config.transmute_udp_echo_ip.clone(),
            v4: config.udp_bind_ipv4.0.clone(),
            v6: config.udp_bind_ipv6.0.clone(),
            ports: config.udp_bind_port_range,
            options: config.udp_misc_opts,
        }
    }

    /// Opens a socket for the datagrams of a client that asks for `wanted`, which means `expected`. Its TCP connection came
    /// to `own`. Options of the client's user are laid over the server's.
    pub(super) fn open(
        &self,
        wanted: &Host,
        expected: UdpClient,
        own: SocketAddr,
        users: Option<UdpMiscOpts>,
    ) -> io::Result<Socket> {
        let address = self
            .address(wanted, expected, own)
            .ok_or(io::ErrorKind::AddrNotAvailable)?;
        let bind = UdpBind {
            receive_buffer: self.shape.buffer.recv.map(|size| size.as_usize()),
            send_buffer: self.shape.buffer.send.map(|size| size.as_usize()),
            options: udp_options(self.options.with(users.unwrap_or_default())),
            tell_local: address.ip().is_unspecified(),
            ..UdpBind::new(address)
        };
        let socket = match self.ports {
            None => bind.open(),
            Some(ports) => open_in(ports, bind),
        };
        Socket::new(socket?)
    }

    /// The address to bind, with port 0. A client that says where its datagrams will come from needs one of that family;
    /// where it does not say, the family that it writes zeroes in is a wish (SK-07).
    fn address(&self, wanted: &Host, expected: UdpClient, own: SocketAddr) -> Option<SocketAddr> {
        let wanted = match wanted {
            Host::Ip(ip) => ip.is_ipv6(),
            Host::Domain(_) => own.is_ipv6(),
        };
        let mut own = own;
        own.set_port(0);
        if let Some(bind) = self.bind_ip(wanted) {
            return Some(SocketAddr::new(bind, 0));
        }
        if own.is_ipv6() == wanted {
            return Some(own);
        }
        if expected.ip.is_some() {
            return None;
        }
        Some(self.bind_ip(own.is_ipv6()).map_or(own, |bind| SocketAddr::new(bind, 0)))
    }

    /// One of the addresses of a family that are configured.
    fn bind_ip(&self, v6: bool) -> Option<IpAddr> {
        if v6 {
            fastrand::choice(&self.v6).map(|&ip| ip.into())
        } else {
            fastrand::choice(&self.v4).map(|&ip| ip.into())
        }
    }
}

/// Opens a socket on a free port of a range.
fn open_in(ports: PortRange, mut bind: UdpBind) -> io::Result<std::net::UdpSocket> {
    let count = u32::from(ports.end) - u32::from(ports.start) + 1;
    let first = fastrand::u32(..count);
    let mut last = io::ErrorKind::AddrInUse.into();
    for step in 0..count.min(MOST_TRIES) {
        let port = u32::from(ports.start) + (first + step) % count;
        bind.address.set_port(u16::try_from(port).unwrap_or(ports.end));
        match bind.open() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = error,
            other => return other,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_socks::v5;

    fn settings(keys: &str) -> UdpSettings {
        let yaml = format!("{{escaper: e, {keys}}}");
        UdpSettings::new(&sluice_config::decode_text(&yaml).unwrap())
    }

    /// The address that a client of `own` gets that says `stated`.
    fn address(settings: &UdpSettings, stated: &str, own: &str) -> Option<String> {
        let target: sluice_addr::Upstream = stated.parse().unwrap();
        let command = v5::Command::UdpAssociate;
        let wanted = target.host.clone();
        let expected = v5::Request { command, target }.udp_client().unwrap();
        let address = settings.address(&wanted, expected, own.parse().unwrap());
        address.map(|address| address.ip().to_string())
    }

    #[test]
    fn the_address_is_of_the_family_that_the_client_needs_sk_07() {
        let none = settings("");
        let v4 = settings("udp_bind_ipv4: 192.0.2.4");
        let v6 = settings("udp_bind_ipv6: ['2001:db8::6']");
        for (settings, stated, own, address_told) in [
            // Nothing is configured: the address of the TCP connection, where the client can use it.
            (&none, "0.0.0.0:0", "192.0.2.1:1", Some("192.0.2.1")),
            (&none, "0.0.0.0:0", "[2001:db8::1]:1", Some("2001:db8::1")),
            (&none, "[::]:0", "192.0.2.1:1", Some("192.0.2.1")),
            (&none, "0", "[2001:db8::1]:1", Some("2001:db8::1")),
            (&none, "198.51.100.7:9", "192.0.2.1:1", Some("192.0.2.1")),
            (&none, "198.51.100.7:9", "[2001:db8::1]:1", None),
            (&none, "[2001:db8::7]:9", "192.0.2.1:1", None),
            // An IPv4 address for datagrams, whatever the TCP connection is.
            (&v4, "0.0.0.0:0", "192.0.2.1:1", Some("192.0.2.4")),
            (&v4, "0.0.0.0:0", "[2001:db8::1]:1", Some("192.0.2.4")),
            (&v4, "198.51.100.7:9", "[2001:db8::1]:1", Some("192.0.2.4")),
            (&v4, "[::]:0", "[2001:db8::1]:1", Some("2001:db8::1")),
            (&v4, "[2001:db8::7]:9", "192.0.2.1:1", None),
            (&v4, "0", "192.0.2.1:1", Some("192.0.2.4")),
            (&v6, "0.0.0.0:0", "[2001:db8::1]:1", Some("2001:db8::6")),
            (&v6, "[2001:db8::7]:9", "192.0.2.1:1", Some("2001:db8::6")),
            (&v6, "198.51.100.7:9", "192.0.2.1:1", Some("192.0.2.1")),
        ] {
            assert_eq!(
                address(settings, stated, own).as_deref(),
                address_told,
                "{stated} {own}"
            );
        }
    }

    #[test]
    fn ports_come_from_the_range_until_it_is_used_up() {
        let start = std::net::UdpSocket::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let start = start.min(65_530);
        let ports = PortRange { start, end: start + 2 };
        let bind = || UdpBind::new("127.0.0.1:0".parse().unwrap());
        let mut taken = Vec::new();
        let error = loop {
            match open_in(ports, bind()) {
                Ok(socket) => taken.push(socket),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(taken.len() <= 3);
        for socket in &taken {
            let port = socket.local_addr().unwrap().port();
            assert!((start..=start + 2).contains(&port));
        }
    }

    #[test]
    fn sizes_have_their_bounds() {
        let small = settings("udp_relay_packet_size: 1, udp_relay_batch_size: 0, udp_relay_yield_size: 1");
        assert_eq!(
            (small.shape.packet_size, small.shape.batch, small.yield_size),
            (512, 1, 256 << 10)
        );
        let large = settings("udp_relay_packet_size: 1M, udp_relay_batch_size: 5000");
        assert_eq!((large.shape.packet_size, large.shape.batch), (65_536, 15));
        let default = settings("");
        assert_eq!(
            (default.shape.packet_size, default.shape.batch, default.yield_size),
            (4096, 8, 1 << 20)
        );
    }
}
