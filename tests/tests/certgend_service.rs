//! certgend as a service: whom it answers, what it refuses, what it survives, and what is told of it.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use rmpv::Value;
use rustix::process::Signal;
use sluice_testkit::{Group, Process, Statsd, assert_eventually, binary};
use sluice_tests::minting::{
    BAD_REQUEST, CONFIG, Client, NEVER_MINT, NO_CA, OVER_RATE, P256, SILENCE, ca_file, certgend, group, init, output,
    refusal, upstream,
};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::timeout;

#[tokio::test]
async fn without_a_ca_every_request_is_told_which_key_is_missing_until_there_is_one() {
    let group = Group::new("certgend: {}\n");
    let certgend = group.daemon("certgend").start().await;
    let mut client = Client::connect(&group).await;
    let (code, text) = client.refusal("a.example").await;
    assert_eq!(code, NO_CA);
    assert!(text.contains("`certgend.backend.ca_certificate` is not set"), "{text}");
    certgend.reload_with(CONFIG).await;
    let (code, text) = client.refusal("a.example").await;
    assert_eq!(code, NO_CA);
    assert!(
        text.contains("ca/ca.crt") && text.contains("sluicectl certgend ca init"),
        "{text}"
    );
    assert!(
        certgend.status().await["note"]
            .as_str()
            .unwrap()
            .contains("ca_certificate")
    );
    init(&group).await;
    certgend.reload().await.unwrap();
    client
        .mint("a.example", None)
        .await
        .assert_good(&ca_file(&group), "a.example")
        .await;
    certgend.stop().await.assert_clean();
}

#[tokio::test]
async fn a_key_that_others_may_read_is_refused_at_start_and_changes_nothing_at_a_reload() {
    let group = group(CONFIG).await;
    let key = group.dir().join("ca/ca.key");
    let loosen = |mode| fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
    let certgend = group.daemon("certgend").start().await;
    loosen(0o640);
    let error = certgend.reload().await.unwrap_err();
    assert!(error.message.contains("has mode 0640"), "{}", error.message);
    let mut client = Client::connect(&group).await;
    client.mint("a.example", None).await;
    // A CA that was there and is gone is a mistake too.
    fs::remove_file(&key).unwrap();
    assert!(certgend.reload().await.is_err());
    client.mint("b.example", None).await;
    certgend.stop().await.assert_clean();

    fs::remove_file(ca_file(&group)).unwrap();
    init(&group).await;
    loosen(0o604);
    // So is who checks the file.
    for exited in [
        group.daemon("certgend").run().await,
        group.daemon("certgend").arg("-t").run().await,
    ] {
        assert_eq!(exited.code, Some(78));
        assert!(
            exited.stderr.contains("certgend.backend.ca_private_key: ") && exited.stderr.contains("0604"),
            "{exited:?}"
        );
    }
}

#[tokio::test]
async fn a_rotation_by_reload_loses_no_request() {
    let certgend = certgend(CONFIG).await;
    let group = certgend.group().clone();
    let old = group.dir().join("old.crt");
    fs::copy(ca_file(&group), &old).unwrap();
    let mut askers = JoinSet::new();
    for asker in 0..4 {
        let group = group.clone();
        askers.spawn(async move {
            let mut client = Client::connect(&group).await;
            let mut chains = Vec::new();
            for round in 0..150 {
                for n in 0..8 {
                    client.ask(&format!("h{n}.r{round}.a{asker}.example"), None).await;
                }
                for _ in 0..8 {
                    let answer = client.answer().await;
                    assert!(answer.contains_key(&3), "{answer:?}");
                    chains.push(answer[&3].as_str().unwrap().to_owned());
                }
            }
            chains
        });
    }
    let mut kept = Vec::new();
    for _ in 0..5 {
        let ca = fs::read_to_string(ca_file(&group)).unwrap();
        assert_eventually!(certgend.status().await["minted"].as_u64().unwrap() > 50 * kept.len() as u64);
        kept.push(ca);
        fs::remove_dir_all(group.dir().join("ca")).unwrap();
        init(&group).await;
        certgend.reload().await.unwrap();
    }
    kept.push(fs::read_to_string(ca_file(&group)).unwrap());
    let mut signed_by = HashSet::new();
    for chain in askers.join_all().await.into_iter().flatten() {
        // The leaf comes first, then the CA that has signed it.
        let ca = kept.iter().position(|ca| chain.ends_with(ca.as_str()));
        signed_by.insert(ca.expect("one of the CAs"));
    }
    assert!(signed_by.len() > 1, "the load met no reload");
    let mut client = Client::connect(&group).await;
    let last = client.mint("h0.r0.a0.example", None).await;
    last.assert_good(&ca_file(&group), "h0.r0.a0.example").await;
    assert!(!last.fault(&old, "h0.r0.a0.example").await.is_empty());
    certgend.stop().await.assert_clean();
}

