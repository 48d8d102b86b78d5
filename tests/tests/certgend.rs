//! certgend between others' msgpack and OpenSSL: what it is asked, what it makes, and what it refuses.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rmpv::Value;
use rustix::process::Signal;
use serde_json::json;
use sluice_testkit::{Daemon, Group, Port, Process, Statsd, assert_eventually, binary, sluicectl};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UdpSocket, UnixStream};
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// No answer takes longer, an RSA key in a debug build included.
const PATIENCE: Duration = Duration::from_secs(20);

/// So long nothing may come where nothing shall.
const SILENCE: Duration = Duration::from_millis(300);

/// The codes of errors.
const NO_CA: u64 = 1;
const NEVER_MINT: u64 = 2;
const OVER_RATE: u64 = 3;
const BAD_REQUEST: u64 = 4;

const CONFIG: &str = "certgend: {backend: {ca_certificate: ca/ca.crt, ca_private_key: ca/ca.key}}\n";

/// A group with a CA that `sluicectl` has made.
async fn group(yaml: &str) -> Group {
    let group = Group::new(yaml);
    init(&group).await;
    group
}

async fn init(group: &Group) -> String {
    let done = sluicectl(["certgend", "ca", "init", "-c", &group.main_file().display().to_string()]).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    done.stdout
}

/// certgend with a CA.
async fn certgend(yaml: &str) -> Daemon {
    group(yaml).await.daemon("certgend").start().await
}

fn ca_file(group: &Group) -> PathBuf {
    group.dir().join("ca/ca.crt")
}

