//! What goes wrong in a call, as the peer reads it.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Kind of an [`Error`]: the numbers of JSON-RPC 2.0 §5.1 and our own from -32000 down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The method ran and did not reach its aim.
    Failed,
    /// The caller may not do this.
    Forbidden,
    /// A fault of the daemon itself.
    Internal,
    /// The parameters do not fit the method.
    InvalidParams,
    /// The line is JSON but not a request.
    InvalidRequest,
    /// The line is longer, or the callers are more, than the daemon takes.
    Limit,
    /// The daemon has no such method.
    MethodNotFound,
    /// The method belongs to something that is not built into this version.
    NotBuilt,
    /// No object has the given name.
    NotFound,
    /// The line is not JSON.
    Parse,
    /// The daemon is in no state to do this now.
    State,
    /// A number that this side does not know.
    Other(i64),
}

/// Numbers on the wire, beside their codes.
const NUMBERS: &[(Code, i64)] = &[
    (Code::Parse, -32700),
    (Code::InvalidRequest, -32600),
    (Code::MethodNotFound, -32601),
    (Code::InvalidParams, -32602),
    (Code::Internal, -32603),
    (Code::Failed, -32000),
    (Code::Forbidden, -32001),
    (Code::Limit, -32002),
    (Code::NotFound, -32003),
    (Code::NotBuilt, -32004),
    (Code::State, -32005),
];

impl From<i64> for Code {
    fn from(number: i64) -> Self {
        let known = NUMBERS.iter().find(|(_, n)| *n == number);
        known.map_or(Self::Other(number), |(code, _)| *code)
    }
}

impl From<Code> for i64 {
    fn from(code: Code) -> Self {
        match code {
            Code::Other(number) => number,
            code => NUMBERS.iter().find(|(c, _)| *c == code).map_or(-32603, |(_, n)| *n),
        }
    }
}

/// A failed call: the `error` member of a JSON-RPC response.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Error {
    #[serde(rename = "code")]
    number: i64,
    /// What went wrong, for a human; lower case, no full stop.
    pub message: String,
    /// More of it for a program, e.g. the list of configuration errors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
}

impl Error {
    /// An error of kind `code`.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            number: code.into(),
            message: message.into(),
            data: None,
        }
    }

    /// The method ran and failed, e.g. a reload of a broken file.
    pub fn failed(message: impl fmt::Display) -> Self {
        Self::new(Code::Failed, message.to_string())
    }

    /// The parameters do not fit; `message` names the one at fault.
    pub fn invalid_params(message: impl fmt::Display) -> Self {
        Self::new(Code::InvalidParams, message.to_string())
    }

    /// No `kind` has this `name`; `known` are the names there are.
    pub fn not_found<S: AsRef<str>>(kind: &str, name: &str, known: &[S]) -> Self {
        let known: Vec<&str> = known.iter().map(AsRef::as_ref).collect();
        let message = if known.is_empty() {
            format!("no {kind} is named `{name}`, there are none")
        } else {
            format!("no {kind} is named `{name}`, known: {}", known.join(", "))
        };
        Self::new(Code::NotFound, message)
    }

    /// Adds data for programs.
    #[must_use]
    pub fn with_data(mut self, data: Value) -> Self {
        self.data = Some(data);
        self
    }

    /// Kind of the error.
    pub fn code(&self) -> Code {
        self.number.into()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
