//! What tshark makes of captures of whole chains: curl, proxyd, nginx, in both formats.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use serde_json::Value;
use sluice_testkit::{Group, Nginx, assert_eventually};
use sluice_tests::captures::{captures, ctl, fetch, intercepting, numbered, paths, tshark, tshark_as};

#[tokio::test]
async fn what_is_inside_of_intercepted_tls_is_dissected_by_tshark_and_exported() {
    let (group, nginx, trust) = intercepting("tls_stream_dump: {}").await;
    let auditd = group.daemon("auditd").start().await;
    let certgend = group.daemon("certgend").start().await;
    let proxyd = group.proxyd().await;
    let answer = fetch(&group, &nginx, &trust, "/h1").arg("--http1.1").run().await;
    assert_eq!(answer.exit, 0, "{}", answer.stderr);
    assert_eventually!(paths(&group) == ["/h1"], "{:?}", paths(&group));
    let file = captures(&group).remove(0);
    let responses = tshark(&file, "http.response", &["http.response.code"]);
    assert_eq!(responses.len(), 1);
    let flow = ctl(&group, &["search", "--kind", "Flow"]).await;
    let flow: Value = serde_json::from_str(flow.lines().next().unwrap()).unwrap();
    assert_eq!(flow["rule"], "auditor");
    let task = flow["task_id"].as_str().unwrap();
    assert_eq!(proxyd.log_records("Inspect")[0]["task_id"], task);
    let har = ctl(&group, &["export", "--task", task, "--format", "har"]).await;
    let har: Value = serde_json::from_str(&har).unwrap();
    assert_eq!(har["log"]["entries"][0]["request"]["url"], "https://a.test/h1");
    proxyd.stop().await.assert_clean();
    certgend.stop().await.assert_clean();
    auditd.stop().await.assert_clean();
}

#[tokio::test]
async fn frames_of_http2_are_whole_in_exported_pdus() {
    let (group, nginx, trust) = intercepting("tls_stream_dump: {}").await;
    let body = sluice_tests::noise(1_500_000);
    nginx.write("big", &body);
    let auditd = group.daemon("auditd").start().await;
    let certgend = group.daemon("certgend").start().await;
    let proxyd = group.proxyd().await;
    let get = fetch(&group, &nginx, &trust, "/files/big").arg("--http2").run().await;
    assert_eq!(get.body, body, "{}", get.stderr);
    let file = group.write_file("upload", &"x".repeat(1_000_000));
    let put = fetch(&group, &nginx, &trust, "/put/upload").arg("--http2");
    let put = put.arg("-T").arg(file).run().await;
    assert_eq!(put.status, 201, "{}", put.stderr);
    proxyd.stop().await.assert_clean();
    let file = &captures(&group)[0];
    let odd = tshark(file, "!http2 || _ws.malformed || _ws.short", &["frame.number"]);
    assert_eq!(odd, [""; 0]);
    let mut data = 0;
    for row in tshark(file, "http2.type == 0", &["http2.type", "http2.length"]) {
        let (types, lengths) = row.split_once('\t').unwrap();
        let frames = types.split(',').zip(lengths.split(','));
        let lengths = frames.filter_map(|(kind, length)| (kind == "0").then_some(length));
        data += lengths.map(|length| length.parse::<usize>().unwrap()).sum::<usize>();
    }
    assert_eq!(data, 1_500_000 + 1_000_000);
    certgend.stop().await.assert_clean();
    auditd.stop().await.assert_clean();
}

#[tokio::test]
async fn without_alpn_the_first_bytes_tell_who_dissects_a_stream() {
    let (group, nginx, trust) = intercepting("tls_stream_dump: {}").await;
    let auditd = group.daemon("auditd").start().await;
    let certgend = group.daemon("certgend").start().await;
    let proxyd = group.proxyd().await;
    let plain = fetch(&group, &nginx, &trust, "/plain").arg("--no-alpn").run().await;
    assert_eq!(plain.status, 200, "{}", plain.stderr);
    assert_eventually!(paths(&group) == ["/plain"], "{:?}", paths(&group));
    let codes = tshark(&captures(&group)[0], "http.response", &["http.response.code"]);
    assert_eq!(codes, ["200"]);
    proxyd.stop().await.assert_clean();
    certgend.stop().await.assert_clean();
    auditd.stop().await.assert_clean();
}

