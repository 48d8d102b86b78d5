//! What proxyd has recorded: events and copies of what is inside of TLS, through real daemons to tshark and others.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use sluice_testkit::{Ca, Daemon, Group, assert_eventually};
use sluice_tests::captures::{captures, ctl, fetch, intercepting, intercepting_with, paths, tshark};
use sluice_tests::rig::{Keys, Rig};
use sluice_wire::dump::Dissector;

const LIMIT: Duration = Duration::from_secs(30);

#[tokio::test]
async fn what_proxyd_finds_in_tunnels_is_told_with_user_and_host() {
    let origin = sluice_testkit::Origin::echo();
    let yaml = "auditd: {directory: audit, compress: none}\nauditor: [{name: inside}]\n";
    let yaml = sluice_tests::proxy("auditor: inside", "") + "\n" + yaml;
    let group = Group::new(&yaml);
    let proxyd = group.proxyd().await;
    let peer = proxyd.status().await["peers"]["auditd"].take();
    assert_eq!(peer["state"], "unreachable", "{peer}");
    assert_eventually!(proxyd.stderr().contains("auditd is not there"), "{}", proxyd.stderr());
    let ssh = b"SSH-2.0-test\r\n";
    assert_eq!(proxyd.http_connect(origin.addr()).await.echo(ssh).await, ssh);
    // What was told before auditd was there is not lost.
    let auditd = group.daemon("auditd").start().await;
    let host = origin.addr().ip().to_string();
    let mut found;
    assert_eventually!(
        {
            found = ctl(&group, &["search", "--host", &host]).await;
            found.lines().count() >= 2
        },
        "{found}"
    );
    let events: Vec<Value> = found.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events[0]["log_type"], "Stream");
    assert_eq!(events[0]["upstream"], origin.addr().to_string());
    assert_eq!(
        (&events[1]["log_type"], &events[1]["protocol"]),
        (&"Inspect".into(), &"ssh".into())
    );
    assert_eq!(events[0]["task_id"], events[1]["task_id"]);
    assert_eventually!(!proxyd.log_records("Inspect").is_empty());
    assert_eq!(proxyd.log_records("Inspect")[0]["task_id"], events[1]["task_id"]);
    assert_eq!(proxyd.status().await["peers"]["auditd"]["state"], "connected");
    proxyd.stop().await.assert_clean();
    auditd.stop().await.assert_clean();
}

#[tokio::test]
async fn copies_go_to_any_reader_of_exported_pdus() {
    let options = "socket_buffer: {recv: 9000, send: 30000}, misc_opts: {tos: 0x20}";
    let dump = format!("tls_stream_dump: {{peer: '127.0.0.1:%udp%', client_side: true, {options}}}");
    let (group, nginx, trust) = intercepting(&dump).await;
    let reader = std::net::UdpSocket::bind(group.addr("udp")).unwrap();
    reader.set_read_timeout(Some(LIMIT)).unwrap();
    let certgend = group.daemon("certgend").start().await;
    let proxyd = group.proxyd().await;
    fetch(&group, &nginx, &trust, "/h1").arg("--http1.1").run().await;
    let mut packet = [0; 2000];
    let length = reader.recv(&mut packet).unwrap();
    let pdu = sluice_wire::dump::Pdu::take(&packet[..length]).unwrap();
    assert!(pdu.payload.starts_with(b"GET /h1 HTTP/1.1\r\n"), "{pdu:?}");
    assert_eq!(pdu.dissector, Dissector::Name("http".to_owned()));
    assert_eq!(pdu.outer.unwrap().dst, group.addr("http"));
    assert_eq!(pdu.inner.unwrap().dst, nginx.tls_addr());
    let sockets = sockets_to(group.addr("udp"));
    assert!(sockets.contains("tos:0x20"), "{sockets}");
    // The kernel doubles what it is told.
    assert!(
        sockets.contains("rb18000,") && sockets.contains("tb60000,"),
        "{sockets}"
    );
    // Nobody listens any more: what is lost is counted.
    drop(reader);
    fetch(&group, &nginx, &trust, "/h1").arg("--http1.1").run().await;
    let copies = proxyd.status().await["auditors"]["inside"]["copies"].clone();
    assert_eq!(copies["peer"], group.addr("udp").to_string(), "{copies}");
    assert!(copies["sent"].as_u64() >= Some(2), "{copies}");
    assert!(copies["lost"].as_u64() >= Some(1), "{copies}");
    proxyd.stop().await.assert_clean();
    certgend.stop().await.assert_clean();
}

