use super::*;

fn absolute(raw: &str) -> Absolute<'_> {
    match Target::parse(Method::Get, raw) {
        Ok(Target::Absolute(url)) => url,
        other => panic!("{raw}: {other:?}"),
    }
}

#[test]
fn urls_are_taken_apart_h1_19() {
    let cases = [
        ("http://a/b?c", "a", false, 80, "/b?c"),
        ("https://a", "a", false, 443, ""),
        ("FTP://a/", "a", false, 21, "/"),
        ("http://a:/", "a", false, 80, "/"),
        ("http://A.b-c_d~e.:8080?q", "A.b-c_d~e.", false, 8080, "?q"),
        ("http://[::1]:8080/", "::1", true, 8080, "/"),
        ("https://[::ffff:10.0.0.1]", "::ffff:10.0.0.1", true, 443, ""),
        ("http://127.0.0.1/@:x", "127.0.0.1", false, 80, "/@:x"),
        ("http://a?u@b/", "a", false, 80, "?u@b/"),
    ];
    for (raw, host, is_ipv6, port, path) in cases {
        let url = absolute(raw);
        assert_eq!(
            (url.authority.host, url.authority.is_ipv6, url.port(), url.path),
            (host, is_ipv6, port, path)
        );
    }
}

#[test]
fn userinfo_is_found_and_never_written_for_http() {
    let url = absolute("http://u:p%40@a:81/x");
    assert_eq!((url.userinfo, url.authority.text), (Some("u:p%40"), "a:81"));
    let mut out = Vec::new();
    url.put_absolute_form(Method::Get, &mut out);
    assert_eq!(out, b"http://a:81/x");
    out.clear();
    absolute("ftp://u:p@a/x").put_absolute_form(Method::Get, &mut out);
    assert_eq!(out, b"ftp://u:p@a/x");
}

#[test]
fn forms_follow_the_method_h1_01() {
    assert_eq!(Target::parse(Method::Options, "*"), Ok(Target::Asterisk));
    assert_eq!(Target::parse(Method::Get, "*"), Err(TargetError::Malformed));
    assert_eq!(Target::parse(Method::Get, "/a?b"), Ok(Target::Origin("/a?b")));
    assert_eq!(Target::parse(Method::Get, "//a"), Ok(Target::Origin("//a")));
    assert_eq!(Target::parse(Method::Connect, "/a"), Err(TargetError::BadHost));
    let Ok(Target::Authority(authority)) = Target::parse(Method::Connect, "[2001:db8::1]:443") else {
        panic!("no authority");
    };
    assert_eq!((authority.host, authority.port), ("2001:db8::1", Some(443)));
    assert!(matches!(
        Target::parse(Method::Connect, "a"),
        Ok(Target::Authority(Authority { port: None, .. }))
    ));
}

#[test]
fn targets_are_written_for_origin_and_parent_h1_01() {
    let written = |method, raw| {
        let (mut origin, mut parent) = (Vec::new(), Vec::new());
        absolute(raw).put_origin_form(method, &mut origin);
        absolute(raw).put_absolute_form(method, &mut parent);
        (String::from_utf8(origin).unwrap(), String::from_utf8(parent).unwrap())
    };
    let pair = |origin: &str, parent: &str| (origin.to_owned(), parent.to_owned());
    assert_eq!(written(Method::Options, "http://o"), pair("*", "http://o"));
    assert_eq!(written(Method::Options, "http://o/"), pair("/", "http://o/"));
    assert_eq!(written(Method::Options, "http://o?q"), pair("/?q", "http://o/?q"));
    assert_eq!(written(Method::Get, "http://o"), pair("/", "http://o/"));
    assert_eq!(written(Method::Get, "HTTP://o:80/a?b"), pair("/a?b", "http://o:80/a?b"));
}

#[test]
fn an_upstream_has_one_form_h1_20() {
    let upstream = |text| {
        Authority::parse(text)
            .unwrap()
            .to_upstream(80)
            .map(|upstream| upstream.to_string())
    };
    assert_eq!(upstream("[::ffff:10.0.0.1]:81"), Ok("10.0.0.1:81".to_owned()));
    assert_eq!(upstream("[2001:DB8::1]"), Ok("[2001:db8::1]:80".to_owned()));
    assert_eq!(upstream("EXAMPLE.com."), Ok("example.com:80".to_owned()));
    assert_eq!(upstream("a..b"), Err(TargetError::BadHost));
}

#[test]
fn ports_are_written_for_connect() {
    let written = |text, default_port| {
        let mut out = Vec::new();
        Authority::parse(text).unwrap().put_with_port(default_port, &mut out);
        String::from_utf8(out).unwrap()
    };
    assert_eq!(written("a", 443), "a:443");
    assert_eq!(written("a:", 443), "a:443");
    assert_eq!(written("[::1]", 443), "[::1]:443");
    assert_eq!(written("[::1]:0080", 443), "[::1]:80");
}

#[test]
fn passwords_do_not_show() {
    let shown = |raw: &str, max| Redacted::new(raw, max).to_string();
    assert_eq!(shown("http://u:secret@a/b", 99), "http://u:***@a/b");
    assert_eq!(shown("http://u:se@cret@a/b", 99), "http://u:***@a/b");
    assert_eq!(shown("http://u@a/b:c@d", 99), "http://u@a/b:c@d");
    assert_eq!(shown("http://a/b?x=u:p@c", 99), "http://a/b?x=u:p@c");
    assert_eq!(shown("http://u:secret@a/b", 12), "http://u:***");
    assert_eq!(shown("http://u:secret@a/b", 9), "http://u:");
    assert_eq!(shown("/äöü", 2), "/ä");
    assert_eq!(shown("a:443", 99), "a:443");
}
