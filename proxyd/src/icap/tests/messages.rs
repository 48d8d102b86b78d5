//! What becomes of messages.

use super::*;

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
