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
    Service::new(&config, method, Path::new("/")).unwrap()
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

#[tokio::test]
async fn a_request_without_body_may_stay_as_it_is() {
    let mock = Mock::one("Allow: 204\r\n", vec![Until("o.example\r\n\r\n"), say(UNCHANGED)]).await;
    let service = mock.service(Method::Reqmod, "");
    let ask = Ask {
        user: Some("joe"),
        upgrade: Some(b"websocket"),
        ..ask(GET, b"")
    };
    assert_eq!(adapt(&service, &ask, None).await.unwrap(), unchanged(None));
    let port = mock.address.port();
    assert_eq!(
        mock.heard_request(0),
        format!(
            "REQMOD icap://127.0.0.1:{port}/s ICAP/1.0\r\nHost: 127.0.0.1:{port}\r\nX-HTTP-Upgrade: websocket\r\n\
             X-Client-IP: 192.0.2.7\r\nX-Client-Port: 4000\r\nX-Client-Username: joe\r\n\
             X-Authenticated-User: TG9jYWw6Ly9qb2U=\r\nAllow: 204\r\nEncapsulated: req-hdr=0, null-body=36\r\n\r\n\
             GET /a HTTP/1.1\r\nHost: o.example\r\n\r\n"
        )
    );
}

#[tokio::test]
async fn upgrade_is_told_with_and_without_a_body() {
    // IC-12
    let mock = Mock::one(PREVIEW_4, vec![Until("0; ieof\r\n\r\n"), say(UNCHANGED)]).await;
    let ask = Ask {
        upgrade: Some(b"websocket"),
        ..ask(POST, b"")
    };
    let service = mock.service(Method::Reqmod, "");
    assert_eq!(
        adapt(&service, &ask, Some(Pieces::now(&["ab"]))).await.unwrap(),
        unchanged(Some("ab"))
    );
    assert!(mock.heard_request(0).contains("\r\nX-HTTP-Upgrade: websocket\r\n"));
    assert!(!mock.heard_request(0).contains("Expect"));
}

#[tokio::test]
async fn a_body_that_ends_within_the_preview_says_so() {
    // IC-03, IC-06
    for pieces in [&["ab"][..], &["abcd"], &["a", "b", "cd"], &[]] {
        let mock = Mock::one(PREVIEW_4, vec![Until("0; ieof\r\n\r\n"), say(UNCHANGED)]).await;
        let service = mock.service(Method::Reqmod, "");
        let body = pieces.concat();
        let got = adapt(&service, &ask(POST, b""), Some(Pieces::now(pieces)))
            .await
            .unwrap();
        assert_eq!(got, unchanged(Some(&body)));
        let heard = mock.heard_request(0);
        assert!(heard.contains(&format!("\r\nPreview: {}\r\n", body.len())), "{heard}");
        assert!(!heard.contains("Allow"), "{heard}");
    }
}

#[tokio::test]
async fn exactly_the_preview_goes_first_and_the_rest_when_it_is_asked_for() {
    // IC-03
    for pieces in [&["abcdefgh"][..], &["abcd", "efgh"], &["ab", "cdef", "gh"]] {
        let changed = new_request(
            "POST /b HTTP/1.1\r\nVia: icap\r\nHost: p\r\n\r\n",
            Some("3\r\nxyz\r\n0\r\n\r\n"),
        );
        let steps = vec![
            Until("4\r\nabcd\r\n0\r\n\r\n"),
            say(CONTINUE),
            Until("\r\n0\r\n\r\n"),
            Say(changed),
        ];
        let mock = Mock::one(PREVIEW_4, steps).await;
        let service = mock.service(Method::Reqmod, "");
        let got = adapt(&service, &ask(POST, b""), Some(Pieces::now(pieces)))
            .await
            .unwrap();
        assert_eq!(
            got.verdict,
            Verdict::Request(b"POST /b HTTP/1.1\r\nHost: p\r\n\r\n".to_vec())
        );
        assert_eq!(got.body.as_deref(), Some("xyz"));
        let heard = mock.heard_request(0);
        assert!(heard.contains("\r\nPreview: 4\r\n"), "{heard}");
        let rest: String = heard
            .split("0\r\n\r\n")
            .nth(1)
            .unwrap()
            .split("\r\n")
            .skip(1)
            .step_by(2)
            .collect();
        assert_eq!(rest, "efgh", "{heard}");
    }
}

