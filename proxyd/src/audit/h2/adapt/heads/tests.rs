use http::{Request, Response};

use super::*;

fn request(builder: request::Builder) -> request::Parts {
    builder.body(()).unwrap().into_parts().0
}

fn text(head: &request::Parts) -> String {
    String::from_utf8(request_text(head)).unwrap()
}

fn adapted(bytes: &str, original: request::Parts, has_body: bool) -> Sent {
    adapted_request(bytes.as_bytes(), original, has_body).unwrap()
}

fn websocket() -> request::Parts {
    let mut head = request(Request::builder().method("CONNECT").uri("https://o.test/chat"));
    head.extensions.insert(Protocol::from_static("websocket"));
    head
}

#[test]
fn a_request_looks_like_http_1() {
    let head = request(
        Request::builder()
            .method("BREW")
            .uri("https://o.test:8443/pot?x")
            .header("x-a", "1")
            .header("cookie", "a=1")
            .header("x-a", "2")
            .header("cookie", "b=2"),
    );
    assert_eq!(
        text(&head),
        "BREW /pot?x HTTP/1.1\r\nhost: o.test:8443\r\nx-a: 1\r\nx-a: 2\r\ncookie: a=1; b=2\r\n\r\n"
    );
    let bare = request(Request::builder().uri("https://o.test"));
    assert_eq!(text(&bare), "GET / HTTP/1.1\r\nhost: o.test\r\n\r\n");
    assert_eq!(text(&websocket()), "GET /chat HTTP/1.1\r\nhost: o.test\r\n\r\n");
}

#[test]
fn a_changed_request_is_sent_as_its_service_says() {
    let original = || {
        request(
            Request::builder()
                .uri("https://o.test/a")
                .header("te", "trailers")
                .header("x-old", "1"),
        )
    };
    let sent = adapted(
        "POST /b?c HTTP/1.1\r\nHost: p.test\r\nX-New: 1\r\nx-new: 2\r\n\r\n",
        original(),
        true,
    );
    assert_eq!((sent.head.method.as_str(), sent.length), ("POST", None));
    assert_eq!(sent.head.uri, "https://p.test/b?c");
    let names: Vec<_> = sent
        .head
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
        .collect();
    assert_eq!(names, [("x-new", "1"), ("x-new", "2"), ("te", "trailers")]);
    // An absolute URL tells the path alone.
    let sent = adapted(
        "GET http://q.test/d HTTP/1.1\r\nHost: o.test\r\n\r\n",
        original(),
        false,
    );
    assert_eq!(sent.head.uri, "https://o.test/d");
    // H2-07.
    let mut with_host = original();
    with_host.headers.insert(HOST, HeaderValue::from_static("o.test"));
    let sent = adapted("GET /a HTTP/1.1\r\nHost: p.test\r\n\r\n", with_host, false);
    assert_eq!(
        (sent.head.uri.to_string().as_str(), sent.head.headers[HOST].as_bytes()),
        ("https://p.test/a", &b"p.test"[..])
    );
}

#[test]
fn a_request_tells_the_length_that_its_body_has() {
    let original = || request(Request::post("https://o.test/a").header("content-length", "5"));
    for (field, has_body, length) in [
        ("Content-Length: 7\r\n", true, Some(7)),
        ("", true, None),
        ("Content-Length: 7\r\n", false, Some(0)),
        ("", false, None),
    ] {
        let sent = adapted(
            &format!("POST /a HTTP/1.1\r\nHost: o.test\r\n{field}\r\n"),
            original(),
            has_body,
        );
        let told = sent
            .head
            .headers
            .get(CONTENT_LENGTH)
            .map(|told| told.to_str().unwrap().parse().unwrap());
        assert_eq!((sent.length, told), (length, length), "{field:?} {has_body}");
    }
}

#[test]
fn a_request_does_not_become_one_of_another_kind() {
    let head = request(Request::builder().uri("https://o.test/a"));
    for bytes in [
        "CONNECT o.test:1 HTTP/1.1\r\nHost: o.test\r\n\r\n",
        "GET /\r\n\r\n",
        "GET / HTTP/1.1\r\n",
    ] {
        assert!(
            adapted_request(bytes.as_bytes(), head.clone(), false).is_err(),
            "{bytes}"
        );
    }
    let sent = adapted(
        "GET /other HTTP/1.1\r\nHost: o.test\r\nX: 1\r\n\r\n",
        websocket(),
        false,
    );
    assert_eq!((sent.head.method.as_str(), sent.head.uri.path()), ("CONNECT", "/other"));
    assert!(sent.head.extensions.get::<Protocol>().is_some());
    let post = b"POST /other HTTP/1.1\r\nHost: o.test\r\n\r\n";
    assert!(adapted_request(post, websocket(), false).is_err());
}

#[test]
fn a_changed_response_tells_the_length_that_its_body_has() {
    let reply = |bytes: &str, method: Method, has_body| {
        let reply = Reply::new(bytes.as_bytes(), &method, has_body).unwrap();
        let told = reply
            .headers
            .get(CONTENT_LENGTH)
            .map(|told| told.to_str().unwrap().to_owned());
        (reply.has_body, reply.length, told)
    };
    let seven = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\n";
    assert_eq!(reply(seven, Method::GET, true), (true, Some(7), Some("7".to_owned())));
    assert_eq!(reply(seven, Method::GET, false), (false, None, Some("0".to_owned())));
    assert_eq!(reply(seven, Method::HEAD, false), (false, None, Some("7".to_owned())));
    assert_eq!(reply(seven, Method::HEAD, true), (false, None, Some("7".to_owned())));
    assert_eq!(reply("HTTP/1.1 200 OK\r\n\r\n", Method::GET, true), (true, None, None));
    assert_eq!(
        reply("HTTP/1.1 204 No Content\r\n\r\n", Method::GET, true),
        (false, None, None)
    );
    assert!(Reply::new(b"HTTP/1.1 100 Continue\r\n\r\n", &Method::GET, false).is_err());
}

#[test]
fn what_is_told_to_this_hop_stays_with_it() {
    let original = Response::builder().status(407).header("proxy-authenticate", "Basic");
    let original = original.body(()).unwrap().into_parts().0;
    let head =
        b"HTTP/1.1 407 No\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nTransfer-Encoding: chunked\r\nKeep-Alive: x\r\n\r\n";
    let reply = Reply::new(head, &Method::GET, true).unwrap().behind(&original);
    let names: Vec<_> = reply.headers.keys().map(HeaderName::as_str).collect();
    assert_eq!(names, ["set-cookie", "proxy-authenticate"]);
    assert_eq!(reply.headers.get_all("set-cookie").iter().count(), 2);
}

#[test]
fn trailers_survive_the_way_there_and_back() {
    let trailers: HeaderMap = [("x-a", "1"), ("x-a", "2"), ("grpc-status", "0")]
        .into_iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .collect();
    assert_eq!(trailer_map(&trailer_lines(&trailers)), trailers);
    let odd = b"X-B:\t1 \r\nConnection: x\r\nContent-Length: 5\r\nno colon\r\nbad name: 1\r\n";
    let kept = trailer_map(odd);
    assert_eq!((kept.len(), kept["x-b"].as_bytes()), (1, &b"1"[..]));
}
