//! What is expected on ports, in the form in which it is asked for.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use sluice_config::value::{self, ClientPortmap, MaybeProtocol, ServerPortmap};
use sluice_sniff::{Hints, Protocol};

/// Expectations by port.
#[derive(Debug)]
pub(super) struct Ports {
    server: Table,
    client: Table,
}

type Table = HashMap<u16, Expected, RandomState>;

#[derive(Debug, Default)]
struct Expected {
    protocols: Vec<Protocol>,
    tls_first: bool,
}

impl Ports {
    pub(super) fn new(server: &ServerPortmap, client: &ClientPortmap) -> Self {
        Self {
            server: server.iter().map(|(port, all)| (port, Expected::of(all))).collect(),
            client: client.iter().map(|(port, all)| (port, Expected::of(all))).collect(),
        }
    }

    /// What to look for first: the server's port says more than the client's.
    pub(super) fn hints(&self, server: u16, client: u16) -> Hints<'_> {
        let expected = self.server.get(&server).or_else(|| self.client.get(&client));
        expected.map_or_else(Hints::default, |expected| Hints {
            protocols: &expected.protocols,
            tls_first: expected.tls_first,
        })
    }
}

impl Expected {
    fn of(all: &[MaybeProtocol]) -> Self {
        Self {
            protocols: all.iter().filter_map(|maybe| maybe.protocol).map(sniffed).collect(),
            tls_first: all.iter().any(|maybe| maybe.tls),
        }
    }
}

/// What to look for where a protocol of the configuration is expected.
fn sniffed(protocol: value::Protocol) -> Protocol {
    match protocol {
        value::Protocol::Bittorrent => Protocol::BitTorrent,
        value::Protocol::Dns => Protocol::Dns,
        value::Protocol::Ftp => Protocol::Ftp,
        value::Protocol::Http => Protocol::Http1,
        value::Protocol::Imap => Protocol::Imap,
        value::Protocol::Ldap => Protocol::Ldap,
        value::Protocol::Mqtt => Protocol::Mqtt,
        value::Protocol::Nats => Protocol::Nats,
        value::Protocol::Nnsp => Protocol::Nnsp,
        value::Protocol::Nntp => Protocol::Nntp,
        // On-demand mail relay is SMTP until its ATRN (RFC 2645).
        value::Protocol::Odmr | value::Protocol::Smtp => Protocol::Smtp,
        value::Protocol::Pop3 => Protocol::Pop3,
        value::Protocol::Rtmp => Protocol::Rtmp,
        value::Protocol::Rtsp => Protocol::Rtsp,
        value::Protocol::Smpp => Protocol::Smpp,
        value::Protocol::Ssh => Protocol::Ssh,
        value::Protocol::Stomp => Protocol::Stomp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_port_says_more_than_the_clients() {
        let ports = Ports::new(&ServerPortmap::default(), &ClientPortmap::default());
        assert_eq!(ports.hints(22, 6881).protocols, [Protocol::Ssh]);
        assert_eq!(ports.hints(50000, 6881).protocols, [Protocol::BitTorrent]);
        let https = ports.hints(443, 50000);
        assert_eq!((https.protocols, https.tls_first), (&[Protocol::Http1][..], true));
        assert!(ports.hints(50000, 50000).protocols.is_empty());
    }
}
