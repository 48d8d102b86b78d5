//! A small client of the control protocol, apart from the real one, so that a fault in that one shows.

use std::io;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// A connection to a control socket: JSON-RPC 2.0, one object a line.
#[derive(Debug)]
pub struct Ctl {
    stream: BufReader<UnixStream>,
    id: u64,
}

/// An error answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CtlError {
    /// The protocol's code.
    pub code: i64,
    /// The daemon's words.
    pub message: String,
}

impl Ctl {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    /// Those of the system, such as the socket not being there.
    pub async fn connect(path: &Path) -> io::Result<Self> {
        let stream = BufReader::new(UnixStream::connect(path).await?);
        Ok(Self { stream, id: 0 })
    }

    /// Calls `method`; `params` is an object, or `Value::Null` for none.
    ///
    /// # Errors
    /// What the daemon answers.
    pub async fn call(&mut self, method: &str, params: Value) -> Result<Value, CtlError> {
        self.try_call(method, params)
            .await
            .unwrap_or_else(|error| panic!("call {method}: {error}"))
    }

    /// Calls `method`, and gives the connection's errors, too.
    ///
    /// # Errors
    /// The connection's.
    pub async fn try_call(&mut self, method: &str, params: Value) -> io::Result<Result<Value, CtlError>> {
        self.id += 1;
        let mut request = json!({"jsonrpc": "2.0", "id": self.id, "method": method});
        if !params.is_null() {
            request["params"] = params;
        }
        let answer = self.line(&format!("{request}\n")).await?;
        let mut answer: Value = serde_json::from_str(&answer)?;
        assert_eq!(answer["id"], self.id, "{answer}");
        if let Some(error) = answer.get("error") {
            let message = error["message"].as_str().unwrap_or_default().to_owned();
            return Ok(Err(CtlError {
                code: error["code"].as_i64().unwrap_or_default(),
                message,
            }));
        }
        Ok(Ok(answer["result"].take()))
    }

    /// Sends one line as it is, and gives the line that is answered.
    ///
    /// # Errors
    /// The connection's; its end is one.
    pub async fn line(&mut self, line: &str) -> io::Result<String> {
        let exchange = async {
            self.stream.get_mut().write_all(line.as_bytes()).await?;
            let mut answer = String::new();
            match self.stream.read_line(&mut answer).await? {
                0 => Err(io::ErrorKind::UnexpectedEof.into()),
                _ => Ok(answer),
            }
        };
        timeout(Duration::from_secs(30), exchange)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}
