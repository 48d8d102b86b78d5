//! Clients and origins that were not written here: Python's HTTP libraries, httpbin, HTTP/1.0, IPv6, PROXY protocol.

use std::net::SocketAddr;

use sluice_testkit::{Ca, Daemon, Httpbin, Nginx, Origin, assert_eventually, curl, python};
use sluice_tests::{finished, proxy};

async fn started(server: &str, escaper: &str) -> Daemon {
    Daemon::proxyd(&proxy(server, escaper)).start().await
}

/// The same conversation by three libraries; each uses connection pools of its own. Arguments: proxy, httpbin, an
/// `https:` URL of a file that is `hello\n`, the authority that vouches for it.
const LIBRARIES: &str = r#"
import asyncio, json, ssl, sys
import aiohttp, httpx, requests

proxy, httpbin, secure, ca = sys.argv[1:]
proxy, httpbin = f"http://{proxy}", f"http://{httpbin}"
MEGABYTE = bytes(range(256)) * 4096
BACK = {"a": ["1", "2"], "b": "\u00fc"}

def pieces():
    for at in range(0, len(MEGABYTE), 50_000):
        yield MEGABYTE[at:at + 50_000]

async def pieces_later():
    for piece in pieces():
        yield piece

def posted(answer):
    import base64
    return base64.b64decode(answer["data"].split(",", 1)[1])

def by_requests():
    with requests.Session() as s:
        s.trust_env = False
        s.proxies = {"http": proxy, "https": proxy}
        assert s.get(f"{httpbin}/get", params=BACK).json()["args"] == BACK
        assert s.post(f"{httpbin}/post", json=BACK).json()["json"] == BACK
        assert posted(s.put(f"{httpbin}/put", data=MEGABYTE, headers={"Content-Type": "a/b"}).json()) == MEGABYTE
        assert posted(s.post(f"{httpbin}/post", data=pieces(), headers={"Content-Type": "a/b"}).json()) == MEGABYTE
        assert s.post(f"{httpbin}/post", files={"f": ("n", b"file")}).json()["files"] == {"f": "file"}
        assert s.get(f"{httpbin}/gzip").json()["gzipped"] and s.get(f"{httpbin}/brotli").json()["brotli"]
        assert s.head(f"{httpbin}/get").content == b""
        assert s.options(f"{httpbin}/get").status_code == 200
        for status in [204, 304, 404, 418, 500]:
            assert s.get(f"{httpbin}/status/{status}").status_code == status
        answer = s.get(f"{httpbin}/redirect/3")
        assert answer.status_code == 200 and len(answer.history) == 3
        s.get(f"{httpbin}/cookies/set?k=v")
        assert s.get(f"{httpbin}/cookies").json()["cookies"] == {"k": "v"}
        assert s.get(f"{httpbin}/basic-auth/u/p", auth=("u", "p")).status_code == 200
        lines = list(s.get(f"{httpbin}/stream/20", stream=True).iter_lines())
        assert [json.loads(line)["id"] for line in lines] == list(range(20))
        assert len(s.get(f"{httpbin}/stream-bytes/100000").content) == 100000
        part = s.get(f"{httpbin}/range/1000", headers={"Range": "bytes=10-19"})
        assert (part.status_code, part.content) == (206, b"klmnopqrst")
        assert s.get(secure, verify=ca).text == "hello\n"

def by_httpx():
    context = ssl.create_default_context(cafile=ca)
    with httpx.Client(proxy=proxy, trust_env=False, verify=context) as s:
        assert s.get(f"{httpbin}/get", params=BACK).json()["args"] == BACK
        assert posted(s.post(f"{httpbin}/post", content=MEGABYTE, headers={"Content-Type": "a/b"}).json()) == MEGABYTE
        assert posted(s.post(f"{httpbin}/post", content=pieces(), headers={"Content-Type": "a/b"}).json()) == MEGABYTE
        assert s.get(f"{httpbin}/deflate").json()["deflated"]
        with s.stream("GET", f"{httpbin}/stream/5") as answer:
            assert len(list(answer.iter_lines())) == 5
        assert s.get(secure).text == "hello\n"

async def by_aiohttp():
    context = ssl.create_default_context(cafile=ca)
    async with aiohttp.ClientSession() as s:
        async def one(n):
            async with s.get(f"{httpbin}/anything/{n}", proxy=proxy) as answer:
                return (await answer.json())["url"]
        urls = await asyncio.gather(*[one(n) for n in range(50)])
        assert urls == [f"{httpbin}/anything/{n}" for n in range(50)], urls
        headers = {"Content-Type": "a/b"}
        async with s.post(f"{httpbin}/post", data=pieces_later(), headers=headers, proxy=proxy) as answer:
            assert posted(await answer.json()) == MEGABYTE
        async with s.post(f"{httpbin}/post", data=MEGABYTE, expect100=True, headers=headers, proxy=proxy) as answer:
            assert posted(await answer.json()) == MEGABYTE
        async with s.get(secure, proxy=proxy, ssl=context) as answer:
            assert await answer.text() == "hello\n"

