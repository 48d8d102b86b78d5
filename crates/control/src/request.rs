//! From the bytes of a request to the bytes of its answer, without I/O.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{Code, Error, Methods};

/// A request, its variable parts still as text.
#[derive(Deserialize)]
struct Request<'a> {
    jsonrpc: Option<String>,
    method: Option<String>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
}

/// A response.
#[derive(Serialize)]
struct Response<'a> {
    jsonrpc: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a Error>,
    id: &'a RawValue,
}

/// Why a line is no request that could be answered under its own id.
fn invalid(message: impl Into<String>) -> Error {
    Error::new(Code::InvalidRequest, message)
}

impl Methods {
    /// Answers one line, as [`serve`](crate::serve) does: the answer with its end of line.
    ///
    /// Whatever the bytes are, the answer is one JSON object; nothing is done unless they are a request.
    pub async fn answer(&self, line: &[u8]) -> Vec<u8> {
        let request = match read(line) {
            Ok(request) => request,
            Err(error) => return refusal(&error),
        };
        let Some(id) = request.id.filter(|id| is_id(id)) else {
            return refusal(&invalid(
                "`id` is missing, or not a string or number: every request is answered",
            ));
        };
        let answer = match (&request.jsonrpc, &request.method) {
            (Some(version), _) if version != "2.0" => Err(invalid("`jsonrpc` is not \"2.0\"")),
            (_, None) => Err(invalid("`method` is missing")),
            (_, Some(method)) => self.call(method, request.params).await,
        };
        write(answer.as_deref(), id)
    }
}

/// The answer to what has no id.
pub(crate) fn refusal(error: &Error) -> Vec<u8> {
    write(Err(error), RawValue::NULL)
}

fn read(line: &[u8]) -> Result<Request<'_>, Error> {
    let text = std::str::from_utf8(line).map_err(|_| Error::new(Code::Parse, "the request is not UTF-8"))?;
    if text.trim_start().starts_with('[') {
        return Err(invalid("one request a line, no batches"));
    }
    serde_json::from_str(text).map_err(|e| match e.is_data() {
        true => invalid(format!("not a request: {e}")),
        false => Error::new(Code::Parse, format!("not JSON: {e}")),
    })
}

/// Whether it is a string or a number that a JSON reader takes: it goes back as it was written.
fn is_id(raw: &RawValue) -> bool {
    match raw.get().as_bytes().first() {
        Some(b'"') => serde_json::from_str::<String>(raw.get()).is_ok(),
        Some(b'-' | b'0'..=b'9') => serde_json::from_str::<f64>(raw.get()).is_ok(),
        _ => false,
    }
}

fn write(answer: Result<&RawValue, &Error>, id: &RawValue) -> Vec<u8> {
    let response = Response {
        jsonrpc: "2.0",
        result: answer.ok(),
        error: answer.err(),
        id,
    };
    // Text, numbers and JSON that was parsed before can always be written.
    let mut line = serde_json::to_vec(&response).unwrap_or_default();
    line.push(b'\n');
    line
}
