//! What holds for every request whatsoever; checked by the fuzz target and, on its corpus, by a unit test.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{Error, Methods, NoParams};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    name: String,
    #[serde(default)]
    count: Option<u32>,
    #[serde(default)]
    data: Value,
}

/// Checks that `line` has one answer, which is one line with one JSON-RPC response.
///
/// # Panics
/// If it has not.
pub fn request(line: &[u8]) {
    let mut methods = Methods::new();
    methods.add("echo", "", |p: Params| async move { Ok((p.name, p.count, p.data)) });
    methods.add("fail", "", |_: NoParams| async {
        Err::<(), _>(Error::failed("no\nway"))
    });
    let answer = pin!(methods.answer(line)).poll(&mut Context::from_waker(Waker::noop()));
    let Poll::Ready(answer) = answer else {
        panic!("an answer that waits for nothing is there at once");
    };
    assert_eq!(answer.iter().filter(|byte| **byte == b'\n').count(), 1);
    assert_eq!(answer.last(), Some(&b'\n'));
    let response: Map<String, Value> = serde_json::from_slice(&answer).expect("a JSON object");
    assert_eq!(response["jsonrpc"], "2.0");
    assert!(response.contains_key("result") != response.contains_key("error"));
    assert!(matches!(
        response["id"],
        Value::Null | Value::String(_) | Value::Number(_)
    ));
}
