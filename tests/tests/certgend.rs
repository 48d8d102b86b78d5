//! certgend between others' msgpack and OpenSSL: the CA, and the certificates that it signs.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use serde_json::json;
use sluice_testkit::{Group, sluicectl};
use sluice_tests::minting::{CONFIG, Client, P256, ca_file, certgend, init, output, upstream};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

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
