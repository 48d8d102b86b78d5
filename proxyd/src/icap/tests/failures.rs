//! Services that are away, keep silent, or talk nonsense.

use super::*;

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

/// A body that somebody else looks after.
struct Resting(Pieces);

impl BodySource for Resting {
    const MAY_REST: bool = true;

    fn poll_data(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<Result<Flow, TaskError>> {
        self.0.poll_data(cx, out)
    }

    fn trailers(&mut self) -> Vec<u8> {
        self.0.trailers()
    }
}

#[tokio::test]
async fn a_body_that_may_rest_is_waited_for_and_its_service_is_not() {
    let ask = Ask {
        idle: Duration::from_millis(200),
        ..ask(POST, b"")
    };
    let body = || Some(Resting(Pieces::every(Duration::from_millis(500), &["a", "b"])));
    let reply = new_request("POST /b HTTP/1.1\r\n\r\n", Some("2\r\nab\r\n0\r\n\r\n"));
    let mock = Mock::one("", vec![Until("1\r\nb\r\n0\r\n\r\n"), Say(reply)]).await;
    let service = mock.service(Method::Reqmod, "");
    let adapted = service.adapt(&ask, body(), &mock.tasks).await.unwrap();
    assert_eq!(collect(adapted).await.unwrap().body.as_deref(), Some("ab"));
    let mock = Mock::one("", vec![Until("1\r\nb\r\n0\r\n\r\n"), Hang]).await;
    let silent = mock.service(Method::Reqmod, "").adapt(&ask, body(), &mock.tasks).await;
    assert!(matches!(silent, Err(TaskError::Icap(IcapError::Timeout(_)))));
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
