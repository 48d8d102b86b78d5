//! Reading the PROXY protocol header at the front of a connection.

use std::io;
use std::time::Duration;

use sluice_config::value::ProxyProtocolVersion;
use sluice_proxy_protocol::{Header, HeaderError as Malformed, parse_header};
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
