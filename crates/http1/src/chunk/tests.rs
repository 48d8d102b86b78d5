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