#[tokio::test]
async fn rules_refuse_hosts_and_rates_with_their_own_codes() {
    let yaml = CONFIG.replace(
        "certgend: {",
        "certgend: {never_mint: [bank.example, 192.0.2.0/24], mint_rate: {rate: 1/h, max_burst: 2}, ",
    );
    let certgend = certgend(&yaml).await;
    let mut client = Client::connect(certgend.group()).await;
    for host in ["bank.example", "www.bank.example", "*.example", "192.0.2.1"] {
        let (code, text) = client.refusal(host).await;
        assert_eq!(code, NEVER_MINT, "{host}: {text}");
    }
    let cert = upstream(
        &[
            &P256[..],
            &[
                "-subj",
                "/CN=cdn",
                "-addext",
                "subjectAltName=DNS:cdn.example,DNS:bank.example",
            ],
        ]
        .concat(),
    )
    .await;
    let minted = client.mint("cdn.example", Some(&cert)).await;
    let text = minted.text().await;
    assert!(
        text.contains("DNS:cdn.example") && !text.contains("bank.example"),
        "{text}"
    );
    client.mint("a.example", None).await;
    assert_eq!(client.refusal("b.example").await.0, OVER_RATE);
    // What is kept costs nothing.
    client.mint("a.example", None).await;
    certgend.reload_with(CONFIG).await;
    client.mint("b.example", None).await;
    client.mint("www.bank.example", None).await;
    certgend.stop().await.assert_clean();
}

#[tokio::test]
async fn what_is_no_request_gets_an_error_and_a_broken_stream_an_end() {
    let certgend = certgend(CONFIG).await;
    let mut client = Client::connect(certgend.group()).await;
    for message in [
        Value::from(5),
        Value::Map(vec![]),
        Value::Map(vec![
            (Value::from("id"), Value::from(9)),
            (Value::from("host"), Value::from("")),
        ]),
        Value::Map(vec![(Value::from("host"), Value::Nil)]),
    ] {
        client.send(&message).await;
        let answer = client.answer().await;
        assert_eq!(refusal(&answer).0, BAD_REQUEST, "{answer:?}");
    }
    assert_eq!(client.refusal("a b").await.0, BAD_REQUEST);
    // Keys of a later version are skipped.
    client
        .send(&Value::Map(vec![
            (Value::from("host"), Value::from("a.example")),
            (Value::from("id"), Value::from(77)),
            (
                Value::from("of_tomorrow"),
                Value::Array(vec![Value::Nil, Value::from(1.5)]),
            ),
        ]))
        .await;
    let answer = client.answer().await;
    assert!(
        answer[&16].as_u64() == Some(77) && answer.contains_key(&3),
        "{answer:?}"
    );
    for head in [0_u32, 65_537, u32::MAX] {
        let mut client = Client::connect(certgend.group()).await;
        client.ask("b.example", None).await;
        client.stream.write_u32(head).await.unwrap();
        assert!(client.answer().await.contains_key(&3), "what came before is answered");
        assert!(client.is_closed().await);
    }
    certgend.stop().await.assert_clean();
}