/// A program's standard output; it must end well.
async fn output(program: &str, args: &[&str], stdin: &[u8]) -> String {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(stdin).await.unwrap();
    let done = timeout(PATIENCE, child.wait_with_output()).await.unwrap().unwrap();
    let told = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{program} {args:?}: {told}");
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// A certificate with its key, as OpenSSL's programs see it.
struct Minted {
    chain: String,
    key: Vec<u8>,
    ttl: u64,
}

impl Minted {
    fn of(answer: &BTreeMap<u64, Value>) -> Self {
        Self {
            chain: answer[&3].as_str().unwrap_or_else(|| panic!("{answer:?}")).to_owned(),
            key: answer[&4].as_slice().unwrap().to_vec(),
            ttl: answer[&5].as_u64().unwrap(),
        }
    }

    async fn text(&self) -> String {
        output("openssl", &["x509", "-noout", "-text"], self.chain.as_bytes()).await
    }

    async fn serial(&self) -> String {
        output("openssl", &["x509", "-noout", "-serial"], self.chain.as_bytes()).await
    }

    /// Asserts that the key is the certificate's, and that `openssl verify` trusts the chain for this host.
    async fn assert_good(&self, ca: &Path, host: &str) {
        let error = self.fault(ca, host).await;
        assert_eq!(error, "", "{host}\n{}", self.text().await);
        let public = output("openssl", &["x509", "-noout", "-pubkey"], self.chain.as_bytes()).await;
        let of_key = output("openssl", &["pkey", "-inform", "DER", "-pubout"], &self.key).await;
        assert_eq!(public, of_key, "{host}");
    }

    /// What `openssl verify` says against the chain.
    async fn fault(&self, ca: &Path, host: &str) -> String {
        let dir = tempfile::TempDir::new().unwrap();
        let file = dir.path().join("chain.pem");
        fs::write(&file, &self.chain).unwrap();
        let for_host = if host.parse::<std::net::IpAddr>().is_ok() {
            "-verify_ip"
        } else {
            "-verify_hostname"
        };
        let host = host.replace('*', "any");
        let done = Command::new("openssl")
            .args([
                "verify",
                "-x509_strict",
                "-purpose",
                "sslserver",
                for_host,
                &host,
                "-CAfile",
            ])
            .arg(ca)
            .arg("-untrusted")
            .arg(&file)
            .arg(&file)
            .output()
            .await
            .unwrap();
        match done.status.success() {
            true => String::new(),
            false => String::from_utf8_lossy(&done.stderr).into_owned(),
        }
    }
}

/// A connection to the group's socket, which speaks msgpack by another's library.
struct Client {
    stream: UnixStream,
    next: u64,
}

impl Client {
    async fn connect(group: &Group) -> Self {
        let stream = UnixStream::connect(group.runtime_dir().join("certgend.mint")).await;
        Self {
            stream: stream.unwrap(),
            next: 0,
        }
    }

    /// Sends a request; returns its number.
    async fn ask(&mut self, host: &str, cert: Option<&[u8]>) -> u64 {
        self.next += 1;
        let mut pairs = vec![
            (Value::from("version"), Value::from(1)),
            (Value::from("id"), Value::from(self.next)),
            (Value::from("host"), Value::from(host)),
        ];
        pairs.extend(cert.map(|cert| (Value::from("cert"), Value::from(cert))));
        self.send(&Value::Map(pairs)).await;
        self.next
    }

    async fn send(&mut self, message: &Value) {
        let mut bytes = Vec::new();
        rmpv::encode::write_value(&mut bytes, message).unwrap();
        self.stream.write_u32(bytes.len().try_into().unwrap()).await.unwrap();
        self.stream.write_all(&bytes).await.unwrap();
    }

    async fn answer(&mut self) -> BTreeMap<u64, Value> {
        let read = async {
            let length = self.stream.read_u32().await?;
            let mut message = vec![0; length.try_into().unwrap()];
            self.stream.read_exact(&mut message).await.map(|_| message)
        };
        let message = timeout(PATIENCE, read).await.expect("an answer in time").unwrap();
        keys(&message)
    }

    async fn mint(&mut self, host: &str, cert: Option<&[u8]>) -> Minted {
        let id = self.ask(host, cert).await;
        let answer = self.answer().await;
        assert_eq!(
            (answer[&16].as_u64(), answer[&1].as_str()),
            (Some(id), Some(host)),
            "{answer:?}"
        );
        Minted::of(&answer)
    }

    /// The code and the text of an error.
    async fn refusal(&mut self, host: &str) -> (u64, String) {
        self.ask(host, None).await;
        refusal(&self.answer().await)
    }

    /// Whether the other side has closed.
    async fn is_closed(&mut self) -> bool {
        let read = timeout(PATIENCE, self.stream.read_u8()).await;
        read.expect("an end in time").is_err()
    }
}

fn refusal(answer: &BTreeMap<u64, Value>) -> (u64, String) {
    let text = answer.get(&19).and_then(Value::as_str).unwrap_or_default();
    (
        answer.get(&18).and_then(Value::as_u64).unwrap_or_default(),
        text.to_owned(),
    )
}

/// The one map in a message, all of whose keys are numbers.
fn keys(mut message: &[u8]) -> BTreeMap<u64, Value> {
    let value = rmpv::decode::read_value(&mut message).unwrap();
    assert!(message.is_empty(), "bytes follow the map");
    let pairs = value.as_map().unwrap().iter();
    pairs
        .map(|(key, value)| (key.as_u64().unwrap(), value.clone()))
        .collect()
}

/// A self-signed certificate that OpenSSL has made, in DER: what an upstream may show.
async fn upstream(args: &[&str]) -> Vec<u8> {
    let dir = tempfile::TempDir::new().unwrap();
    let (key, cert) = (dir.path().join("key"), dir.path().join("cert"));
    let (key, cert) = (key.display().to_string(), cert.display().to_string());
    let base = [
        "req", "-x509", "-nodes", "-keyout", &key, "-out", &cert, "-outform", "DER",
    ];
    output("openssl", &[&base[..], args].concat(), b"").await;
    fs::read(dir.path().join("cert")).unwrap()
}

/// What `openssl ca` needs to know.
const OPENSSL_CA: &str = "[ca]
default_ca = d
[d]
database = DIR/index.txt
new_certs_dir = DIR
rand_serial = yes
default_md = sha256
policy = p
[p]
commonName = supplied
";

const P256: [&str; 4] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];

