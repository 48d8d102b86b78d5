//! The client against servers that follow a script, good and hostile ones.

use std::collections::VecDeque;
use std::future::{Future as _, poll_fn};
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use sluice_config::decode_text;
use sluice_icap::Method;
use sluice_lifecycle::Tasks;
use sluice_telemetry::value::Uuid;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener};
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::*;
use crate::error::TaskError;

const GET: &[u8] = b"GET /a HTTP/1.1\r\nHost: o.example\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\n";
const POST: &[u8] =
    b"POST /a HTTP/1.1\r\nHost: o.example\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n";
/// What a service says that has previews of four bytes.
const PREVIEW_4: &str = "Preview: 4\r\nAllow: 204\r\n";
const UNCHANGED: &str = "ICAP/1.0 204 No Modifications Needed\r\nISTag: x\r\n\r\n";
const CONTINUE: &str = "ICAP/1.0 100 Continue\r\n\r\n";

/// What a scripted server does.
#[derive(Clone, Debug)]
enum Step {
    /// Reads until what came since the last step ends like this.
    Until(&'static str),
    Say(String),
    /// Reads nothing and says nothing more.
    Hang,
}

use Step::{Hang, Say, Until};

fn say(text: &str) -> Step {
    Say(text.to_owned())
}

/// The steps in which a service tells what it offers.
fn offers(fields: &str) -> Vec<Step> {
    vec![
        Until("Encapsulated: null-body=0\r\n\r\n"),
        Say(format!(
            "ICAP/1.0 200 OK\r\nISTag: x\r\nMethods: REQMOD, RESPMOD\r\n{fields}\r\n"
        )),
    ]
}

/// An answer with an adapted request.
fn new_request(head: &str, body: Option<&str>) -> String {
    answer("req", head, body)
}

/// An answer with a response.
fn new_response(head: &str, body: Option<&str>) -> String {
    answer("res", head, body)
}

fn answer(kind: &str, head: &str, body: Option<&str>) -> String {
    let body_kind = if body.is_some() { kind } else { "null" };
    let length = head.len();
    let body = body.unwrap_or_default();
    format!("ICAP/1.0 200 OK\r\nISTag: x\r\nEncapsulated: {kind}-hdr=0, {body_kind}-body={length}\r\n\r\n{head}{body}")
}

/// A server that plays one script for each connection; what it heard is kept by connection.
struct Mock {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<String>>>,
    tasks: Tasks,
}

impl Mock {
    async fn start(scripts: Vec<Vec<Step>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mock = Self {
            address: listener.local_addr().unwrap(),
            heard: Arc::default(),
            tasks: Tasks::new(),
        };
        let (heard, tasks) = (Arc::clone(&mock.heard), mock.tasks.clone());
        mock.tasks.spawn(async move {
            for script in scripts {
                let (stream, _) = listener.accept().await.unwrap();
                let index = {
                    let mut heard = heard.lock().unwrap();
                    heard.push(String::new());
                    heard.len() - 1
                };
                tasks.spawn(play(stream, script, Arc::clone(&heard), index));
            }
            // Who comes now, waits.
            std::future::pending::<()>().await;
        });
        mock
    }

    /// One that answers OPTIONS with these fields, then goes on with `steps`, all on one connection.
    async fn one(fields: &str, steps: Vec<Step>) -> Self {
        Self::start(vec![[offers(fields), steps].concat()]).await
    }

    fn heard(&self, connection: usize) -> String {
        self.heard.lock().unwrap()[connection].clone()
    }

    /// What it heard after OPTIONS.
    fn heard_request(&self, connection: usize) -> String {
        let heard = self.heard(connection);
        let at = heard.find("\r\n\r\n").unwrap() + 4;
        heard[at..].to_owned()
    }

