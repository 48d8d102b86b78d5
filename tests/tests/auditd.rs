//! auditd as a real daemon, told by the sender that proxyd has; what it writes is read by tshark.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::{Read, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use rustix::process::Signal;
use serde_json::{Value, json};
use sluice_bus::{FlowDump, FlowMeta, Policy, Recorder, SenderConfig, Stalled, Subscriber};
use sluice_testkit::{Daemon, Group, assert_eventually, binary, sluicectl};
use sluice_tests::captures::{captures, ctl, numbered, paths, tshark};
use sluice_wire::{
    audit::{Event, Record, hex},
    dump::{Addresses, Dissector},
};

const LIMIT: Duration = Duration::from_secs(30);

/// A group with auditd's section; files go to `audit` in its folder.
fn group(keys: &str) -> Group {
    Group::new(&format!("auditd: {{directory: audit, compress: none, {keys}}}"))
}

async fn start(group: &Group) -> Daemon {
    group.daemon("auditd").start().await
}

fn recorder(group: &Group) -> Arc<Recorder> {
    recorder_of(group, 64 << 20)
}

fn recorder_of(group: &Group, queue: usize) -> Arc<Recorder> {
    let config = SenderConfig {
        path: group.runtime_dir().join("auditd/dump"),
        name: "test".to_owned(),
        queue,
        grace: Duration::from_secs(5),
    };
    Recorder::start(&config).unwrap()
}

/// A flow of `alice` to `www.example`, with a task of this number.
fn meta(task: u8, protocol: &str) -> FlowMeta {
    FlowMeta {
        task: [task; 16],
        depth: 1,
        auditor: "default".to_owned(),
        server: "http".to_owned(),
        user: Some("alice".to_owned()),
        upstream: "www.example:443".to_owned(),
        protocol: protocol.to_owned(),
        rule: Some("ratio".to_owned()),
        addresses: Addresses {
            client: ([10, 0, 0, 1], 40_000 + u16::from(task)).into(),
            server: ([10, 0, 0, 2], 8080).into(),
            local: ([192, 0, 2, 1], 50_000 + u16::from(task)).into(),
            remote: ([192, 0, 2, 9], 8443).into(),
        },
        dissector: Dissector::Name(protocol.replace("http_1", "http").replace("http_2", "http2")),
        sniff: None,
    }
}

