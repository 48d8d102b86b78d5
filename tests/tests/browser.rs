//! Chromium through a proxy that looks into TLS: what its user sees.

use serde_json::json;
use sluice_testkit::{Ca, Daemon, Hypercorn, Nginx, assert_eventually};
use sluice_tests::browser::Browser;
use sluice_tests::noise;
use sluice_tests::rig::{Keys, Rig, nginx_of};

/// A rig to whose escaper `a.test` and `b.test` are 127.0.0.1, and a browser that trusts it. No other name exists: a
/// browser asks for some of its own accord.
async fn rig(ca: &Ca) -> (Rig, Daemon, Browser) {
    let keys = Keys {
        escaper: "resolve_redirection: {a.test: 127.0.0.1, b.test: 127.0.0.1}",
        ..Keys::default()
    };
    let rig = Rig::start(ca, keys).await;
    let resolverd = rig.proxyd.group().resolverd().await;
    let browser = Browser::start(rig.proxyd.addr("http"), Some(&rig.trust)).await;
    (rig, resolverd, browser)
}

/// A page of scripts, styles and pictures, each of which is counted if it arrives whole.
fn write_page(nginx: &Nginx) {
    let mut page = String::from("<!doctype html><title>many</title><script>var loaded = 0, failed = 0;</script>\n");
    // One pixel, and bytes that nobody looks at.
    let mut picture = b"GIF89a\x01\0\x01\0\0\0\0,\0\0\0\0\x01\0\x01\0\0\x02\x02L\x01\0;".to_vec();
    picture.extend(noise(20_000));
    for n in 0..60 {
        nginx.write(format!("{n}.js"), format!("loaded += 1; // {}", "x".repeat(n * 1000)));
        nginx.write(format!("{n}.css"), format!("#d{n} {{ margin-left: {n}px; }}"));
        nginx.write(format!("{n}.gif"), &picture);
        page += &format!(
            "<link rel=stylesheet href={n}.css><div id=d{n}></div><script async src={n}.js onerror=failed++></script>\
             <img src={n}.gif onload=loaded++ onerror=failed++>\n"
        );
    }
    nginx.write("index.html", page);
}

#[tokio::test]
async fn a_page_of_many_parts_arrives_whole() {
    let ca = Ca::new();
    let types = "types { text/html html; text/javascript js; text/css css; image/gif gif; }";
    let nginx = nginx_of(&ca.issue(&["a.test"]), types).await;
    write_page(&nginx);
    nginx.write("big", noise(10 << 20));
    let (rig, _resolverd, browser) = rig(&ca).await;
    let url = format!("https://a.test:{}/index.html", nginx.tls_addr().port());
    for _ in 0..2 {
        browser.open(&url).await.unwrap();
        let seen = browser
            .run(
                "const styled = [...document.querySelectorAll('div')].filter((d, n) => getComputedStyle(d).marginLeft == n + 'px');
                 const protocols = performance.getEntriesByType('resource').map(e => e.nextHopProtocol);
                 return [document.title, loaded, failed, styled.length, [...new Set(protocols)]]",
            )
            .await;
        assert_eq!(seen, json!(["many", 120, 0, 60, ["h2"]]));
    }
    let seen = browser
        .run(
            "const sizes = await Promise.all([...Array(8).keys()].map(n => fetch('/big?' + n).then(r => r.arrayBuffer())));
             const answer = await fetch('/put/x', {method: 'PUT', body: sizes[0]});
             const back = new Uint8Array(await (await fetch('/put/x')).arrayBuffer());
             const sent = new Uint8Array(sizes[0]);
             return [sizes.map(s => s.byteLength), answer.status, back.length, back.every((b, n) => b == sent[n])]",
        )
        .await;
    assert_eq!(seen, json!([vec![10 << 20; 8], 201, 10 << 20, true]));
    browser.stop().await;
    assert_eventually!(rig.intercepted("H2StreamForward").len() >= 181 + 8 + 2);
    let mut handshakes = rig.intercepted("TlsHandshake");
    handshakes.retain(|record| record["msg"] != "ok");
    assert_eq!(handshakes, Vec::<serde_json::Value>::new());
    rig.stop().await;
}

const SITE: &str = include_str!("../programs/site.py");

#[tokio::test]
async fn uploads_events_and_streams_both_ways() {
    let ca = Ca::new();
    let site = Hypercorn::start(SITE, &ca.issue(&["a.test"])).await;
    let (rig, _resolverd, browser) = rig(&ca).await;
    browser
        .open(&format!("https://a.test:{}/version", site.addr().port()))
        .await
        .unwrap();
    assert_eq!(browser.run("return document.body.innerText").await, "2");
    let upload = "const data = new Uint8Array(5 << 20).map((_, n) => n * 31 + (n >> 8));
        const digest = [...new Uint8Array(await crypto.subtle.digest('SHA-256', data))].map(b => b.toString(16).padStart(2, '0'));
        const form = await fetch('/upload', {method: 'POST', body: data});
        return await form.text() == data.length + ' ' + digest.join('')";
    assert_eq!(browser.run(upload).await, true);
    // Each event is there before the next one is asked for.
    let events = "const source = new EventSource('/events?sse');
        const seen = [];
        const next = step => new Promise((done, fail) => {
            source.onmessage = event => { seen.push(event.data); done(); };
            source.onerror = fail;
            fetch('/step/' + step + '?sse');
        });
        for (const step of ['one', 'two', 'three']) await next(step);
        source.close();
        return seen";
    assert_eq!(browser.run(events).await, json!(["one", "two", "three"]));
    let fetched = "const reader = (await fetch('/events?fetched')).body.pipeThrough(new TextDecoderStream()).getReader();
        const seen = [];
        for (const step of ['one', 'two']) { await fetch('/step/' + step + '?fetched'); seen.push((await reader.read()).value); }
        await fetch('/step/end?fetched');
        return [seen, (await reader.read()).done]";
    assert_eq!(
        browser.run(fetched).await,
        json!([["data: one\n\n", "data: two\n\n"], true])
    );
    // A request's body that is made as it is sent.
    let streamed = "let pieces = 0;
        const body = new ReadableStream({pull(controller) {
            if (pieces++ < 100) controller.enqueue(new Uint8Array(10_000)); else controller.close();
        }});
        const answer = await fetch('/upload', {method: 'POST', body, duplex: 'half'});
        return (await answer.text()).split(' ')[0]";
    assert_eq!(browser.run(streamed).await, "1000000");
    browser.stop().await;
    rig.stop().await;
}

