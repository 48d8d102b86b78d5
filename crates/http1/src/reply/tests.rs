use super::*;

#[test]
fn a_page_is_as_long_as_it_says() {
    for status in [400, 407, 431, 502, 521, 522, 523, 525, 530, 599] {
        let mut out = Vec::new();
        Reply::closing(status).put(&mut out);
        let text = String::from_utf8(out).unwrap();
        let (head, page) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} {}\r\n", reason(status))));
        assert!(head.contains(&format!("Content-Length: {}\r\n", page.len())), "{text}");
        assert!(head.ends_with("Connection: close"));
        assert_eq!(page.matches(&format!("{status} {}", reason(status))).count(), 2);
    }
}

#[test]
fn a_kept_connection_and_head_and_more_lines() {
    let mut extra = Vec::new();
    put_basic_challenge(&mut extra, Challenge::Proxy, "a \"b\" \\").unwrap();
    let mut out = Vec::new();
    let reply = Reply {
        status: 407,
        connection: Connection::Implied,
        head_only: true,
        extra: &extra,
    };
    reply.put(&mut out);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Type: text/html\r\nContent-Length: 130\r\n\
         Proxy-Authenticate: Basic realm=\"a \\\"b\\\" \\\\\"\r\n\r\n"
    );
}

#[test]
fn a_realm_with_a_line_end_is_refused_h1_16() {
    let mut out = Vec::new();
    assert!(put_basic_challenge(&mut out, Challenge::Origin, "a\r\nX: b").is_err());
    assert!(out.is_empty());
    put_basic_challenge(&mut out, Challenge::Origin, "my realm").unwrap();
    assert_eq!(out, b"WWW-Authenticate: Basic realm=\"my realm\"\r\n");
}

#[test]
fn the_answer_to_connect_carries_headers_and_no_framing_cu_01() {
    let mut out = Vec::new();
    put_connected(b"X-BD-Remote-Connection-Info: p\r\n", &mut out);
    assert_eq!(
        out,
        b"HTTP/1.1 200 Connection established\r\nX-BD-Remote-Connection-Info: p\r\n\r\n"
    );
}
