//! Addresses and control messages as the kernel lays them out.

use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ptr;

use libc::{c_int, cmsghdr, in_pktinfo, in6_pktinfo, msghdr, sockaddr_in, sockaddr_in6, sockaddr_storage, socklen_t};

use super::Local;

/// Room for the control messages of one datagram, aligned as they must be.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct Control([u8; Self::LEN]);

impl Control {
    /// More than one packet information of either family takes.
    pub(super) const LEN: usize = 64;

    pub(super) const EMPTY: Self = Self([0; Self::LEN]);

    pub(super) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.0.as_mut_ptr()
    }

    /// What the first `len` bytes say about the address a datagram was sent to.
    #[expect(unsafe_code, reason = "control messages are walked with pointers")]
    pub(super) fn local(&self, len: usize) -> Option<Local> {
        // SAFETY: all bytes 0 is a value of this plain type.
        let mut header: msghdr = unsafe { zeroed() };
        // Only read from.
        header.msg_control = ptr::from_ref(&self.0).cast_mut().cast();
        header.msg_controllen = len.min(Self::LEN);
        // SAFETY: `header` describes a buffer that is borrowed, aligned and initialized; these macros walk its messages
        // without leaving it.
        let mut message = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
        while !message.is_null() {
            // SAFETY: the macros give only pointers to whole headers in the buffer, aligned as it is; the data follow.
            let (level, kind, len, data) = unsafe {
                let message = &*message;
                let data = libc::CMSG_DATA(message);
                (message.cmsg_level, message.cmsg_type, message.cmsg_len, data)
            };
            if level == libc::IPPROTO_IP && kind == libc::IP_PKTINFO && len >= message_len::<in_pktinfo>() {
                // SAFETY: the message, which the macros found inside the buffer, is long enough for this plain type; it
                // may lie unaligned.
                let info = unsafe { data.cast::<in_pktinfo>().read_unaligned() };
                return Some(Local {
                    // Not `ipi_addr`, which may be a broadcast address: nothing can be sent from there.
                    ip: Ipv4Addr::from_bits(u32::from_be(info.ipi_spec_dst.s_addr)).into(),
                    interface: info.ipi_ifindex.unsigned_abs(),
                });
            }
            if level == libc::IPPROTO_IPV6 && kind == libc::IPV6_PKTINFO && len >= message_len::<in6_pktinfo>() {
                // SAFETY: as above.
                let info = unsafe { data.cast::<in6_pktinfo>().read_unaligned() };
                let ip = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                let interface = info.ipi6_ifindex;
                return (!ip.is_multicast()).then_some(Local {
                    ip: ip.into(),
                    interface,
                });
            }
            // SAFETY: as for the first.
            message = unsafe { libc::CMSG_NXTHDR(&raw const header, message) };
        }
        None
    }
}

/// Reads an address of `len` bytes; `None` if it is of no IP family, or cut.
#[expect(unsafe_code, reason = "an address has a type by its family")]
pub(super) fn decode_name(name: &sockaddr_storage, len: socklen_t) -> Option<SocketAddr> {
    let len = usize::try_from(len).ok()?;
    match c_int::from(name.ss_family) {
        libc::AF_INET if len >= size_of::<sockaddr_in>() => {
            // SAFETY: `sockaddr_storage` is larger than this type and aligned for it, and its bytes are initialized.
            let name = unsafe { &*ptr::from_ref(name).cast::<sockaddr_in>() };
            let ip = Ipv4Addr::from_bits(u32::from_be(name.sin_addr.s_addr));
            Some(SocketAddrV4::new(ip, u16::from_be(name.sin_port)).into())
        }
        libc::AF_INET6 if len >= size_of::<sockaddr_in6>() => {
            // SAFETY: as above.
            let name = unsafe { &*ptr::from_ref(name).cast::<sockaddr_in6>() };
            let ip = Ipv6Addr::from(name.sin6_addr.s6_addr);
            let port = u16::from_be(name.sin6_port);
            Some(SocketAddrV6::new(ip, port, name.sin6_flowinfo, name.sin6_scope_id).into())
        }
        _ => None,
    }
}

