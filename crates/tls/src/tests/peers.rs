//! Other people's clients and servers.

use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// Serves one HTTP request on `listener`, and says which version was spoken.
async fn serve(acceptor: &TlsAcceptor, listener: &TcpListener) -> &'static str {
    let mut stream = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        assert_ne!(stream.read_buf(&mut head).await.unwrap(), 0);
    }
    stream
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
        .await
        .unwrap();
    stream.shutdown().await.unwrap();
    stream.version()
}

async fn run(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output().unwrap())
        .await
        .unwrap()
}

/// What the client says if the server is not done in time, too.
async fn both<T>(command: Command, server: impl Future<Output = T>) -> (Output, T) {
    let client = run(command);
    tokio::pin!(client);
    let server = tokio::time::timeout(Duration::from_secs(25), server);
    tokio::pin!(server);
    tokio::select! {
        output = &mut client => {
            let server = server.await.unwrap_or_else(|_| panic!("the client left early: {output:?}"));
            (output, server)
        }
        served = &mut server => (client.await, served.expect("the server is done in time")),
    }
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

#[tokio::test]
async fn curl_fetches_over_either_library_and_version() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Ca::new("ca");
    let file = dir.path().join("ca.pem");
    std::fs::write(&file, &ca.pem).unwrap();
    for (backend, acceptor) in backends(&params(&ca.server(&["a.test"])).with_alpn(&[b"http/1.1"])) {
        for (flags, version) in [(&["--tlsv1.3"][..], "TLSv1.3"), (&["--tls-max", "1.2"], "TLSv1.2")] {
            let (listener, addr) = listen().await;
            let mut curl = Command::new("curl");
            curl.args(["-sS", "--max-time", "20", "--noproxy", "*", "--cacert"])
                .arg(&file)
                .args(flags)
                .arg("--resolve")
                .arg(format!("a.test:{}:127.0.0.1", addr.port()))
                .arg(format!("https://a.test:{}/", addr.port()));
            let (output, spoken) = both(curl, serve(&acceptor, &listener)).await;
            assert_eq!(
                String::from_utf8_lossy(&output.stdout),
                "hello",
                "{backend}: {output:?}"
            );
            assert_eq!(spoken, version, "{backend}");
        }
    }
}

#[tokio::test]
async fn curl_shows_its_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Ca::new("ca");
    let pair = ca.issue(&["client.test"]);
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let [PemSource::Inline(certificate)] = &pair.certificate.0[..] else {
        unreachable!()
    };
    let (anchor, certificate, key) = (
        write("ca.pem", &ca.pem),
        write("cert.pem", certificate.reveal()),
        write("key.pem", pem_text(&pair.private_key)),
    );
    let config = RustlsServerConfig {
        enable_client_auth: true,
        ca_certificate: Some(ca.certificates()),
        ..ca.server(&["127.0.0.1"])
    };
    for (backend, acceptor) in backends(&params(&config)) {
        let (listener, addr) = listen().await;
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "20", "--noproxy", "*", "--cacert"])
            .arg(&anchor)
            .arg("--cert")
            .arg(&certificate)
            .arg("--key")
            .arg(&key)
            .arg(format!("https://{addr}/"));
        let (output, _) = both(curl, serve(&acceptor, &listener)).await;
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "hello",
            "{backend}: {output:?}"
        );
    }
}

#[tokio::test]
async fn openssl_s_client_resumes_a_session_that_it_saved() {
    let dir = tempfile::tempdir().unwrap();
    let session = dir.path().join("session");
    let ca = Ca::new("ca");
    for (backend, acceptor) in backends(&params(&ca.server(&["a.test"]))) {
        let (listener, addr) = listen().await;
        for (flag, resumed) in [("-sess_out", false), ("-sess_in", true)] {
            let mut client = Command::new("openssl");
            client
                .args([
                    "s_client",
                    "-tls1_2",
                    "-servername",
                    "a.test",
                    "-connect",
                    &addr.to_string(),
                    flag,
                ])
                .arg(&session);
            let server = async {
                let mut stream = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
                let _ = stream.shutdown().await;
                let _ = stream.read_to_end(&mut Vec::new()).await;
                stream.resumed()
            };
            let (output, was) = both(client, server).await;
            assert_eq!(was, resumed, "{backend}: {output:?}");
        }
    }
}
