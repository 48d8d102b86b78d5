//! What the CA sees to whatever the upstream says: times, serials, usages, hosts that are never minted, its own chain.

use super::*;

#[test]
fn a_ca_of_any_kind_signs_and_is_named_as_it_is() {
    let rsa = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
    let keys = [
        rsa,
        ec_key(Nid::SECP384R1),
        ec_key(Nid::SECP521R1),
        PKey::generate_ed25519().unwrap(),
    ];
    for key in keys {
        let parts = CaParts {
            key,
            subject: &[("O", "Sluice"), ("OU", "one"), ("OU", "two"), ("CN", "CA")],
            ..CaParts::default()
        };
        let bench = Bench::with(&parts, "");
        let leaf = bench.mirror(&Upstream::default().make(), "www.example.com");
        assert!(bench.verifies(&leaf.cert), "{}", leaf.text);
        let parts = CaParts {
            subject: CaParts::default().subject,
            ..parts
        };
        let bench = Bench::with(&parts, "");
        let leaf = bench.make(&MintRequest::new("a.example")).unwrap();
        assert!(bench.verifies(&leaf.cert), "{}", leaf.text);
    }
}

#[test]
fn validity_and_ttl_count_days_of_86400_seconds() {
    let bench = Bench::new(", max_ttl: 100000000\n  max_validity: 199d");
    for (days, ttl) in [(1, DAY), (90, 90 * DAY), (500, 198 * DAY)] {
        let upstream = Upstream {
            valid: (-DAY, days * DAY),
            ..Upstream::default()
        };
        let leaf = bench.mirror(&upstream.make(), "www.example.com");
        let request = mirroring(&upstream.make(), "www.example.com");
        let done = bench.mint.make(&request, now(), &bench.keys, &bench.stats).unwrap();
        let told = i64::from(sent(&done.ready, now(), bench.mint.max_ttl).ttl);
        assert!((ttl - 60..=ttl).contains(&told), "{days}: {told}");
        assert!((ttl - 60..=ttl).contains(&leaf.left()), "{}", leaf.text);
    }
}

#[test]
fn an_expired_certificate_is_mirrored_as_expired_and_is_not_to_be_kept() {
    let bench = Bench::new("");
    for (begin, end) in [(-400, -2), (-30, -1), (2, 30), (2, 400)] {
        let upstream = Upstream {
            valid: (begin * DAY, end * DAY),
            ..Upstream::default()
        };
        let leaf = bench.mirror(&upstream.make(), "www.example.com");
        assert!(!bench.verifies(&leaf.cert), "{begin} {end}");
        let whole = leaf.cert.not_before().diff(leaf.cert.not_after()).unwrap();
        assert!(whole.days <= 199, "{begin} {end}");
        let done = bench
            .mint
            .make(
                &mirroring(&upstream.make(), "www.example.com"),
                now(),
                &bench.keys,
                &bench.stats,
            )
            .unwrap();
        assert_eq!(sent(&done.ready, now(), u32::MAX).ttl == 0, end < 0);
    }
}

#[test]
fn no_certificate_outlives_its_ca() {
    let parts = CaParts {
        valid: (-DAY, 10 * DAY),
        ..CaParts::default()
    };
    let bench = Bench::with(&parts, "");
    let leaf = bench.mirror(&Upstream::default().make(), "www.example.com");
    assert_eq!(leaf.cert.not_after(), bench.ca.not_after());
    let parts = CaParts {
        valid: (-10 * DAY, -DAY),
        ..CaParts::default()
    };
    let error = Bench::with(&parts, "")
        .make(&MintRequest::new("a.example"))
        .err()
        .unwrap();
    assert_eq!(error.code, ErrorCode::NoCa);
    assert!(error.text.contains("expired"), "{}", error.text);
}

#[test]
fn each_certificate_has_a_serial_of_its_own_unless_it_is_to_be_kept() {
    let bench = Bench::new("");
    let serial = |leaf: Leaf| {
        leaf.cert
            .serial_number()
            .to_bn()
            .unwrap()
            .to_hex_str()
            .unwrap()
            .to_string()
    };
    let upstream = Upstream::default().make();
    let all: std::collections::HashSet<String> = ["a.example", "b.example", "a.example"]
        .map(|host| serial(bench.mirror(&upstream, host)))
        .into();
    assert_eq!(all.len(), 3);
    let bench = Bench::new(", keep_serial: true");
    assert_eq!(serial(bench.mirror(&upstream, "a.example")), "1234");
    assert_ne!(serial(bench.make(&MintRequest::new("a.example")).unwrap()), "1234");
}