by_requests()
by_httpx()
asyncio.run(by_aiohttp())
print("done")
"#;

#[tokio::test]
async fn python_libraries_converse_with_httpbin() {
    let ca = Ca::new();
    let nginx = Nginx::start_tls(&ca.issue(&["127.0.0.1"])).await;
    let httpbin = Httpbin::start().await;
    let daemon = started("", "").await;
    let anchor = daemon.group().write_file("ca.pem", ca.pem());
    let run = python(
        LIBRARIES,
        &[
            &daemon.addr("http").to_string(),
            &httpbin.addr().to_string(),
            &format!("https://{}/hello.txt", nginx.tls_addr()),
            anchor.to_str().expect("a folder of ours"),
        ],
    )
    .await;
    assert_eq!((run.code, run.stdout.as_str()), (Some(0), "done\n"), "{}", run.stderr);
    let stopped = daemon.stop().await;
    stopped.assert_clean();
    let mut tasks = stopped.log_records("Task");
    tasks.retain(|task| task["task_event"] == "Finished");
    assert_eq!(
        tasks.iter().filter(|task| task["task_type"] == "TcpConnect").count(),
        3,
        "one tunnel by each library"
    );
    // What ended in another way than it should.
    tasks.retain(|task| task["task_type"] == "HttpForward" && task["reason"] != "Finished");
    assert!(tasks.is_empty(), "{tasks:?}");
}

#[tokio::test]
async fn curl_speaks_http_1_0_to_the_origin_and_to_the_proxy() {
    let nginx = Nginx::start().await;
    let daemon = started("", "").await;
    let url = format!("http://{}/hello.txt", nginx.addr());
    let answer = curl(&url).proxy(daemon.addr("http")).arg("--http1.0").run().await;
    answer.assert(200, "hello\n");
    let proxy = daemon.addr("http").to_string();
    let tunnel = curl(&url).args(["--proxytunnel", "--proxy1.0", &proxy]).run().await;
    tunnel.assert(200, "hello\n");
    assert_eq!(tunnel.connect_status, 200);
    // The proxy's own version goes on, whatever its client speaks (RFC 9110 §7.6.3 lets it not do otherwise).
    assert_eq!(
        nginx.access(),
        ["GET /hello.txt HTTP/1.1 200 6", "GET /hello.txt HTTP/1.1 200 6"]
    );
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn a_client_comes_by_ipv6() {
    let origin = Origin::hello("hello");
    let yaml = proxy("", "").replace("'127.0.0.1:%http%'", "'[::1]:%http%'");
    let daemon = Daemon::proxyd(&yaml).start().await;
    let addr = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], daemon.addr("http").port()));
    let url = format!("http://{}/", origin.addr());
    curl(&url).proxy(addr).run().await.assert(200, "hello");
    curl(&url).tunnel(addr).run().await.assert(200, "hello");
    let stopped = daemon.stop().await;
    stopped.assert_clean();
    for task in stopped.log_records("Task") {
        assert_eq!(task["server_addr"], addr.to_string());
        assert!(
            task["client_addr"]
                .as_str()
                .is_some_and(|from| from.starts_with("[::1]:")),
            "{task}"
        );
    }
}

/// PP-03: nginx refuses a connection whose header it does not understand, or that has none.
#[tokio::test]
async fn nginx_learns_the_client_from_the_proxy_protocol() {
    let nginx = Nginx::start_with(
        "location = /who { return 200 '$proxy_protocol_addr:$proxy_protocol_port'; }",
        None,
    )
    .await;
    let addr = nginx.proxy_protocol_addr();
    for version in [1, 2] {
        let daemon = started("", &format!("use_proxy_protocol: {version}")).await;
        let mut wire = daemon.connect("http").await;
        let client = wire.local_addr().to_string();
        for _ in 0..2 {
            let answer = wire
                .ask(format!("GET http://{addr}/who HTTP/1.1\r\nHost: {addr}\r\n\r\n"))
                .await;
            assert_eq!(
                (answer.status, String::from_utf8_lossy(&answer.body).as_ref()),
                (200, client.as_str())
            );
        }
        wire.send(format!("CONNECT {addr} HTTP/1.1\r\n\r\n")).await;
        assert!(wire.head().await.starts_with("HTTP/1.1 200 "));
        let answer = wire.ask("GET /who HTTP/1.1\r\nHost: h.test\r\n\r\n").await;
        assert_eq!(String::from_utf8_lossy(&answer.body), client);
        drop(wire);
        daemon.stop().await.assert_clean();
    }
    // The same listener without a header: the test would notice.
    let daemon = started("", "").await;
    let url = format!("http://{addr}/who");
    let answer = curl(&url).proxy(daemon.addr("http")).run().await;
    assert_eq!(answer.status, 502);
    assert_eventually!(finished(&daemon).len() == 1);
    daemon.stop().await.assert_clean();
}