/// What the system knows of UDP sockets that send to this address.
fn sockets_to(peer: std::net::SocketAddr) -> String {
    let output = std::process::Command::new("ss")
        .args(["-H", "-uanm", "--tos", "dst"])
        .arg(peer.to_string())
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn the_auditd_of_another_group_records_what_this_one_sees() {
    let (there, _nginx, _) = intercepting("").await;
    let socket = there.runtime_dir().join("auditd/dump");
    let peers = format!("peers: {{auditd: {{address: 'unix:{}'}}}}", socket.display());
    let (group, nginx, trust) = intercepting_with("tls_stream_dump: {}", &peers).await;
    let auditd = there.daemon("auditd").start().await;
    let certgend = group.daemon("certgend").start().await;
    let proxyd = group.proxyd().await;
    let peer = &proxyd.status().await["peers"]["auditd"];
    assert_eq!(peer["address"], socket.to_str().unwrap());
    fetch(&group, &nginx, &trust, "/h1").arg("--http1.1").run().await;
    assert_eventually!(paths(&there) == ["/h1"]);
    assert!(!ctl(&there, &["search", "--kind", "Inspect"]).await.is_empty());
    proxyd.stop().await.assert_clean();
    certgend.stop().await.assert_clean();
    auditd.stop().await.assert_clean();
}

#[tokio::test]
async fn a_reader_of_copies_may_stand_in_for_auditd() {
    let peers = "peers: {auditd: 'udp:127.0.0.1:%udp%'}";
    let (group, nginx, trust) = intercepting_with("tls_stream_dump: {}", peers).await;
    let reader = std::net::UdpSocket::bind(group.addr("udp")).unwrap();
    reader.set_read_timeout(Some(LIMIT)).unwrap();
    let certgend = group.daemon("certgend").start().await;
    let proxyd = group.proxyd().await;
    let log = proxyd.stderr();
    assert!(log.contains("`peers.auditd` takes copies of streams alone"), "{log}");
    let peer = &proxyd.status().await["peers"]["auditd"];
    assert_eq!(peer["address"], format!("udp:{}", group.addr("udp")));
    fetch(&group, &nginx, &trust, "/h1").arg("--http1.1").run().await;
    let mut packet = [0; 2000];
    let length = reader.recv(&mut packet).unwrap();
    let pdu = sluice_wire::dump::Pdu::take(&packet[..length]).unwrap();
    assert!(pdu.payload.starts_with(b"GET /h1 HTTP/1.1\r\n"), "{pdu:?}");
    proxyd.stop().await.assert_clean();
    certgend.stop().await.assert_clean();
}

#[tokio::test]
async fn copies_that_nothing_can_be_in_are_warned_of() {
    let yaml = format!(
        "auditor: [{{name: inside, tls_stream_dump: {{}}}}]\n{}",
        sluice_tests::proxy("auditor: inside", "")
    );
    let group = Group::new(&yaml);
    let proxyd = group.proxyd().await;
    let log = proxyd.stderr();
    assert!(log.contains("`tls_stream_dump` copies nothing"), "{log}");
    proxyd.stop().await.assert_clean();
}

#[tokio::test]
async fn with_auditd_stopped_a_stream_that_may_not_lose_anything_waits_for_it() {
    let (group, nginx, trust) = intercepting("tls_stream_dump: {}\n    on_auditd_failure: stall").await;
    let auditd = group.daemon("auditd").start().await;
    let certgend = group.daemon("certgend").start().await;
    let proxyd = group.proxyd().await;
    assert_eventually!(proxyd.status().await["peers"]["auditd"]["state"] == "connected");
    auditd.signal(Signal::STOP);
    let is_done = std::cell::Cell::new(false);
    let fetched = async {
        let answer = fetch(&group, &nginx, &trust, "/late").arg("--http1.1").run().await;
        is_done.set(true);
        answer
    };
    let (answer, ()) = tokio::join!(fetched, async {
        // A flow has begun beside the events, and does not go on.
        assert_eventually!(
            proxyd
                .log_records("Intercept")
                .iter()
                .any(|it| it["intercept_type"] == "TlsHandshake")
        );
        assert!(!is_done.get());
        assert_eq!(nginx.access(), [""; 0]);
        auditd.signal(Signal::CONT);
    });
    assert!(answer.status > 0, "{}", answer.stderr);
    assert_eventually!(nginx.access().len() == 1);
    assert_eventually!(paths(&group) == ["/late"]);
    proxyd.stop().await.assert_clean();
    certgend.stop().await.assert_clean();
    auditd.stop().await.assert_clean();
}

#[tokio::test]
async fn what_auditd_does_not_write_in_time_never_reaches_the_upstream() {
    let keys = "tls_stream_dump: {}
    on_auditd_failure: stall
    h2_interception: {upstream_handshake_timeout: 60s}"; // the shorter wait shall be that for auditd
    let (group, nginx, trust) = intercepting(keys).await;
    let auditd = group.daemon("auditd").start().await;
    let certgend = group.daemon("certgend").start().await;
    let proxyd = group.proxyd().await;
    assert_eventually!(proxyd.status().await["peers"]["auditd"]["state"] == "connected");
    auditd.signal(Signal::STOP);
    for version in ["--http1.1", "--http2"] {
        let answer = fetch(&group, &nginx, &trust, "/never").arg(version).run().await;
        assert!(answer.exit != 0 || answer.status == 502, "{}", answer.head);
    }
    assert_eq!(nginx.access(), [""; 0]);
    let is_told = |task: &Value| {
        task["msg"]
            .as_str()
            .is_some_and(|msg| msg.contains("auditd has not written"))
    };
    assert_eventually!(proxyd.log_records("Task").iter().filter(|task| is_told(task)).count() == 2);
    // Those that come later go on when it is back.
    auditd.signal(Signal::CONT);
    let answer = fetch(&group, &nginx, &trust, "/now").arg("--http2").run().await;
    assert_eq!(answer.exit, 0, "{}", answer.stderr);
    assert_eventually!(nginx.access().len() == 1);
    proxyd.stop().await.assert_clean();
    certgend.stop().await.assert_clean();
    auditd.stop().await.assert_clean();
}

#[tokio::test]
async fn a_certificate_is_told_of_once_with_the_task_that_it_was_made_for() {
    let (group, nginx, trust) = intercepting("").await;
    let auditd = group.daemon("auditd").start().await;
    let certgend = group.daemon("certgend").start().await;
    let proxyd = group.proxyd().await;
    for _ in 0..3 {
        let answer = fetch(&group, &nginx, &trust, "/").run().await;
        assert_eq!(answer.exit, 0, "{}", answer.stderr);
    }
    let handshakes = |found: &str| found.lines().filter(|line| line.contains("TlsHandshake")).count();
    let mut found;
    assert_eventually!({
        found = ctl(&group, &["search", "--host", "a.test"]).await;
        found.lines().any(|line| line.contains("Mint"))
    });
    assert_eventually!(handshakes(&ctl(&group, &["search", "--kind", "Intercept"]).await) == 3);
    let mints = ctl(&group, &["search", "--kind", "Mint"]).await;
    assert_eq!(mints.lines().count(), 1, "{mints}");
    let mint: Value = serde_json::from_str(&mints).unwrap();
    let made = &certgend.log_records("Mint")[0];
    for key in ["host", "service", "usage", "serial", "fingerprint", "asker"] {
        assert_eq!(mint[key], made[key], "{key}: {mint} {made}");
    }
    assert_eq!(mint["task_id"], proxyd.log_records("Inspect")[0]["task_id"]);
    assert_eq!(mint["auditor_name"], "inside");
    let socket = group.runtime_dir().join("certgend.mint");
    assert_eq!(mint["generator"], socket.to_str().unwrap());
    proxyd.stop().await.assert_clean();
    certgend.stop().await.assert_clean();
    auditd.stop().await.assert_clean();
}

#[tokio::test]
async fn what_icap_services_say_is_told() {
    let services = "icap_reqmod_service: {url: 'icap://127.0.0.1:%icap%/edit'}
    icap_respmod_service: {url: 'icap://127.0.0.1:%icap%/same'}";
    let stub = "icap_stub: {listen: '127.0.0.1:%icap%', services: [
      {name: edit, rules: [
        {path: /blocked, answer: block, status: 451, page: no},
        {path: /failed, answer: fail, status: 500},
        {answer: echo, set_header: 'X-Seen: yes'}]},
      {name: same}]}";
    let (group, nginx, trust) = intercepting_with(services, stub).await;
    let auditd = group.daemon("auditd").start().await;
    let certgend = group.daemon("certgend").start().await;
    let icap = group.daemon("icap-stub").start().await;
    let proxyd = group.proxyd().await;
    for (path, status) in [("/hello.txt", 200), ("/blocked?q", 451), ("/failed", 500)] {
        let answer = fetch(&group, &nginx, &trust, path).arg("--http1.1").run().await;
        assert_eq!(answer.status, status, "{path}: {}", answer.stderr);
    }
    let mut told;
    assert_eventually!({
        told = ctl(&group, &["search", "--kind", "Icap"]).await;
        told.lines().count() >= 4
    });
    let said: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let about = |uri: &str, method: &str| {
        let found = said.iter().find(|it| it["uri"] == uri && it["icap_method"] == method);
        found.unwrap_or_else(|| panic!("{uri} {method}: {told}"))
    };
    let url = |service: &str| format!("icap://{}/{service}", group.addr("icap"));
    let request = about("/hello.txt", "REQMOD");
    assert_eq!(request["icap_service"], url("edit"), "{request}");
    assert_eq!(
        (&request["verdict"], &request["icap_status"]),
        (&"request".into(), &200.into()),
        "{request}"
    );
    assert_eq!(
        (&request["method"], &request["host"]),
        (&"GET".into(), &"a.test".into()),
        "{request}"
    );
    let response = about("/hello.txt", "RESPMOD");
    assert_eq!(
        (&response["verdict"], &response["icap_status"]),
        (&"unchanged".into(), &204.into()),
        "{response}"
    );
    assert_eq!(request["task_id"], response["task_id"]);
    let blocked = about("/blocked?q", "REQMOD");
    assert_eq!(
        (&blocked["verdict"], &blocked["rsp_status"]),
        (&"response".into(), &451.into()),
        "{blocked}"
    );
    let failed = about("/failed", "REQMOD");
    assert_eq!(
        (&failed["verdict"], &failed["icap_status"]),
        (&"failed".into(), &500.into()),
        "{failed}"
    );
    assert!(failed["msg"].as_str().unwrap().contains("status 500"), "{failed}");
    // They are the same tasks as in all other records.
    let tasks = |proxyd: &Daemon| -> Vec<Value> {
        let tasks = proxyd.log_records("Task").into_iter();
        tasks.map(|mut task| task["task_id"].take()).collect()
    };
    assert_eventually!(said.iter().all(|it| tasks(&proxyd).contains(&it["task_id"])), "{told}");
    proxyd.stop().await.assert_clean();
    icap.stop().await.assert_clean();
    certgend.stop().await.assert_clean();
    auditd.stop().await.assert_clean();
}