#[tokio::test]
async fn a_message_may_stay_as_it_is_after_a_look_at_its_preview() {
    let mock = Mock::one(PREVIEW_4, vec![Until("4\r\nabcd\r\n0\r\n\r\n"), say(UNCHANGED)]).await;
    let service = mock.service(Method::Respmod, "");
    let got = adapt(&service, &ask(GET, OK), Some(Pieces::now(&["abc", "defg", "h"])))
        .await
        .unwrap();
    assert_eq!(got, unchanged(Some("abcdefgh")));
    let heard = mock.heard_request(0);
    assert!(
        heard.contains("\r\nEncapsulated: req-hdr=0, res-hdr=36, res-body=81\r\n"),
        "{heard}"
    );
}

#[tokio::test]
async fn a_preview_of_nothing_never_loses_the_body() {
    // IC-04
    for (steps, expected) in [
        (vec![say(UNCHANGED)], unchanged(Some("abc"))),
        (
            vec![
                say(CONTINUE),
                Until("3\r\nabc\r\n0\r\n\r\n"),
                Say(new_request("POST /b HTTP/1.1\r\n\r\n", Some("3\r\nABC\r\n0\r\n\r\n"))),
            ],
            Got {
                verdict: Verdict::Request(b"POST /b HTTP/1.1\r\n\r\n".to_vec()),
                body: Some("ABC".into()),
                trailers: String::new(),
            },
        ),
    ] {
        let mock = Mock::one("Preview: 0\r\n", [vec![Until("\r\n\r\n0\r\n\r\n")], steps].concat()).await;
        let service = mock.service(Method::Reqmod, "");
        let got = adapt(&service, &ask(POST, b""), Some(Pieces::now(&["abc"])))
            .await
            .unwrap();
        assert_eq!(got, expected);
        assert!(mock.heard_request(0).contains("\r\nPreview: 0\r\n"));
    }
}

#[tokio::test]
async fn small_bodies_go_byte_by_byte_without_preview_too() {
    // IC-01
    for pieces in [&[][..], &["a"], &["abc", "d"]] {
        let body: &str = &pieces.concat();
        let mock = Mock::one("Allow: 204\r\n", vec![Until("0\r\n\r\n"), say(UNCHANGED)]).await;
        let service = mock.service(Method::Reqmod, "");
        let got = adapt(&service, &ask(POST, b""), Some(Pieces::now(pieces)))
            .await
            .unwrap();
        assert_eq!(got, unchanged(Some(body)));
        let heard = mock.heard_request(0);
        assert!(
            heard.contains("\r\nAllow: 204\r\n") && !heard.contains("Preview"),
            "{heard}"
        );
    }
}

#[tokio::test]
async fn a_body_that_is_late_is_not_empty() {
    // IC-05
    let late = || Pieces::every(Duration::from_millis(150), &["ab"]);
    let mock = Mock::one(PREVIEW_4, vec![Until("2\r\nab\r\n0; ieof\r\n\r\n"), say(UNCHANGED)]).await;
    let service = mock.service(Method::Reqmod, "");
    assert_eq!(
        adapt(&service, &ask(POST, b""), Some(late())).await.unwrap(),
        unchanged(Some("ab"))
    );

    // Too late for a preview: it is sent as it comes.
    let reply = new_request("POST /b HTTP/1.1\r\n\r\n", Some("2\r\nAB\r\n0\r\n\r\n"));
    let mock = Mock::one(PREVIEW_4, vec![Until("2\r\nab\r\n0\r\n\r\n"), Say(reply)]).await;
    let service = mock.service(Method::Reqmod, "preview_data_read_timeout: 20ms");
    let got = adapt(&service, &ask(POST, b""), Some(late())).await.unwrap();
    assert_eq!(got.body.as_deref(), Some("AB"));
    let heard = mock.heard_request(0);
    assert!(!heard.contains("Preview") && !heard.contains("Allow"), "{heard}");
}

