use super::*;

#[test]
fn forbidden_names_fit_the_buffer_for_names() {
    assert_eq!(FORBIDDEN.iter().map(|name| name.len()).max(), Some(LONGEST_FORBIDDEN));
}

#[test]
fn chunk_sizes_are_written_in_full() {
    for (size, text) in [
        (1, "1"),
        (9, "9"),
        (15, "f"),
        (16, "10"),
        (255, "ff"),
        (256, "100"),
        (u64::MAX, "ffffffffffffffff"),
    ] {
        let mut out = Vec::new();
        put_chunk_size(&mut out, size);
        assert_eq!(out, format!("{text}\r\n").as_bytes());
    }
    let mut out = Vec::new();
    put_chunk(&mut out, b"");
    assert!(out.is_empty());
}

fn scanned(body: &[u8]) -> ChunkScanner {
    let mut scanner = ChunkScanner::keeping_trailers(&Limits::default());
    for byte in body.chunks(1) {
        scanner.scan(byte).unwrap();
    }
    assert!(scanner.is_done());
    scanner
}

#[test]
fn trailers_are_kept_when_they_are_wanted() {
    let body = b"3\r\nabc\r\n0\r\nX-Sum: 1 2\r\nX-Empty:\r\n\r\n";
    assert_eq!(scanned(body).trailers(), b"X-Sum: 1 2\r\nX-Empty:\r\n");
    let mut plain = ChunkScanner::new(&Limits::default());
    plain.scan(body).unwrap();
    assert_eq!(plain.trailers(), b"");
}

#[test]
fn ieof_is_told_of_the_last_chunk_only() {
    for (body, is_ieof) in [
        (&b"0; ieof\r\n\r\n"[..], true),
        (b"0;ieof\r\n\r\n", true),
        (b"3\r\nabc\r\n0; a=b; ieof\r\n\r\n", true),
        (b"0; ieof; a\r\nX: y\r\n\r\n", true),
        (b"0\r\n\r\n", false),
        (b"3; ieof\r\nabc\r\n0\r\n\r\n", false),
        (b"0; ieo\r\n\r\n", false),
        (b"0; ieoff\r\n\r\n", false),
        (b"0; ieof=1\r\n\r\n", false),
        (b"0; a=ieof\r\n\r\n", false),
        (b"0; a=\"; ieof;\"\r\n\r\n", false),
    ] {
        assert_eq!(scanned(body).is_ieof(), is_ieof, "{}", body.escape_ascii());
    }
}
