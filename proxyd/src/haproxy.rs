//! Reading the PROXY protocol header at the front of a connection.

use std::fmt::{self, Write};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use sluice_config::value::ProxyProtocolVersion;
use sluice_proxy_protocol::{Header, HeaderError as Malformed, Tlv, Tlvs, parse_header};
use sluice_telemetry::keys;
use sluice_telemetry::slog::{self, Serializer};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::task::Peers;

/// Why there is no header.
#[derive(Debug, Error)]
pub(crate) enum HeaderError {
    #[error("the connection ended inside the header")]
    Closed,
    #[error("malformed PROXY protocol header: {0}")]
    Malformed(#[from] Malformed),
    #[error("reading the PROXY protocol header failed: {0}")]
    Read(#[from] io::Error),
    #[error("no complete PROXY protocol header within {0:?}")]
    TimedOut(Duration),
}

/// What a header of version 2 tells besides addresses, for the records of the connection's tasks. It is as true as the
/// sender is honest.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// Key and value of each log field.
    fields: Vec<(&'static str, String)>,
}

impl Told {
    /// `None` if the header tells nothing more.
    fn of(tlvs: Tlvs<'_>) -> Option<Self> {
        let mut told = Self::default();
        for tlv in tlvs {
            match tlv {
                Tlv::Alpn(name) => told.note(keys::PROXY_ALPN, String::from_utf8_lossy(name)),
                Tlv::Authority(name) => told.note(keys::PROXY_AUTHORITY, name),
                Tlv::NetNs(name) => told.note(keys::PROXY_NETNS, name),
                Tlv::Ssl(tls) if tls.is_tls() => {
                    let parts = [
                        (keys::PROXY_TLS_VERSION, tls.version()),
                        (keys::PROXY_TLS_CIPHER, tls.cipher()),
                        (keys::PROXY_TLS_CN, tls.common_name()),
                    ];
                    for (key, value) in parts {
                        if let Some(value) = value {
                            told.note(key, value);
                        }
                    }
                    if tls.certificate_in_session() || tls.certificate_on_connection() {
                        told.note(keys::PROXY_TLS_VERIFIED, tls.is_verified().to_string());
                    }
                }
                Tlv::UniqueId(id) => told.note(keys::PROXY_UNIQUE_ID, Id(id).to_string()),
                Tlv::Crc32c(_) | Tlv::Noop | Tlv::Ssl(_) | Tlv::Other { .. } => {}
            }
        }
        (!told.fields.is_empty()).then_some(told)
    }

    /// The first of a kind counts: a field is in a record once.
    fn note(&mut self, key: &'static str, value: impl Into<String>) {
        if self.fields.iter().all(|(known, _)| *known != key) {
            self.fields.push((key, value.into()));
        }
    }

    /// Writes the fields.
    pub(crate) fn emit(&self, out: &mut dyn Serializer) -> slog::Result {
        self.fields
            .iter()
            .try_for_each(|(key, value)| out.emit_str((*key).into(), value))
    }
}

/// An identifier: as text if it is printable ASCII, else in hexadecimal digits.
struct Id<'b>(&'b [u8]);

impl fmt::Display for Id<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let readable = self.0.iter().all(u8::is_ascii_graphic);
        self.0.iter().try_for_each(|byte| match readable {
            true => f.write_char(char::from(*byte)),
            false => write!(f, "{byte:02x}"),
        })
    }
}

/// Takes the header off the front of `tcp`, and not a byte more. `None`: it tells no addresses, those of the connection
/// count (LOCAL, UNKNOWN).
///
/// # Errors
/// [`HeaderError`]; the connection is of no use then.
pub(crate) async fn read_header(
    tcp: &TcpStream,
    version: ProxyProtocolVersion,
    limit: Duration,
) -> Result<Option<Peers>, HeaderError> {
    timeout(limit, read(tcp, version))
        .await
        .unwrap_or(Err(HeaderError::TimedOut(limit)))
}

async fn read(tcp: &TcpStream, version: ProxyProtocolVersion) -> Result<Option<Peers>, HeaderError> {
    let mut taken = Vec::new();
    loop {
        // A look comes first: what follows the header is for somebody else and stays in the socket.
        let mut ahead = [0; 512];
        let n = tcp.peek(&mut ahead).await?;
        if n == 0 {
            return Err(HeaderError::Closed);
        }
        let before = taken.len();
        taken.extend_from_slice(&ahead[..n]);
        let parsed = parse_header(&taken, version)?;
        let told = parsed.as_ref().map(|(header, _)| peers(header));
        // An incomplete header is the header's to its last byte.
        let n = parsed.map_or(n, |(_, len)| len - before);
        drop_bytes(tcp, n, &mut ahead)?;
        if let Some(told) = told {
            return Ok(told);
        }
    }
}

fn peers(header: &Header<'_>) -> Option<Peers> {
    let addresses = header.addresses?;
    Some(Peers {
        client: addresses.client,
        server: addresses.server,
        told: Told::of(header.tlvs).map(Arc::new),
    })
}

/// Reads `n` bytes that have been seen already.
fn drop_bytes(tcp: &TcpStream, mut n: usize, scratch: &mut [u8]) -> io::Result<()> {
    while n > 0 {
        let most = n.min(scratch.len());
        match tcp.try_read(&mut scratch[..most])? {
            // An urgent byte that a peek has shown may be left out here.
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => n -= read,
        }
    }
    Ok(())
}