#[tokio::test]
async fn an_answer_of_a_head_alone_is_understood() {
    // IC-02
    let mock = Mock::one(
        "",
        vec![Until("0\r\n\r\n"), Say(new_request("GET /b HTTP/1.1\r\n\r\n", None))],
    )
    .await;
    let service = mock.service(Method::Reqmod, "");
    let got = adapt(&service, &ask(POST, b""), Some(Pieces::now(&["abc"])))
        .await
        .unwrap();
    assert_eq!(
        (got.verdict, got.body),
        (Verdict::Request(b"GET /b HTTP/1.1\r\n\r\n".to_vec()), None)
    );
}

#[tokio::test]
async fn a_request_may_be_answered_in_the_origins_stead() {
    let page = new_response(
        "HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n",
        Some("2\r\nno\r\n0\r\n\r\n"),
    );
    let mock = Mock::one(PREVIEW_4, vec![Until("0\r\n\r\n"), Say(page)]).await;
    let service = mock.service(Method::Reqmod, "");
    let got = adapt(&service, &ask(POST, b""), Some(Pieces::now(&["abcdef"])))
        .await
        .unwrap();
    assert_eq!(got.verdict, Verdict::Response(b"HTTP/1.1 403 No\r\n\r\n".to_vec()));
    assert_eq!(got.body.as_deref(), Some("no"));
}

#[tokio::test]
async fn trailers_are_kept_both_ways() {
    let reply = new_request("POST /b HTTP/1.1\r\n\r\n", Some("1\r\nx\r\n0\r\nX-New: 1\r\n\r\n"));
    let mock = Mock::one(
        PREVIEW_4,
        vec![
            Until("2\r\nab\r\n0\r\n\r\n"),
            say(CONTINUE),
            Until("0\r\nX-Sum: 2\r\n\r\n"),
            Say(reply),
        ],
    )
    .await;
    let service = mock.service(Method::Reqmod, "");
    let body = Pieces {
        trailers: "X-Sum: 2\r\n",
        ..Pieces::now(&["ab"])
    };
    let got = adapt(&service, &ask(POST, b""), Some(body)).await.unwrap();
    assert_eq!(
        (got.body.as_deref(), got.trailers.as_str()),
        (Some("x"), "X-New: 1\r\n")
    );
}

#[tokio::test]
async fn what_reqmod_says_is_repeated_to_respmod() {
    let reply = "ICAP/1.0 204 No\r\nX-Rule: 7\r\nX-Other: 1\r\n\r\n";
    let mock = Mock::one("Allow: 204\r\n", vec![Until("o.example\r\n\r\n"), say(reply)]).await;
    let service = mock.service(Method::Reqmod, "respond_shared_names: X-Rule");
    let adapted = service
        .adapt(&ask(GET, b""), None::<Pieces>, &Tasks::new())
        .await
        .unwrap();
    assert_eq!(adapted.shared, b"x-rule: 7\r\n");
}