#[tokio::test]
async fn a_ca_is_made_once_and_what_it_signs_is_trusted() {
    let group = Group::new(CONFIG);
    let told = init(&group).await;
    for said in ["CN = Sluice CA of ", "update-ca-certificates", "SHA-256"] {
        assert!(told.contains(said), "{told}");
    }
    let mode = |name| fs::metadata(group.dir().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("ca/ca.key"), mode("ca/ca.crt")), (0o600, 0o644));
    let key = fs::read(group.dir().join("ca/ca.key")).unwrap();
    let main_file = group.main_file().display().to_string();
    let again = sluicectl(["certgend", "ca", "init", "-c", &main_file]).await;
    assert_eq!(again.code, Some(1));
    assert!(again.stderr.contains("never overwritten"), "{again:?}");
    assert_eq!(fs::read(group.dir().join("ca/ca.key")).unwrap(), key);

    let certgend = group.daemon("certgend").start().await;
    let mut client = Client::connect(&group).await;
    for host in [
        "www.example.com",
        "*.example.com",
        "192.0.2.7",
        "2001:db8::1",
        "xn--bcher-kva.example",
    ] {
        client.mint(host, None).await.assert_good(&ca_file(&group), host).await;
    }
    let status = certgend.status().await;
    assert_eq!(
        (&status["minted"], &status["connections"]),
        (&json!(5), &json!(1)),
        "{status}"
    );
    certgend.stop().await.assert_clean();
}

#[tokio::test]
async fn an_rsa_ca_is_made_where_it_is_asked_for() {
    let group = Group::new(CONFIG);
    let main_file = group.main_file().display().to_string();
    let words = [
        "certgend",
        "ca",
        "init",
        "-c",
        &main_file,
        "--rsa",
        "--common-name",
        "Old Hands",
        "--days",
        "30",
    ];
    assert_eq!(sluicectl(words).await.code, Some(0));
    let text = output(
        "openssl",
        &["x509", "-noout", "-text", "-in", ca_file(&group).to_str().unwrap()],
        b"",
    )
    .await;
    for said in ["Public-Key: (3072 bit)", "CN = Old Hands", "CA:TRUE, pathlen:0"] {
        assert!(text.contains(said), "{text}");
    }
    let certgend = group.daemon("certgend").start().await;
    let minted = Client::connect(&group).await.mint("a.example", None).await;
    minted.assert_good(&ca_file(&group), "a.example").await;
    assert!(minted.ttl <= 30 * 86_400);
    certgend.stop().await.assert_clean();
}

#[tokio::test]
async fn certificates_of_all_kinds_are_mirrored() {
    let certgend = certgend(CONFIG).await;
    let ca = ca_file(certgend.group());
    let mut client = Client::connect(certgend.group()).await;
    let rsa = ["-newkey", "rsa:2048"];
    for (key, args, host, said) in [
        (
            &P256[..],
            &[
                "-subj",
                "/C=CH/O=Example/CN=www.example.com",
                "-addext",
                "subjectAltName=DNS:www.example.com",
            ][..],
            "www.example.com",
            "C = CH, O = Example, CN = www.example.com",
        ),
        (
            &rsa,
            &[
                "-subj",
                "/CN=rsa.example",
                "-addext",
                "subjectAltName=DNS:rsa.example",
                "-days",
                "90",
            ],
            "rsa.example",
            "Public-Key: (2048 bit)",
        ),
        (
            &P256,
            &[
                "-subj",
                "/CN=ip",
                "-addext",
                "subjectAltName=IP:192.0.2.7,IP:2001:db8::7",
            ],
            "192.0.2.7",
            "IP Address:192.0.2.7, IP Address:2001:DB8:0:0:0:0:0:7",
        ),
        (
            &P256,
            &[
                "-subj",
                "/CN=*.example.com",
                "-addext",
                "subjectAltName=DNS:*.example.com",
            ],
            "a.example.com",
            "DNS:*.example.com",
        ),
        (
            &P256,
            &[
                "-subj",
                "/O=Example/OU=one/OU=two/CN=units.example",
                "-addext",
                "subjectAltName=DNS:units.example",
            ],
            "units.example",
            "O = Example, OU = one, OU = two, CN = units.example",
        ),
        (
            &["-newkey", "ed25519"],
            &["-subj", "/CN=ed.example", "-addext", "subjectAltName=DNS:ed.example"],
            "ed.example",
            "ED25519",
        ),
        (
            &P256,
            &[
                "-subj",
                "/CN=usage.example",
                "-addext",
                "subjectAltName=DNS:usage.example",
                "-addext",
                "keyUsage=digitalSignature,keyCertSign",
                "-addext",
                "extendedKeyUsage=serverAuth,clientAuth",
            ],
            "usage.example",
            "TLS Web Server Authentication, TLS Web Client Authentication",
        ),
    ] {
        let cert = upstream(&[key, args].concat()).await;
        let minted = client.mint(host, Some(&cert)).await;
        minted.assert_good(&ca, host).await;
        let text = minted.text().await;
        assert!(text.contains(said), "{said}\n{text}");
        assert!(
            text.contains("CA:FALSE") && !text.contains("Certificate Sign"),
            "{text}"
        );
    }
    certgend.stop().await.assert_clean();
}

