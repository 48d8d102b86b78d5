//! Sockets that the service manager made for us.

use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;

use rustix::net::{AddressFamily, SocketType, sockopt};

/// Passed sockets by name (`FileDescriptorName=` of the socket unit); each is taken once.
#[derive(Debug, Default)]
pub struct ActivatedSockets(Vec<(String, OwnedFd)>);

impl ActivatedSockets {
    pub(crate) fn new(sockets: Vec<(String, OwnedFd)>) -> Self {
        Self(sockets)
    }

    /// Takes the next listening Unix stream socket called `name`.
    pub fn take_unix_listener(&mut self, name: &str) -> Option<UnixListener> {
        self.take(name, SocketType::STREAM, &[AddressFamily::UNIX])
            .map(Into::into)
    }

    /// Takes the next listening TCP socket called `name`.
    pub fn take_tcp_listener(&mut self, name: &str) -> Option<TcpListener> {
        let ip = &[AddressFamily::INET, AddressFamily::INET6];
        self.take(name, SocketType::STREAM, ip).map(Into::into)
    }

    /// Takes the next UDP socket called `name`.
    pub fn take_udp_socket(&mut self, name: &str) -> Option<UdpSocket> {
        let ip = &[AddressFamily::INET, AddressFamily::INET6];
        self.take(name, SocketType::DGRAM, ip).map(Into::into)
    }

    /// Names of the sockets that nobody has taken.
    pub fn left(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    fn take(&mut self, name: &str, kind: SocketType, families: &[AddressFamily]) -> Option<OwnedFd> {
        let fits = |fd: &OwnedFd| {
            sockopt::socket_type(fd.as_fd()).is_ok_and(|k| k == kind)
                && sockopt::socket_domain(fd.as_fd()).is_ok_and(|f| families.contains(&f))
        };
        let at = self.0.iter().position(|(n, fd)| n == name && fits(fd))?;
        Some(self.0.remove(at).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_taken_once_by_name_and_kind() {
        let tcp = || OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap());
        let udp = OwnedFd::from(UdpSocket::bind("127.0.0.1:0").unwrap());
        let named = |name: &str, fd| (name.to_owned(), fd);
        let mut sockets = ActivatedSockets::new(vec![named("dns", tcp()), named("dns", udp), named("web", tcp())]);
        assert!(sockets.take_unix_listener("dns").is_none());
        assert!(sockets.take_udp_socket("dns").is_some());
        assert!(sockets.take_udp_socket("dns").is_none());
        assert!(sockets.take_tcp_listener("dns").is_some());
        assert_eq!(sockets.left().collect::<Vec<_>>(), ["web"]);
    }
}
