//! Opening UDP sockets.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Options of a UDP socket; `None` leaves the system's value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UdpOptions {
    /// `IP_TTL`, IPv4 only.
    pub time_to_live: Option<u8>,
    /// `IPV6_UNICAST_HOPS`, IPv6 only.
    pub hop_limit: Option<u8>,
    /// `IP_TOS`, IPv4 only.
    pub type_of_service: Option<u8>,
    /// `IPV6_TCLASS`, IPv6 only.
    pub traffic_class: Option<u8>,
    /// `SO_MARK`.
    pub netfilter_mark: Option<u32>,
}

impl UdpOptions {
    /// Sets the options on a socket of `v6`'s family.
    ///
    /// # Errors
    /// The kernel's, for the first option that it refuses.
    pub fn apply(&self, socket: SockRef<'_>, v6: bool) -> io::Result<()> {
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
        if let Some(mark) = self.netfilter_mark {
            socket.set_mark(mark)?;
        }
        Ok(())
    }
}

/// How a UDP socket is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UdpBind {
    /// Address to bind; unspecified and with port 0 it only says the family.
    pub address: SocketAddr,
    /// Device to bind to (`SO_BINDTODEVICE`).
    pub interface: Option<String>,
    /// `SO_RCVBUF`, in bytes of datagrams; the kernel keeps twice as much, up to `net.core.rmem_max`.
    pub receive_buffer: Option<usize>,
    /// `SO_SNDBUF`, likewise.
    pub send_buffer: Option<usize>,
    /// `SO_REUSEPORT`: several sockets of one user share the port.
    pub reuse_port: bool,
    /// `IPV6_V6ONLY`; matters for `[::]` only.
    pub only_v6: Option<bool>,
    /// Whether each datagram says which address it was sent to (`IP_PKTINFO`, `IPV6_RECVPKTINFO`).
    pub tell_local: bool,
    /// The rest.
    pub options: UdpOptions,
}

impl UdpBind {
    /// The kernel's defaults.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            interface: None,
            receive_buffer: None,
            send_buffer: None,
            reuse_port: false,
            only_v6: None,
            tell_local: false,
            options: UdpOptions::default(),
        }
    }

    /// Opens the socket: non-blocking, close-on-exec, bound.
    ///
    /// # Errors
    /// The kernel's: `EADDRINUSE`, `EADDRNOTAVAIL`, `EMFILE`, `ENODEV`…
    pub fn open(&self) -> io::Result<UdpSocket> {
        let socket = Socket::new(
            Domain::for_address(self.address),
            Type::DGRAM.nonblocking(),
            Some(Protocol::UDP),
        )?;
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
        if let Some(size) = self.receive_buffer {
            socket.set_recv_buffer_size(size)?;
        }
        if let Some(size) = self.send_buffer {
            socket.set_send_buffer_size(size)?;
        }
        if self.tell_local {
            match self.address {
                SocketAddr::V4(_) => set_flag(&socket, libc::IPPROTO_IP, libc::IP_PKTINFO)?,
                SocketAddr::V6(_) => set_flag(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)?,
            }
        }
        self.options.apply(SockRef::from(&socket), self.address.is_ipv6())?;
        socket.bind(&self.address.into())?;
        Ok(socket.into())
    }
}

/// Lets a socket send to `peer` and receive from there only. UDP does not wait for anything.
///
/// # Errors
/// The kernel's, if no way leads there.
pub fn connect(socket: impl AsFd, peer: SocketAddr) -> io::Result<()> {
    SockRef::from(&socket).connect(&peer.into())
}

/// Switches an option on.
#[expect(
    unsafe_code,
    reason = "socket2 knows neither of the two for sockets that it does not receive from itself"
)]
fn set_flag(socket: &impl AsFd, level: libc::c_int, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is borrowed for the whole call, and the pointer and the length describe `on`.
    let status = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
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