#[tokio::test]
async fn other_users_are_turned_away_unless_they_are_allowed() {
    if !rustix::process::geteuid().is_root() {
        return; // only root can become another user
    }
    let certgend = certgend(CONFIG).await;
    let group = certgend.group();
    let socket = group.runtime_dir().join("certgend.mint");
    for (path, mode) in [(group.dir(), 0o755), (&group.runtime_dir(), 0o755), (&socket, 0o666)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let script = "import os, socket, sys
os.setgid(65534); os.setuid(65534)
s = socket.socket(socket.AF_UNIX); s.settimeout(20); s.connect(sys.argv[1])
try: s.sendall(bytes.fromhex('00000007') + b'\\x81\\x01\\xa4host'); print(len(s.recv(4)))
except OSError: print(0)";
    let socket = socket.display().to_string();
    assert_eq!(output("python3", &["-c", script, &socket], b"").await, "0\n");
    assert_eventually!(certgend.stderr().contains("turned away"), "{}", certgend.stderr());
    certgend
        .reload_with(&CONFIG.replace("certgend: {", "certgend: {allow_uid: 65534, "))
        .await;
    assert_eq!(output("python3", &["-c", script, &socket], b"").await, "4\n");
    certgend.stop().await.assert_clean();
}

#[tokio::test]
async fn after_a_kill_the_next_one_takes_over_the_socket() {
    let certgend = certgend(CONFIG).await;
    Client::connect(certgend.group()).await.mint("a.example", None).await;
    let group = certgend.kill9().await;
    let certgend = group.daemon("certgend").start().await;
    let minted = Client::connect(&group).await.mint("a.example", None).await;
    minted.assert_good(&ca_file(&group), "a.example").await;
    certgend.stop().await.assert_clean();
}

#[tokio::test]
async fn every_certificate_has_its_record_and_its_number() {
    let statsd = Statsd::start();
    let yaml = format!(
        "{CONFIG}stat: {{target_udp: '{}', prefix: g3fcgen, emit_interval: 50ms}}\n",
        statsd.addr()
    );
    let certgend = certgend(&yaml.replace("ca/ca.key}", "ca/ca.key, duration_stats: 100ms}")).await;
    let mut client = Client::connect(certgend.group()).await;
    let args = [
        "-subj",
        "/CN=a",
        "-addext",
        "subjectAltName=DNS:a.example",
        "-addext",
        "keyUsage=digitalSignature,cRLSign",
    ];
    let cert = upstream(&[&P256[..], &args].concat()).await;
    let minted = client.mint("a.example", Some(&cert)).await;
    assert_eventually!(certgend.log_records("Mint").len() == 1, "{}", certgend.stdout());
    let record = &certgend.log_records("Mint")[0];
    let serial = minted.serial().await;
    let fingerprint = output(
        "openssl",
        &["x509", "-noout", "-fingerprint", "-sha256"],
        minted.chain.as_bytes(),
    )
    .await;
    let fingerprint = fingerprint.split_once('=').unwrap().1.trim().replace(':', "");
    assert_eq!(
        record["serial"].as_str().unwrap(),
        serial.trim().split_once('=').unwrap().1,
        "{record}"
    );
    assert_eq!(record["fingerprint"].as_str().unwrap(), fingerprint, "{record}");
    for (key, value) in [
        ("host", "a.example"),
        ("key_type", "p256"),
        ("service", "http"),
        ("usage", "tls_server"),
        ("fallback", "key_usage"),
    ] {
        assert_eq!(record[key], value, "{record}");
    }
    let asker = format!("uid={} pid={}", rustix::process::geteuid().as_raw(), std::process::id());
    assert_eq!(record["asker"], asker, "{record}");
    client.refusal("a b").await;
    for (name, value) in [
        ("frontend.request_total", 2.0),
        ("frontend.response_total", 2.0),
        ("backend.request_total", 2.0),
        ("backend.request_ok", 1.0),
        ("backend.request_fallback", 1.0),
        ("backend.request_refused", 1.0),
    ] {
        assert_eventually!(statsd.total(&format!("g3fcgen.{name}"), &[]) == value, "{name}");
    }
    assert_eventually!(
        statsd
            .last("g3fcgen.backend.request_duration", &[("quantile", "0.99")])
            .is_some()
    );
    certgend.stop().await.assert_clean();
}

#[tokio::test]
async fn the_key_of_the_ca_can_not_be_read_from_outside() {
    let certgend = certgend(CONFIG).await;
    // What is not dumpable belongs to root in /proc, and only those who may trace it see its memory.
    let status = fs::read_to_string(format!("/proc/{}/status", certgend.pid())).unwrap();
    assert!(status.contains("CoreDumping:\t0"), "{status}");
    let limits = fs::read_to_string(format!("/proc/{}/limits", certgend.pid())).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .unwrap();
    assert!(core.contains(" 0 "), "{core}");
    let open = fs::read_dir(format!("/proc/{}/fd", certgend.pid())).unwrap();
    for fd in open {
        let link = fs::read_link(fd.unwrap().path()).unwrap_or_default();
        assert!(!link.ends_with("ca.key"), "the key's file is still open");
    }
    certgend.stop().await.assert_clean();
}

#[tokio::test]
async fn a_peer_that_reads_nothing_or_hangs_holds_up_nobody() {
    let certgend = certgend(CONFIG).await;
    let group = certgend.group();
    let mut deaf = Client::connect(group).await;
    let flood = async {
        for n in 0..20_000 {
            deaf.ask(&format!("d{n}.example"), None).await;
        }
    };
    // It is stopped by its own full buffers long before the end.
    assert!(timeout(Duration::from_secs(3), flood).await.is_err());
    let mut half = Client::connect(group).await;
    half.stream.write_all(&[0, 0, 0, 50, 0x83]).await.unwrap();
    let mut other = Client::connect(group).await;
    other
        .mint("a.example", None)
        .await
        .assert_good(&ca_file(group), "a.example")
        .await;
    let memory = fs::read_to_string(format!("/proc/{}/status", certgend.pid())).unwrap();
    let peak = memory.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    let kilobytes: u64 = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(kilobytes < 200_000, "{peak}");
    drop((deaf, half, other));
    assert_eventually!(
        certgend.status().await["connections"] == 0,
        "{}",
        certgend.status().await
    );
    certgend.stop().await.assert_clean();
}

#[tokio::test]
async fn what_is_asked_while_it_hangs_is_answered_once_it_goes_on() {
    let certgend = certgend(CONFIG).await;
    let mut client = Client::connect(certgend.group()).await;
    certgend.signal(Signal::STOP);
    for host in ["a.example", "b.example"] {
        client.ask(host, None).await;
    }
    assert!(timeout(SILENCE, client.answer()).await.is_err());
    certgend.signal(Signal::CONT);
    for _ in 0..2 {
        assert!(client.answer().await.contains_key(&3));
    }
    certgend.stop().await.assert_clean();
}

#[tokio::test]
async fn requests_queue_in_a_socket_that_was_passed_until_it_is_ready() {
    let group = group(CONFIG).await;
    let socket = group.runtime_dir().join("certgend.mint");
    // What systemd does for `sluice-certgend@.socket`.
    let script = "import os, socket, sys
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(8)
os.dup2(s.fileno(), 3); os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1', LISTEN_FDNAMES='certgend.mint')
print('bound', flush=True)
os.execv(sys.argv[2], sys.argv[2:])";
    let mut command = Command::new("python3");
    command.args(["-c", script]).arg(&socket).arg(binary("certgend"));
    command
        .arg("-c")
        .arg(group.main_file())
        .arg("-C")
        .arg(group.runtime_dir());
    let mut passed = Process::start("passed", command, group.dir());
    assert_eventually!(passed.stdout().contains("bound"));
    let minted = Client::connect(&group).await.mint("a.example", None).await;
    minted.assert_good(&ca_file(&group), "a.example").await;
    passed.signal(Signal::TERM);
    assert_eq!(passed.wait().await.code(), Some(0), "{}", passed.tail());
    assert!(socket.exists(), "the socket is the service manager's");
}