/// What a page does with a WebSocket: it tells which HTTP carries it, echoes, and is closed by the server.
fn websocket(url: &str) -> String {
    format!(
        "const ws = new WebSocket('{url}', ['chat']);
        ws.binaryType = 'arraybuffer';
        const next = () => new Promise((done, fail) => {{ ws.onmessage = e => done(e.data); ws.onerror = fail; ws.onclose = fail; }});
        await new Promise((done, fail) => {{ ws.onopen = done; ws.onerror = () => fail('not opened'); }});
        ws.send('version');
        const version = await next();
        ws.send('h\\u00fc');
        const text = await next();
        const data = new Uint8Array(3 << 20).map((_, n) => n * 7);
        ws.send(data);
        const back = new Uint8Array(await next());
        const same = back.length == data.length && back.every((b, n) => b == data[n]);
        const closed = new Promise(done => ws.onclose = e => done([e.code, e.reason, e.wasClean]));
        ws.send('leave');
        return [ws.protocol, version, text, same, await closed]"
    )
}

#[tokio::test]
async fn websockets_of_a_page_pass_over_http1_and_http2() {
    let ca = Ca::new();
    let site = Hypercorn::start(SITE, &ca.issue(&["a.test", "b.test"])).await;
    let (rig, _resolverd, browser) = rig(&ca).await;
    let port = site.addr().port();
    browser.open(&format!("https://a.test:{port}/version")).await.unwrap();
    // A host that the page has an HTTP/2 connection with is asked over that, another one over HTTP/1.
    for (host, version) in [("a.test", "2"), ("b.test", "1.1")] {
        let seen = browser.run(&websocket(&format!("wss://{host}:{port}/echo"))).await;
        assert_eq!(
            seen,
            json!(["chat", version, "hü", true, [4001, "as you wish", true]]),
            "{host}"
        );
    }
    let refused = browser
        .run(&format!(
            "const ws = new WebSocket('wss://b.test:{port}/other');
             return await new Promise(done => {{ ws.onclose = e => done(e.code); }})"
        ))
        .await;
    assert_eq!(refused, 1006);
    browser.stop().await;
    assert_eventually!(rig.intercepted("H2Websocket").len() == 1);
    assert_eq!(rig.intercepted("H2ExtendedConnect")[0]["rsp_status"], 200);
    let statuses: Vec<_> = rig
        .intercepted("HttpUpgrade")
        .iter()
        .map(|r| r["rsp_status"].clone())
        .collect();
    assert_eq!(statuses, [101]);
    assert_eq!(rig.intercepted("HttpForward")[0]["rsp_status"], 403);
    rig.stop().await;
}

#[tokio::test]
async fn what_is_wrong_with_an_upstream_is_a_page_that_says_so() {
    let (ca, stranger) = (Ca::new(), Ca::named("Another CA"));
    let (rig, _resolverd, browser) = rig(&ca).await;
    let upstream = "handshake with the upstream: peer certificate: ";
    for (leaf, told) in [
        (stranger.issue(&["a.test"]), "unable to get local issuer certificate"),
        (ca.issue(&["other.test"]), "hostname mismatch"),
        (ca.issue_expired(&["a.test"]), "certificate has expired"),
    ] {
        let nginx = nginx_of(&leaf, "").await;
        let url = format!("https://a.test:{}/hello.txt", nginx.tls_addr().port());
        let error = browser.open(&url).await.unwrap_err();
        // How it words each alert that is about a certificate.
        assert!(error.contains("ERR_BAD_SSL_CLIENT_AUTH_CERT"), "{error}");
        let told = format!("{upstream}{told}");
        assert_eventually!(
            rig.intercepted("TlsHandshake")
                .iter()
                .any(|record| record["msg"] == *told),
            "{told}"
        );
    }
    browser.stop().await;
    // One that does not know our CA warns its user, and the record tells why nothing came.
    let browser = Browser::start(rig.proxyd.addr("http"), None).await;
    let nginx = nginx_of(&ca.issue(&["a.test"]), "").await;
    let url = format!("https://a.test:{}/hello.txt", nginx.tls_addr().port());
    browser.open(&url).await.unwrap();
    let page = browser.run("return document.body.innerText").await;
    assert!(
        page.as_str().unwrap().contains("NET::ERR_CERT_AUTHORITY_INVALID"),
        "{page}"
    );
    let told = "handshake with the client: the peer sent the alert certificate_unknown";
    assert_eventually!(
        rig.intercepted("TlsHandshake")
            .iter()
            .any(|record| record["msg"] == told)
    );
    assert_eq!(
        rig.intercepted("HttpForward").len() + rig.intercepted("H2StreamForward").len(),
        0
    );
    browser.stop().await;
    rig.stop().await;
}
