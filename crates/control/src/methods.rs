//! The table of methods that a daemon answers.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, schema_for};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{Code, Error};

/// Result of a method, already written as JSON.
pub(crate) type Answer = Result<Box<RawValue>, Error>;

type Handler = Arc<dyn Fn(Option<&RawValue>) -> Pin<Box<dyn Future<Output = Answer> + Send>> + Send + Sync>;

const DESCRIBE: &str = "rpc.describe";

/// Parameters of a method that takes none: absent, `{}` or `[]`.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoParams {}

/// What `rpc.describe` tells about one method.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Description {
    /// Name to call it by.
    pub name: String,
    /// What it does, in one line.
    pub summary: String,
    /// JSON Schema of its parameters.
    pub params: Schema,
}

struct Method {
    summary: String,
    params: Schema,
    handler: Handler,
}

/// Methods by name. `rpc.describe` is always among them.
#[derive(Default)]
pub struct Methods {
    by_name: BTreeMap<String, Method>,
}

impl fmt::Debug for Methods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.by_name.keys()).finish()
    }
}

impl Methods {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `name`, which `summary` describes in one line; a method of the same name is replaced.
    ///
    /// Parameters arrive by name or by position and are decoded before `handler` runs; what does not decode is
    /// answered as [`Code::InvalidParams`]. Calls of one connection run one after the other, those of different
    /// connections side by side, so a handler may wait.
    pub fn add<P, R, F, Fut>(&mut self, name: &str, summary: &str, handler: F)
    where
        P: DeserializeOwned + JsonSchema,
        R: Serialize,
        F: Fn(P) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, Error>> + Send + 'static,
    {
        let run = move |params: Option<&RawValue>| -> Pin<Box<dyn Future<Output = Answer> + Send>> {
            let decoded = serde_json::from_str(params.map_or("{}", RawValue::get));
            match decoded {
                Ok(params) => {
                    let result = handler(params);
                    Box::pin(async move { encode(&result.await?) })
                }
                Err(e) => Box::pin(async move { Err(Error::invalid_params(format_args!("params: {}", plain(&e)))) }),
            }
        };
        let method = Method {
            summary: summary.to_owned(),
            params: schema_for!(P),
            handler: Arc::new(run),
        };
        self.by_name.insert(name.to_owned(), method);
    }

    /// What there is, by name.
    pub fn describe(&self) -> Vec<Description> {
        let row = |(name, method): (&String, &Method)| Description {
            name: name.clone(),
            summary: method.summary.clone(),
            params: method.params.clone(),
        };
        let own = Description {
            name: DESCRIBE.to_owned(),
            summary: "lists the methods with the schema of their parameters".to_owned(),
            params: schema_for!(NoParams),
        };
        let mut all: Vec<_> = self.by_name.iter().map(row).chain([own]).collect();
        for described in &mut all {
            // The name of a Rust type and its description say nothing to a caller.
            for noise in ["$schema", "title", "description"] {
                described.params.remove(noise);
            }
        }
        all
    }

    /// Calls `name`, as a request on the socket would.
    pub(crate) async fn call(&self, name: &str, params: Option<&RawValue>) -> Answer {
        if let Some(method) = self.by_name.get(name) {
            return (method.handler)(params).await;
        }
        if name == DESCRIBE {
            return encode(&self.describe());
        }
        let message = match nearest(name, self.by_name.keys()) {
            Some(near) => format!("no method is named `{name}`, did you mean `{near}`?"),
            None => format!("no method is named `{name}`, `rpc.describe` lists them"),
        };
        Err(Error::new(Code::MethodNotFound, message))
    }
}

fn encode<R: Serialize>(result: &R) -> Answer {
    serde_json::value::to_raw_value(result)
        .map_err(|e| Error::new(Code::Internal, format!("cannot write the result: {e}")))
}

/// The text of a decoding error with its column; the line is always the first.
fn plain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(at) => format!("{} at column {}", &text[..at], error.column()),
        None => text,
    }
}

/// The name that shares the longest start with `name`, if that is at least three characters.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a String>) -> Option<&'a String> {
    let shared = |k: &str| k.chars().zip(name.chars()).take_while(|(a, b)| a == b).count();
    known
        .map(|k| (shared(k), k))
        .filter(|(n, _)| *n >= 3)
        .max_by_key(|(n, _)| *n)
        .map(|(_, k)| k)
}
