//! A group with a CA, and a client of certgend by another's msgpack.

#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rmpv::Value;
use sluice_testkit::{Daemon, Group, sluicectl};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::Command;
use tokio::time::timeout;

/// No answer takes longer, an RSA key in a debug build included.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// So long nothing may come where nothing shall.
pub const SILENCE: Duration = Duration::from_millis(300);

/// The code of the error that there is no CA.
pub const NO_CA: u64 = 1;

/// Of a host that is never minted.
pub const NEVER_MINT: u64 = 2;

/// Of too many requests.
pub const OVER_RATE: u64 = 3;

/// Of what is no request.
pub const BAD_REQUEST: u64 = 4;

/// A CA in the folder of the group.
pub const CONFIG: &str = "certgend: {backend: {ca_certificate: ca/ca.crt, ca_private_key: ca/ca.key}}\n";

/// A group with a CA that `sluicectl` has made.
pub async fn group(yaml: &str) -> Group {
    let group = Group::new(yaml);
    init(&group).await;
    group
}

/// Makes the CA; what is said about it.
pub async fn init(group: &Group) -> String {
    let done = sluicectl(["certgend", "ca", "init", "-c", &group.main_file().display().to_string()]).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    done.stdout
}

/// certgend with a CA.
pub async fn certgend(yaml: &str) -> Daemon {
    group(yaml).await.daemon("certgend").start().await
}

/// Where the CA's certificate is.
pub fn ca_file(group: &Group) -> PathBuf {
    group.dir().join("ca/ca.crt")
}

/// A program's standard output; it must end well.
pub async fn output(program: &str, args: &[&str], stdin: &[u8]) -> String {
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
pub struct Minted {
    /// In PEM.
    pub chain: String,
    /// In DER.
    pub key: Vec<u8>,
    /// In seconds.
    pub ttl: u64,
}

impl Minted {
    /// What an answer holds.
    pub fn of(answer: &BTreeMap<u64, Value>) -> Self {
        Self {
            chain: answer[&3].as_str().unwrap_or_else(|| panic!("{answer:?}")).to_owned(),
            key: answer[&4].as_slice().unwrap().to_vec(),
            ttl: answer[&5].as_u64().unwrap(),
        }
    }

    /// As `openssl x509` shows it.
    pub async fn text(&self) -> String {
        output("openssl", &["x509", "-noout", "-text"], self.chain.as_bytes()).await
    }

    /// Its serial, as `openssl x509` shows it.
    pub async fn serial(&self) -> String {
        output("openssl", &["x509", "-noout", "-serial"], self.chain.as_bytes()).await
    }

    /// Asserts that the key is the certificate's, and that `openssl verify` trusts the chain for this host.
    pub async fn assert_good(&self, ca: &Path, host: &str) {
        let error = self.fault(ca, host).await;
        assert_eq!(error, "", "{host}\n{}", self.text().await);
        let public = output("openssl", &["x509", "-noout", "-pubkey"], self.chain.as_bytes()).await;
        let of_key = output("openssl", &["pkey", "-inform", "DER", "-pubout"], &self.key).await;
        assert_eq!(public, of_key, "{host}");
    }

    /// What `openssl verify` says against the chain.
    pub async fn fault(&self, ca: &Path, host: &str) -> String {
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
pub struct Client {
    /// To be written to directly, too.
    pub stream: UnixStream,
    /// The number of the last request.
    pub next: u64,
}

impl Client {
    /// Connects to the socket of the group.
    pub async fn connect(group: &Group) -> Self {
        let stream = UnixStream::connect(group.runtime_dir().join("certgend.mint")).await;
        Self {
            stream: stream.unwrap(),
            next: 0,
        }
    }

    /// Sends a request; returns its number.
    pub async fn ask(&mut self, host: &str, cert: Option<&[u8]>) -> u64 {
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

    /// Sends a message with its length.
    pub async fn send(&mut self, message: &Value) {
        let mut bytes = Vec::new();
        rmpv::encode::write_value(&mut bytes, message).unwrap();
        self.stream.write_u32(bytes.len().try_into().unwrap()).await.unwrap();
        self.stream.write_all(&bytes).await.unwrap();
    }

    /// The next answer, by the numbers of its keys.
    pub async fn answer(&mut self) -> BTreeMap<u64, Value> {
        let read = async {
            let length = self.stream.read_u32().await?;
            let mut message = vec![0; length.try_into().unwrap()];
            self.stream.read_exact(&mut message).await.map(|_| message)
        };
        let message = timeout(PATIENCE, read).await.expect("an answer in time").unwrap();
        keys(&message)
    }

    /// Has a certificate made.
    pub async fn mint(&mut self, host: &str, cert: Option<&[u8]>) -> Minted {
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
    pub async fn refusal(&mut self, host: &str) -> (u64, String) {
        self.ask(host, None).await;
        refusal(&self.answer().await)
    }

    /// Whether the other side has closed.
    pub async fn is_closed(&mut self) -> bool {
        let read = timeout(PATIENCE, self.stream.read_u8()).await;
        read.expect("an end in time").is_err()
    }
}

/// The code and the text of an error.
pub fn refusal(answer: &BTreeMap<u64, Value>) -> (u64, String) {
    let text = answer.get(&19).and_then(Value::as_str).unwrap_or_default();
    (
        answer.get(&18).and_then(Value::as_u64).unwrap_or_default(),
        text.to_owned(),
    )
}

/// The one map in a message, all of whose keys are numbers.
pub fn keys(mut message: &[u8]) -> BTreeMap<u64, Value> {
    let value = rmpv::decode::read_value(&mut message).unwrap();
    assert!(message.is_empty(), "bytes follow the map");
    let pairs = value.as_map().unwrap().iter();
    pairs
        .map(|(key, value)| (key.as_u64().unwrap(), value.clone()))
        .collect()
}

/// A self-signed certificate that OpenSSL has made, in DER: what an upstream may show.
pub async fn upstream(args: &[&str]) -> Vec<u8> {
    let dir = tempfile::TempDir::new().unwrap();
    let (key, cert) = (dir.path().join("key"), dir.path().join("cert"));
    let (key, cert) = (key.display().to_string(), cert.display().to_string());
    let base = [
        "req", "-x509", "-nodes", "-keyout", &key, "-out", &cert, "-outform", "DER",
    ];
    output("openssl", &[&base[..], args].concat(), b"").await;
    fs::read(dir.path().join("cert")).unwrap()
}

/// The options of `openssl req` for such a key.
pub const P256: [&str; 4] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];