/// Fetches so many paths one after the other; gives the bodies.
async fn fetch_all(group: &Group, nginx: &Nginx, trust: &Path, version: &str, count: usize) -> Vec<String> {
    let mut curl = tokio::process::Command::new("curl");
    curl.args(["-sS", "--fail-early", version, "-w", "\n", "--proxy"])
        .arg(format!("http://{}", group.addr("http")))
        .arg("--connect-to")
        .arg(format!("::{}", nginx.tls_addr()))
        .arg("--cacert")
        .arg(trust)
        .arg(format!("https://a.test/[0-{}]", count - 1))
        .kill_on_drop(true);
    let output = curl.output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .collect()
}

/// The requests and answers of HTTP/1 or HTTP/2 that tshark finds in all captures.
fn exchanges(group: &Group, nginx: &Nginx, http2: bool) -> (Vec<String>, Vec<String>) {
    let [target, status] = match http2 {
        true => ["http2.headers.path", "http2.headers.status"],
        false => ["http.request.uri", "http.response.code"],
    };
    let decode = format!(
        "tcp.port=={},{}",
        nginx.tls_addr().port(),
        if http2 { "http2" } else { "http" }
    );
    let all = |field: &str| -> Vec<String> {
        let files = captures(group);
        let rows = files
            .iter()
            .flat_map(|file| tshark_as(file, Some(&decode), field, &[field]));
        rows.flat_map(|row| row.split(',').map(str::to_owned).collect::<Vec<_>>())
            .collect()
    };
    (all(target), all(status))
}

/// Of ten thousand requests none is missing, also when auditd is killed in the middle.
async fn round_trip(version: &str, format: &str) {
    let (group, nginx, trust) = intercepting("tls_stream_dump: {}").await;
    group.rewrite(&std::fs::read_to_string(group.main_file()).unwrap().replace(
        "compress: none",
        &format!("compress: none, format: {format}, fsync: 0s"),
    ));
    let auditd = group.daemon("auditd").start().await;
    let certgend = group.daemon("certgend").start().await;
    let proxyd = group.proxyd().await;
    let wanted = numbered(10_000);
    let (bodies, auditd) = tokio::join!(fetch_all(&group, &nginx, &trust, version, wanted.len()), async {
        assert_eventually!(auditd.status().await["audit"]["records"].as_u64() > Some(1000));
        auditd.kill9().await;
        group.daemon("auditd").start().await
    });
    assert_eq!(bodies, wanted, "what curl saw");
    proxyd.stop().await.assert_clean();
    let (targets, statuses) = exchanges(&group, &nginx, version == "--http2");
    assert_eq!(targets, wanted);
    assert_eq!(statuses, vec!["200"; wanted.len()]);
    assert_eq!(auditd.status().await["audit"]["lost"], 0);
    certgend.stop().await.assert_clean();
    auditd.stop().await.assert_clean();
}

#[tokio::test]
async fn ten_thousand_requests_of_http1_are_all_in_exported_pdus() {
    round_trip("--http1.1", "pdu").await;
}

#[tokio::test]
async fn ten_thousand_requests_of_http1_are_all_in_tcp_packets() {
    round_trip("--http1.1", "tcp").await;
}

#[tokio::test]
async fn ten_thousand_requests_of_http2_are_all_in_exported_pdus() {
    round_trip("--http2", "pdu").await;
}

#[tokio::test]
async fn ten_thousand_requests_of_http2_are_all_in_tcp_packets() {
    round_trip("--http2", "tcp").await;
}

#[tokio::test]
async fn a_har_has_what_curl_saw() {
    let (group, nginx, trust) = intercepting("tls_stream_dump: {}").await;
    let auditd = group.daemon("auditd").start().await;
    let certgend = group.daemon("certgend").start().await;
    let proxyd = group.proxyd().await;
    let bodies = fetch_all(&group, &nginx, &trust, "--http1.1", 500).await;
    proxyd.stop().await.assert_clean();
    let flows = ctl(&group, &["search", "--kind", "Flow"]).await;
    let flow: Value = serde_json::from_str(flows.lines().next().unwrap()).unwrap();
    let task = flow["task_id"].as_str().unwrap();
    let har = ctl(&group, &["export", "--task", task, "--format", "har"]).await;
    let har: Value = serde_json::from_str(&har).unwrap();
    let entries = har["log"]["entries"].as_array().unwrap();
    let seen: Vec<_> = entries
        .iter()
        .map(|entry| {
            assert_eq!(
                (&entry["request"]["method"], &entry["response"]["status"]),
                (&"GET".into(), &200.into())
            );
            let url = entry["request"]["url"].as_str().unwrap();
            let path = url.strip_prefix("https://a.test").unwrap();
            assert_eq!(entry["response"]["content"]["text"], path);
            path.to_owned()
        })
        .collect();
    assert_eq!(seen, bodies);
    certgend.stop().await.assert_clean();
    auditd.stop().await.assert_clean();
}