    fn service(&self, method: Method, more: &str) -> Arc<Service> {
        service(
            &format!(
                "{{url: \"icap://{}/s\", pool: {{min_idle_count: 0}}, {more}}}",
                self.address
            ),
            method,
        )
    }
}

async fn play(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    script: Vec<Step>,
    heard: Arc<Mutex<Vec<String>>>,
    index: usize,
) {
    let mut since = String::new();
    for step in script {
        match step {
            Until(end) => {
                while !since.ends_with(end) {
                    let mut bytes = [0; 4096];
                    let n = stream.read(&mut bytes).await.unwrap_or(0);
                    if n == 0 {
                        return;
                    }
                    let text = String::from_utf8_lossy(&bytes[..n]);
                    since.push_str(&text);
                    heard.lock().unwrap()[index].push_str(&text);
                }
                since.clear();
            }
            Say(text) => {
                if stream.write_all(text.as_bytes()).await.is_err() {
                    return;
                }
            }
            Hang => std::future::pending::<()>().await,
        }
    }
}

fn service(yaml: &str, method: Method) -> Arc<Service> {
    let config: IcapServiceConfig = decode_text(yaml).unwrap();
    Service::new(&config, method, Path::new("/"), None).unwrap()
}

/// A body in pieces, with waits between them.
struct Pieces {
    left: VecDeque<&'static str>,
    every: Duration,
    wait: Option<Pin<Box<Sleep>>>,
    trailers: &'static str,
}

impl Pieces {
    fn now(pieces: &[&'static str]) -> Self {
        Self::every(Duration::ZERO, pieces)
    }

    fn every(every: Duration, pieces: &[&'static str]) -> Self {
        Self {
            left: pieces.iter().copied().collect(),
            every,
            wait: None,
            trailers: "",
        }
    }
}

impl BodySource for Pieces {
    fn poll_data(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<Result<Flow, TaskError>> {
        if !self.every.is_zero() {
            let every = self.every;
            let wait = self.wait.get_or_insert_with(|| Box::pin(sleep(every)));
            std::task::ready!(wait.as_mut().poll(cx));
            self.wait = None;
        }
        Poll::Ready(Ok(match self.left.pop_front() {
            Some(piece) => {
                out.extend_from_slice(piece.as_bytes());
                Flow::Data
            }
            None => Flow::End,
        }))
    }

    fn trailers(&mut self) -> Vec<u8> {
        self.trailers.into()
    }
}

fn ask<'a>(request_head: &'a [u8], response_head: &'a [u8]) -> Ask<'a> {
    Ask {
        task: Uuid::default(),
        request_head,
        response_head,
        client: "192.0.2.7:4000".parse().unwrap(),
        user: None,
        upgrade: None,
        transformed_from: None,
        shared: b"",
        idle: Duration::from_secs(5),
    }
}

/// What became of a message.
#[derive(Debug, PartialEq)]
struct Got {
    verdict: Verdict,
    body: Option<String>,
    trailers: String,
}

async fn collect<S: BodySource>(adapted: Adapted<S>) -> Result<Got, TaskError> {
    let mut trailers = String::new();
    let body = match adapted.body {
        None => None,
        Some(mut body) => {
            let mut out = Vec::new();
            while poll_fn(|cx| body.poll_data(cx, &mut out)).await? == Flow::Data {}
            trailers = String::from_utf8(body.trailers()).unwrap();
            Some(String::from_utf8(out).unwrap())
        }
    };
    Ok(Got {
        verdict: adapted.verdict,
        body,
        trailers,
    })
}

async fn adapt(service: &Arc<Service>, ask: &Ask<'_>, body: Option<Pieces>) -> Result<Got, TaskError> {
    let adapted = timeout(Duration::from_secs(20), service.adapt(ask, body, &Tasks::new()))
        .await
        .expect("an exchange ends")?;
    collect(adapted).await
}

fn unchanged(body: Option<&str>) -> Got {
    Got {
        verdict: Verdict::Unchanged,
        body: body.map(str::to_owned),
        trailers: String::new(),
    }
}

mod connections;
mod failures;
mod messages;
