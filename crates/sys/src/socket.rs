//! Listening and connecting sockets with options that the standard library does not set.
//!
//! Options are applied in the order the kernel needs them: what `bind`, `listen` or `connect` reads comes before.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

/// TCP keep-alive probes; `None` leaves the system's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe.
    pub idle: Duration,
    /// Time between probes.
    pub interval: Option<Duration>,
    /// Probes that go unanswered before the connection is given up.
    pub retries: Option<u32>,
}

/// Options of a TCP connection; `None` leaves the system's value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TcpOptions {
    /// `TCP_NODELAY`.
    pub no_delay: Option<bool>,
    /// `TCP_MAXSEG`.
    pub max_segment_size: Option<u16>,
    /// `IP_TTL`, IPv4 only.
    pub time_to_live: Option<u8>,
    /// `IPV6_UNICAST_HOPS`, IPv6 only.
    pub hop_limit: Option<u8>,
    /// `IP_TOS`, IPv4 only.
    pub type_of_service: Option<u8>,
    /// `IPV6_TCLASS`, IPv6 only.
    pub traffic_class: Option<u8>,
    /// `TCP_CONGESTION`.
    pub congestion_control: Option<String>,
    /// `SO_MARK`.
    pub netfilter_mark: Option<u32>,
    /// `SO_KEEPALIVE` and its times.
    pub keepalive: Option<Keepalive>,
}

impl TcpOptions {
    /// Whether applying these options changes nothing.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Whether these options give a value to each that `old` gives one to: what is left out cannot be set anew.
    #[must_use]
    pub fn sets_all_of(&self, old: &Self) -> bool {
        sets(&self.no_delay, &old.no_delay)
            && sets(&self.max_segment_size, &old.max_segment_size)
            && sets(&self.time_to_live, &old.time_to_live)
            && sets(&self.hop_limit, &old.hop_limit)
            && sets(&self.type_of_service, &old.type_of_service)
            && sets(&self.traffic_class, &old.traffic_class)
            && sets(&self.congestion_control, &old.congestion_control)
            && sets(&self.netfilter_mark, &old.netfilter_mark)
            && sets(&self.keepalive, &old.keepalive)
    }

    /// Sets the options on a socket whose peer (or own address) is of `v6`'s family.
    ///
    /// # Errors
    /// The kernel's, for the first option that it refuses.
    pub fn apply(&self, socket: SockRef<'_>, v6: bool) -> io::Result<()> {
        if let Some(on) = self.no_delay {
            socket.set_tcp_nodelay(on)?;
        }
        if let Some(mss) = self.max_segment_size {
            socket.set_tcp_mss(u32::from(mss))?;
        }
        if v6 {
            if let Some(hops) = self.hop_limit {
                socket.set_unicast_hops_v6(u32::from(hops))?;
            }
            if let Some(class) = self.traffic_class {
                socket.set_tclass_v6(u32::from(class))?;
            }
        } else {
            if let Some(ttl) = self.time_to_live {
                socket.set_ttl_v4(u32::from(ttl))?;
            }
            if let Some(tos) = self.type_of_service {
                socket.set_tos_v4(u32::from(tos))?;
            }
        }
        if let Some(name) = &self.congestion_control {
            socket.set_tcp_congestion(name.as_bytes())?;
        }
        if let Some(mark) = self.netfilter_mark {
            socket.set_mark(mark)?;
        }
        if let Some(keepalive) = self.keepalive {
            let mut probes = TcpKeepalive::new().with_time(keepalive.idle);
            if let Some(interval) = keepalive.interval {
                probes = probes.with_interval(interval);
            }
            if let Some(retries) = keepalive.retries {
                probes = probes.with_retries(retries);
            }
            socket.set_tcp_keepalive(&probes)?;
        }
        Ok(())
    }
}

fn sets<T>(new: &Option<T>, old: &Option<T>) -> bool {
    new.is_some() || old.is_none()
}

/// How a listening TCP socket is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenOptions {
    /// Address to bind.
    pub address: SocketAddr,
    /// Pending connections that the kernel queues.
    pub backlog: u32,
    /// `SO_REUSEPORT`: several sockets of one user share the port.
    pub reuse_port: bool,
    /// `IPV6_V6ONLY`; matters for `[::]` only.
    pub only_v6: Option<bool>,
    /// Device to bind to (`SO_BINDTODEVICE`).
    pub interface: Option<String>,
    /// `SO_MARK`.
    pub netfilter_mark: Option<u32>,
    /// `TCP_MAXSEG`.
    pub max_segment_size: Option<u16>,
    /// Inherited by accepted sockets.
    pub keepalive: Option<Keepalive>,
    /// `IP_TRANSPARENT`: accept connections to addresses that are not ours.
    pub transparent: bool,
}

impl ListenOptions {
    /// Options with the kernel's defaults and room for `backlog` pending connections.
    #[must_use]
    pub fn new(address: SocketAddr, backlog: u32) -> Self {
        Self {
            address,
            backlog,
            reuse_port: true,
            only_v6: None,
            interface: None,
            netfilter_mark: None,
            max_segment_size: None,
            keepalive: None,
            transparent: false,
        }
    }