#[tokio::test]
async fn a_connection_serves_again_when_its_answer_is_read_to_the_end() {
    // IC-10
    let reply = || Say(new_request("POST /b HTTP/1.1\r\n\r\n", Some("2\r\nab\r\n0\r\n\r\n")));
    let turn = || vec![Until("0; ieof\r\n\r\n"), reply()];
    let scripts = vec![[offers(PREVIEW_4), turn(), turn()].concat(), turn()];
    let mock = Mock::start(scripts).await;
    let service = mock.service(Method::Reqmod, "");
    let tasks = Tasks::new();
    for _ in 0..2 {
        let adapted = service
            .adapt(&ask(POST, b""), Some(Pieces::now(&["xy"])), &tasks)
            .await
            .unwrap();
        assert_eq!(collect(adapted).await.unwrap().body.as_deref(), Some("ab"));
    }
    assert_eq!(mock.heard.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_connection_whose_answer_is_not_read_serves_nobody_else() {
    // IC-10
    let reply = Say(new_request("POST /b HTTP/1.1\r\n\r\n", Some("2\r\nab\r\n0\r\n\r\n")));
    let turn = vec![Until("0; ieof\r\n\r\n"), reply];
    let mock = Mock::start(vec![[offers(PREVIEW_4), turn.clone()].concat(), turn]).await;
    let service = mock.service(Method::Reqmod, "");
    let tasks = Tasks::new();
    drop(
        service
            .adapt(&ask(POST, b""), Some(Pieces::now(&["xy"])), &tasks)
            .await
            .unwrap(),
    );
    let adapted = service
        .adapt(&ask(POST, b""), Some(Pieces::now(&["xy"])), &tasks)
        .await
        .unwrap();
    assert_eq!(collect(adapted).await.unwrap().body.as_deref(), Some("ab"));
    assert_eq!(mock.heard.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_connection_that_dies_while_it_waits_is_replaced() {
    let turn = || vec![Until("o.example\r\n\r\n"), say(UNCHANGED)];
    // It reads the next request, and closes instead of an answer.
    let dies = vec![Until("o.example\r\n\r\n")];
    let mock = Mock::start(vec![[offers("Allow: 204\r\n"), turn(), dies].concat(), turn()]).await;
    let service = mock.service(Method::Reqmod, "");
    let tasks = Tasks::new();
    for _ in 0..2 {
        let adapted = service.adapt(&ask(GET, b""), None::<Pieces>, &tasks).await.unwrap();
        assert_eq!(adapted.verdict, Verdict::Unchanged);
    }
    assert_eq!(mock.heard.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn what_a_service_offers_is_asked_for_again_when_its_time_is_over() {
    // IC-07
    let turn = || {
        [
            offers("Allow: 204\r\nOptions-TTL: 0\r\n"),
            vec![Until("o.example\r\n\r\n"), say(UNCHANGED)],
        ]
        .concat()
    };
    let mock = Mock::start(vec![[turn(), turn()].concat()]).await;
    let service = mock.service(Method::Reqmod, "");
    let tasks = Tasks::new();
    for _ in 0..2 {
        let adapted = service.adapt(&ask(GET, b""), None::<Pieces>, &tasks).await.unwrap();
        assert_eq!(adapted.verdict, Verdict::Unchanged);
    }
    assert_eq!(mock.heard(0).matches("OPTIONS ").count(), 2);
}

#[tokio::test]
async fn a_service_that_cannot_be_used_is_bypassed_or_not_as_configured() {
    // IC-07, IC-09
    for fields in ["Options-TTL: 99999999999\r\n", "Opt-body-type: x\r\n", "Preview: x\r\n"] {
        let mock = Mock::start(vec![offers(fields), offers(fields)]).await;
        let refused = adapt(&mock.service(Method::Reqmod, ""), &ask(GET, b""), None).await;
        assert!(
            matches!(refused, Err(TaskError::Icap(IcapError::Options(_)))),
            "{refused:?}"
        );
        let service = mock.service(Method::Reqmod, "bypass: true");
        let body = Some(Pieces::now(&["abc"]));
        assert_eq!(
            adapt(&service, &ask(POST, b""), body).await.unwrap(),
            unchanged(Some("abc"))
        );
    }
}

#[tokio::test]
async fn a_service_that_is_not_there_is_bypassed_or_not_as_configured() {
    // IC-09
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let url = format!("url: \"icap://{gone}/s\"");
    let refused = adapt(&service(&format!("{{{url}}}"), Method::Reqmod), &ask(GET, b""), None).await;
    assert!(
        matches!(refused, Err(TaskError::Icap(IcapError::Connect { .. }))),
        "{refused:?}"
    );
    let service = service(&format!("{{{url}, bypass: true}}"), Method::Reqmod);
    let body = Some(Pieces::now(&["abc"]));
    assert_eq!(
        adapt(&service, &ask(POST, b""), body).await.unwrap(),
        unchanged(Some("abc"))
    );
}

/// A listener whose queue is full: the kernel drops what asks for more.
async fn black_hole() -> (SocketAddr, TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) = timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
        queued.push(stream.unwrap());
    }
    (address, listener, queued)
}

#[tokio::test]
async fn a_black_hole_is_given_up_soon() {
    // IC-09
    let (address, _listener, _queued) = black_hole().await;
    let yaml = |more: &str| format!("{{url: \"icap://{address}/s\", tcp_connect_timeout: 200ms, {more}}}");
    let start = Instant::now();
    let refused = adapt(&service(&yaml(""), Method::Reqmod), &ask(GET, b""), None).await;
    assert!(
        matches!(refused, Err(TaskError::Icap(IcapError::ConnectTimeout { .. }))),
        "{refused:?}"
    );
    let service = service(&yaml("bypass: true"), Method::Reqmod);
    assert_eq!(adapt(&service, &ask(GET, b""), None).await.unwrap(), unchanged(None));
    assert!(start.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn idle_time_begins_anew_with_every_byte() {
    // IC-11
    let pieces = ["a"; 10];
    let reply = new_request("POST /b HTTP/1.1\r\n\r\n", Some("2\r\nab\r\n0\r\n\r\n"));
    let mock = Mock::one("", vec![Until("\r\n0\r\n\r\n"), Say(reply)]).await;
    let ask = Ask {
        idle: Duration::from_millis(400),
        ..ask(POST, b"")
    };
    let body = Some(Pieces::every(Duration::from_millis(80), &pieces));
    let got = adapt(&mock.service(Method::Reqmod, ""), &ask, body).await.unwrap();
    assert_eq!(got.body.as_deref(), Some("ab"));
}

#[tokio::test]
async fn silence_ends_an_exchange_and_is_not_bypassed() {
    let mock = Mock::one(PREVIEW_4, vec![Until("0; ieof\r\n\r\n"), Hang]).await;
    let ask = Ask {
        idle: Duration::from_millis(200),
        ..ask(POST, b"")
    };
    let service = mock.service(Method::Reqmod, "bypass: true");
    let silent = adapt(&service, &ask, Some(Pieces::now(&["ab"]))).await;
    assert!(
        matches!(silent, Err(TaskError::Icap(IcapError::Timeout(_)))),
        "{silent:?}"
    );
}

#[tokio::test]
async fn the_side_that_keeps_silent_is_the_one_to_blame() {
    let mock = Mock::one("", vec![Until("never")]).await;
    let ask = Ask {
        idle: Duration::from_millis(200),
        ..ask(POST, b"")
    };
    let body = Some(Pieces::every(Duration::from_secs(60), &["a"]));
    let silent = adapt(&mock.service(Method::Reqmod, ""), &ask, body).await;
    assert!(matches!(silent, Err(TaskError::Idle)), "{silent:?}");
}

#[tokio::test]
async fn hostile_answers_are_errors() {
    let half = new_request("POST /b HTTP/1.1\r\n\r\n", Some("5\r\nab"));
    let bad_chunk = new_request("POST /b HTTP/1.1\r\n\r\n", Some("zz\r\nab\r\n0\r\n\r\n"));
    let no_end = new_request("POST /b HTTP/1.1\r\n", None);
    let two = new_request("POST /b HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n", None);
    let long = format!("ICAP/1.0 200 OK\r\nX: {}", "x".repeat(9000));
    let huge = "ICAP/1.0 200 OK\r\nEncapsulated: req-hdr=0, null-body=4000000000\r\n\r\n";
    for (text, is_expected) in [
        ("", (|e| matches!(e, IcapError::Closed)) as fn(&IcapError) -> bool),
        ("ICAP/1.0 20", |e| matches!(e, IcapError::Closed)),
        ("HTTP/1.1 200 OK\r\n\r\n", |e| matches!(e, IcapError::Response(_))),
        ("ICAP/1.0 200 OK\r\n\r\n", |e| matches!(e, IcapError::Parts)),
        ("ICAP/1.0 200 OK\r\nEncapsulated: null-body=0\r\n\r\n", |e| {
            matches!(e, IcapError::Parts)
        }),
        ("ICAP/1.0 200 OK\r\nEncapsulated: req-body=0\r\n\r\n0\r\n\r\n", |e| {
            matches!(e, IcapError::Parts)
        }),
        ("ICAP/1.0 200 OK\r\nEncapsulated: req-hdr=0, res-body=4\r\n\r\n", |e| {
            matches!(e, IcapError::Parts)
        }),
        (
            "ICAP/1.0 206 Partial\r\nEncapsulated: req-hdr=0, null-body=4\r\n\r\n",
            |e| matches!(e, IcapError::Status(206)),
        ),
        ("ICAP/1.0 404 No\r\n\r\n", |e| matches!(e, IcapError::Status(404))),
        ("ICAP/1.0 500 No\r\n\r\n", |e| matches!(e, IcapError::Status(500))),
        ("ICAP/1.0 100 Continue\r\n\r\nICAP/1.0 204 No\r\n\r\n", |e| {
            matches!(e, IcapError::Status(100 | 204))
        }),
        (huge, |e| matches!(e, IcapError::Response(_))),
        (&long, |e| matches!(e, IcapError::Response(_))),
        (&half, |e| matches!(e, IcapError::Closed)),
        (&bad_chunk, |e| matches!(e, IcapError::Body(_))),
        (&no_end, |e| matches!(e, IcapError::Part(_))),
        (&two, |e| matches!(e, IcapError::Part(_))),
    ] {
        for (body, end) in [("ab", "0; ieof\r\n\r\n"), ("abcdef", "0\r\n\r\n")] {
            let mock = Mock::one(PREVIEW_4, vec![Until(end), say(text)]).await;
            let service = mock.service(Method::Reqmod, "bypass: true");
            match adapt(&service, &ask(POST, b""), Some(Pieces::now(&[body]))).await {
                Err(TaskError::Icap(error)) => assert!(is_expected(&error), "{text}: {error:?}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_response_is_not_answered_with_a_request() {
    let mock = Mock::one(
        PREVIEW_4,
        vec![
            Until("0; ieof\r\n\r\n"),
            Say(new_request("GET / HTTP/1.1\r\n\r\n", None)),
        ],
    )
    .await;
    let refused = adapt(
        &mock.service(Method::Respmod, ""),
        &ask(GET, OK),
        Some(Pieces::now(&["ab"])),
    )
    .await;
    assert!(matches!(refused, Err(TaskError::Icap(IcapError::Parts))), "{refused:?}");
}

#[tokio::test]
async fn an_answer_may_come_before_the_message_is_sent() {
    let page = new_response("HTTP/1.1 403 No\r\n\r\n", Some("2\r\nno\r\n0\r\n\r\n"));
    let mock = Mock::one("", vec![Until("o.example\r\n\r\n"), Say(page), Hang]).await;
    let body = Some(Pieces::every(Duration::from_secs(60), &["a"]));
    let got = adapt(&mock.service(Method::Reqmod, ""), &ask(POST, b""), body)
        .await
        .unwrap();
    assert_eq!(got.body.as_deref(), Some("no"));
}

#[tokio::test]
async fn a_unix_socket_comes_first_and_tcp_when_it_does_not_answer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("icap.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let script = [
        offers("Allow: 204\r\n"),
        vec![Until("o.example\r\n\r\n"), say(UNCHANGED)],
    ]
    .concat();
    let tasks = Tasks::new();
    let heard = Arc::new(Mutex::new(vec![String::new()]));
    let (own, unix_script) = (Arc::clone(&heard), script.clone());
    tasks.spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        play(stream, unix_script, own, 0).await;
    });
    let mock = Mock::start(vec![script]).await;
    let more = format!("use_unix_socket: {}", path.display());
    assert_eq!(
        adapt(&mock.service(Method::Reqmod, &more), &ask(GET, b""), None)
            .await
            .unwrap(),
        unchanged(None)
    );
    assert!(heard.lock().unwrap()[0].contains("REQMOD"));
    std::fs::remove_file(&path).unwrap();
    assert_eq!(
        adapt(&mock.service(Method::Reqmod, &more), &ask(GET, b""), None)
            .await
            .unwrap(),
        unchanged(None)
    );
    assert!(mock.heard(0).contains("REQMOD"));
}

#[tokio::test]
async fn a_service_behind_tls_proves_who_it_is() {
    let ca = sluice_testkit::Ca::new();
    let dir = tempfile::tempdir().unwrap();
    ca.issue(&["icap.test"]).write(dir.path(), "server");
    let anchor = ca.write(dir.path());
    let pair = decode_text("{certificate: server.pem, private_key: server.key}").unwrap();
    let acceptor = sluice_tls::server::TlsServerParams::from_rustls(&pair, dir.path())
        .unwrap()
        .rustls()
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tasks = Tasks::new();
    tasks.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let script = [
                offers("Allow: 204\r\n"),
                vec![Until("o.example\r\n\r\n"), say(UNCHANGED)],
            ]
            .concat();
            if let Ok(stream) = acceptor.accept(stream).await {
                play(stream, script, Arc::new(Mutex::new(vec![String::new()])), 0).await;
            }
        }
    });
    let with = |more: &str| {
        let tls = format!(
            "tls_client: {{no_default_ca_certificate: true, ca_certificate: '{}'}}",
            anchor.display()
        );
        service(
            &format!("{{url: \"icaps://{address}/s\", {tls}, {more}}}"),
            Method::Reqmod,
        )
    };
    let got = adapt(&with("tls_name: icap.test"), &ask(GET, b""), None).await;
    assert_eq!(got.unwrap(), unchanged(None));
    let refused = adapt(&with("tls_name: other.test"), &ask(GET, b""), None).await;
    assert!(
        matches!(refused, Err(TaskError::Icap(IcapError::Tls(_)))),
        "{refused:?}"
    );
}

#[test]
fn host_has_a_port_that_is_not_the_default_one_and_brackets() {
    // IC-08
    for (url, host, uri) in [
        ("icap://[::1]/x", "[::1]", "icap://[::1]/x"),
        ("icap://h:1345/x", "h:1345", "icap://h:1345/x"),
        ("icap://h:1344/x", "h", "icap://h:1344/x"),
        ("icaps://h:11344/x", "h", "icaps://h:11344/x"),
        ("icap://joe:s%3acret@h/x?a=b", "h", "icap://h/x?a=b"),
    ] {
        let service = service(&format!("\"{url}\""), Method::Reqmod);
        assert_eq!((service.host.as_str(), service.uri.as_str()), (host, uri));
    }
    let service = service("\"icap://joe:s%3acret@h/x\"", Method::Reqmod);
    assert_eq!(service.authorization.as_deref(), Some("Basic am9lOnM6Y3JldA=="));
}
