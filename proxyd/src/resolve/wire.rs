//! Queries and replies on the connection to the peer.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use sluice_wire::dns::{FrameError, ParseError, Reply, ResolveError, put_frame, take_frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::state::State;
use crate::peer::Speaks;

/// The longest reply: all that two bytes of length can announce.
const MAX_REPLY: usize = 65535;

/// How long a query over a connection of its own may take.
const RETRY_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a stream of replies is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Malformed {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("it is not DNS")]
    NotAReply,
}

impl Speaks for State {
    /// A reply, or the id of one that is malformed.
    type Answer = Result<Reply, u16>;
    type Malformed = Malformed;

    fn take(input: &mut BytesMut) -> Result<Option<Self::Answer>, Malformed> {
        let Some(message) = take_frame(input, MAX_REPLY)? else {
            return Ok(None);
        };
        match Reply::take(&message) {
            Ok(reply) => Ok(Some(Ok(reply))),
            Err(ParseError::Malformed { id }) => Ok(Some(Err(id))),
            Err(ParseError::NotAReply) => Err(Malformed::NotAReply),
        }
    }

    fn read(packet: &[u8]) -> Option<Self::Answer> {
        Reply::take(packet).ok().map(Ok)
    }

    fn frame(question: &[u8], output: &mut BytesMut) {
        // A query is shorter than 64 KiB: its name has 255 bytes and its resolver's name comes from the configuration.
        let _ = put_frame(output, question);
    }
}

/// What came of a query over TCP.
pub(super) type Retried = (u16, Result<Reply, ResolveError>);

/// Asks once more over a connection of its own (RFC 7766 §5).
pub(super) async fn ask_over_tcp(address: SocketAddr, id: u16, query: Bytes) -> Retried {
    let reply = timeout(RETRY_TIMEOUT, exchange(address, &query)).await;
    let result = match reply {
        Ok(Ok(reply)) if reply.id() == id => Ok(reply),
        Ok(Ok(_)) => Err(ResolveError::BadResponse),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(ResolveError::Timeout),
    };
    (id, result)
}

async fn exchange(address: SocketAddr, query: &[u8]) -> Result<Reply, ResolveError> {
    let refused = |_| ResolveError::ConnectionRefused;
    let mut stream = TcpStream::connect(address).await.map_err(refused)?;
    let mut buffer = BytesMut::new();
    put_frame(&mut buffer, query).map_err(|_| ResolveError::BadQuery)?;
    stream.write_all(&buffer).await.map_err(refused)?;
    buffer.clear();
    loop {
        if let Some(frame) = take_frame(&mut buffer, MAX_REPLY).map_err(|_| ResolveError::BadResponse)? {
            return Reply::take(&frame).map_err(|_| ResolveError::BadResponse);
        }
        match stream.read_buf(&mut buffer).await {
            Ok(0) => return Err(ResolveError::BadResponse),
            Ok(_) => {}
            Err(_) => return Err(ResolveError::ConnectionRefused),
        }
    }
}