    /// Opens the socket: non-blocking, close-on-exec, listening.
    ///
    /// # Errors
    /// The kernel's: `EADDRINUSE`, `EACCES`, `EADDRNOTAVAIL`…
    pub fn listen(&self) -> io::Result<std::net::TcpListener> {
        let socket = Socket::new(
            Domain::for_address(self.address),
            Type::STREAM.nonblocking(),
            Some(Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        if self.reuse_port {
            socket.set_reuse_port(true)?;
        }
        if let (SocketAddr::V6(address), Some(only)) = (self.address, self.only_v6)
            && address.ip().is_unspecified()
        {
            socket.set_only_v6(only)?;
        }
        if let Some(interface) = &self.interface {
            socket.bind_device(Some(interface.as_bytes()))?;
        }
        if let Some(mark) = self.netfilter_mark {
            socket.set_mark(mark)?;
        }
        if self.transparent {
            match self.address {
                SocketAddr::V4(_) => socket.set_ip_transparent_v4(true)?,
                SocketAddr::V6(_) => socket.set_ip_transparent_v6(true)?,
            }
        }
        if let Some(mss) = self.max_segment_size {
            socket.set_tcp_mss(u32::from(mss))?;
        }
        if let Some(keepalive) = self.keepalive {
            TcpOptions {
                keepalive: Some(keepalive),
                ..TcpOptions::default()
            }
            .apply(SockRef::from(&socket), self.address.is_ipv6())?;
        }
        socket.bind(&self.address.into())?;
        socket.listen(i32::try_from(self.backlog).unwrap_or(i32::MAX))?;
        Ok(socket.into())
    }
}

impl ListenOptions {
    /// Whether [`Self::update`] can bring a socket of `old` to what these options say.
    #[must_use]
    pub fn sets_all_of(&self, old: &Self) -> bool {
        sets(&self.netfilter_mark, &old.netfilter_mark)
            && sets(&self.max_segment_size, &old.max_segment_size)
            && sets(&self.keepalive, &old.keepalive)
    }

    /// Sets anew, on a socket that listens already, what can be changed there: backlog, mark, segment size, keep-alive.
    ///
    /// # Errors
    /// The kernel's, for the first option that it refuses.
    pub fn update(&self, socket: &std::net::TcpListener) -> io::Result<()> {
        let socket = SockRef::from(socket);
        if let Some(mark) = self.netfilter_mark {
            socket.set_mark(mark)?;
        }
        let tcp = TcpOptions {
            max_segment_size: self.max_segment_size,
            keepalive: self.keepalive,
            ..TcpOptions::default()
        };
        tcp.apply(SockRef::from(&*socket), self.address.is_ipv6())?;
        socket.listen(i32::try_from(self.backlog).unwrap_or(i32::MAX))
    }
}

/// Where an outgoing TCP socket starts from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Source {
    /// Local address to bind; port 0 lets the kernel choose at connect time.
    pub address: Option<SocketAddr>,
    /// Device to bind to (`SO_BINDTODEVICE`).
    pub interface: Option<String>,
}

/// Opens a non-blocking TCP socket for a connection to an address of `peer`'s family; it is not connected yet.
///
/// # Errors
/// The kernel's: `EMFILE`, `EADDRNOTAVAIL`, `ENODEV`…
pub fn outgoing(peer: SocketAddr, source: &Source, options: &TcpOptions) -> io::Result<std::net::TcpStream> {
    let socket = Socket::new(
        Domain::for_address(peer),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    if let Some(interface) = &source.interface {
        socket.bind_device(Some(interface.as_bytes()))?;
    }
    if let Some(address) = source.address {
        if address.port() == 0 {
            // The port is chosen when the connection is made, so one address serves more than 64 K of them.
            set_bind_address_no_port(&socket)?;
        }
        socket.bind(&address.into())?;
    }
    options.apply(SockRef::from(&socket), peer.is_ipv6())?;
    Ok(socket.into())
}

/// Sends bytes that are followed by more, or by the end of the stream, at once: what does not fill a packet waits for it
/// (`MSG_MORE`).
///
/// # Errors
/// The kernel's, `WouldBlock` if it takes nothing now.
pub fn send_more(socket: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    use rustix::net::{SendFlags, send};
    Ok(send(socket, bytes, SendFlags::MORE | SendFlags::NOSIGNAL)?)
}

/// Of the sockets that share a port, lets this one take the connections whose packets come in on `cpu`.
///
/// # Errors
/// The kernel's.
pub fn prefer_cpu(socket: &std::net::TcpListener, cpu: usize) -> io::Result<()> {
    SockRef::from(socket).set_cpu_affinity(cpu)
}

/// The CPU on which the last packet of a connection came in, if the kernel knows.
pub fn incoming_cpu(socket: &impl AsFd) -> Option<usize> {
    SockRef::from(socket).cpu_affinity().ok()
}

/// `IP_BIND_ADDRESS_NO_PORT`, which serves IPv6 sockets too.
#[expect(unsafe_code, reason = "neither socket2 nor rustix knows this option")]
fn set_bind_address_no_port(socket: &impl AsFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is borrowed for the whole call, and the pointer and the length describe `on`.
    let status = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(4),
        )
    };
    if status == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_sockets_listen_on_one_port() {
        let first = ListenOptions::new("127.0.0.1:0".parse().unwrap(), 8).listen().unwrap();
        let again = ListenOptions::new(first.local_addr().unwrap(), 8).listen();
        assert!(again.is_ok());
    }

    #[test]
    fn an_outgoing_socket_keeps_its_source_address() {
        let source = Source {
            address: Some("127.0.0.9:0".parse().unwrap()),
            interface: None,
        };
        let options = TcpOptions {
            no_delay: Some(true),
            time_to_live: Some(7),
            ..TcpOptions::default()
        };
        let socket = outgoing("127.0.0.1:9".parse().unwrap(), &source, &options).unwrap();
        assert_eq!(socket.local_addr().unwrap().ip().to_string(), "127.0.0.9");
        assert_eq!(SockRef::from(&socket).ttl_v4().unwrap(), 7);
    }
}