/// Writes an address; its length.
#[expect(unsafe_code, reason = "an address has a type by its family")]
pub(super) fn encode_name(address: SocketAddr, name: &mut sockaddr_storage) -> socklen_t {
    let name = ptr::from_mut(name);
    let len = match address {
        SocketAddr::V4(address) => {
            // SAFETY: all bytes 0 is a value of this plain type.
            let mut own: sockaddr_in = unsafe { zeroed() };
            own.sin_family = family(libc::AF_INET);
            own.sin_port = address.port().to_be();
            own.sin_addr.s_addr = address.ip().to_bits().to_be();
            // SAFETY: `sockaddr_storage` is larger than this type and aligned for it.
            unsafe { name.cast::<sockaddr_in>().write(own) };
            size_of::<sockaddr_in>()
        }
        SocketAddr::V6(address) => {
            // SAFETY: all bytes 0 is a value of this plain type.
            let mut own: sockaddr_in6 = unsafe { zeroed() };
            own.sin6_family = family(libc::AF_INET6);
            own.sin6_port = address.port().to_be();
            own.sin6_addr.s6_addr = address.ip().octets();
            own.sin6_flowinfo = address.flowinfo();
            own.sin6_scope_id = address.scope_id();
            // SAFETY: as above.
            unsafe { name.cast::<sockaddr_in6>().write(own) };
            size_of::<sockaddr_in6>()
        }
    };
    length(len)
}

/// Writes the packet information that makes `local` the source; its length. The socket's family decides its form: an
/// IPv6 socket sends from an IPv4 address if that is given as a mapped one.
#[expect(unsafe_code, reason = "a control message is a header and data at a fixed distance")]
pub(super) fn encode_local(local: Local, control: &mut Control) -> usize {
    fn put<T>(level: c_int, kind: c_int, data: T, control: &mut Control) -> usize {
        let message = control.as_mut_ptr().cast::<cmsghdr>();
        let len = u32::try_from(size_of::<T>()).unwrap_or(0);
        // SAFETY: `CMSG_LEN` and `CMSG_SPACE` only compute.
        let (own, space) = unsafe { (libc::CMSG_LEN(len), libc::CMSG_SPACE(len)) };
        let space = usize::try_from(space).unwrap_or(usize::MAX);
        assert!(space <= Control::LEN, "room for both types");
        // SAFETY: the buffer is aligned for a header, and has room for it and the data behind it, as was just checked.
        unsafe {
            (*message).cmsg_level = level;
            (*message).cmsg_type = kind;
            (*message).cmsg_len = usize::try_from(own).unwrap_or(0);
            libc::CMSG_DATA(message).cast::<T>().write_unaligned(data);
        }
        space
    }
    match local.ip {
        IpAddr::V4(ip) => {
            let info = in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr {
                    s_addr: ip.to_bits().to_be(),
                },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            put(libc::IPPROTO_IP, libc::IP_PKTINFO, info, control)
        }
        IpAddr::V6(ip) => {
            let info = in6_pktinfo {
                ipi6_addr: libc::in6_addr { s6_addr: ip.octets() },
                ipi6_ifindex: if ip.is_unicast_link_local() { local.interface } else { 0 },
            };
            put(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info, control)
        }
    }
}

fn message_len<T>() -> usize {
    let len = u32::try_from(size_of::<T>()).unwrap_or(0);
    #[expect(unsafe_code, reason = "the macro is a function marked unsafe")]
    // SAFETY: `CMSG_LEN` only computes.
    let len = unsafe { libc::CMSG_LEN(len) };
    usize::try_from(len).unwrap_or(usize::MAX)
}

fn family(family: c_int) -> libc::sa_family_t {
    libc::sa_family_t::try_from(family).unwrap_or(0)
}

pub(super) fn length(len: usize) -> socklen_t {
    socklen_t::try_from(len).unwrap_or(0)
}