#[test]
fn usages_choose_the_key_usage() {
    let bench = Bench::new("");
    let mut request = mirroring(&Upstream::default().make(), "www.example.com");
    for (usage, said) in [
        (Usage::TlsServer, "Digital Signature\n"),
        (
            Usage::TlsServerTongsuo,
            "Digital Signature, Key Encipherment, Key Agreement\n",
        ),
        (Usage::TlcpServerSignature, "Digital Signature, Non Repudiation\n"),
        (
            Usage::TlcpServerEncryption,
            "Key Encipherment, Data Encipherment, Key Agreement\n",
        ),
    ] {
        request.usage = usage;
        let leaf = bench.make(&request).unwrap();
        assert!(
            leaf.text
                .contains(&format!("X509v3 Key Usage: critical\n                {said}")),
            "{}",
            leaf.text
        );
    }
}

#[test]
fn hosts_that_are_never_minted_are_refused_and_not_slipped_in_beside_others() {
    let bench = Bench::new("\n  never_mint: [bank.example, 192.0.2.0/24]");
    for host in [
        "bank.example",
        "www.BANK.example",
        "*.bank.example",
        "*.example",
        "192.0.2.9",
    ] {
        assert_eq!(
            bench.make(&MintRequest::new(host)).err().unwrap().code,
            ErrorCode::NeverMint,
            "{host}"
        );
    }
    let shared = Upstream {
        names: &["cdn.example", "bank.example", "*.example", "192.0.2.9", "198.51.100.1"],
        ..Upstream::default()
    };
    let leaf = bench.mirror(&shared.make(), "cdn.example");
    assert_eq!(leaf.names(), ["cdn.example", "[198, 51, 100, 1]"]);
    assert!(leaf.fallback.contains(&"never_mint"));
    let only = Upstream {
        names: &["bank.example"],
        ..Upstream::default()
    };
    let error = bench.make(&mirroring(&only.make(), "cdn.example")).err().unwrap();
    assert_eq!(error.code, ErrorCode::NeverMint);
    let by_common_name = Upstream {
        subject: &[("CN", "bank.example")],
        bare: true,
        ..Upstream::default()
    };
    let error = bench
        .make(&mirroring(&by_common_name.make(), "cdn.example"))
        .err()
        .unwrap();
    assert_eq!(error.code, ErrorCode::NeverMint);
}

#[test]
fn the_chain_of_the_ca_follows_the_leaf_unless_it_shall_not() {
    let certificates = |bench: &Bench| {
        let done = bench
            .mint
            .make(&MintRequest::new("a.example"), now(), &bench.keys, &bench.stats)
            .unwrap();
        X509::stack_from_pem(done.ready.chain.as_bytes()).unwrap()
    };
    let bench = Bench::new("");
    let chain = certificates(&bench);
    assert_eq!(chain.len(), 2);
    assert_eq!(chain[1].to_der().unwrap(), bench.ca.to_der().unwrap());
    assert_eq!(certificates(&Bench::new(", no_append_ca_cert: true")).len(), 1);
}

#[test]
fn a_ca_that_is_wrong_is_told_by_what_is_wrong() {
    let bench = Bench::new("");
    let folder = bench._folder.path();
    let key = folder.join("ca.key");
    let told = |may_lack| {
        let (config, load) = checked(folder, "");
        match Mint::build(&config, may_lack) {
            Ok(mint) => mint.ca().err().unwrap_or_default().to_owned(),
            Err(error) => {
                // Who checks the file is told, too, and where.
                let found = load.finish().err().map(|errors| errors.to_string()).unwrap_or_default();
                assert_eq!(
                    !error.is_absence(),
                    found.contains(&format!("{}: ", error.key())),
                    "{found}"
                );
                format!("! {error}")
            }
        }
    };
    assert_eq!(told(false), "");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(
        told(true).starts_with("! `certgend.backend.ca_private_key`: `"),
        "{}",
        told(true)
    );
    assert!(told(true).contains("has mode 0640"), "{}", told(true));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&key, "nonsense").unwrap();
    assert!(told(true).contains("no private key"), "{}", told(true));
    let other = ec_key(Nid::X9_62_PRIME256V1);
    fs::write(&key, other.private_key_to_pem_pkcs8().unwrap()).unwrap();
    assert!(told(true).contains("does not belong"), "{}", told(true));
    let sealed = other
        .private_key_to_pem_pkcs8_passphrase(openssl::symm::Cipher::aes_128_cbc(), b"secret")
        .unwrap();
    fs::write(&key, sealed).unwrap();
    assert!(told(true).contains("encrypted"), "{}", told(true));
    fs::remove_file(&key).unwrap();
    assert!(
        told(true).starts_with("`certgend.backend.ca_private_key`: there is no"),
        "{}",
        told(true)
    );
    assert!(told(false).starts_with('!'));
}
