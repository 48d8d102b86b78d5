//! Datagrams: an origin that gives them back, and a SOCKS client that makes them byte by byte.

use std::net::{IpAddr, SocketAddr, UdpSocket as StdSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::Wire;

/// Sends every datagram back to where it came from.
#[derive(Debug)]
pub struct UdpEcho {
    addr: SocketAddr,
    ended: Arc<AtomicBool>,
}

impl UdpEcho {
    /// Listens on this address, such as `127.0.0.1:0`.
    pub fn on(address: &str) -> Self {
        let socket = StdSocket::bind(address).unwrap();
        let addr = socket.local_addr().unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ended);
        thread::spawn(move || {
            let mut buf = vec![0; 65_536];
            while let Ok((length, from)) = socket.recv_from(&mut buf) {
                if end.load(Ordering::Relaxed) {
                    return;
                }
                let _ = socket.send_to(&buf[..length], from);
            }
        });
        Self { addr, ended }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for UdpEcho {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let any: IpAddr = if self.addr.is_ipv4() {
            [127, 0, 0, 1].into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        };
        if let Ok(socket) = StdSocket::bind((any, 0)) {
            let _ = socket.send_to(b"", self.addr);
        }
    }
}

/// An association of SOCKS5 (RFC 1928 §7): its TCP connection, and the client's socket.
#[derive(Debug)]
pub struct UdpAssociation {
    /// The TCP connection.
    pub control: Wire,
    /// The client's socket.
    pub socket: UdpSocket,
    /// Where it sends to.
    pub relay: SocketAddr,
}

impl UdpAssociation {
    /// Asks for an association without authentication, for a client whose datagrams come from `expected`: type, address
    /// and port as in a request. The connection, and the reply.
    pub async fn ask_for(mut control: Wire, expected: &[u8]) -> (Wire, Vec<u8>) {
        let request = [&b"\x05\x01\x00\x05\x03\x00"[..], expected].concat();
        control.send(request).await;
        assert_eq!(control.exactly(2).await, b"\x05\x00");
        let reply = Self::reply(&mut control).await;
        (control, reply)
    }

    /// Reads a reply, without what follows.
    pub async fn reply(control: &mut Wire) -> Vec<u8> {
        let mut reply = control.exactly(4).await;
        let rest = if reply[3] == 1 { 6 } else { 18 };
        reply.extend(control.exactly(rest).await);
        reply
    }

    /// The address in a reply of success.
    pub fn bound(reply: &[u8]) -> SocketAddr {
        assert_eq!(reply[..3], [5, 0, 0], "{reply:x?}");
        take_address(&reply[3..]).0
    }

    /// The association of a connection that was answered with `relay`; the client's socket is on loopback.
    pub async fn new(control: Wire, relay: SocketAddr) -> Self {
        let local = if relay.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
        Self {
            control,
            socket: UdpSocket::bind(local).await.unwrap(),
            relay,
        }
    }

    /// Begins one for a client that does not say where its datagrams will come from.
    pub async fn begin(control: Wire) -> Self {
        let (control, reply) = Self::ask_for(control, &[1, 0, 0, 0, 0, 0, 0]).await;
        Self::new(control, Self::bound(&reply)).await
    }

    /// Sends a datagram as it is.
    pub async fn send(&self, datagram: &[u8]) {
        self.socket.send_to(datagram, self.relay).await.unwrap();
    }

    /// Sends a payload behind a header.
    pub async fn ask(&self, header: &[u8], payload: &[u8]) {
        self.send(&[header, payload].concat()).await;
    }

    /// The next datagram: where it comes from, and its payload.
    pub async fn next(&self) -> (SocketAddr, Vec<u8>) {
        let mut buf = vec![0; 70_000];
        let received = timeout(Duration::from_secs(10), self.socket.recv_from(&mut buf)).await;
        let (length, from) = received.expect("no datagram came in ten seconds").unwrap();
        assert_eq!(from, self.relay);
        assert_eq!(buf[..3], [0, 0, 0]);
        let (far, header) = take_address(&buf[3..length]);
        (far, buf[3 + header..length].to_vec())
    }

    /// Sends a payload, and checks that the same comes back from `from`.
    pub async fn echoed(&self, header: &[u8], payload: &[u8], from: SocketAddr) {
        self.ask(header, payload).await;
        assert_eq!(self.next().await, (from, payload.to_vec()));
    }
}

/// Takes type, address and port off the front; how long they are.
fn take_address(bytes: &[u8]) -> (SocketAddr, usize) {
    let (ip, end): (IpAddr, _) = match bytes[0] {
        1 => (<[u8; 4]>::try_from(&bytes[1..5]).unwrap().into(), 5),
        4 => (<[u8; 16]>::try_from(&bytes[1..17]).unwrap().into(), 17),
        other => panic!("address type {other}"),
    };
    let port = u16::from_be_bytes([bytes[end], bytes[end + 1]]);
    (SocketAddr::new(ip, port), end + 2)
}

/// The header of a datagram for an address.
pub fn udp_header(target: SocketAddr) -> Vec<u8> {
    let (kind, ip) = match target.ip() {
        IpAddr::V4(ip) => (1, ip.octets().to_vec()),
        IpAddr::V6(ip) => (4, ip.octets().to_vec()),
    };
    [&[0, 0, 0, kind][..], &ip, &target.port().to_be_bytes()].concat()
}

/// The header of a datagram for a name.
pub fn udp_header_of_name(name: &str, port: u16) -> Vec<u8> {
    let length = u8::try_from(name.len()).unwrap();
    [&[0, 0, 0, 3, length][..], name.as_bytes(), &port.to_be_bytes()].concat()
}