/// A request for this path and its response.
fn exchange(flow: &FlowDump, path: &str) {
    flow.to_remote(format!("GET {path} HTTP/1.1\r\nHost: www.example\r\n\r\n").as_bytes());
    flow.to_client(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello");
}

#[tokio::test]
async fn http_is_dissected_and_packets_say_whose_they_are() {
    let group = group("");
    let auditd = start(&group).await;
    let recorder = recorder(&group);
    let flow = recorder.flow(&meta(7, "http_1"), Policy::Drop);
    exchange(&flow, "/a");
    exchange(&flow, "/b");
    assert!(recorder.flush(LIMIT));
    let file = &captures(&group)[0];
    let requests = tshark(
        file,
        "http.request",
        &["http.host", "http.request.uri", "ip.src", "ip.dst", "frame.comment"],
    );
    let task = hex(&[7; 16]);
    // Addresses stand there once for each of the two connections.
    let first = format!(
        "www.example\t/a\t10.0.0.1,192.0.2.1\t10.0.0.2,192.0.2.9\ttask_id={task} flow=1,depth=1 server=http \
         auditor=default upstream=www.example:443 host=www.example protocol=http_1 user=alice rule=ratio \
         client=10.0.0.1:40007"
    );
    let second = format!("www.example\t/b\t10.0.0.1,192.0.2.1\t10.0.0.2,192.0.2.9\ttask_id={task} flow=1");
    assert_eq!(requests, [first, second]);
    let responses = tshark(file, "http.response", &["http.response.code", "http.file_data"]);
    assert_eq!(responses, ["200\thello", "200\thello"]);
    auditd.stop().await.assert_clean();
}

#[tokio::test]
async fn http2_is_dissected() {
    let group = group("");
    let auditd = start(&group).await;
    let recorder = recorder(&group);
    let flow = recorder.flow(&meta(7, "http_2"), Policy::Drop);
    flow.to_remote(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    flow.to_remote(b"\0\0\0\x04\0\0\0\0\0"); // SETTINGS
    // HEADERS: GET, https, /, and `:authority: h` as a literal
    flow.to_remote(b"\0\0\x06\x01\x05\0\0\0\x01\x82\x87\x84\x41\x01h");
    flow.to_client(b"\0\0\x01\x01\x05\0\0\0\x01\x88"); // HEADERS: 200
    assert!(recorder.flush(LIMIT));
    let fields = [
        "http2.headers.method",
        "http2.headers.authority",
        "http2.headers.status",
    ];
    let rows = tshark(&captures(&group)[0], "http2.headers", &fields);
    assert_eq!(rows, ["GET\th\t", "\t\t200"]);
    let (dir, task) = (group.runtime_dir(), hex(&[7; 16]));
    let args = [
        "-C",
        dir.to_str().unwrap(),
        "auditd",
        "export",
        "--task",
        &task,
        "--format",
        "har",
    ];
    let har = sluicectl(args).await;
    assert!(
        har.stderr.contains("1 streams are not HTTP/1 and are left out"),
        "{}",
        har.stderr
    );
    auditd.stop().await.assert_clean();
}

#[tokio::test]
async fn as_tcp_packets_streams_are_put_together_by_any_tool() {
    let group = group("format: tcp");
    let auditd = start(&group).await;
    let recorder = recorder(&group);
    // One after the other over the same connection, as two tasks have it.
    for path in ["/a", "/b"] {
        let flow = recorder.flow(&meta(7, "http_1"), Policy::Drop);
        let (head, tail) = "GET / HTTP/1.1\r\nHost: www.example\r\n\r\n".split_at(18);
        flow.to_remote(head.replacen('/', path, 1).as_bytes());
        flow.to_remote(tail.as_bytes());
        flow.to_client(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n");
        flow.to_client(&[b'x'; 70_000]);
        flow.to_client(&[b'x'; 30_000]);
    }
    assert!(recorder.flush(LIMIT));
    let file = &captures(&group)[0];
    let requests = tshark(
        file,
        "http.request",
        &["tcp.stream", "ip.src", "ip.dst", "http.request.uri"],
    );
    assert_eq!(requests, ["0\t192.0.2.1\t192.0.2.9\t/a", "1\t192.0.2.1\t192.0.2.9\t/b"]);
    let lengths = tshark(
        file,
        "http.response",
        &["http.content_length", "tcp.reassembled.length"],
    );
    assert_eq!(lengths.len(), 2);
    assert!(lengths.iter().all(|row| row.starts_with("100000\t1000")), "{lengths:?}");
    let odd = tshark(
        file,
        "(tcp.analysis.flags && !tcp.analysis.reused_ports) || ip.checksum.status == 0 || tcp.checksum.status == 0",
        &["frame.number"],
    );
    assert!(odd.is_empty(), "{odd:?}");
    auditd.stop().await.assert_clean();
}

#[tokio::test]
async fn of_ten_thousand_requests_none_is_missing() {
    let group = group("rotate: {size: 1MiB}");
    let auditd = start(&group).await;
    let recorder = recorder(&group);
    let wanted = numbered(10_000);
    for (task, paths) in wanted.chunks(1000).enumerate() {
        let flow = recorder.flow(&meta(u8::try_from(task).unwrap(), "http_1"), Policy::Drop);
        for path in paths {
            exchange(&flow, path);
        }
    }
    assert!(recorder.flush(LIMIT));
    assert!(captures(&group).len() > 2, "files were not rotated");
    assert_eq!(paths(&group), wanted);
    let status = auditd.status().await;
    assert_eq!(status["audit"]["lost"], 0);
    auditd.stop().await.assert_clean();
}

#[tokio::test]
async fn a_kill_in_the_middle_loses_nothing_and_writes_nothing_twice() {
    let group = group("fsync: 0s");
    let recorder = recorder(&group);
    let wanted = numbered(3000);
    let flow = Arc::new(recorder.flow(&meta(7, "http_1"), Policy::Drop));
    let mut auditd = start(&group).await;
    for paths in wanted.chunks(1000) {
        let before = recorder.stats().acknowledged;
        let writing = {
            let (recorder, flow, paths) = (Arc::clone(&recorder), Arc::clone(&flow), paths.to_vec());
            tokio::task::spawn_blocking(move || {
                for (n, path) in paths.iter().enumerate() {
                    exchange(&flow, path);
                    if n == 100 {
                        assert!(recorder.flush(LIMIT), "some of it is written before the kill");
                    }
                    std::thread::yield_now();
                }
            })
        };
        assert_eventually!(recorder.stats().acknowledged > before);
        auditd.kill9().await;
        auditd = start(&group).await;
        writing.await.unwrap();
    }
    assert!(recorder.flush(LIMIT));
    assert_eq!(paths(&group), wanted);
    let first = &captures(&group)[0];
    let about = tshark(first, "frame.comment contains \"user=alice\"", &["frame.number"]);
    assert_eq!(about.len(), 1, "all about a flow is said once in a file");
    auditd.stop().await.assert_clean();
}

#[tokio::test]
async fn while_it_is_stopped_streams_go_on_or_wait_as_their_policy_says() {
    let group = group("");
    let auditd = start(&group).await;
    let recorder = recorder_of(&group, 100_000);
    let limit = Duration::from_millis(300);
    let strict = recorder.flow(&meta(1, "http_1"), Policy::Stall(limit));
    let patient = recorder.flow(&meta(2, "http_1"), Policy::Stall(LIMIT));
    let free = recorder.flow(&meta(3, "http_1"), Policy::Drop);
    exchange(&strict, "/first");
    strict.ready().await.unwrap();
    auditd.signal(Signal::STOP);
    exchange(&strict, "/strict");
    exchange(&patient, "/patient");
    assert_eq!(strict.ready().await, Err(Stalled { limit }));
    for n in 0..1000 {
        exchange(&free, &format!("/{n}"));
        free.ready().await.unwrap();
    }
    let dropped = recorder.stats().dropped;
    assert!(dropped > 1000, "{dropped}");
    let (waited, ()) = tokio::join!(patient.ready(), async { auditd.signal(Signal::CONT) });
    waited.unwrap();
    assert!(recorder.flush(LIMIT));
    let written = paths(&group);
    assert!(written.contains(&"/patient".to_owned()) && written.contains(&"/0".to_owned()));
    // What is lost is marked in the capture, in the event log and in the numbers.
    let marks = tshark(
        &captures(&group)[0],
        "frame.comment contains \"are lost\"",
        &["frame.comment"],
    );
    assert_eq!(marks.len(), 1);
    assert!(marks[0].starts_with(&format!("{dropped} records of ")), "{marks:?}");
    assert_eq!(auditd.status().await["audit"]["lost"], dropped);
    let gaps = ctl(&group, &["search", "--kind", "Gap"]).await;
    assert_eq!(serde_json::from_str::<Value>(&gaps).unwrap()["records"], dropped);
    auditd.stop().await.assert_clean();
}

/// A file system of a megabyte; gone when it is dropped.
struct Small(PathBuf);

impl Small {
    /// `None` for whoever may not mount.
    fn mount(path: &Path) -> Option<Self> {
        std::fs::create_dir_all(path).unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs"])
            .arg(path)
            .output();
        mount
            .is_ok_and(|output| output.status.success())
            .then(|| Self(path.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_said_loudly_and_costs_nothing_but_time() {
    let group = group("keep: {size: 1TiB}");
    let Some(_small) = Small::mount(&group.dir().join("audit")) else {
        return; // not root
    };
    let auditd = start(&group).await;
    let recorder = recorder(&group);
    let filler = group.dir().join("audit/filler");
    std::fs::write(&filler, vec![0; 900_000]).unwrap();
    let flow = recorder.flow(&meta(7, "http_1"), Policy::Drop);
    let wanted = numbered(600);
    for path in &wanted {
        exchange(&flow, path);
    }
    assert_eventually!(auditd.status().await["audit"]["stuck"] == true);
    assert_eventually!(
        auditd.status().await["note"]
            .as_str()
            .is_some_and(|note| note.contains("No space left"))
    );
    assert_eventually!(
        auditd.stderr().contains("nothing can be written"),
        "{}",
        auditd.stderr()
    );
    // What lies there meanwhile is whole, although less than all.
    let before = paths(&group);
    assert!(before.len() < wanted.len());
    assert_eq!(before, wanted[..before.len()]);
    std::fs::remove_file(filler).unwrap();
    assert!(recorder.flush(LIMIT));
    assert_eq!(paths(&group), wanted);
    assert_eq!(auditd.status().await["audit"]["stuck"], false);
    assert_eventually!(auditd.stderr().contains("writing again"));
    auditd.stop().await.assert_clean();
}

#[tokio::test]
async fn closed_files_are_compressed_and_tshark_reads_them_so() {
    let group = group("");
    group.rewrite("auditd: {directory: audit, keep: {files: 3}}");
    let auditd = start(&group).await;
    let recorder = recorder(&group);
    for n in 0..5 {
        exchange(&recorder.flow(&meta(n, "http_1"), Policy::Drop), &format!("/{n}"));
        assert!(recorder.flush(LIMIT));
        let closed = auditd.call("audit.rotate", Value::Null).await.unwrap();
        assert_eq!(closed["closed"], 2);
    }
    assert_eventually!(
        captures(&group).iter().all(|file| file.extension().unwrap() == "gz") && captures(&group).len() == 3
    );
    assert_eq!(paths(&group), ["/2", "/3", "/4"]);
    for file in captures(&group) {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    auditd.stop().await.assert_clean();
}

#[tokio::test]
async fn a_closed_file_goes_when_it_is_too_old_though_nothing_else_happens() {
    let group = group("keep: {age: 1s}");
    let auditd = start(&group).await;
    let recorder = recorder(&group);
    exchange(&recorder.flow(&meta(1, "http_1"), Policy::Drop), "/old");
    assert!(recorder.flush(LIMIT));
    assert_eventually!(auditd.status().await["audit"]["files"] == 2);
    let before = auditd.status().await["audit"]["file_bytes"].as_u64().unwrap();
    assert!(before > 500, "{before}");
    auditd.call("audit.rotate", Value::Null).await.unwrap();
    assert_eventually!(captures(&group).is_empty());
    assert_eventually!(auditd.status().await["audit"]["file_bytes"] == 0);
    auditd.stop().await.assert_clean();
}

#[tokio::test]
async fn more_bytes_than_may_be_kept_cost_closed_files_at_once() {
    let group = group("keep: {size: 100KiB}");
    let auditd = start(&group).await;
    let recorder = recorder(&group);
    let flow = recorder.flow(&meta(1, "http_1"), Policy::Drop);
    exchange(&flow, "/closed");
    assert!(recorder.flush(LIMIT));
    auditd.call("audit.rotate", Value::Null).await.unwrap();
    assert_eventually!(captures(&group).len() == 1);
    for n in 0..1000 {
        exchange(&flow, &format!("/{n}"));
    }
    assert!(recorder.flush(LIMIT));
    // The open file alone is too long, and stays.
    assert_eventually!(
        captures(&group)
            .iter()
            .all(|file| !file.to_str().unwrap().contains("capture-000001"))
    );
    assert_eq!(paths(&group), numbered(1000));
    auditd.stop().await.assert_clean();
}

#[tokio::test]
async fn without_a_directory_files_lie_with_the_rest_of_a_group_of_ones_own() {
    let group = Group::new("auditd: {compress: none}");
    let auditd = start(&group).await;
    let dir = group.runtime_dir().join("audit");
    assert_eq!(auditd.status().await["directory"], dir.to_str().unwrap());
    assert!(!dir.exists(), "there is nothing to write yet");
    let recorder = recorder(&group);
    recorder.event(&event(1, "/1"));
    assert!(recorder.flush(LIMIT));
    assert!(dir.join("journal").exists());
    auditd.stop().await.assert_clean();
}

fn event(task: u8, uri: &str) -> Event {
    let fields = [
        ("intercept_type", "HttpForward".into()),
        ("uri", uri.into()),
        ("rsp_status", 200.into()),
    ];
    Event {
        at: 1_795_626_900_000_000_000,
        kind: "Intercept".to_owned(),
        task: Some([task; 16]),
        fields: fields.map(|(key, value)| (key.to_owned(), value)).into(),
    }
}

#[tokio::test]
async fn events_are_found_and_tasks_exported() {
    let group = group("");
    let auditd = start(&group).await;
    let recorder = recorder(&group);
    let mut other = meta(2, "http_1");
    other.user = None;
    other.upstream = "other.test:80".to_owned();
    for (task, meta) in [(1, meta(1, "http_1")), (2, other)] {
        let flow = recorder.flow(&meta, Policy::Drop);
        exchange(&flow, &format!("/{task}"));
        recorder.event(&event(task, &format!("/{task}")));
    }
    assert!(recorder.flush(LIMIT));
    let uris = |found: String| -> Vec<String> {
        let events = found.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        events
            .filter_map(|event| event["uri"].as_str().map(str::to_owned))
            .collect()
    };
    assert_eq!(uris(ctl(&group, &["search", "--user", "alice"]).await), ["/1"]);
    assert_eq!(uris(ctl(&group, &["search", "--host", "test"]).await), ["/2"]);
    assert_eq!(
        uris(ctl(&group, &["search", "--kind", "Intercept"]).await),
        ["/1", "/2"]
    );
    assert_eq!(
        uris(ctl(&group, &["search", "--since", "2026-11-25T17:15:01Z"]).await),
        [""; 0]
    );
    assert_eq!(
        uris(ctl(&group, &["search", "--until", "2026-11-25T17:15:00Z"]).await),
        ["/1", "/2"]
    );
    let tail = ctl(&group, &["tail", "-n", "2"]).await;
    assert_eq!(tail.lines().count(), 2, "{tail}");
    let task = hex(&[1; 16]);
    let file = group.dir().join("one.pcapng");
    ctl(&group, &["export", "--task", &task, "-o", file.to_str().unwrap()]).await;
    assert_eq!(tshark(&file, "http.request", &["http.request.uri"]), ["/1"]);
    let har: Value = serde_json::from_str(&ctl(&group, &["export", "--task", &task, "--format", "har"]).await).unwrap();
    let entry = &har["log"]["entries"][0];
    assert_eq!(entry["request"]["url"], "https://www.example/1");
    assert_eq!(entry["response"]["content"]["text"], "hello");
    let dir = group.runtime_dir();
    let args = [
        "-C",
        dir.to_str().unwrap(),
        "auditd",
        "export",
        "--task",
        &hex(&[9; 16]),
    ];
    let nothing = sluicectl(args).await;
    assert_eq!(nothing.code, Some(1));
    assert!(
        nothing.stderr.contains("no capture holds anything"),
        "{}",
        nothing.stderr
    );
    auditd.stop().await.assert_clean();
}

#[tokio::test]
async fn a_reader_who_has_had_enough_is_no_failure_and_a_full_disk_is_one() {
    let group = group("");
    let auditd = start(&group).await;
    let recorder = recorder(&group);
    recorder.event(&event(1, "/1"));
    assert!(recorder.flush(LIMIT));
    let said = |words: &[&str], out: Stdio| {
        let mut command = Command::new(binary("sluicectl"));
        command.arg("-C").arg(group.runtime_dir()).arg("auditd").args(words);
        let output = command.stdout(out).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), told)
    };
    for words in [&["search"][..], &["tail", "-f"], &["describe"], &["status", "--json"]] {
        let (reader, writer) = UnixStream::pair().unwrap();
        drop(reader);
        assert_eq!(
            said(words, OwnedFd::from(writer).into()),
            (Some(0), String::new()),
            "{words:?}"
        );
        let full = std::fs::File::create("/dev/full").unwrap();
        let (code, told) = said(words, full.into());
        assert_eq!(code, Some(1), "{words:?}");
        assert!(
            told.contains("cannot write: No space left on device"),
            "{words:?}: {told}"
        );
    }
    let (code, told) = said(&["search", "--task", "1"], Stdio::null());
    assert_eq!(code, Some(1));
    assert!(told.contains("`1` is not the id of a task"), "{told}");
    auditd.stop().await.assert_clean();
}

#[tokio::test]
async fn an_exported_task_of_many_pieces_is_whole() {
    let group = group("format: tcp, rotate: {size: 4MiB}");
    let auditd = start(&group).await;
    let recorder = recorder(&group);
    let flow = recorder.flow(&meta(1, "http_1"), Policy::Drop);
    let noise = recorder.flow(&meta(2, "http_1"), Policy::Drop);
    for n in 0..200 {
        exchange(&flow, &format!("/{n}"));
        flow.to_remote(b"POST /big HTTP/1.1\r\nHost: h\r\nContent-Length: 60000\r\n\r\n");
        flow.to_remote(&[b'x'; 60_000]);
        flow.to_client(b"HTTP/1.1 204 No Content\r\n\r\n");
        exchange(&noise, "/noise");
    }
    assert!(recorder.flush(LIMIT));
    let file = group.dir().join("one.pcapng");
    ctl(
        &group,
        &["export", "--task", &hex(&[1; 16]), "-o", file.to_str().unwrap()],
    )
    .await;
    let uris = tshark(&file, "http.request.method == GET", &["http.request.uri"]);
    assert_eq!(uris, numbered(200));
    auditd.stop().await.assert_clean();
}

#[tokio::test]
async fn tail_follows() {
    let group = group("");
    let auditd = start(&group).await;
    let recorder = recorder(&group);
    recorder.event(&event(1, "/1"));
    assert!(recorder.flush(LIMIT));
    let last = auditd.call("audit.tail", json!({"lines": 1})).await.unwrap();
    assert_eq!(last["events"][0]["uri"], "/1");
    let follow = auditd.call("audit.tail", json!({"after": last["next"]}));
    let (followed, ()) = tokio::join!(follow, async { recorder.event(&event(2, "/2")) });
    assert_eq!(followed.unwrap()["events"][0]["uri"], "/2");
    auditd.stop().await.assert_clean();
}

#[tokio::test]
async fn the_udp_door_takes_what_udpdump_takes_and_is_closed_unless_asked_for() {
    let group = group("");
    let auditd = start(&group).await;
    assert_eq!(auditd.status().await["listening"].as_array().unwrap().len(), 1);
    auditd
        .reload_with("auditd: {directory: audit, listen: 127.0.0.1:%udp%}")
        .await;
    assert_eventually!(
        auditd.stderr().contains("whoever can reach this address"),
        "{}",
        auditd.stderr()
    );
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(group.addr("udp")).unwrap();
    let dump = sluice_bus::UdpDump::new(socket, 1480).unwrap();
    exchange(&dump.flow(&meta(7, "http_1")), "/udp");
    let garbage = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    garbage.send_to(b"garbage", group.addr("udp")).unwrap();
    assert_eventually!(auditd.status().await["audit"]["udp_packets"] == 3);
    assert_eventually!(paths(&group) == ["/udp"]);
    auditd.stop().await.assert_clean();
}

#[tokio::test]
async fn followers_hear_what_is_written_if_they_may() {
    let group = group("");
    let auditd = start(&group).await;
    let live = group.runtime_dir().join("auditd/live");
    assert!(!live.exists(), "nobody has asked for it");
    auditd.reload_with("auditd: {directory: audit, live: true}").await;
    assert_eventually!(live.exists());
    let recorder = recorder(&group);
    let task = hex(&[7; 16]);
    let follower = Subscriber::connect(&live, &task).unwrap();
    let flow = recorder.flow(&meta(7, "http_1"), Policy::Drop);
    let other = recorder.flow(&meta(8, "http_1"), Policy::Drop);
    let mut heard;
    // A subscription takes its time, and what is told before is missed.
    assert_eventually!({
        exchange(&other, "/other");
        exchange(&flow, "/live");
        heard = follower.recv().unwrap();
        heard.is_some()
    });
    let (topic, message) = heard.unwrap();
    assert_eq!(topic, format!("{task} www.example"));
    assert!(matches!(Record::take(&message), Ok(Record::Dump(_) | Record::Flow(_))));
    auditd.stop().await.assert_clean();
}

/// A follower by hand (ZMTP 3.0, RFC 23): it says that it follows these topics, and all.
fn follower(live: &Path, topics: impl Iterator<Item = String>) -> UnixStream {
    let mut greeting = [0; 64];
    greeting[..12].copy_from_slice(b"\xff\0\0\0\0\0\0\0\0\x7f\x03\0");
    greeting[12..16].copy_from_slice(b"NULL");
    let ready = b"\x04\x19\x05READY\x0bSocket-Type\0\0\0\x03SUB";
    let mut stream = UnixStream::connect(live).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(&[&greeting, &ready[..]].concat()).unwrap();
    stream.read_exact(&mut [0; 64 + 27]).unwrap(); // the same from there; before it nothing else may be said
    for topic in topics.chain([String::new()]) {
        let length = u8::try_from(topic.len() + 1).unwrap();
        stream.write_all(&[&[0, length, 1], topic.as_bytes()].concat()).unwrap();
    }
    stream.set_nonblocking(true).unwrap();
    stream
}

/// So many followers of a hundred long topics each, who are all known to auditd.
async fn many_followers(group: &Group, recorder: &Recorder, count: usize) -> Vec<UnixStream> {
    let live = group.runtime_dir().join("auditd/live");
    assert_eventually!(live.exists());
    let topics = |of: usize| (0..100).map(move |n| format!("{of:03}-{n:03}-{}", "x".repeat(150)));
    let followers: Vec<_> = (0..count).map(|of| follower(&live, topics(of))).collect();
    for mut follower in &followers {
        assert_eventually!({
            recorder.event(&event(1, "/followed"));
            follower.read(&mut [0; 4096]).is_ok_and(|length| length > 0)
        });
    }
    followers
}

#[tokio::test]
async fn many_followers_hold_up_neither_records_nor_the_stop() {
    let group = group("live: true");
    let auditd = start(&group).await;
    let recorder = recorder(&group);
    let followers = many_followers(&group, &recorder, 200).await;
    let leaving = many_followers(&group, &recorder, 50).await;
    drop(leaving);
    recorder.event(&event(2, "/after"));
    assert!(recorder.flush(LIMIT), "those who leave hold up those who record");
    auditd.stop().await.assert_clean();
    drop(followers);
}

#[tokio::test]
async fn its_sockets_and_files_are_its_own() {
    use std::os::unix::fs::PermissionsExt as _;
    let group = group("");
    let auditd = start(&group).await;
    let mode = |path: PathBuf| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(group.runtime_dir().join("auditd")), 0o700);
    assert_eq!(mode(group.runtime_dir().join("auditd/dump")), 0o600);
    assert_eq!(mode(group.dir().join("audit")), 0o700);
    auditd.stop().await.assert_clean();
}
