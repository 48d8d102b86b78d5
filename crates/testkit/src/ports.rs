//! Free ports for programs that must be told theirs.
//!
//! A port found by binding port 0 may be gone before the program binds it: any connection may be given it as its own.
//! So these lie below the range from which the system gives out ports, and a lock file keeps other tests away from one
//! for as long as it is in use.

use std::fs::{self, File, OpenOptions};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{FlockOperation, flock};

/// A loopback port, the same for TCP and UDP, that no other test uses until this is dropped.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: File,
}

const LOWEST: u16 = 15_000;

impl Port {
    /// Finds one that is free now.
    pub fn free() -> Self {
        static TURN: AtomicU32 = AtomicU32::new(0);
        let span = u32::from(above() - LOWEST);
        let start = std::process::id().wrapping_mul(7919);
        for _ in 0..span {
            let turn = TURN.fetch_add(1, Ordering::Relaxed);
            let offset = u16::try_from(start.wrapping_add(turn) % span).unwrap();
            if let Some(port) = Self::try_take(LOWEST + offset) {
                return port;
            }
        }
        panic!("no port is free");
    }

    fn try_take(number: u16) -> Option<Self> {
        let dir = lock_dir();
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(dir.join(number.to_string()))
            .ok()?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).ok()?;
        is_free(number).then_some(Self { number, _lock: lock })
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// It on 127.0.0.1.
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.number).into()
    }
}

fn lock_dir() -> PathBuf {
    let dir = std::env::temp_dir().join(format!("sluice-test-ports-{}", rustix::process::geteuid().as_raw()));
    fs::create_dir_all(&dir).unwrap();
    dir
}

/// Where the system's own range begins.
fn above() -> u16 {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let lowest = range.split_whitespace().next().and_then(|port| port.parse().ok());
    lowest.filter(|lowest| *lowest > LOWEST + 1000).unwrap_or(32_768)
}

fn is_free(number: u16) -> bool {
    let everywhere = [
        IpAddr::from(Ipv4Addr::LOCALHOST),
        Ipv4Addr::UNSPECIFIED.into(),
        Ipv6Addr::LOCALHOST.into(),
    ];
    everywhere.iter().all(|ip| {
        let tcp = TcpListener::bind((*ip, number));
        let udp = UdpSocket::bind((*ip, number));
        // Without IPv6 nothing can be in use there.
        let free = |error: &std::io::Error| error.kind() != std::io::ErrorKind::AddrInUse;
        tcp.as_ref().err().is_none_or(free) && udp.as_ref().err().is_none_or(free)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ports_differ_and_can_be_bound() {
        let (a, b) = (Port::free(), Port::free());
        assert_ne!(a.number(), b.number());
        TcpListener::bind(a.addr()).unwrap();
        UdpSocket::bind(b.addr()).unwrap();
    }

    #[test]
    fn a_port_in_use_is_not_given_out() {
        let port = Port::free();
        let number = port.number();
        assert!(Port::try_take(number).is_none());
        drop(port);
        let _listener = TcpListener::bind((Ipv4Addr::LOCALHOST, number)).unwrap();
        assert!(Port::try_take(number).is_none());
    }
}
