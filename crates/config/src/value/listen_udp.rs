//! Where servers listen for datagrams.

use schemars::JsonSchema;
use serde::Deserialize;

use super::hosts::{Interface, SockAddrSpec};
use super::listen::{ListenAddr, Port, Scale};
use super::socket::{SocketBuffer, UdpMiscOpts};
use crate::schema_as;

/// Where and how a server listens for datagrams.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(from = "UdpForm")]
pub struct UdpListen {
    /// The address; port 0 lets the system choose one.
    pub address: SockAddrSpec,
    /// SO_BINDTODEVICE.
    pub interface: Option<Interface>,
    /// Kernel buffers.
    pub socket_buffer: SocketBuffer,
    /// Socket options.
    pub socket_misc_opts: UdpMiscOpts,
    /// IPV6_V6ONLY, on `::` alone.
    pub ipv6_only: Option<bool>,
    /// Sockets, at least.
    pub instance: usize,
    /// Sockets for each CPU.
    pub scale: Scale,
}

schema_as!(UdpListen => UdpForm);

impl UdpListen {
    /// How many sockets there are on a machine of so many CPUs.
    pub fn instances(&self, cpus: usize) -> usize {
        self.instance.max(self.scale.of(cpus)).max(1)
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename = "config::shape", rename_all = "snake_case")]
#[schemars(untagged, rename = "UdpListen")]
enum UdpForm {
    Int(Port),
    Str(ListenAddr),
    Map(UdpMap),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct UdpMap {
    #[serde(alias = "addr")]
    address: SockAddrSpec,
    interface: Option<Interface>,
    #[serde(default)]
    socket_buffer: SocketBuffer,
    #[serde(default)]
    socket_misc_opts: UdpMiscOpts,
    #[serde(alias = "ipv6only")]
    ipv6_only: Option<bool>,
    #[serde(alias = "instance_count")]
    instance: Option<usize>,
    #[serde(default)]
    scale: Scale,
}

impl From<UdpForm> for UdpListen {
    fn from(form: UdpForm) -> Self {
        let address = match form {
            UdpForm::Int(port) => port.on_any(),
            UdpForm::Str(ListenAddr(address)) => address,
            UdpForm::Map(map) => {
                return Self {
                    address: map.address,
                    interface: map.interface,
                    socket_buffer: map.socket_buffer,
                    socket_misc_opts: map.socket_misc_opts,
                    ipv6_only: map.ipv6_only,
                    instance: map.instance.unwrap_or(1).max(1),
                    scale: map.scale,
                };
            }
        };
        Self {
            address,
            interface: None,
            socket_buffer: SocketBuffer::default(),
            socket_misc_opts: UdpMiscOpts::default(),
            ipv6_only: None,
            instance: 1,
            scale: Scale::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::scalar::decode;

    #[test]
    fn a_port_an_address_or_a_map() {
        assert_eq!(decode::<UdpListen>("53").unwrap().address.port(), 53);
        assert_eq!(decode::<UdpListen>("127.0.0.1:53").unwrap().address.port(), 53);
        let listen = decode::<UdpListen>(
            "{addr: '127.0.0.1:53', socket_buffer: 1M, socket_misc_opts: {tos: 8}, instance_count: 3, scale: 2}",
        );
        assert_eq!(listen.unwrap().instances(4), 8);
        for yaml in ["0", "'53'", "{}", "{address: '127.0.0.1:53', backlog: 5}", "[]"] {
            assert!(decode::<UdpListen>(yaml).is_err(), "{yaml}");
        }
    }
}