/// TLS-14.
#[tokio::test]
async fn validity_is_the_upstream_s_and_no_longer_than_allowed() {
    let certgend = certgend(CONFIG).await;
    let ca = ca_file(certgend.group());
    let mut client = Client::connect(certgend.group()).await;
    for (days, ttl) in [("1", 86_400), ("90", 86_400), ("3000", 86_400)] {
        let args = [
            "-subj",
            "/CN=a.example",
            "-addext",
            "subjectAltName=DNS:a.example",
            "-days",
            days,
        ];
        let cert = upstream(&[&P256[..], &args].concat()).await;
        let minted = client.mint("a.example", Some(&cert)).await;
        minted.assert_good(&ca, "a.example").await;
        assert!((ttl - 60..=ttl).contains(&minted.ttl), "{days}: {}", minted.ttl);
        // A certificate of ours that ends in more than 199 days would still be good then.
        let in_199_days = (199 * 86_400_u64).to_string();
        let check = Command::new("openssl")
            .args(["x509", "-noout", "-checkend", &in_199_days])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn();
        let mut check = check.unwrap();
        check
            .stdin
            .take()
            .unwrap()
            .write_all(minted.chain.as_bytes())
            .await
            .unwrap();
        assert!(
            !check.wait().await.unwrap().success(),
            "{days}\n{}",
            minted.text().await
        );
    }
    certgend.stop().await.assert_clean();
}

/// TLS-14, TLS-15.
#[tokio::test]
async fn an_expired_or_bare_upstream_is_mirrored_as_it_is() {
    let certgend = certgend(CONFIG).await;
    let ca = ca_file(certgend.group());
    let mut client = Client::connect(certgend.group()).await;
    let dir = tempfile::TempDir::new().unwrap();
    let key = dir.path().join("key").display().to_string();
    let cert = dir.path().join("cert").display().to_string();
    let config = dir.path().join("config").display().to_string();
    fs::write(&config, OPENSSL_CA.replace("DIR", &dir.path().display().to_string())).unwrap();
    fs::write(dir.path().join("index.txt"), "").unwrap();
    let (begin, end) = ("20200101000000Z", "20200201000000Z");
    let request = [
        "req",
        "-new",
        "-nodes",
        "-keyout",
        &key,
        "-out",
        &cert,
        "-subj",
        "/CN=old.example",
    ];
    output("openssl", &[&request[..], &P256[..]].concat(), b"").await;
    // No extension is asked for.
    let sign = [
        "ca",
        "-batch",
        "-selfsign",
        "-notext",
        "-config",
        &config,
        "-keyfile",
        &key,
        "-in",
        &cert,
    ];
    let old = output(
        "openssl",
        &[&sign[..], &["-startdate", begin, "-enddate", end]].concat(),
        b"",
    )
    .await;
    let der = dir.path().join("der");
    output(
        "openssl",
        &["x509", "-outform", "DER", "-out", &der.display().to_string()],
        old.as_bytes(),
    )
    .await;
    let minted = client.mint("old.example", Some(&fs::read(&der).unwrap())).await;
    assert_eq!(minted.ttl, 0);
    let fault = minted.fault(&ca, "old.example").await;
    assert!(fault.contains("certificate has expired"), "{fault}");
    let text = minted.text().await;
    assert!(
        text.contains("CN = old.example") && !text.contains("Alternative Name"),
        "{text}"
    );
    certgend.stop().await.assert_clean();
}

