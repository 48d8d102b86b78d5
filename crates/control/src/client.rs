//! Calls a daemon.

use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use crate::Error;

/// Longest answer taken, in bytes.
const LONGEST_ANSWER: u64 = 64 << 20;

/// Why a daemon could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody listens, or the socket does not exist, or the system refused.
    #[error("cannot connect to `{}`", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// Somebody listens whom we do not trust.
    #[error("`{}` is served by uid {uid}, which is neither root nor us", path.display())]
    Untrusted {
        /// The socket.
        path: PathBuf,
        /// Who serves it.
        uid: u32,
    },
}

/// Why a call brought no result.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The daemon's answer.
    #[error(transparent)]
    Answer(Error),
    /// The daemon closed the connection instead of answering.
    #[error("the daemon closed the connection")]
    Closed,
    /// The connection broke.
    #[error("the connection to the daemon broke")]
    Io(#[from] io::Error),
    /// The answer is not one.
    #[error("the daemon's answer makes no sense: {0}")]
    Malformed(String),
}

/// A connection to a daemon's control socket; calls go one after the other.
#[derive(Debug)]
pub struct Client {
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
    next_id: u64,
}

#[derive(Serialize)]
struct Request<'a, P> {
    jsonrpc: &'static str,
    method: &'a str,
    params: P,
    id: u64,
}

#[derive(Deserialize)]
struct Response {
    #[serde(default)]
    result: Option<Value>,
    #[serde(default)]
    error: Option<Error>,
    #[serde(default)]
    id: Value,
}

impl Client {
    /// Connects to the socket at `path` and checks that root or our own uid serves it (root trusts everybody).
    ///
    /// # Errors
    /// [`ConnectError`], each with the path.
    pub async fn connect(path: &Path) -> Result<Self, ConnectError> {
        let failed = |source| ConnectError::Io {
            path: path.to_owned(),
            source,
        };
        let io = UnixStream::connect(path).await.map_err(failed)?;
        let uid = io.peer_cred().map_err(failed)?.uid();
        let own = rustix::process::geteuid().as_raw();
        if uid != 0 && uid != own && own != 0 {
            let path = path.to_owned();
            return Err(ConnectError::Untrusted { path, uid });
        }
        let (read, write) = io.into_split();
        Ok(Self {
            read: BufReader::new(read),
            write,
            next_id: 1,
        })
    }

    /// Calls `method` with `params` (a struct, a map or a sequence) and waits for its result, without a time limit.
    ///
    /// # Errors
    /// [`CallError::Answer`] if the daemon says no; after any other error the connection is of no more use.
    ///
    /// # Cancel safety
    /// None: drop the client with the call.
    pub async fn call<R: DeserializeOwned>(&mut self, method: &str, params: impl Serialize) -> Result<R, CallError> {
        let id = self.next_id;
        self.next_id += 1;
        let mut line = serde_json::to_vec(&Request {
            jsonrpc: "2.0",
            method,
            params,
            id,
        })
        .map_err(|e| CallError::Malformed(e.to_string()))?;
        line.push(b'\n');
        // A daemon that refuses us answers and closes before it reads: its word counts more than our broken pipe.
        let sent = self.write.write_all(&line).await;
        let response = match (sent, self.receive().await) {
            (Err(e), Err(CallError::Closed | CallError::Io(_))) => return Err(e.into()),
            (_, received) => received?,
        };
        match response {
            Response { error: Some(error), .. } => Err(CallError::Answer(error)),
            Response { id: got, .. } if got != id => Err(CallError::Malformed(format!("it has id {got}, not {id}"))),
            Response { result, .. } => {
                serde_json::from_value(result.unwrap_or_default()).map_err(|e| CallError::Malformed(e.to_string()))
            }
        }
    }

    async fn receive(&mut self) -> Result<Response, CallError> {
        let mut line = Vec::new();
        let read = (&mut self.read)
            .take(LONGEST_ANSWER)
            .read_until(b'\n', &mut line)
            .await?;
        if read == 0 {
            return Err(CallError::Closed);
        }
        serde_json::from_slice(&line).map_err(|e| CallError::Malformed(e.to_string()))
    }
}
