//! Connections to services, and what services offer.

use super::*;

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
