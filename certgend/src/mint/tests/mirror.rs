//! What a certificate takes over from the upstream's, and what not.

use super::*;

#[test]
fn a_certificate_without_a_model_is_for_the_host_alone() {
    let bench = Bench::new("");
    for (host, names) in [
        ("www.example.com", ["www.example.com"]),
        ("WWW.Example.com.", ["www.example.com"]),
        ("*.example.com", ["*.example.com"]),
        ("192.0.2.7", ["[192, 0, 2, 7]"]),
        ("2001:db8::1", ["[32, 1, 13, 184, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]"]),
        ("bücher.example", ["xn--bcher-kva.example"]),
    ] {
        let leaf = bench.make(&MintRequest::new(host)).unwrap();
        assert_eq!(leaf.names(), names, "{host}");
        assert!(bench.verifies(&leaf.cert), "{host}");
        assert_eq!(leaf.key.id(), Id::EC);
        for said in [
            "CA:FALSE",
            "TLS Web Server Authentication",
            "Key Agreement",
            "X509v3 Authority Key",
        ] {
            assert!(leaf.text.contains(said), "{said}\n{}", leaf.text);
        }
        assert!((198 * DAY - 60..=198 * DAY).contains(&leaf.left()), "{}", leaf.text);
    }
    let long = format!("{}.example", "a".repeat(60));
    let leaf = bench.make(&MintRequest::new(long.as_str())).unwrap();
    assert_eq!((leaf.subject(), leaf.names()), (vec![], vec![long]));
    assert!(bench.verifies(&leaf.cert));
}

#[test]
fn what_is_no_host_gets_no_certificate() {
    let bench = Bench::new("");
    for host in ["a b", "*", "*.*.example", "a/b", &"a.".repeat(200)] {
        let error = bench.make(&MintRequest::new(host)).err().unwrap();
        assert_eq!(error.code, ErrorCode::BadRequest, "{host}");
    }
}

#[test]
fn a_mirrored_certificate_says_what_the_upstream_s_says() {
    let bench = Bench::new("");
    let upstream = Upstream::default().make();
    let leaf = bench.mirror(&upstream, "www.example.com");
    assert_eq!(leaf.subject(), subject(&upstream));
    assert_eq!(leaf.names(), ["www.example.com", "example.com"]);
    assert_eq!(leaf.cert.not_after(), upstream.not_after());
    assert_eq!(leaf.cert.not_before(), upstream.not_before());
    assert!(bench.verifies(&leaf.cert), "{}", leaf.text);
    assert!(leaf.text.contains("TLS Web Client Authentication"), "{}", leaf.text);
    assert_eq!(
        leaf.cert.authority_key_id().unwrap().as_slice(),
        bench.ca.subject_key_id().unwrap().as_slice()
    );
    assert_ne!(
        leaf.cert.subject_key_id().unwrap().as_slice(),
        upstream.subject_key_id().unwrap().as_slice()
    );
    assert_ne!(
        leaf.cert.serial_number().to_bn().unwrap(),
        upstream.serial_number().to_bn().unwrap()
    );
}

#[test]
fn no_mirrored_certificate_is_a_ca() {
    let bench = Bench::new("");
    let leaf = bench.mirror(&Upstream::default().make(), "www.example.com");
    assert!(
        leaf.text.contains("CA:FALSE") && !leaf.text.contains("Certificate Sign"),
        "{}",
        leaf.text
    );
    assert_eq!(leaf.fallback, ["key_usage"]);
}

#[test]
fn a_bare_certificate_is_mirrored_bare() {
    let bench = Bench::new("");
    let upstream = Upstream {
        bare: true,
        ..Upstream::default()
    };
    let leaf = bench.mirror(&upstream.make(), "www.example.com");
    assert_eq!(leaf.subject(), subject(&upstream.make()));
    for absent in ["Alternative Name", "Key Usage", "Key Identifier"] {
        assert!(!leaf.text.contains(absent), "{}", leaf.text);
    }
    assert!(bench.verifies(&leaf.cert) && leaf.fallback.is_empty());
}