/// TLS-15.
#[tokio::test]
async fn certificates_between_the_ca_and_its_root_are_sent() {
    let group =
        Group::new("certgend: {backend: {ca_certificate: [ca/ca.crt, ca/root.crt], ca_private_key: ca/ca.key}}\n");
    let path = |name: &str| group.dir().join("ca").join(name).display().to_string();
    fs::create_dir(group.dir().join("ca")).unwrap();
    let (root, root_key, key, csr, cert) = (
        path("root.crt"),
        path("root.key"),
        path("ca.key"),
        path("ca.csr"),
        path("ca.crt"),
    );
    output(
        "openssl",
        &[
            &[
                "req",
                "-x509",
                "-nodes",
                "-keyout",
                &root_key,
                "-out",
                &root,
                "-subj",
                "/CN=Root",
                "-addext",
                "keyUsage=critical,keyCertSign",
            ],
            &P256[..],
        ]
        .concat(),
        b"",
    )
    .await;
    output(
        "openssl",
        &[
            &[
                "req",
                "-new",
                "-nodes",
                "-keyout",
                &key,
                "-out",
                &csr,
                "-subj",
                "/CN=Middle",
            ],
            &P256[..],
        ]
        .concat(),
        b"",
    )
    .await;
    let extensions = group.write_file("ca/ext", "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n");
    let extensions = extensions.display().to_string();
    output(
        "openssl",
        &[
            "x509",
            "-req",
            "-in",
            &csr,
            "-CA",
            &root,
            "-CAkey",
            &root_key,
            "-CAcreateserial",
            "-days",
            "30",
            "-extfile",
            &extensions,
            "-out",
            &cert,
        ],
        b"",
    )
    .await;
    let certgend = group.daemon("certgend").start().await;
    let minted = Client::connect(&group).await.mint("a.example", None).await;
    assert_eq!(minted.chain.matches("BEGIN CERTIFICATE").count(), 3);
    minted.assert_good(Path::new(&root), "a.example").await;
    certgend.stop().await.assert_clean();
}

/// TLS-15.
#[tokio::test]
async fn each_host_has_a_serial_of_its_own_and_the_same_wish_the_same_certificate() {
    let certgend = certgend(CONFIG).await;
    let mut client = Client::connect(certgend.group()).await;
    let cert = upstream(
        &[
            &P256[..],
            &["-subj", "/CN=a", "-addext", "subjectAltName=DNS:*.example"],
        ]
        .concat(),
    )
    .await;
    let mut serials = HashSet::new();
    for host in ["a.example", "b.example", "c.example"] {
        serials.insert(client.mint(host, Some(&cert)).await.serial().await);
    }
    assert_eq!(serials.len(), 3);
    assert!(serials.contains(&client.mint("a.example", Some(&cert)).await.serial().await));
    assert_eq!(certgend.status().await["from_cache"], 1);
    certgend.stop().await.assert_clean();
}

#[tokio::test]
async fn a_thousand_cold_hosts_at_once_are_all_answered_each_by_its_number() {
    let certgend = certgend(CONFIG).await;
    let mut client = Client::connect(certgend.group()).await;
    let mut asked = BTreeMap::new();
    for n in 0..1000 {
        let host = format!("h{n}.example");
        asked.insert(client.ask(&host, None).await, host);
    }
    for _ in 0..1000 {
        let answer = client.answer().await;
        let host = asked.remove(&answer[&16].as_u64().unwrap()).expect("asked once");
        assert_eq!(answer[&1].as_str(), Some(host.as_str()));
        assert!(answer.contains_key(&3), "{answer:?}");
    }
    certgend.stop().await.assert_clean();
}

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
