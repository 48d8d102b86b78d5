//! Connections that serve several requests: pipelined by a client, shared among clients towards an origin, and what must
//! not be shared.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sluice_testkit::{Answer, Daemon, Origin, Wire, assert_eventually};
use sluice_tests::{Gate, proxy};

async fn started() -> Daemon {
    Daemon::proxyd(&proxy("", "")).start().await
}

fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// Answers with the number of the connection.
fn numbering() -> Origin {
    Origin::http(|request| ok(&request.connection.to_string()))
}

fn get(origin: &Origin, target: &str, fields: &str) -> String {
    format!("GET http://{}{target} HTTP/1.1\r\n{fields}\r\n", origin.addr())
}

fn text(answer: &Answer) -> (u16, String) {
    (answer.status, String::from_utf8_lossy(&answer.body).into_owned())
}

#[tokio::test]
async fn clients_share_the_connections_to_an_origin() {
    let origin = numbering();
    let daemon = started().await;
    for _ in 0..20 {
        let mut wire = daemon.connect("http").await;
        for _ in 0..2 {
            assert_eq!(text(&wire.ask(get(&origin, "/", "")).await), (200, "0".into()));
        }
    }
    assert_eq!(origin.accepted(), 1);
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn requests_at_the_same_time_have_connections_of_their_own() {
    let gate = Gate::new();
    let waits = gate.clone();
    let origin = Origin::http(move |request| {
        if request.target() == "/wait" {
            let _ = waits.pass();
        }
        ok(&request.connection.to_string())
    });
    let daemon = started().await;
    let mut first = daemon.connect("http").await;
    first.send(get(&origin, "/wait", "")).await;
    assert_eventually!(origin.received_text().contains("/wait"));
    let mut second = daemon.connect("http").await;
    assert_eq!(text(&second.ask(get(&origin, "/", "")).await), (200, "1".into()));
    gate.open();
    assert_eq!(text(&first.answer().await), (200, "0".into()));
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn no_connection_is_kept_where_that_is_switched_off() {
    let origin = numbering();
    let daemon = Daemon::proxyd(&proxy("http_forward_upstream_keepalive: false", ""))
        .start()
        .await;
    let mut wire = daemon.connect("http").await;
    for n in 0..3 {
        assert_eq!(text(&wire.ask(get(&origin, "/", "")).await), (200, n.to_string()));
    }
    assert_eq!(origin.received_text().matches("Connection: close\r\n").count(), 3);
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::http(|request| ok(request.target()));
    let gate = Gate::new();
    let waits = gate.clone();
    let slow = Origin::http(move |_| {
        let _ = waits.pass();
        ok("slow")
    });
    let daemon = started().await;
    let mut wire = daemon.connect("http").await;
    // One segment; the first one's answer is the last to be there.
    let requests: String = (0..30).map(|n| get(&origin, &format!("/{n}"), "")).collect();
    wire.send(get(&slow, "/", "") + &requests).await;
    gate.open();
    assert_eq!(text(&wire.answer().await), (200, "slow".into()));
    for n in 0..30 {
        assert_eq!(text(&wire.answer().await), (200, format!("/{n}")));
    }
    // With bodies, and the last one ends the connection; what is behind it is not looked at.
    let post = format!(
        "POST http://{}/p HTTP/1.1\r\nContent-Length: 3\r\n\r\nGET",
        origin.addr()
    );
    let last = get(&origin, "/last", "Connection: close\r\n");
    wire.send([post.clone(), post, last, get(&origin, "/behind", "")].concat())
        .await;
    for target in ["/p", "/p", "/last"] {
        assert_eq!(text(&wire.answer().await), (200, target.into()));
    }
    wire.assert_closed().await;
    assert!(!origin.received_text().contains("/behind"));
    drop(wire);
    daemon.stop().await.assert_clean();
}

/// H1-13.
#[tokio::test]
async fn a_kept_connection_that_the_origin_has_closed_is_not_used() {
    let closed = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&closed);
    let origin = Origin::script(move |conn| {
        conn.head()?;
        conn.write(&ok("once"))?;
        conn.stream().shutdown(std::net::Shutdown::Both)?;
        counts.fetch_add(1, Ordering::SeqCst);
        Ok(())
    });
    let daemon = started().await;
    let mut wire = daemon.connect("http").await;
    for n in 1..=5 {
        assert_eq!(text(&wire.ask(get(&origin, "/", "")).await), (200, "once".into()));
        assert_eventually!(closed.load(Ordering::SeqCst) == n);
    }
    // Not even a request that cannot be repeated is lost.
    let post = format!("POST http://{}/ HTTP/1.1\r\nContent-Length: 0\r\n\r\n", origin.addr());
    assert_eq!(text(&wire.ask(post).await), (200, "once".into()));
    daemon.stop().await.assert_clean();
}

/// Closes its first connection without a byte when `/again` is asked for, or each one, `for_ever`.
fn closing_at_second(for_ever: bool) -> Origin {
    Origin::script(move |conn| {
        while let Some(head) = conn.head()? {
            if head.contains("/again") && (for_ever || conn.index() == 0) {
                return Ok(());
            }
            conn.write(&ok(&conn.index().to_string()))?;
        }
        Ok(())
    })
}

/// H1-13.
#[tokio::test]
async fn a_get_whose_kept_connection_closes_unheard_is_sent_once_more() {
    let origin = closing_at_second(false);
    let daemon = started().await;
    let mut wire = daemon.connect("http").await;
    assert_eq!(text(&wire.ask(get(&origin, "/", "")).await), (200, "0".into()));
    assert_eq!(text(&wire.ask(get(&origin, "/again", "")).await), (200, "1".into()));
    assert_eq!(origin.received_text().matches("GET /again ").count(), 2);
    daemon.stop().await.assert_clean();

    let origin = closing_at_second(true);
    let daemon = started().await;
    let mut wire = daemon.connect("http").await;
    assert_eq!(wire.ask(get(&origin, "/", "")).await.status, 200);
    assert_eq!(wire.ask(get(&origin, "/again", "")).await.status, 502);
    assert_eq!(origin.received_text().matches("GET /again ").count(), 2);
    drop(wire);
    daemon.stop().await.assert_clean();
}

/// H1-13.
#[tokio::test]
async fn a_post_whose_kept_connection_closes_unheard_is_not_sent_again() {
    for body in ["", "hello"] {
        let origin = closing_at_second(false);
        let daemon = started().await;
        let mut wire = daemon.connect("http").await;
        assert_eq!(text(&wire.ask(get(&origin, "/", "")).await), (200, "0".into()));
        let post = format!(
            "POST http://{}/again HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}",
            origin.addr(),
            body.len()
        );
        assert_eq!(wire.ask(post).await.status, 502);
        assert_eq!(origin.received_text().matches("POST /again ").count(), 1);
        drop(wire);
        daemon.stop().await.assert_clean();
    }
}

/// H1-13: a byte of an answer has come, so the request was heard.
#[tokio::test]
async fn a_get_is_not_sent_again_once_an_answer_has_begun() {
    let origin = Origin::script(|conn| {
        conn.head()?;
        conn.write(&ok("0"))?;
        conn.head()?;
        conn.write(b"H")
    });
    let daemon = started().await;
    let mut wire = daemon.connect("http").await;
    assert_eq!(wire.ask(get(&origin, "/", "")).await.status, 200);
    assert_eq!(wire.ask(get(&origin, "/again", "")).await.status, 502);
    assert_eq!(origin.accepted(), 1);
    drop(wire);
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn bytes_behind_a_response_make_its_connection_unusable() {
    let origin = Origin::script(|conn| {
        while conn.head()?.is_some() {
            // With the response, and after it.
            conn.write(&[ok("1"), ok("2")].concat())?;
        }
        Ok(())
    });
    let daemon = started().await;
    for n in 1..=3 {
        let mut wire = daemon.connect("http").await;
        assert_eq!(text(&wire.ask(get(&origin, "/", "")).await), (200, "1".into()));
        assert_eq!(origin.accepted(), n);
    }
    daemon.stop().await.assert_clean();
}

/// Asks by each connection in turn, and says which upstream connections served.
async fn served_by(wires: &mut [&mut Wire], origin: &Origin, fields: &[&str]) -> Vec<String> {
    let mut by = Vec::new();
    for (wire, fields) in wires.iter_mut().zip(fields) {
        by.push(text(&wire.ask(get(origin, "/", fields)).await).1);
    }
    by
}

#[tokio::test]
async fn a_connection_authenticated_by_negotiate_or_ntlm_serves_its_client_alone() {
    for scheme in ["Negotiate", "NTLM", "negotiate"] {
        let origin = numbering();
        let daemon = started().await;
        let (mut anna, mut bert) = (daemon.connect("http").await, daemon.connect("http").await);
        let authorization = format!("Authorization: {scheme} YII=\r\n");
        let fields = [authorization.as_str(), "", "", ""];
        let (a, b) = (&mut anna, &mut bert);
        assert_eq!(served_by(&mut [a, b], &origin, &fields).await, ["0", "1"], "{scheme}");
        // Anna's connection stays hers, also without credentials; the other one is for everybody.
        assert_eq!(
            served_by(&mut [&mut bert, &mut anna], &origin, &["", ""]).await,
            ["1", "0"],
            "{scheme}"
        );
        daemon.stop().await.assert_clean();
    }
}

#[tokio::test]
async fn a_connection_challenged_for_negotiate_or_ntlm_serves_its_client_alone() {
    for challenge in [
        "Negotiate",
        "NTLM TlRMTVNTUAACAAAA",
        "Basic realm=\"x\"\r\nWWW-Authenticate: NTLM",
    ] {
        let response =
            format!("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: {challenge}\r\nContent-Length: 1\r\n\r\n");
        let origin = Origin::http(move |request| {
            if request.target() == "/secret" {
                format!("{response}{}", request.connection).into_bytes()
            } else {
                ok(&request.connection.to_string())
            }
        });
        let daemon = started().await;
        let (mut anna, mut bert) = (daemon.connect("http").await, daemon.connect("http").await);
        assert_eq!(text(&anna.ask(get(&origin, "/secret", "")).await), (401, "0".into()));
        assert_eq!(
            text(&bert.ask(get(&origin, "/", "")).await),
            (200, "1".into()),
            "{challenge}"
        );
        assert_eq!(text(&anna.ask(get(&origin, "/secret", "")).await), (401, "0".into()));
        daemon.stop().await.assert_clean();
    }
}

#[tokio::test]
async fn a_basic_challenge_binds_nothing() {
    let origin = Origin::http(|request| {
        format!(
            "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"\r\nContent-Length: 1\r\n\r\n{}",
            request.connection
        )
        .into_bytes()
    });
    let daemon = started().await;
    for _ in 0..3 {
        let mut wire = daemon.connect("http").await;
        let answer = wire.ask(get(&origin, "/", "Authorization: Basic YTpi\r\n")).await;
        assert_eq!(text(&answer), (401, "0".into()));
    }
    daemon.stop().await.assert_clean();
}
