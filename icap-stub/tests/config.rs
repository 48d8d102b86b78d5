//! What the daemon's own section may say.

use sluice_testkit::{Exited, check_config};

fn check(main: &str) -> Exited {
    check_config(env!("CARGO_BIN_EXE_icap-stub"), main)
}

#[test]
fn what_would_do_nothing_is_refused_with_its_place() {
    let with = |rule: &str| format!("icap_stub: {{listen: \"127.0.0.1:0\", services: [{{name: a, rules: [{rule}]}}]}}");
    for (main, told) in [
        (
            with("{page: x}"),
            "services[0] `a`.rules[0].page: needs `answer: block`",
        ),
        (with("{set_header: \"X: y\"}"), "needs `answer: echo`"),
        (with("{answer: block, replace_body: x}"), "needs `answer: echo`"),
        (with("{status: 500}"), "needs `answer: block` or `answer: fail`"),
        (with("{answer: block, status: 204}"), "not a status of a page"),
        (with("{answer: fail, status: 200}"), "not an ICAP error"),
        (with("{answer: echo, set_header: nonsense}"), "a header line such as"),
        (with("{answer: sleep}"), "sleep"),
        ("icap_stub: {services: {name: a}}".into(), "needs `listen`"),
        ("icap_stub: {listen: nowhere}".into(), "nowhere"),
        (
            "icap_stub: {listen: \"127.0.0.1:0\", services: [{name: a}, {name: a}]}".into(),
            "another service has this name",
        ),
        ("icap_stub: {no_such_key: 1}".into(), "no_such_key"),
    ] {
        let checked = check(&main);
        let said = checked.stderr;
        assert_eq!(checked.code, Some(78), "{main}: {said}");
        assert!(said.contains(told), "{main}: {said}");
    }
}

#[test]
fn a_file_without_the_section_and_one_with_common_keys_are_good() {
    for main in [
        "{}",
        "icap_stub:",
        "icap_stub: {log: stdout, stat: {prefix: x}, runtime: {task_wait_timeout: 1s}}",
        "icap_stub: {listen: [\"127.0.0.1:0\", /tmp/icap.sock], services: [{name: a, preview: none, methods: reqmod}]}",
    ] {
        let checked = check(main);
        assert_eq!(checked.code, Some(0), "{main}: {}", checked.stderr);
    }
}
