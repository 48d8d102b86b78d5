//! icap-stub alone: c-icap-client asks it, and a reload gives it other rules.

use std::fs;

use sluice_testkit::Group;
use sluice_tests::icap::STUB;
use tokio::process::Command;

#[tokio::test]
async fn c_icap_client_is_served_by_icap_stub() {
    let group = Group::new(STUB.trim_start());
    let stub = group.daemon("icap-stub").start().await;
    let file = group.write_file("body", "hello body\n");
    let run = async |args: &[&str]| {
        let out = group.dir().join("out");
        let _ = fs::remove_file(&out);
        let mut command = Command::new("c-icap-client");
        command.args(["-i", "127.0.0.1", "-p", &group.port("icap").to_string(), "-v"]);
        command.args(args).arg("-o").arg(&out);
        let said = command.output().await.unwrap();
        (
            String::from_utf8_lossy(&said.stderr).into_owned(),
            fs::read_to_string(&out).unwrap_or_default(),
        )
    };
    let body = file.to_str().unwrap();
    let (said, _) = run(&["-s", "same"]).await;
    assert!(
        said.contains("Allow 204: Yes") && said.contains("Preview: 1024"),
        "{said}"
    );
    let (said, _) = run(&["-s", "same", "-f", body, "-req", "http://good.example/"]).await;
    assert!(said.contains("204 No Modifications Needed"), "{said}");
    let (said, out) = run(&["-s", "echo", "-f", body, "-req", "http://good.example/"]).await;
    assert_eq!(out, "hello body\n", "{said}");
    let (said, out) = run(&["-s", "echo", "-f", body, "-resp", "http://good.example/"]).await;
    assert_eq!(out, "hello body\n", "{said}");
    let (said, out) = run(&["-s", "edit", "-f", body, "-resp", "http://good.example/new"]).await;
    assert!(out == "new body" && said.contains("X-New: 1"), "{said}{out}");
    stub.stop().await.assert_clean();
}

#[tokio::test]
async fn icap_stub_takes_other_rules_by_a_reload() {
    let group = Group::new(STUB.trim_start());
    let stub = group.daemon("icap-stub").start().await;
    let options = |service: &str| format!("OPTIONS icap://h/{service} ICAP/1.0\r\nHost: h\r\n\r\n");
    let mut old = stub.connect("icap").await;
    old.send(options("same")).await;
    assert!(old.head().await.starts_with("ICAP/1.0 200 OK\r\n"));
    stub.reload_with(
        "icap_stub: {listen: \"127.0.0.1:%icap%\", services: {name: other, options_ttl: 5s, \
         rules: [{path: /echo, answer: echo}]}}",
    )
    .await;
    // The same connection sees the new services.
    old.send(options("other")).await;
    assert!(old.head().await.contains("\r\nOptions-TTL: 5\r\n"));
    old.send(options("same")).await;
    assert!(old.head().await.starts_with("ICAP/1.0 404 "));
    old.assert_closed().await;
    assert!(!group.dir().join("icap.sock").exists());
    for (sent, status) in [
        ("NONSENSE\r\n\r\n", 400),
        ("LOGMOD icap://h/other ICAP/1.0\r\n\r\n", 405),
        // A preview that goes on for ever is not kept for ever.
        (
            "REQMOD icap://h/other ICAP/1.0\r\nPreview: 2\r\nEncapsulated: req-hdr=0, req-body=23\r\n\r\n\
             POST /echo HTTP/1.1\r\n\r\n3\r\nabc\r\n",
            400,
        ),
    ] {
        let mut wire = stub.connect("icap").await;
        wire.send(sent).await;
        assert!(wire.head().await.starts_with(&format!("ICAP/1.0 {status} ")), "{sent}");
        wire.assert_closed().await;
    }
    stub.stop().await.assert_clean();
}