#[tokio::test]
async fn a_capture_says_whose_stream_it_is_and_what_has_decided_on_it() {
    let (ca, other) = (Ca::new(), Ca::named("Another CA"));
    let nginx = sluice_tests::rig::nginx(&other, &["a.test"]).await;
    let sections = "auditd: {directory: audit, compress: none}
user_group:
  - name: staff
    static_users:
      - name: ann
        token: ~
        audit: {enable_protocol_inspection: true}
        explicit_sites: [{id: s, exact_match: 127.0.0.1, tls_client: {ca_certificate: '%dir%/other.pem'}}]
";
    let keys = Keys {
        auditor: "tls_stream_dump: {}\n    h2_inspect_policy: {default: block, subnet_match: {intercept: 127.0.0.0/8}}",
        server: "user_group: staff",
        sections,
        ..Keys::default()
    };
    let group = Rig::group(&ca, &keys);
    group.write_file("other.pem", other.pem());
    let auditd = group.daemon("auditd").start().await;
    let rig = Rig::start_in(group.clone()).await;
    for version in ["--http1.1", "--http2"] {
        let curl = rig
            .curl("a.test", &nginx, "/hello.txt")
            .args([version, "-U", "ann:any"]);
        curl.run().await.assert(200, "hello\n");
    }
    let about = |protocol: &str| {
        let filter = format!("frame.comment contains \"protocol={protocol}\"");
        let files = captures(&group);
        files
            .iter()
            .flat_map(|file| tshark(file, &filter, &["frame.comment"]))
            .collect::<Vec<_>>()
    };
    assert_eventually!(about("http_2").len() == 1);
    let port = nginx.tls_addr().port();
    let user = format!(
        "upstream=127.0.0.1:{port} host=127.0.0.1 protocol=http_1 user=ann rule=user.audit,site.tls_client client="
    );
    let one = about("http_1").remove(0);
    assert!(one.contains(&user), "{one}");
    let two = about("http_2").remove(0);
    let rule = "rule=user.audit,site.tls_client,h2_inspect_policy.subnet_match:intercept client=";
    assert!(two.contains(rule), "{two}");
    rig.stop().await;
    auditd.stop().await.assert_clean();
}
