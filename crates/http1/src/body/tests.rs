use super::*;
use crate::{LAST_CHUNK, cases, properties, put_chunk};

fn limits() -> Limits {
    Limits::default()
}

fn scanner(framing: BodyFraming) -> BodyScanner {
    BodyScanner::new(framing, &limits())
}

const TWO_TRAILERS: &[u8] = b"5\r\nhello\r\n6;x=\"y;\"\r\n world\r\n0\r\nA: 1\r\nB-C:\r\n\r\n";

#[test]
fn a_length_ends_where_it_says() {
    let mut body = scanner(BodyFraming::Length(5));
    assert_eq!(
        body.scan(b"hel"),
        Ok(Scan {
            forward: 3,
            done: false
        })
    );
    assert_eq!(body.finish(), Err(BodyError::Truncated));
    assert_eq!(body.scan(b"loGET /"), Ok(Scan { forward: 2, done: true }));
    assert_eq!(body.finish(), Ok(()));
    assert_eq!(body.scan(b"GET /"), Ok(Scan { forward: 0, done: true }));
}

#[test]
fn no_body_is_done_at_once() {
    assert!(scanner(BodyFraming::None).is_done());
    assert!(scanner(BodyFraming::Length(0)).is_done());
    assert_eq!(
        scanner(BodyFraming::None).scan(b"x"),
        Ok(Scan { forward: 0, done: true })
    );
}

#[test]
fn a_body_until_close_ends_with_the_connection_h1_10() {
    let mut body = scanner(BodyFraming::UntilClose);
    assert_eq!(
        body.scan(b"hello"),
        Ok(Scan {
            forward: 5,
            done: false
        })
    );
    assert_eq!(body.finish(), Ok(()));
}

#[test]
fn a_chunked_body_ends_after_its_last_crlf_at_every_split_h1_02_h1_03() {
    let stream = [TWO_TRAILERS, b"GET / HTTP/1.1\r\n"].concat();
    for first in 0..=stream.len() {
        for second in first..=stream.len() {
            let mut body = scanner(BodyFraming::Chunked);
            let mut forwarded = 0;
            for slice in [&stream[..first], &stream[first..second], &stream[second..]] {
                let scan = body.scan(slice).unwrap();
                forwarded += scan.forward;
                assert_eq!(scan.done, forwarded == TWO_TRAILERS.len());
                if !scan.done {
                    assert_eq!(scan.forward, slice.len());
                }
            }
            assert_eq!(forwarded, TWO_TRAILERS.len());
        }
    }
}

#[test]
fn payload_is_the_body_for_every_buffer_size_h1_03() {
    let payload: Vec<u8> = (0..20_000u32).map(|n| n.to_le_bytes()[0]).collect();
    let mut stream = Vec::new();
    for (piece, n) in payload.chunks(997).zip(0..) {
        put_chunk(&mut stream, &piece[..n.min(piece.len())]);
        put_chunk(&mut stream, &piece[n.min(piece.len())..]);
    }
    stream.extend_from_slice(LAST_CHUNK);
    for size in (1..64).chain([127, 128, 1000, 1024, 4096, 8192, 100_000]) {
        let (mut body, mut decoded) = (scanner(BodyFraming::Chunked), Vec::new());
        for mut slice in stream.chunks(size) {
            assert!(!body.is_done());
            while let Some(part) = body.payload(&mut slice).unwrap() {
                decoded.extend_from_slice(part);
            }
            assert!(slice.is_empty());
        }
        assert!(body.is_done());
        assert_eq!(decoded, payload);
    }
}

#[test]
fn payload_of_other_framings_is_passed_on() {
    let mut body = scanner(BodyFraming::Length(3));
    let mut data = &b"abcdef"[..];
    assert_eq!(body.payload(&mut data), Ok(Some(&b"abc"[..])));
    assert_eq!(body.payload(&mut data), Ok(None));
    assert_eq!(data, b"def");
}

#[test]
fn sizes_up_to_the_largest_signed_number_pass_h1_04() {
    let mut body = scanner(BodyFraming::Chunked);
    assert_eq!(
        body.scan(b"7fffffffffffffff\r\nx"),
        Ok(Scan {
            forward: 19,
            done: false
        })
    );
    assert_eq!(body.opaque(), (1 << 63) - 2);
    let mut body = scanner(BodyFraming::Chunked);
    assert_eq!(
        body.scan(b"0000000000000001\r\nx\r\n"),
        Ok(Scan {
            forward: 21,
            done: false
        })
    );
}

#[test]
fn a_refused_body_stays_refused() {
    let mut body = scanner(BodyFraming::Chunked);
    assert_eq!(body.scan(b"5\r\nhello\r\n-1\r\n"), Err(BodyError::ChunkSize));
    assert_eq!(body.scan(b"0\r\n\r\n"), Err(BodyError::ChunkSize));
    assert_eq!(body.scan(b""), Err(BodyError::ChunkSize));
    assert_eq!(body.finish(), Err(BodyError::Truncated));
}

#[test]
fn lines_are_limited_to_the_byte() {
    let limits = Limits {
        body_line_max: 10,
        head_max: 14,
        ..Limits::default()
    };
    let scan = |bytes: &[u8]| BodyScanner::new(BodyFraming::Chunked, &limits).scan(bytes);
    assert!(scan(b"1;aaaaaa\r\n").is_ok());
    assert_eq!(scan(b"1;aaaaaaa\r\n"), Err(BodyError::LineTooLong));
    assert!(scan(b"0\r\nX: aaaaa\r\n").is_ok());
    assert_eq!(scan(b"0\r\nX: aaaaaa\r\n"), Err(BodyError::LineTooLong));
    assert!(scan(b"0\r\nX: aaa\r\nY: aaa\r\n\r\n").is_ok());
    assert_eq!(
        scan(b"0\r\nX: aaa\r\nY: aaaa\r\n\r\n"),
        Err(BodyError::TrailersTooLarge)
    );
}

#[test]
fn a_long_trailer_name_is_no_forbidden_one() {
    for name in [
        "X".repeat(300),
        format!("content-length{}", "x".repeat(256)),
        "Hos".to_owned(),
    ] {
        let bytes = format!("0\r\n{name}: a\r\n\r\n");
        assert!(
            scanner(BodyFraming::Chunked).scan(bytes.as_bytes()).unwrap().done,
            "{name}"
        );
    }
}

#[test]
fn every_case_gives_the_same_at_every_split_h1_03() {
    let bodies = cases::requests().into_iter().filter_map(|case| {
        let at = case.client.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
        Some(case.client[at + 4..].to_vec())
    });
    for body in bodies.chain([TWO_TRAILERS.to_vec()]) {
        for seed in 0..32 {
            properties::chunks(&[&[seed], &body[..]].concat());
        }
    }
}