#[test]
fn the_kind_of_the_key_is_mirrored() {
    let bench = Bench::new("");
    let rsa = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
    for (key, id, bits, fallback) in [
        (rsa, Id::RSA, 2048, vec!["key_usage"]),
        (ec_key(Nid::SECP384R1), Id::EC, 256, vec!["key_usage"]),
        (PKey::generate_ed25519().unwrap(), Id::ED25519, 256, vec!["key_usage"]),
    ] {
        let upstream = Upstream {
            key,
            ..Upstream::default()
        };
        let leaf = bench.mirror(&upstream.make(), "www.example.com");
        assert_eq!((leaf.key.id(), leaf.fallback.clone()), (id, fallback));
        assert_eq!(leaf.key.bits(), if id == Id::ED25519 { leaf.key.bits() } else { bits });
        assert!(bench.verifies(&leaf.cert), "{}", leaf.text);
    }
}

#[test]
fn a_key_that_can_not_be_mirrored_is_replaced_and_noted() {
    let bench = Bench::new("");
    let mut builder = X509::builder().unwrap();
    let key = PKey::generate_x25519().unwrap();
    builder.set_pubkey(&key).unwrap();
    builder.set_subject_name(&name_of(&[("CN", "x")])).unwrap();
    builder
        .set_not_before(&Asn1Time::from_unix(now() - DAY).unwrap())
        .unwrap();
    builder
        .set_not_after(&Asn1Time::from_unix(now() + DAY).unwrap())
        .unwrap();
    let ec = ec_key(Nid::X9_62_PRIME256V1);
    builder.sign(&ec, MessageDigest::sha256()).unwrap();
    let leaf = bench.mirror(&builder.build(), "x.example");
    assert_eq!((leaf.key.id(), leaf.fallback), (Id::EC, vec!["key_type"]));
}

#[test]
fn what_is_no_certificate_gets_one_for_the_host() {
    let bench = Bench::new("");
    for cert in [Certificate::Der(vec![1, 2, 3]), Certificate::Pem("nonsense".to_owned())] {
        let request = MintRequest {
            cert: Some(cert),
            ..MintRequest::new("a.example")
        };
        let leaf = bench.make(&request).unwrap();
        assert_eq!(
            (leaf.names(), leaf.fallback),
            (vec!["a.example".to_owned()], vec!["certificate"])
        );
    }
}

#[test]
fn names_that_some_clients_cut_short_are_left_out() {
    let bench = Bench::new("");
    let upstream = Upstream {
        names: &["a.example", "bank.exampleX.a.example"],
        ..Upstream::default()
    };
    let mut der = upstream.make().to_der().unwrap();
    let at = der.windows(13).position(|bytes| bytes == b"bank.exampleX").unwrap();
    der[at + 12] = 0;
    let request = MintRequest {
        cert: Some(Certificate::Der(der)),
        ..MintRequest::new("a.example")
    };
    let leaf = bench.make(&request).unwrap();
    assert_eq!(leaf.names(), ["a.example"]);
    assert_eq!(leaf.fallback, ["subject_alt_name", "key_usage"]);
}

#[test]
fn a_mangled_certificate_never_does_harm() {
    let corpus = "../fuzz/corpus/certgend_mirror";
    let mut seeds = 0;
    for seed in fs::read_dir(corpus).unwrap() {
        properties::certificate(&fs::read(seed.unwrap().path()).unwrap());
        seeds += 1;
    }
    assert!(seeds >= 8, "{seeds}");
    let upstream = Upstream::default().make().to_der().unwrap();
    for at in 0..upstream.len() {
        properties::certificate(&upstream[..at]);
        for flip in [0x01, 0x80, 0xff] {
            let mut der = upstream.clone();
            der[at] ^= flip;
            properties::certificate(&der);
        }
    }
}

#[test]
fn a_certificate_as_pem_is_mirrored_too() {
    let bench = Bench::new("");
    let pem = Upstream::default().make().to_pem().unwrap();
    let request = MintRequest {
        cert: Some(Certificate::Pem(String::from_utf8(pem).unwrap())),
        ..MintRequest::new("www.example.com")
    };
    assert_eq!(bench.make(&request).unwrap().names().len(), 2);
}

#[test]
fn a_subject_that_rcgen_can_not_hold_is_kept_by_openssl() {
    let bench = Bench::new("");
    let subject_of_two: &[(&str, &str)] = &[("O", "Example"), ("OU", "one"), ("OU", "two"), ("CN", "a.example")];
    let upstream = Upstream {
        subject: subject_of_two,
        ..Upstream::default()
    };
    let leaf = bench.mirror(&upstream.make(), "a.example");
    assert_eq!(leaf.subject(), subject(&upstream.make()));
    assert!(bench.verifies(&leaf.cert), "{}", leaf.text);
    assert!(leaf.text.contains("CA:FALSE") && leaf.text.contains("DNS:example.com"));
}
