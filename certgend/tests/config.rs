//! What the daemon's own section may say.

use sluice_testkit::{Exited, check_config};

fn check(main: &str) -> Exited {
    check_config(env!("CARGO_BIN_EXE_certgend"), main)
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let ca = "ca_certificate: a.crt, ca_private_key: a.key";
    for (main, place, message) in [
        ("certgend: {no_such_key: 1}", "1:", "no_such_key"),
        ("certgend:\n  backend: {ca_certificate: a.crt}", "2:", "ca_private_key"),
        (
            "certgend:\n  backend:\n    ca_certificate: a.crt\n    ca_private_key: '--BEGIN'",
            "4:",
            "the key itself may not stand here",
        ),
        (
            "certgend:\n  never_mint: ['a b']",
            "2:",
            "expected a domain, an address or a network",
        ),
        ("certgend:\n  mint_rate: fast", "2:", "mint_rate"),
        ("certgend:\n  max_validity: 0s", "2:", "never valid"),
        ("certgend:\n  allow_uid: no-such-user", "2:", "allow_uid"),
        (
            &format!("backend: {{{ca}}}\nserver: []"),
            "2:",
            "unknown section `server`",
        ),
        (&format!("backend: {{{ca}, max_ttl: long}}"), "1:", "max_ttl"),
    ] {
        let checked = check(main);
        let told = checked.stderr;
        assert_eq!(checked.code, Some(78), "{main}: {told}");
        assert!(
            told.contains(&format!("main.yml:{place}")) && told.contains(message),
            "{main}: {told}"
        );
    }
}

#[test]
fn what_is_good_is_good() {
    for main in [
        "{}",
        "certgend:",
        "certgend: {log: stdout, stat: {prefix: x}, runtime: {task_wait_timeout: 1s}}",
        "certgend: {backend: {ca_certificate: [a.crt, b.crt], ca_private_key: a.key, keep_serial: true, max_ttl: 60}}",
        "certgend: {allow_uid: [root, 7], cache_size: 0, max_validity: 90d, mint_rate: 100/s, never_mint: [a.test, 10.0.0.0/8]}",
        "backend: {ca_certificate: a.crt, ca_private_key: a.key, duration_metrics: 5s}\nworker: {threads_total: 2}\n---\nruntime:\n",
    ] {
        let checked = check(main);
        assert_eq!(checked.code, Some(0), "{main}: {}", checked.stderr);
    }
}
