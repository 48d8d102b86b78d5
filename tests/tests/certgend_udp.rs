//! certgend over UDP, for the peers of g3fcgen, and with its file.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use sluice_testkit::{Group, Port, assert_eventually};
use sluice_tests::minting::{CONFIG, Minted, PATIENCE, SILENCE, ca_file, certgend, group, init, keys, upstream};
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// Asks over UDP; `None` if nothing comes.
async fn datagram(socket: &UdpSocket, request: &[u8], wait: Duration) -> Option<Vec<u8>> {
    socket.send(request).await.unwrap();
    let mut answer = vec![0; 16_384];
    let length = timeout(wait, socket.recv(&mut answer)).await.ok()?.unwrap();
    answer.truncate(length);
    Some(answer)
}

async fn udp_to(port: u16) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(("127.0.0.1", port)).await.unwrap();
    socket
}

#[tokio::test]
async fn over_udp_bytes_are_those_of_g3fcgen() {
    let group = group(CONFIG).await;
    let port = Port::free();
    let certgend = group
        .daemon("certgend")
        .env("UDP_LISTEN_ADDR", &format!("127.0.0.1:{}", port.number()))
        .start()
        .await;
    assert_eventually!(
        certgend.stderr().contains("UDP is open, where any local user"),
        "{}",
        certgend.stderr()
    );
    let socket = udp_to(port.number()).await;

    // The example of the protocol's documentation.
    let answer = datagram(&socket, b"\x83\x01\xabexample.com\x02\x00\x04\x00", PATIENCE)
        .await
        .unwrap();
    assert_eq!(&answer[..18], b"\x86\x01\xabexample.com\x02\x00\x06\x00");
    assert_eq!(answer[18..20], [0x03, 0xda], "a long text");
    let length = usize::from(u16::from_be_bytes([answer[20], answer[21]]));
    let rest = &answer[22 + length..];
    assert_eq!(rest[..3], [0x04, 0xc4, 121], "a key of P-256 as RFC 5915 has it");
    assert_eq!(
        rest[3 + 121..],
        [0x05, 0xce, 0x00, 0x01, 0x51, 0x80],
        "a day, then nothing"
    );
    Minted::of(&keys(&answer))
        .assert_good(&ca_file(&group), "example.com")
        .await;

    // Names for keys and values, a bare host, a certificate as text; the answer repeats what was asked.
    let request = b"\x83\xa4host\xa9smtp.test\xa7service\xa4SMTP\xa5usage\xb2tls_server_tongsuo";
    let answer = datagram(&socket, request, PATIENCE).await.unwrap();
    assert_eq!(&answer[..16], b"\x86\x01\xa9smtp.test\x02\x01\x06\x01");
    let answer = datagram(&socket, b"\xa6a.test", PATIENCE).await.unwrap();
    assert_eq!(&answer[..9], b"\x86\x01\xa6a.test");
    let cert = upstream(
        &[&[
            "-newkey",
            "rsa:2048",
            "-subj",
            "/CN=r",
            "-addext",
            "subjectAltName=DNS:r.test",
        ][..]]
        .concat(),
    )
    .await;
    let mut request = b"\x84\x01\xa6r.test\x02\x00\x04\x00\x03\xc5".to_vec();
    request.extend_from_slice(&u16::try_from(cert.len()).unwrap().to_be_bytes());
    request.extend_from_slice(&cert);
    let answer = datagram(&socket, &request, PATIENCE).await.unwrap();
    let minted = Minted::of(&keys(&answer));
    minted.assert_good(&ca_file(&group), "r.test").await;
    assert!(minted.text().await.contains("rsaEncryption"));
    // The traditional form of an RSA key (RFC 8017), which `openssl rsa` alone would not tell.
    assert_eq!((minted.key[0], &minted.key[4..7]), (0x30, &[0x02, 0x01, 0x00][..]));
    assert_eq!(minted.key[7..9], [0x02, 0x82], "a modulus, not an algorithm");

    // What is no request gets no answer.
    for nothing in [
        &b"\xc1"[..],
        b"\x81\x01\xa0",
        b"\x82\x01\xa1a\x09\x00",
        b"\x81\x01\xa3a b",
        b"\x83\x01\xa1a",
    ] {
        assert_eq!(datagram(&socket, nothing, SILENCE).await, None, "{nothing:x?}");
    }
    assert!(datagram(&socket, b"\xa6b.test", PATIENCE).await.is_some());
    certgend.stop().await.assert_clean();
}

#[tokio::test]
async fn without_being_asked_for_no_ip_socket_is_open() {
    let certgend = certgend(CONFIG).await;
    assert_eq!(certgend.status().await["listening"].as_array().unwrap().len(), 1);
    let sockets = fs::read_dir(format!("/proc/{}/fd", certgend.pid())).unwrap();
    let links = sockets.filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
    let inodes: Vec<String> = links.map(|link| link.display().to_string()).collect();
    for table in ["tcp", "tcp6", "udp", "udp6"] {
        let open = fs::read_to_string(format!("/proc/{}/net/{table}", certgend.pid())).unwrap();
        for line in open.lines().skip(1) {
            let inode = line.split_whitespace().nth(9).unwrap();
            assert!(!inodes.contains(&format!("socket:[{inode}]")), "{table}: {line}");
        }
    }
    certgend.stop().await.assert_clean();
}

#[tokio::test]
async fn a_file_of_g3fcgen_works_unchanged() {
    let group = Group::new(
        "backend:\n  ca_certificate: ca.crt\n  ca_private_key: ca.key\n  no_append_ca_cert: yes\nworker: {sched_affinity: true}\n",
    );
    init(&group).await;
    // Its key may be as loose as it was: that is told, and no more.
    fs::set_permissions(group.dir().join("ca.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let port = Port::free();
    let certgend = group
        .daemon("certgend")
        .arg("-G")
        .arg(&format!("port{}", port.number()))
        .start()
        .await;
    assert_eventually!(certgend.stderr().contains("has mode 0644"), "{}", certgend.stderr());
    let answer = datagram(&udp_to(port.number()).await, b"\xa6a.test", PATIENCE)
        .await
        .unwrap();
    let minted = Minted::of(&keys(&answer));
    assert_eq!(minted.chain.matches("BEGIN CERTIFICATE").count(), 1);
    minted.assert_good(&group.dir().join("ca.crt"), "a.test").await;
    certgend.stop().await.assert_clean();
}
